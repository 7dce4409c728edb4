/**
 * Publishes messages as kombu does: serialized, compressed if asked, each confirmed by the broker. Any number may be under
 * way at once; they reach the broker in the order of the calls.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { whenAborted } from '../abort.js';
import {
  AccessRefused,
  ChannelError,
  ClosedError,
  MessageNacked,
  MessageReturned,
  NotFound,
  OptionError,
} from '../errors.js';
import { readOptions } from '../options.js';
import {
  type GivenPublish,
  type OnReturn,
  PRODUCER_OPTIONS,
  type ProducerOptions,
  PUBLISH_OPTIONS,
  type Publication,
  type PublishOptions,
  preparePublication,
  RETRY_POLICY,
  type RetryPolicy,
} from '../pool/publication.js';
import { tooLate, withDeadline } from './deadline.js';
import { Channel } from './entities/channel.js';
import { declareOnce, isDeclared } from './entities/declare.js';
import type { Exchange } from './entities/exchange.js';
import type { Queue } from './entities/queue.js';
import { ownEntity, ownExchange } from './entities/rebuild.js';
import { isTarget, type Target } from './entities/target.js';
import { isRecoverable, reconnectDelay } from './transports/reconnect.js';

/** Of what workers publish: a nack is an answer, which they are to hear. */
const FORWARDING = readOptions<RetryPolicy>('publish: retryPolicy', RETRY_POLICY, {});

/** At most so much is written and not confirmed; further publishes wait. Bounds what a slow broker makes us keep. */
const MOST_UNCONFIRMED = 16_384;
const MOST_UNCONFIRMED_BYTES = 64 * 1024 * 1024;

export interface Forwarded extends Publication {
  readonly declare: readonly (Exchange | Queue)[];
  /** It is sent again: it may wait for a connection as long as it likes. */
  patient?: boolean;
  /** It was under way when the broker closed the channel, over this message or another: it goes with nothing beside it. */
  alone?: boolean;
  /** Why it was not taken the last time. */
  lastError?: unknown;
  /** The caller has stopped waiting: what is not written yet must not be. */
  abandoned: boolean;
}

/** How a publish ended: confirmed (undefined), or why not. Only the first call counts. */
type Settle = (error: unknown) => void;

/** `new Producer(connection or channel, options)`, or `connection.Producer(options)`. */
export class Producer {
  readonly exchange: Exchange;
  readonly routingKey: string;
  readonly serializer: string | undefined;
  readonly compression: string | undefined;
  readonly autoDeclare: boolean;
  readonly #target: Target;
  readonly #onReturn: OnReturn | undefined;
  #channel: Channel | undefined;
  /** Publishes that cannot be written at once, in their order; one that nobody waits for any more leaves. */
  readonly #queue = new Map<Forwarded, Settle>();
  #pumping = false;
  #unconfirmed = 0;
  #unconfirmedBytes = 0;
  #onRoom: () => void = () => undefined;
  readonly #underWay = new Map<Forwarded, Settle>();
  /** After a failure to connect, until when patient messages wait for the next attempt (ms of `performance.now`), and that failure. */
  #holdUntil = 0;
  #holdError: unknown;
  #openFailures = 0;
  /** A message is under way that goes alone. */
  #isAlone = false;
  #onIdle: (() => void)[] = [];
  #closed = false;

  /** Given a connection, the producer opens a channel of its own at the first publish. Throws `OptionError`. */
  constructor(target: Target, options: ProducerOptions = {}) {
    if (!isTarget(target)) throw new OptionError('Producer: the first argument must be a Connection or a Channel');
    const given = readOptions('Producer', PRODUCER_OPTIONS, options);
    this.#target = target;
    this.exchange = ownExchange(given.exchange!);
    this.routingKey = given.routingKey!;
    this.serializer = given.serializer;
    this.compression = given.compression;
    // A name alone says nothing about type and durability, so only an Exchange can be declared.
    this.autoDeclare = given.autoDeclare! && typeof given.exchange !== 'string';
    this.#onReturn = given.onReturn;
  }

  /**
   * Publishes a message; resolves when the broker has confirmed it. What the connection has lost is opened anew; a message that
   * was under way at that moment rejects, unless `retry` sends it again, with the same message id.
   * Throws `EncodeError`, `SerializerNotInstalled`, `MessageReturned` (`mandatory`), `MessageNacked`, `NotFound` (no such
   * exchange; the broker closes the channel, so all that is under way fails), `ConnectionError`, `TimeoutError` (after it, as
   * after `signal`, the message may have been taken), `ClosedError`, `OptionError`.
   */
  publish(body: unknown, options: PublishOptions = {}): Promise<void> {
    // Not `async`: a promise for each message is enough, where tens of thousands are under way.
    try {
      return this.#publish(body, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #publish(body: unknown, options: PublishOptions): Promise<void> {
    if (this.#closed) throw new ClosedError('the producer is closed');
    const given = readOptions('publish', PUBLISH_OPTIONS, options) as GivenPublish;
    const policy =
      given.retry || options.retryPolicy !== undefined
        ? readOptions<RetryPolicy>('publish: retryPolicy', RETRY_POLICY, given.retryPolicy)
        : undefined;
    given.signal?.throwIfAborted();
    const publication = preparePublication(body, given, this, given.mandatory || given.retry === true);
    const declare = given.declare.map(ownEntity);
    if (this.autoDeclare) declare.push(this.exchange);
    const again = given.retry ? policy : undefined;
    return this.#deliver({ ...publication, declare, abandoned: false }, again, given.timeout, given.signal);
  }

  /**
   * @internal
   * What was prepared elsewhere: published within `timeout` ms, again if need be, until it is `abandoned`.
   */
  async forward(forwarded: Forwarded, timeout: number): Promise<void> {
    if (this.#closed) throw new ClosedError('the producer is closed');
    await this.#deliver(forwarded, FORWARDING, timeout, undefined);
  }

  /** @internal Nobody waits for it any more: it is not kept, and not written if it was not yet. */
  abandon(forwarded: Forwarded): void {
    this.#underWay.get(forwarded)?.(new ClosedError('nobody waits for this message any more'));
  }

  /** @internal Resolves when nothing is under way, or after so many milliseconds. */
  async settled(milliseconds: number): Promise<void> {
    // What takes longer is given up with the connection.
    await withDeadline(this.#idle(), 'waiting for what is being published', milliseconds).catch(() => undefined);
  }

  #idle(): Promise<void> {
    if (this.#underWay.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#onIdle.push(resolve));
  }

  #deliver(
    prepared: Forwarded,
    policy: RetryPolicy | undefined,
    timeout: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      const { exchange, routingKey } = prepared;
      const settle: Settle = (error) => {
        if (!this.#underWay.delete(prepared)) return;
        clearTimeout(timer);
        unheard?.();
        prepared.abandoned = true;
        this.#queue.delete(prepared);
        if (this.#underWay.size === 0) for (const tell of this.#onIdle.splice(0)) tell();
        if (error === undefined) resolve();
        else reject(this.#told(error, exchange, routingKey));
      };
      const timer = setTimeout(() => {
        const doing = `publishing to exchange '${exchange}' with routing key '${routingKey}'`;
        settle(tooLate(doing, timeout, prepared.lastError));
      }, timeout);
      const unheard = signal && whenAborted(signal, () => settle(signal.reason));
      this.#underWay.set(prepared, settle);
      if (policy === undefined) this.#send(prepared, settle);
      else this.#sendAgain(prepared, policy).then(() => settle(undefined), settle);
    });
  }

  /** What the publish rejects with: what a callback for returned messages throws goes before its message's own error. */
  #told(error: unknown, exchange: string, routingKey: string): unknown {
    if (!(error instanceof MessageReturned)) return error;
    try {
      this.#onReturn?.(error, exchange, routingKey);
      return error;
    } catch (thrown) {
      return thrown;
    }
  }

  /** Waits until what is under way has ended, then closes the producer's own channel. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#idle();
    await this.#channel?.close();
  }

  /** Declares the producer's own exchange, whether or not that was done before. Throws what declaring throws. */
  async declare(): Promise<void> {
    await this.exchange.declare(this.#target);
  }

  /** Declares `entity`, unless that was done in the life of the connection: true if it was done now. Throws what declaring throws. */
  async maybeDeclare(entity: Exchange | Queue): Promise<boolean> {
    const channel = this.#target instanceof Channel ? this.#target : await this.#target.defaultChannel();
    if (isDeclared(channel, entity)) return false;
    await declareOnce(channel, entity);
    return true;
  }

  /** As `close()`. */
  async release(): Promise<void> {
    await this.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #send(prepared: Forwarded, settle: Settle): void {
    const channel = this.#usable();
    if (
      this.#queue.size === 0 &&
      !this.#isAlone &&
      prepared.alone !== true &&
      channel?.full === false &&
      this.#hasRoom &&
      prepared.declare.every((entity) => isDeclared(channel, entity))
    ) {
      this.#write(channel, prepared, settle);
      return;
    }
    // Waits for those before it, for the channel, for the declarations and for room; the next may go once it is written.
    this.#queue.set(prepared, settle);
    if (!this.#pumping) void this.#pump();
  }

  async #pump(): Promise<void> {
    this.#pumping = true;
    for (const [prepared, settle] of this.#queue) {
      try {
        const channel = await this.#ready(prepared);
        if (!this.#queue.delete(prepared)) continue;
        if (prepared.alone === true) await this.#writeAlone(channel, prepared, settle);
        else this.#write(channel, prepared, settle);
      } catch (error) {
        this.#queue.delete(prepared);
        settle(error);
      }
    }
    this.#pumping = false;
  }

  /** The channel, when there is room and all is declared. What it waits for may take so long that the channel is gone by then. */
  async #ready(prepared: Forwarded): Promise<Channel> {
    for (;;) {
      const channel = await this.#readyOnce(prepared);
      if (!channel.closed || this.#target instanceof Channel) return channel;
    }
  }

  async #readyOnce(prepared: Forwarded): Promise<Channel> {
    const channel = this.#usable() ?? (await this.#open(prepared.patient === true));
    for (const entity of prepared.declare) {
      if (isDeclared(channel, entity)) continue;
      // A declaration that fails closes its channel: not the one on which other messages are under way, if we can choose.
      const through = this.#target instanceof Channel ? channel : await this.#target.defaultChannel();
      await declareOnce(through, entity);
    }
    await channel.drained();
    while (!this.#hasRoom || (prepared.alone === true && this.#unconfirmed > 0)) {
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
      const channel = await this.#target.channel();
      this.#openFailures = 0;
      this.#channel = channel;
    } catch (error) {
      this.#holdError = error;
      this.#holdUntil = performance.now() + reconnectDelay(this.#openFailures++);
      throw error;
    }
    if (this.#closed && this.#underWay.size === 0) {
      await this.#channel.close();
      throw new ClosedError('the producer is closed');
    }
    return this.#channel;
  }

  async #writeAlone(channel: Channel, prepared: Forwarded, settle: Settle): Promise<void> {
    this.#isAlone = true;
    await new Promise<void>((resolve) => {
      this.#write(channel, prepared, (error) => {
        settle(error);
        resolve();
      });
    });
    this.#isAlone = false;
  }

  #write(channel: Channel, { exchange, routingKey, body, properties }: Forwarded, settle: Settle): void {
    this.#unconfirmed++;
    this.#unconfirmedBytes += body.length;
    const onSettled: Settle = (error) => {
      this.#unconfirmed--;
      this.#unconfirmedBytes -= body.length;
      settle(error);
      if (this.#hasRoom) this.#onRoom();
    };
    try {
      channel.send(exchange, routingKey, body, properties, onSettled);
    } catch (error) {
      onSettled(error);
    }
  }

  get #hasRoom(): boolean {
    return this.#unconfirmed < MOST_UNCONFIRMED && this.#unconfirmedBytes < MOST_UNCONFIRMED_BYTES;
  }

  async #sendAgain(prepared: Forwarded, policy: RetryPolicy): Promise<void> {
    prepared.patient = true;
    for (let attempt = 0; ; attempt++) {
      try {
        await new Promise<void>((resolve, reject) => {
          this.#send(prepared, (error) => (error === undefined ? resolve() : reject(error)));
        });
        return;
      } catch (error) {
        prepared.lastError = error;
        const isUnclear = this.#mayBeAnothers(prepared, error);
        const nacked = error instanceof MessageNacked && policy !== FORWARDING;
        const retried = isRecoverable(error) || nacked || error instanceof ClosedError || isUnclear;
        if (!retried || prepared.abandoned || attempt >= (policy.maxRetries ?? Number.POSITIVE_INFINITY)) throw error;
        if (isUnclear) {
          // At once, and with nothing beside it: if it fails again, it was its own fault.
          prepared.alone = true;
          continue;
        }
        const wait = reconnectDelay(attempt, { initial: policy.intervalStart!, max: policy.intervalMax! });
        policy.errback?.(error as Error, wait);
        await sleep(wait);
        // The connection was closed on purpose, or the channel is not ours to replace.
        if (prepared.abandoned || this.#target.closed) throw error;
      }
    }
  }

  /** The broker closes a channel over one message; all that were under way on it hear the same. */
  #mayBeAnothers({ alone, exchange }: Forwarded, error: unknown): boolean {
    const isRefusal = error instanceof ChannelError || error instanceof AccessRefused;
    if (!isRefusal || alone === true || this.#target instanceof Channel) return false;
    return !(error instanceof NotFound && error.message.includes(`'${exchange}'`));
  }
}
