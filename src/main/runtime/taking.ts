/**
 * Whether a consumer takes messages: `pause()`, `resume()`, and what happens when an ordered one can hold no more. One change
 * after the other, in the order in which they were asked for.
 *
 *   short of order      cancel ▶ give back what has not started, each by a word
 *   in order            cancel ▶ withdraw what has not started ▶ wait for what runs ▶ close the channel: the broker puts
 *                       all the rest back where it was
 */
import { ClosedError } from '../../errors.js';
import type { Source } from '../transports/transport.js';
import { BROKER_TIMEOUT, within } from './closing.js';
import type { Dispatcher } from './dispatcher.js';
import type { Outlets } from './outlets.js';
import type { Retries } from './retries.js';

export interface TakingParts {
  readonly source: Source;
  readonly dispatcher: Dispatcher;
  readonly retries: Retries;
  readonly ordered: boolean;
  readonly outlets: Outlets;
  /** Deliveries that the broker gives out when it is consumed anew. */
  readonly window: number;
  /** Resolves once the consumer has started; rejects if it has not, or is closed. */
  readonly ready: () => Promise<void>;
  readonly onError: (error: Error) => void;
}

export class Taking {
  readonly #parts: TakingParts;
  #changes: Promise<void> = Promise.resolve();
  #pause: 'no' | 'pausing' | 'paused' = 'no';
  #renewing = false;
  #closed = false;
  #resting: (() => void)[] = [];

  constructor(parts: TakingParts) {
    this.#parts = parts;
  }

  /** What the consumer's state is by this; undefined if it takes messages. */
  get state(): 'pausing' | 'paused' | undefined {
    return this.#pause === 'no' ? undefined : this.#pause;
  }

  pause(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#pause === 'paused') return;
      this.#pause = 'pausing';
      try {
        await this.#withdraw(true);
      } finally {
        // Nothing more is taken, whatever went wrong.
        this.#pause = 'paused';
      }
    });
  }

  resume(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#pause !== 'paused') return;
      const { source, dispatcher, window } = this.#parts;
      // What is still unsettled has its slots: if they are not enough for a whole prefetch beside them, it goes back.
      if (dispatcher.free < window) await source.release(BROKER_TIMEOUT);
      await source.resume();
      if (this.#closed) throw new ClosedError('the consumer was closed while it resumed');
      this.#pause = 'no';
    });
  }

  /**
   * In order, what cannot be kept or has waited too long goes back only together with all that came after it: consumes anew.
   * `unstarted`: what waits goes back too, else it runs first.
   */
  renew(unstarted: boolean): void {
    if (this.#renewing || this.#pause !== 'no') return;
    this.#renewing = true;
    this.#inTurn(async () => {
      if (this.#pause !== 'no') return;
      try {
        await this.#withdraw(unstarted);
      } finally {
        if (!this.#closed) await this.#parts.source.resume();
      }
    })
      .catch((error: unknown) => {
        if (!this.#closed) this.#parts.onError(error as Error);
      })
      .finally(() => {
        this.#renewing = false;
      });
  }

  /** Settlements were taken: perhaps nothing is here any more. */
  settled(): void {
    if (this.#resting.length > 0 && !this.#parts.dispatcher.isBusy) this.#rested();
  }

  /** The consumer closes: nobody waits any longer. */
  close(): void {
    this.#closed = true;
    this.#rested();
  }

  #inTurn(change: () => Promise<void>): Promise<void> {
    const turn = this.#changes.then(async () => {
      await this.#parts.ready();
      await change();
    });
    this.#changes = turn.catch(() => undefined);
    return turn;
  }

  async #withdraw(unstarted: boolean): Promise<void> {
    const { source, dispatcher, retries, ordered, outlets } = this.#parts;
    await source.cancel(BROKER_TIMEOUT);
    this.#mustBeOpen();
    if (!ordered) {
      dispatcher.giveBack();
      retries.giveBack();
      source.giveBackUnkept(Number.POSITIVE_INFINITY);
      source.flush();
      return;
    }
    if (unstarted) {
      dispatcher.withdrawUnstarted();
      retries.giveBack();
    }
    await this.#rest();
    // Dead letters that cannot be published go back with the rest.
    if (!this.#closed) await within(outlets.idle(), BROKER_TIMEOUT);
    // What runs is the closing's to wait for: its channel must live until then.
    this.#mustBeOpen();
    await source.release(BROKER_TIMEOUT);
  }

  #mustBeOpen(): void {
    if (this.#closed) throw new ClosedError('the consumer was closed');
  }

  /** Resolves when no message is here any more, or the consumer closes. */
  #rest(): Promise<void> {
    if (!this.#parts.dispatcher.isBusy || this.#closed) return Promise.resolve();
    return new Promise((resolve) => {
      this.#resting.push(resolve);
    });
  }

  #rested(): void {
    const resting = this.#resting;
    this.#resting = [];
    for (const resolve of resting) resolve();
  }
}
