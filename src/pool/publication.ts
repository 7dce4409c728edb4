/**
 * What a publish is, on whichever thread it is made: its options, and the bytes and properties that come of them. Pure; who
 * brings it to the broker is the producer's business.
 */
import { randomUUID } from 'node:crypto';
import type * as amqplib from 'amqplib';
import { toTable } from '../codec/amqp/plain-table.js';
import { bufferOf } from '../codec/bytes.js';
import { encodeText } from '../codec/charset.js';
import { compress } from '../codec/compression.js';
import { dumps } from '../codec/serialization.js';
import { EncodeError, type MessageReturned, OptionError } from '../errors.js';
import { type Kind, kinds, type OptionTable } from '../options.js';
import {
  type DeliveryMode,
  deliveryModeKind,
  deliveryModeNumber,
  type ExchangeLike,
  isExchange,
  isQueue,
  type QueueLike,
} from './entity.js';

/** Called with each message that came back; the publish rejects with the same error afterwards. */
export type OnReturn = (error: MessageReturned, exchange: string, routingKey: string) => void;

export interface ProducerOptions {
  readonly exchange?: ExchangeLike | string;
  readonly routingKey?: string;
  readonly serializer?: string;
  readonly compression?: string;
  readonly autoDeclare?: boolean;
  readonly onReturn?: OnReturn;
}

const exchangeKind = kinds.custom<ExchangeLike | string>(
  'an Exchange or a name',
  (value) => isExchange(value) || typeof value === 'string',
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
  onReturn: { kind: kinds.function as Kind<OnReturn>, doc: 'Called with each mandatory message that no queue took.' },
};

/** How to try again; `ensureConnection`, `ensure` and what repeats declarations have the same options, and more. */
export interface RetryPolicy {
  readonly maxRetries?: number;
  readonly intervalStart?: number;
  readonly intervalMax?: number;
  readonly errback?: (error: Error, interval: number) => void;
}

export const RETRY_POLICY: OptionTable<RetryPolicy> = {
  maxRetries: {
    kind: kinds.integer(0, Number.MAX_SAFE_INTEGER),
    defaultWords: 'until `timeout`',
    doc: 'How often to try again after the first time.',
  },
  intervalStart: {
    kind: kinds.milliseconds,
    default: 100,
    doc: 'The first wait (ms); each is twice the one before, ±20 %.',
  },
  intervalMax: { kind: kinds.milliseconds, default: 2000, doc: 'The longest wait (ms).' },
  errback: {
    kind: kinds.function as Kind<NonNullable<RetryPolicy['errback']>>,
    doc: 'Called with each error and the milliseconds until the next attempt. What it throws ends the publish.',
  },
};

export interface PublishOptions {
  readonly exchange?: ExchangeLike | string;
  readonly routingKey?: string;
  readonly serializer?: string;
  readonly compression?: string;
  readonly headers?: Record<string, unknown>;
  readonly declare?: readonly (ExchangeLike | QueueLike)[];
  readonly mandatory?: boolean;
  readonly deliveryMode?: DeliveryMode;
  readonly priority?: number;
  readonly expiration?: number;
  readonly contentType?: string;
  readonly contentEncoding?: string;
  readonly correlationId?: string;
  readonly replyTo?: string | QueueLike;
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

const entitiesKind = kinds.custom<readonly (ExchangeLike | QueueLike)[]>(
  'a list of exchanges and queues',
  (value) => Array.isArray(value) && value.every((each) => isExchange(each) || isQueue(each)),
);
const replyToKind = kinds.custom<string | QueueLike>(
  'a Queue or its name',
  (value) => isQueue(value) || typeof value === 'string',
);
const timeKind = kinds.custom<number | Date>(
  'a Date, or whole seconds since 1970',
  (value) =>
    ((value instanceof Date ? value.getTime() : value) as number) >= 0 &&
    (value instanceof Date || Number.isSafeInteger(value)),
);

const NO_HEADERS = Object.freeze({});

export const PUBLISH_OPTIONS: OptionTable<PublishOptions> = {
  exchange: {
    kind: exchangeKind,
    defaultWords: "the producer's",
    doc: 'Where the message goes; not declared by this.',
  },
  routingKey: { kind: kinds.string, defaultWords: "the producer's", doc: 'The routing key.' },
  serializer: { kind: kinds.name, defaultWords: "the producer's", doc: 'Name.' },
  compression: { kind: kinds.name, defaultWords: "the producer's", doc: 'Name or content type of a compressor.' },
  headers: { kind: kinds.object, default: NO_HEADERS, doc: 'The headers table.' },
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
  expiration: { kind: kinds.lifetime, doc: 'The message is dropped after so long in a queue (ms).' },
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
    doc: '`maxRetries intervalStart intervalMax errback`, see below.',
  },
  timeout: {
    kind: kinds.milliseconds,
    default: 30_000,
    doc: 'Until the confirm, connecting and retries included (ms).',
  },
  signal: { kind: kinds.signal, doc: 'Stops waiting; the message may have been taken.' },
};

/** What `Required` cannot say: the options that have defaults are there. */
export type GivenPublish = PublishOptions &
  Required<Pick<PublishOptions, 'headers' | 'declare' | 'timeout' | 'priority' | 'mandatory'>>;

/** What a producer adds where a publish says nothing. */
export interface PublishDefaults {
  readonly exchange: ExchangeLike | string;
  readonly routingKey: string;
  readonly serializer: string | undefined;
  readonly compression: string | undefined;
}

/** Ready for the wire. */
export interface Publication {
  readonly exchange: string;
  readonly routingKey: string;
  readonly body: Buffer;
  readonly properties: amqplib.Options.Publish;
}

/** `identified`: it gets a message id if it has none, by which it is known when it is sent again. Throws `EncodeError`. */
export function preparePublication(
  body: unknown,
  given: GivenPublish,
  defaults: PublishDefaults,
  identified: boolean,
): Publication {
  const exchange = given.exchange ?? defaults.exchange;
  const { contentType, contentEncoding, body: encoded } = encode(body, given, defaults.serializer);
  let { headers } = given;
  const compression = given.compression ?? defaults.compression;
  let bytes = encoded;
  if (compression !== undefined) {
    const compressed = compress(encoded, compression);
    headers = { ...headers, compression: compressed.contentType };
    bytes = compressed.body;
  }
  const mode = given.deliveryMode ?? (typeof exchange === 'string' ? undefined : exchange.deliveryMode) ?? 2;
  const { priority, correlationId, type, userId, appId, mandatory, replyTo, expiration, timestamp } = given;
  const messageId = given.messageId ?? (identified ? randomUUID() : undefined);
  const properties: Record<string, unknown> = {
    contentType,
    contentEncoding,
    headers: headers === NO_HEADERS ? headers : toTable(headers, 'headers'),
    deliveryMode: deliveryModeNumber(mode),
    priority,
    mandatory,
    correlationId,
    messageId,
    type,
    userId,
    appId,
    replyTo: isQueue(replyTo) ? replyTo.name : replyTo,
    expiration: expiration === undefined ? undefined : String(Math.round(expiration)),
    timestamp: timestamp instanceof Date ? Math.floor(timestamp.getTime() / 1000) : timestamp,
  };
  return {
    exchange: typeof exchange === 'string' ? exchange : exchange.name,
    routingKey: given.routingKey ?? defaults.routingKey,
    body: bytes,
    properties: properties as amqplib.Options.Publish,
  };
}

function encode(
  body: unknown,
  given: PublishOptions,
  serializer: string | undefined,
): { contentType: string; contentEncoding: string; body: Buffer } {
  const { contentType, contentEncoding } = given;
  if (contentType === undefined) {
    if (contentEncoding !== undefined) throw new OptionError('publish: contentEncoding goes with contentType');
    return dumps(body, given.serializer ?? serializer);
  }
  if (body instanceof Uint8Array) {
    return { contentType, contentEncoding: contentEncoding ?? 'binary', body: bufferOf(body) };
  }
  if (typeof body !== 'string') throw new EncodeError('publish: with a contentType the body must be a string or bytes');
  const encoding = contentEncoding ?? 'utf-8';
  return { contentType, contentEncoding: encoding, body: encodeText(body, encoding) };
}
