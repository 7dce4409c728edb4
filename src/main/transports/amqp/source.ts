/**
 * Consuming from AMQP, for as long as the consumer lives: one session after another, each a connection of the runtime's own.
 * Knows nothing of threads: deliveries go to the dispatcher, verdicts come through `settle`.
 *
 *   start ──▶ session ── connection lost ──▶ 100 ms × 2, ± 20 %, ≤ 2 s ──▶ session …
 *
 * Whatever is lost is told once (`disconnected`, and `error` for what somebody may have to do something about), and once it is
 * all consumed again (`reconnected`).
 */
import { randomBytes } from 'node:crypto';
import { ClosedError, KombuError } from '../../../errors.js';
import { withDeadline } from '../../deadline.js';
import { amqpTransportOptions } from '../../url.js';
import { isRecoverable, retrying } from '../reconnect.js';
import type { Source, SourceEvents, SourceOptions } from '../transport.js';
import { errorFromAmqp } from './errors.js';
import { LARGEST_FRAME } from './intake.js';
import type { LedgerVerdict } from './ledger.js';
import { Session, type SessionEvents, type SessionOptions } from './session.js';

export class AmqpSource implements Source {
  readonly #options: Omit<SessionOptions, 'signal'>;
  readonly #events: SourceEvents;
  readonly #sessionEvents: SessionEvents;
  /** Aborts by cancel() and close(): nothing more is to be taken. */
  #taking = new AbortController();
  #session: Session | undefined;
  /** What opens a session or tries to: settles, never rejects, soon after `#taking` aborts. */
  #underWay: Promise<unknown> = Promise.resolve();
  #isDown = false;

  constructor(options: SourceOptions, events: SourceEvents) {
    // A frame must fit well into a segment of the arena.
    const { transportOptions } = options.parameters;
    const frameMax = Math.min(amqpTransportOptions(transportOptions).frameMax, LARGEST_FRAME);
    const parameters = { ...options.parameters, transportOptions: { ...transportOptions, frameMax } };
    this.#options = { ...options, parameters, frameMax, tagPrefix: `mozuku-${randomBytes(6).toString('hex')}` };
    this.#events = events;
    this.#sessionEvents = {
      queues: (names) => events.queues(names),
      generationEnded: () => events.generationEnded(),
      interrupted: (error) => {
        events.error(error);
        this.#down(error);
      },
      mended: (attempts) => this.#up(attempts),
    };
  }

  get outstanding(): number {
    return this.#session?.tap.outstanding ?? 0;
  }

  async start(): Promise<void> {
    const opening = this.#open();
    this.#underWay = opening.catch(() => undefined);
    await opening;
  }

  settle(entry: number, outcome: LedgerVerdict): void {
    this.#session?.tap.settle(entry, outcome);
  }

  flush(): void {
    this.#session?.tap.flush();
  }

  giveBackUnkept(before: number): void {
    this.#session?.tap.giveBack(before);
  }

  async cancel(deadline: number): Promise<void> {
    this.#taking.abort(new ClosedError('the consumer takes no more messages'));
    await withDeadline(this.#underWay, 'giving up the attempt to connect', deadline);
    await this.#session?.cancel(deadline);
  }

  holdsUnkept(before: number): boolean {
    return this.#session?.tap.holdsUnkept(before) ?? false;
  }

  async release(deadline: number): Promise<void> {
    await this.#session?.release(deadline);
  }

  async resume(): Promise<void> {
    this.#taking = new AbortController();
    const { signal } = this.#taking;
    const session = this.#session;
    if (session !== undefined) {
      const consuming = session.consume(signal);
      this.#underWay = consuming.catch(() => undefined);
      try {
        await consuming;
        return;
      } catch (cause) {
        if (signal.aborted) return;
        if (this.#session !== session) {
          // It was lost meanwhile, and is being replaced already.
          await this.#underWay;
          return;
        }
        // What is wrong is told, and tried again on a connection that has nothing of it.
        this.#session = undefined;
        this.#down(errorFromAmqp(cause, 'cannot consume again'));
        await session.close();
        this.#events.generationEnded();
      }
    }
    this.#underWay = this.#reconnect();
    await this.#underWay;
  }

  async close(deadline: number): Promise<void> {
    this.#taking.abort(new ClosedError('the consumer is closed'));
    const session = this.#session;
    session?.tap.giveBack();
    session?.tap.flushAll();
    this.#session = undefined;
    await session?.close(deadline);
    await this.#underWay;
  }

  async #open(): Promise<void> {
    const { signal } = this.#taking;
    let opened: Session | undefined;
    try {
      await Session.open({ ...this.#options, signal }, this.#sessionEvents, (session) => {
        opened = session;
        this.#session = session;
      });
    } catch (error) {
      if (opened !== undefined) {
        this.#session = undefined;
        // What came before it failed may run already.
        this.#events.generationEnded();
      }
      throw error;
    }
    const session = opened!;
    void session.ended.then((reason) => this.#lost(session, reason));
  }

  #lost(session: Session, reason: KombuError | undefined): void {
    session.dispose();
    if (this.#session !== session) return;
    this.#session = undefined;
    this.#events.generationEnded();
    if (this.#taking.signal.aborted) return;
    this.#down(reason ?? new KombuError('the connection was closed'));
    this.#underWay = this.#reconnect();
  }

  async #reconnect(): Promise<void> {
    const { signal } = this.#taking;
    await retrying(signal, async (attempts) => {
      try {
        await this.#open();
      } catch (cause) {
        if (signal.aborted) return true;
        const error = errorFromAmqp(cause, 'cannot consume again');
        // A queue that is gone or a login that is refused now may be there in a while; the user is told each time.
        if (!isRecoverable(error)) this.#events.error(error);
        return false;
      }
      this.#up(attempts);
      return true;
    });
  }

  #down(error: KombuError): void {
    if (this.#isDown) return;
    this.#isDown = true;
    this.#events.disconnected(error);
  }

  #up(attempts: number): void {
    if (!this.#isDown) return;
    this.#isDown = false;
    this.#events.reconnected(attempts);
  }
}
