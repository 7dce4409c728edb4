/**
 * Publishes messages as kombu does: serialized, compressed if asked, each confirmed by the broker. Any number may be under
 * way at once; they reach the broker in the order of the calls.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type * as amqplib from 'amqplib';
import { bufferOf } from '../codec/bytes.js';
import { encodeText } from '../codec/charset.js';
import { compress } from '../codec/compression.js';
import { dumps } from '../codec/serialization.js';
import { ClosedError, EncodeError, MessageNacked, MessageReturned, NotFound, OptionError } from '../errors.js';
import { kinds, type OptionTable, readOptions } from '../options.js';
import { withDeadline } from './deadline.js';
import { Channel } from './entities/channel.js';
import { declareOnce, isDeclared } from './entities/declare.js';
import { type DeliveryMode, deliveryModeKind, Exchange } from './entities/exchange.js';
import { Queue } from './entities/queue.js';
import { toTable } from './entities/table.js';
import { functionKind, isTarget, type Target } from './entities/target.js';
import { isRecoverable, reconnectDelay } from './transports/reconnect.js';

/** Called with each message that came back; the publish rejects with the same error afterwards. */
export type OnReturn = (error: MessageReturned, exchange: string, routingKey: string) => void;

export interface ProducerOptions {
  readonly exchange?: Exchange | string;
  readonly routingKey?: string;
  readonly serializer?: string;
  readonly compression?: string;
  readonly autoDeclare?: boolean;
  readonly onReturn?: OnReturn;
}

const exchangeKind = kinds.custom<Exchange | string>(
  'an Exchange or a name',
  (value) => value instanceof Exchange || typeof value === 'string',
);

export const PRODUCER_OPTIONS: OptionTable<ProducerOptions> = {
  exchange: { kind: exchangeKind, default: '', doc: 'Where messages go that name no exchange; the default exchange.' },
  routingKey: { kind: kinds.string, default: '', doc: 'For messages that name none.' },
  serializer: {
    kind: kinds.name,
    defaultWords: 'json; strings go as text, Buffers as they are',
    doc: 'Name.',
  },
  compression: { kind: kinds.name, doc: 'Name or content type of a compressor.' },
  autoDeclare: { kind: kinds.boolean, default: true, doc: "Declare the producer's own exchange at the first publish." },
  onReturn: { kind: functionKind(), doc: 'Called with each mandatory message that no queue took.' },
};

/** As in `ensureConnection`. */
export interface RetryPolicy {
  readonly maxRetries?: number;
  readonly intervalStart?: number;
  readonly intervalMax?: number;
}

const RETRY_POLICY: OptionTable<RetryPolicy> = {
  maxRetries: {
    kind: kinds.integer(0, Number.MAX_SAFE_INTEGER),
    defaultWords: 'until `timeout`',
    doc: 'How often to try again.',
  },
  intervalStart: {
    kind: kinds.milliseconds,
    default: 100,
    doc: 'The first wait (ms); each is twice the one before, ±20 %.',
  },
  intervalMax: { kind: kinds.milliseconds, default: 2000, doc: 'The longest wait (ms).' },
};

export interface PublishOptions {
  readonly exchange?: Exchange | string;
  readonly routingKey?: string;
  readonly serializer?: string;
  readonly compression?: string;
  readonly headers?: Record<string, unknown>;
  readonly declare?: readonly (Exchange | Queue)[];
  readonly mandatory?: boolean;
  readonly deliveryMode?: DeliveryMode;
  readonly priority?: number;
  readonly expiration?: number;
  readonly contentType?: string;
  readonly contentEncoding?: string;
  readonly correlationId?: string;
  readonly replyTo?: string | Queue;
  readonly messageId?: string;
  readonly timestamp?: number | Date;
  readonly type?: string;
  readonly userId?: string;
  readonly appId?: string;
  readonly retry?: boolean;
  readonly retryPolicy?: RetryPolicy;
  readonly timeout?: number;
  readonly signal?: AbortSignal;
}

const entitiesKind = kinds.custom<readonly (Exchange | Queue)[]>(
  'a list of exchanges and queues',
  (value) => Array.isArray(value) && value.every((each) => each instanceof Exchange || each instanceof Queue),
);
const replyToKind = kinds.custom<string | Queue>(
  'a Queue or its name',
  (v) => v instanceof Queue || typeof v === 'string',
);
const timeKind = kinds.custom<number | Date>(
  'a Date, or whole seconds since 1970',
  (value) =>
    ((value instanceof Date ? value.getTime() : value) as number) >= 0 &&
    (value instanceof Date || Number.isSafeInteger(value)),
);

export const PUBLISH_OPTIONS: OptionTable<PublishOptions> = {
  exchange: {
    kind: exchangeKind,
    defaultWords: "the producer's",
    doc: 'Where the message goes; not declared by this.',
  },
  routingKey: { kind: kinds.string, defaultWords: "the producer's", doc: 'The routing key.' },
  serializer: { kind: kinds.name, defaultWords: "the producer's", doc: 'Name.' },
  compression: { kind: kinds.name, defaultWords: "the producer's", doc: 'Name or content type of a compressor.' },
  headers: { kind: kinds.object, default: {}, doc: 'The headers table.' },
  declare: { kind: entitiesKind, default: [], doc: 'Declared before, once in the life of a connection.' },
  mandatory: {
    kind: kinds.boolean,
    default: false,
    doc: 'Rejects with `MessageReturned` if no queue takes the message.',
  },
  deliveryMode: {
    kind: deliveryModeKind,
    defaultWords: "the exchange's, else 2",
    doc: '2: the message survives a restart.',
  },
  priority: { kind: kinds.integer(0, 255), default: 0, doc: 'In queues with `maxPriority`.' },
  expiration: { kind: kinds.milliseconds, doc: 'The message is dropped after so long in a queue (ms).' },
  contentType: { kind: kinds.name, doc: 'The body is a string or bytes of this type already, and is not serialized.' },
  contentEncoding: { kind: kinds.name, defaultWords: 'utf-8; binary for bytes', doc: 'With `contentType`.' },
  correlationId: { kind: kinds.string, doc: 'Of the request this answers.' },
  replyTo: { kind: replyToKind, doc: 'The queue for answers.' },
  messageId: {
    kind: kinds.string,
    defaultWords: 'a UUID with `mandatory` or `retry`',
    doc: 'Kept when it is sent again.',
  },
  timestamp: { kind: timeKind, doc: 'Goes out in whole seconds.' },
  type: { kind: kinds.string, doc: 'For the application.' },
  userId: { kind: kinds.string, doc: 'The broker checks that it is the user of the connection.' },
  appId: { kind: kinds.string, doc: 'For the application.' },
  retry: { kind: kinds.boolean, default: false, doc: 'Publish again if the connection is lost or the broker nacks.' },
  retryPolicy: {
    kind: kinds.custom<RetryPolicy>('an object', kinds.object.test),
    default: {},
    doc: '`maxRetries intervalStart intervalMax`.',
  },
  timeout: {
    kind: kinds.milliseconds,
    default: 30_000,
    doc: 'Until the confirm, connecting and retries included (ms).',
  },
  signal: { kind: kinds.signal, doc: 'Stops waiting; the message may have been taken.' },
};

/** What `Required` cannot say: the options that have defaults are there. */
type Given = PublishOptions &
  Required<Pick<PublishOptions, 'headers' | 'declare' | 'timeout' | 'priority' | 'mandatory'>>;

interface Prepared {
  readonly exchange: string;
  readonly routingKey: string;
  readonly body: Buffer;
  readonly properties: amqplib.Options.Publish;
  readonly declare: readonly (Exchange | Queue)[];
  /** The caller has stopped waiting: what is not written yet must not be. */
  abandoned: boolean;
}

/** A publish that cannot be written at once. */
interface Waiting {
  readonly resolve: (confirmed: Promise<void>) => void;
  readonly reject: (error: unknown) => void;
}

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
  readonly #queue = new Map<Prepared, Waiting>();
  #pumping = false;
  readonly #underWay = new Set<Promise<void>>();
  #closed = false;

  /** Given a connection, the producer opens a channel of its own at the first publish. Throws `OptionError`. */
  constructor(target: Target, options: ProducerOptions = {}) {
    if (!isTarget(target)) throw new OptionError('Producer: the first argument must be a Connection or a Channel');
    const given = readOptions('Producer', PRODUCER_OPTIONS, options);
    this.#target = target;
    this.exchange = given.exchange instanceof Exchange ? given.exchange : new Exchange(given.exchange!);
    this.routingKey = given.routingKey!;
    this.serializer = given.serializer;
    this.compression = given.compression;
    // A name alone says nothing about type and durability, so only an Exchange can be declared.
    this.autoDeclare = given.autoDeclare! && given.exchange instanceof Exchange;
    this.#onReturn = given.onReturn;
  }

  /**
   * Publishes a message; resolves when the broker has confirmed it. What the connection has lost is opened anew; a message that
   * was under way at that moment rejects, unless `retry` sends it again, with the same message id.
   * Throws `EncodeError`, `SerializerNotInstalled`, `MessageReturned` (`mandatory`), `MessageNacked`, `NotFound` (no such
   * exchange; the broker closes the channel, so all that is under way fails), `ConnectionError`, `TimeoutError` (after it, as
   * after `signal`, the message may have been taken), `ClosedError`, `OptionError`.
   */
  async publish(body: unknown, options: PublishOptions = {}): Promise<void> {
    if (this.#closed) throw new ClosedError('the producer is closed');
    const given = readOptions('publish', PUBLISH_OPTIONS, options) as Given;
    const policy = given.retry
      ? readOptions<RetryPolicy>('publish: retryPolicy', RETRY_POLICY, given.retryPolicy)
      : undefined;
    given.signal?.throwIfAborted();
    const prepared = this.#prepare(body, given);
    const work = policy === undefined ? this.#send(prepared) : this.#sendAgain(prepared, policy);
    const doing = `publishing to exchange '${prepared.exchange}' with routing key '${prepared.routingKey}'`;
    const outcome = withDeadline(work, doing, given.timeout, given.signal);
    this.#underWay.add(outcome);
    try {
      await outcome;
    } catch (error) {
      if (error instanceof MessageReturned) this.#onReturn?.(error, prepared.exchange, prepared.routingKey);
      throw error;
    } finally {
      prepared.abandoned = true;
      this.#queue.delete(prepared);
      this.#underWay.delete(outcome);
    }
  }

  /** Waits until what is under way has ended, then closes the producer's own channel. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#underWay);
    await this.#channel?.close();
  }

  /** As `close()`. */
  async release(): Promise<void> {
    await this.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #prepare(body: unknown, given: Given): Prepared {
    const exchange = given.exchange ?? this.exchange;
    const { contentType, contentEncoding, body: encoded } = this.#encode(body, given);
    const headers: Record<string, unknown> = { ...given.headers };
    const compression = given.compression ?? this.compression;
    let bytes = encoded;
    if (compression !== undefined) {
      const compressed = compress(encoded, compression);
      headers.compression = compressed.contentType;
      bytes = compressed.body;
    }
    const mode = given.deliveryMode ?? (exchange instanceof Exchange ? exchange.deliveryMode : undefined) ?? 2;
    const { priority, correlationId, type, userId, appId, mandatory, replyTo, expiration, timestamp } = given;
    const messageId = given.messageId ?? (mandatory || given.retry ? randomUUID() : undefined);
    const properties: Record<string, unknown> = {
      contentType,
      contentEncoding,
      headers: toTable(headers, 'headers'),
      deliveryMode: mode === 1 || mode === 'transient' ? 1 : 2,
      priority,
      mandatory,
      correlationId,
      messageId,
      type,
      userId,
      appId,
      replyTo: replyTo instanceof Queue ? replyTo.name : replyTo,
      expiration: expiration === undefined ? undefined : String(Math.round(expiration)),
      timestamp: timestamp instanceof Date ? Math.floor(timestamp.getTime() / 1000) : timestamp,
    };
    return {
      exchange: exchange instanceof Exchange ? exchange.name : exchange,
      routingKey: given.routingKey ?? this.routingKey,
      body: bytes,
      properties: properties as amqplib.Options.Publish,
      declare: this.autoDeclare ? [...given.declare, this.exchange] : given.declare,
      abandoned: false,
    };
  }

  #encode(body: unknown, given: Given): { contentType: string; contentEncoding: string; body: Buffer } {
    const { contentType, contentEncoding } = given;
    if (contentType === undefined) {
      if (contentEncoding !== undefined) throw new OptionError('publish: contentEncoding goes with contentType');
      return dumps(body, given.serializer ?? this.serializer);
    }
    if (body instanceof Uint8Array) {
      return { contentType, contentEncoding: contentEncoding ?? 'binary', body: bufferOf(body) };
    }
    if (typeof body !== 'string')
      throw new EncodeError('publish: with a contentType the body must be a string or bytes');
    const encoding = contentEncoding ?? 'utf-8';
    return { contentType, contentEncoding: encoding, body: encodeText(body, encoding) };
  }

  #send(prepared: Prepared): Promise<void> {
    const channel = this.#usable();
    const { declare } = prepared;
    if (this.#queue.size === 0 && channel?.full === false && declare.every((entity) => isDeclared(channel, entity))) {
      return this.#write(channel, prepared);
    }
    return this.#inTurn(prepared);
  }

  /** Waits for those before it, for the channel, for the declarations and for room; the next may go once it is written. */
  #inTurn(prepared: Prepared): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#queue.set(prepared, { resolve, reject });
      if (!this.#pumping) void this.#pump();
    });
  }

  async #pump(): Promise<void> {
    this.#pumping = true;
    for (const [prepared, { resolve, reject }] of this.#queue) {
      try {
        const channel = await this.#ready(prepared);
        if (this.#queue.delete(prepared)) resolve(this.#write(channel, prepared));
      } catch (error) {
        this.#queue.delete(prepared);
        reject(error);
      }
    }
    this.#pumping = false;
  }

  async #ready(prepared: Prepared): Promise<Channel> {
    const channel = this.#usable() ?? (await this.#open());
    for (const entity of prepared.declare) {
      if (isDeclared(channel, entity)) continue;
      // A declaration that fails closes its channel: not the one on which other messages are under way, if we can choose.
      const through = this.#target instanceof Channel ? channel : await this.#target.defaultChannel();
      await declareOnce(through, entity);
    }
    await channel.drained();
    return channel;
  }

  #usable(): Channel | undefined {
    if (this.#target instanceof Channel) return this.#target;
    return this.#channel?.closed === false ? this.#channel : undefined;
  }

  async #open(): Promise<Channel> {
    if (this.#target instanceof Channel) return this.#target;
    this.#channel = await this.#target.channel();
    return this.#channel;
  }

  #write(channel: Channel, { exchange, routingKey, body, properties }: Prepared): Promise<void> {
    try {
      return channel.publish(exchange, routingKey, body, properties);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async #sendAgain(prepared: Prepared, policy: RetryPolicy): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#send(prepared);
      } catch (error) {
        // Another message's exchange was not found, which closed the channel for all.
        const anothers = error instanceof NotFound && !error.message.includes(`'${prepared.exchange}'`);
        const lost = error instanceof MessageNacked || error instanceof ClosedError;
        const retried = isRecoverable(error) || lost || anothers;
        if (!retried || prepared.abandoned || attempt >= (policy.maxRetries ?? Number.POSITIVE_INFINITY)) throw error;
        await sleep(reconnectDelay(attempt, { initial: policy.intervalStart!, max: policy.intervalMax! }));
        // The connection was closed on purpose, or the channel is not ours to replace.
        if (prepared.abandoned || this.#target.closed) throw error;
      }
    }
  }
}
