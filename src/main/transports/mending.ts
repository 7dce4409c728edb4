/**
 * Of a source that has lost what it consumes through: told once, and tried until it consumes again or nobody wants it to.
 *
 *   down ──disconnected──▶ 100 ms × 2, ± 20 %, ≤ 2 s ──▶ consume ──▶ reconnected
 */
import type { KombuError } from '../../errors.js';
import { errorFromAmqp } from './amqp/errors.js';
import { isRecoverable, retrying } from './reconnect.js';
import type { SourceEvents } from './transport.js';

export class Mending {
  readonly #events: Pick<SourceEvents, 'disconnected' | 'reconnected' | 'error'>;
  /** One attempt. False: something is not consumed yet. */
  readonly #consume: () => Promise<boolean>;
  /** What mends: settles, never rejects, soon after the signal aborts. */
  #underWay: Promise<void> = Promise.resolve();
  #isMending = false;
  /** Since the last attempt began. */
  #isLostAgain = false;
  #isDown = false;

  constructor(events: Pick<SourceEvents, 'disconnected' | 'reconnected' | 'error'>, consume: () => Promise<boolean>) {
    this.#events = events;
    this.#consume = consume;
  }

  /** Resolves, never rejects, when nothing is being mended (any more). */
  get underWay(): Promise<void> {
    return this.#underWay;
  }

  /** Something is not consumed any more. */
  down(error: KombuError, signal: AbortSignal): void {
    if (!this.#isDown) {
      this.#isDown = true;
      this.#events.disconnected(error);
    }
    this.#isLostAgain = true;
    if (this.#isMending) return;
    this.#isMending = true;
    this.#underWay = this.#mend(signal);
  }

  async #mend(signal: AbortSignal): Promise<void> {
    // What is lost in the moment in which it was mended is nobody else's to mend.
    while (this.#isLostAgain && !signal.aborted) {
      await retrying(signal, (attempts) => this.#attempt(attempts, signal));
    }
    this.#isMending = false;
  }

  async #attempt(attempts: number, signal: AbortSignal): Promise<boolean> {
    this.#isLostAgain = false;
    try {
      if (!(await this.#consume())) return false;
    } catch (cause) {
      if (signal.aborted) return true;
      const error = errorFromAmqp(cause, 'cannot consume again');
      // A queue that is gone, or a login that is refused now, may be there in a while; the user is told each time.
      if (!isRecoverable(error)) this.#events.error(error);
      return false;
    }
    if (this.#isLostAgain) return false;
    this.#isDown = false;
    this.#events.reconnected(attempts);
    return true;
  }
}
