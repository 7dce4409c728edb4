/**
 * How a producer's messages reach its channel: in the order of the calls, once the channel is open, what they need is declared
 * and there is room; again, if they are to be sent again.
 *
 *   send ─┬───────── nothing to wait for ──────────┬─▶ channel ─▶ confirmed, refused, lost ─▶ settled
 *         └─▶ waiting (channel, declare, room) ─▶──┘                        └─ retry ─▶ send
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AccessRefused,
  ChannelError,
  ClosedError,
  MessageNacked,
  MessageReturned,
  NotFound,
  TimeoutError,
} from '../errors.js';
import { readOptions } from '../options.js';
import { Chain } from '../pool/chain.js';
import { type OnReturn, RETRY_POLICY, type RetryPolicy } from '../pool/publication.js';
import { UnderWay } from '../pool/under-way.js';
import { withDeadline } from './deadline.js';
import { Channel } from './entities/channel.js';
import { declareOnce, isDeclared } from './entities/declare.js';
import type { Target } from './entities/target.js';
import type { Submission } from './submission.js';
import { isRecoverable, reconnectDelay } from './transports/reconnect.js';

/** Of what workers publish: a nack is an answer, which they are to hear. */
export const FORWARDING = readOptions<RetryPolicy>('publish: retryPolicy', RETRY_POLICY, {});

/** At most so much is written and not confirmed; further publishes wait. Bounds what a slow broker makes us keep. */
const MOST_UNCONFIRMED = 16_384;
const MOST_UNCONFIRMED_BYTES = 64 * 1024 * 1024;

export class Outbox {
  readonly underWay = new UnderWay();
  /** The broker left a publish without an answer: whoever is next should not wait for it. */
  silent = false;
  readonly #target: Target;
  readonly #onReturn: OnReturn | undefined;
  #channel: Channel | undefined;
  /** What cannot be written at once, in its order; one that nobody waits for any more leaves. */
  readonly #queue = new Chain<Submission>();
  #pumping = false;
  #unconfirmed = 0;
  #unconfirmedBytes = 0;
  #onRoom: () => void = () => undefined;
  /** After a failure to connect, until when patient messages wait for the next attempt (ms of `performance.now`), and that failure. */
  #holdUntil = 0;
  #holdError: unknown;
  #openFailures = 0;
  /** A message is under way that goes alone. */
  #isAlone = false;
  #onAloneAnswered: () => void = () => undefined;
  #closed = false;

  constructor(target: Target, onReturn: OnReturn | undefined) {
    this.#target = target;
    this.#onReturn = onReturn;
  }

  /** Waits until what is under way has ended, then closes the producer's own channel. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.underWay.idle();
    await this.#channel?.close();
  }

  /** Throws `ClosedError`. */
  mustBeOpen(): void {
    if (this.#closed) throw new ClosedError('the producer is closed');
  }

  /** Under way from now on: written at once, or when it can be. Throws `ClosedError`. */
  begin(submission: Submission): void {
    this.mustBeOpen();
    submission.beginIn(this.underWay);
    this.#send(submission);
  }

  /** Resolves when nothing is under way, or after so many milliseconds. */
  async settled(milliseconds: number): Promise<void> {
    // What takes longer is given up with the connection.
    await withDeadline(this.underWay.idle(), 'waiting for what is being published', milliseconds).catch(
      () => undefined,
    );
  }

  /** What a publish rejects with: what a callback for returned messages throws goes before its message's own error. */
  told(error: unknown, { exchange, routingKey }: Submission): unknown {
    if (error instanceof TimeoutError) this.silent = true;
    if (!(error instanceof MessageReturned)) return error;
    try {
      this.#onReturn?.(error, exchange, routingKey);
      return error;
    } catch (thrown) {
      return thrown;
    }
  }

  #send(submission: Submission): void {
    const channel = this.#usable();
    if (
      this.#queue.size === 0 &&
      !this.#isAlone &&
      !submission.alone &&
      channel?.full === false &&
      this.#hasRoom &&
      (submission.declare.length === 0 || submission.declare.every((entity) => isDeclared(channel, entity)))
    ) {
      this.#write(channel, submission);
      return;
    }
    // Waits for those before it, for the channel, for the declarations and for room; the next may go once it is written.
    submission.waiting = this.#queue.push(submission);
    if (!this.#pumping) void this.#pump();
  }

  async #pump(): Promise<void> {
    this.#pumping = true;
    for (let first = this.#queue.first; first !== undefined; first = this.#queue.first) {
      try {
        const channel = await this.#ready(first);
        if (first.waiting?.remove() !== true) continue;
        if (first.alone) await this.#writeAlone(channel, first);
        else this.#write(channel, first);
      } catch (error) {
        first.waiting?.remove();
        this.#ended(first, error);
      }
    }
    this.#pumping = false;
  }

  /** The channel, when there is room and all is declared. What it waits for may take so long that the channel is gone by then. */
  async #ready(submission: Submission): Promise<Channel> {
    for (;;) {
      const channel = await this.#readyOnce(submission);
      if (!channel.closed || this.#target instanceof Channel) return channel;
    }
  }

  async #readyOnce(submission: Submission): Promise<Channel> {
    const channel = this.#usable() ?? (await this.#open(submission.policy !== undefined));
    for (const entity of submission.declare) {
      if (isDeclared(channel, entity)) continue;
      // A declaration that fails closes its channel: not the one on which other messages are under way, if we can choose.
      const through = this.#target instanceof Channel ? channel : await this.#target.defaultChannel();
      await declareOnce(through, entity, this.#target);
    }
    await channel.drained();
    while (!this.#hasRoom || (submission.alone && this.#unconfirmed > 0)) {
      await new Promise<void>((resolve) => {
        this.#onRoom = resolve;
      });
    }
    return channel;
  }

  #usable(): Channel | undefined {
    if (this.#target instanceof Channel) return this.#target;
    return this.#channel?.closed === false ? this.#channel : undefined;
  }

  /** One attempt for all that wait: patient ones do not try again before its time. */
  async #open(isPatient: boolean): Promise<Channel> {
    if (this.#target instanceof Channel) return this.#target;
    if (isPatient && performance.now() < this.#holdUntil) throw this.#holdError;
    try {
      const channel = await (this.#target.publishingChannel?.() ?? this.#target.channel());
      this.#openFailures = 0;
      this.#channel = channel;
    } catch (error) {
      this.#holdError = error;
      this.#holdUntil = performance.now() + reconnectDelay(this.#openFailures++);
      throw error;
    }
    if (this.#closed && this.underWay.size === 0) {
      await this.#channel.close();
      throw new ClosedError('the producer is closed');
    }
    return this.#channel;
  }

  async #writeAlone(channel: Channel, submission: Submission): Promise<void> {
    this.#isAlone = true;
    const answered = new Promise<void>((resolve) => {
      this.#onAloneAnswered = resolve;
    });
    this.#write(channel, submission);
    await answered;
    this.#isAlone = false;
  }

  #write(channel: Channel, submission: Submission): void {
    this.#unconfirmed++;
    this.#unconfirmedBytes += submission.body.length;
    try {
      channel.send(submission, this.#onAnswer);
    } catch (error) {
      this.#onAnswer(error, submission);
    }
  }

  readonly #onAnswer = (error: unknown, submission: Submission): void => {
    this.#unconfirmed--;
    this.#unconfirmedBytes -= submission.body.length;
    this.#ended(submission, error);
    if (this.#isAlone) this.#onAloneAnswered();
    if (this.#hasRoom) this.#onRoom();
  };

  get #hasRoom(): boolean {
    return this.#unconfirmed < MOST_UNCONFIRMED && this.#unconfirmedBytes < MOST_UNCONFIRMED_BYTES;
  }

  /** An attempt has ended. */
  #ended(submission: Submission, error: unknown): void {
    if (error === undefined || submission.policy === undefined) submission.settle(error);
    else void this.#sendAgain(submission, submission.policy, error);
  }

  /** Never rejects. */
  async #sendAgain(submission: Submission, policy: RetryPolicy, error: unknown): Promise<void> {
    submission.lastError = error;
    const attempt = submission.retries++;
    const isUnclear = this.#mayBeAnothers(submission, error);
    const nacked = error instanceof MessageNacked && policy !== FORWARDING;
    const retried = isRecoverable(error) || nacked || error instanceof ClosedError || isUnclear;
    if (!retried || attempt >= (policy.maxRetries ?? Number.POSITIVE_INFINITY)) {
      submission.settle(error);
      return;
    }
    // At once if unclear, and with nothing beside it: if it fails again, it was its own fault.
    submission.alone ||= isUnclear;
    if (!isUnclear) {
      const wait = reconnectDelay(attempt, { initial: policy.intervalStart!, max: policy.intervalMax! });
      try {
        policy.errback?.(error as Error, wait);
      } catch (thrown) {
        submission.settle(thrown);
        return;
      }
      await sleep(wait);
      // The connection was closed on purpose, or the channel is not ours to replace.
      if (this.#target.closed) submission.settle(error);
    }
    if (!submission.settled) this.#send(submission);
  }

  /** The broker closes a channel over one message; all that were under way on it hear the same. */
  #mayBeAnothers({ alone, exchange }: Submission, error: unknown): boolean {
    const isRefusal = error instanceof ChannelError || error instanceof AccessRefused;
    if (!isRefusal || alone || this.#target instanceof Channel) return false;
    return !(error instanceof NotFound && error.message.includes(`'${exchange}'`));
  }
}
