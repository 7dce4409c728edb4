/** What the inline consumer and its methods take. */

import { DEFAULT_MAX_DECODED_BYTES } from '../codec/compression.js';
import type { ExtendedTypes } from '../codec/extended-types.js';
import { OptionError } from '../errors.js';
import type { Message } from '../message.js';
import { kinds, type OptionTable } from '../options.js';
import type { CallOptions } from './entities/channel.js';
import { DEFAULT_ACCEPT } from './entities/delivery.js';
import { Queue } from './entities/queue.js';
import { CALL_OPTIONS, functionKind } from './entities/target.js';

/** May return a promise, which is waited for before the next callback of the same message; other messages do not wait. */
export type Callback = (body: unknown, message: Message) => unknown;
export type OnMessage = (message: Message) => unknown;
export type OnDecodeError = (message: Message, error: unknown) => unknown;

export interface ConsumerOptions {
  readonly noAck?: boolean;
  readonly autoDeclare?: boolean;
  readonly callbacks?: readonly Callback[];
  readonly onMessage?: OnMessage;
  readonly onDecodeError?: OnDecodeError;
  readonly accept?: readonly string[];
  readonly prefetchCount?: number;
  readonly tagPrefix?: string;
  readonly maxDecodedBytes?: number;
  readonly types?: ExtendedTypes;
}

export const callbacksKind = kinds.custom<readonly Callback[]>(
  'a list of functions',
  (value) => Array.isArray(value) && value.every((each) => typeof each === 'function'),
);

/** The rest of a tag is a random part and a number; AMQP's short strings have 255 bytes. */
const tagPrefixKind = kinds.custom<string>(
  'a string of at most 200 bytes',
  (value) => typeof value === 'string' && Buffer.byteLength(value) <= 200,
);

export const CONSUMER_OPTIONS: OptionTable<ConsumerOptions> = {
  noAck: { kind: kinds.boolean, defaultWords: 'as each queue', doc: 'The broker forgets messages as it sends them.' },
  autoDeclare: { kind: kinds.boolean, default: true, doc: 'Declare the queues before consuming.' },
  callbacks: { kind: callbacksKind, default: [], doc: 'Called in order with (body, message).' },
  onMessage: {
    kind: functionKind(),
    doc: 'Called with (message) instead; the body is decoded when `payload` is read.',
  },
  onDecodeError: {
    kind: functionKind(),
    defaultWords: 'the error is told, the message stays unsettled',
    doc: 'Called with (message, error).',
  },
  accept: { kind: kinds.strings, default: DEFAULT_ACCEPT, doc: 'Content types or aliases that may be decoded.' },
  prefetchCount: {
    kind: kinds.integer(0, 65535),
    defaultWords: 'no limit, as in kombu; 64 in a `for await`',
    doc: 'Unsettled messages asked of the broker, per queue; 0: no limit.',
  },
  tagPrefix: { kind: tagPrefixKind, default: 'mozuku.', doc: 'Begins the consumer tags that the broker shows.' },
  maxDecodedBytes: {
    kind: kinds.bytes(1, Number.MAX_SAFE_INTEGER),
    default: DEFAULT_MAX_DECODED_BYTES,
    doc: 'A larger body is a decode error.',
  },
  types: {
    kind: kinds.oneOf('plain', 'exact'),
    default: 'plain',
    doc: "What JSON's extended types become: a `Date`, a `Buffer` and text, or small classes that lose nothing.",
  },
};

export interface ConsumeOptions extends CallOptions {
  readonly noAck?: boolean;
}

export const CONSUME_OPTIONS: OptionTable<ConsumeOptions> = {
  noAck: { kind: kinds.boolean, defaultWords: "the consumer's", doc: 'For the queues that this starts on.' },
  ...CALL_OPTIONS,
};

export interface QosOptions extends CallOptions {
  readonly prefetchCount?: number;
  readonly prefetchSize?: number;
  readonly applyGlobal?: boolean;
}

const none = kinds.custom<number>(
  '0: RabbitMQ has no limit in bytes, and closes the connection over one',
  (value) => value === 0,
);
const perConsumer = kinds.custom<boolean>(
  'false: limits of a whole channel are refused by quorum queues, and by RabbitMQ 4.3',
  (value) => value === false,
);

export const QOS_OPTIONS: OptionTable<QosOptions> = {
  prefetchCount: { kind: kinds.integer(0, 65535), default: 0, doc: 'Unsettled messages, per queue; 0: no limit.' },
  prefetchSize: { kind: none, default: 0, doc: 'Only 0.' },
  applyGlobal: { kind: perConsumer, default: false, doc: 'Only false.' },
  ...CALL_OPTIONS,
};

export interface RecoverOptions {
  readonly requeue?: boolean;
}

export const RECOVER_OPTIONS: OptionTable<RecoverOptions> = {
  requeue: {
    kind: kinds.custom<boolean>('true: RabbitMQ redelivers by way of the queue only', (value) => value === true),
    default: true,
    doc: 'Only true.',
  },
};

export interface CloseOptions {
  readonly timeout?: number;
}

export const CLOSE_OPTIONS: OptionTable<CloseOptions> = {
  timeout: { kind: kinds.milliseconds, default: 25_000, doc: 'For the callbacks that run (ms).' },
};

export interface ConsumerEvents {
  /**
   * What a callback threw, a body that could not be decoded (both with the message, which stays unsettled), a consumer that the
   * broker cancelled, a lost connection. Only emitted if somebody listens.
   */
  error: [error: unknown, message: Message | undefined];
}

/** Throws `OptionError`. */
export function functionOrNone<F extends OnMessage | OnDecodeError>(name: string, given: F | undefined): F | undefined {
  if (given === undefined || typeof given === 'function') return given;
  throw new OptionError(`Consumer: ${name} must be a function`);
}

/** Throws `OptionError`. */
export function mustBeQueueOrName(method: string, queue: unknown): void {
  if (typeof queue === 'string' || queue instanceof Queue) return;
  throw new OptionError(`Consumer.${method}: it takes a Queue or its name`);
}
