/**
 * The options of `ShardedConsumer`: one table for types, defaults, checks, error texts and the docs.
 */

import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { ResourceLimits } from 'node:worker_threads';
import type { ExtendedTypes } from '../../codec/extended-types.js';
import { HandlerLoadError, OptionError } from '../../errors.js';
import { kinds, type OptionTable, readOptions } from '../../options.js';
import { SEGMENT_BYTES } from '../../pool/layout.js';
import type { DecodeErrorAction, RetryRules } from '../../pool/worker-protocol.js';
import { MAX_THREADS } from '../../pool/worker-thread.js';
import type { DeadLetterTarget } from './dead-letters.js';
import type { OrderBy } from './order-key.js';

/** What the runtime logs to, and workers' `context.logger`; pino's shape. */
export interface ConsumerLogger {
  debug(fields: object, text?: string): void;
  info(fields: object, text?: string): void;
  warn(fields: object, text?: string): void;
  error(fields: object, text?: string): void;
}

export interface ShardedConsumerOptions {
  /** URL or path of the module whose export runs on every worker thread. */
  readonly handler: URL | string;
  /** Worker threads. Default: `os.availableParallelism() - 1`, at least 1. */
  readonly workers?: number;
  /** Callbacks in flight per worker. Default 1. */
  readonly concurrency?: number;
  /** Unsettled deliveries asked of the broker, per queue. Default: max(64, 16 × workers × concurrency). */
  readonly prefetchCount?: number;
  /**
   * `'auto'` (default): by the callback's outcome, unless it settles the message itself. `'manual'`: by the callback, or its
   * failure. `'none'`: as its callback begins; whatever becomes of it then, the broker does not give it out again.
   */
  readonly ack?: 'auto' | 'manual' | 'none';
  /**
   * Messages with the same key run one after another, in the order of their queue; others beside them. A message without the
   * header has no key. Default: no order.
   */
  readonly orderBy?: OrderBy;
  /** Runs a failed message again. Default: not, unless the handler throws `errors.Retry`. */
  readonly retry?: RetryOptions;
  /** A worker is replaced by a fresh one after about so many messages, one worker at a time. Default: never. */
  readonly maxMessagesPerWorker?: number;
  /** The same when its heap, buffers included, has so many bytes. Default: never. */
  readonly maxWorkerMemory?: number;
  /** Content types, or names of serializers, that may be decoded. Default: json, text, raw. */
  readonly accept?: readonly string[];
  /** Declare the queues, at every connect. Default true. */
  readonly autoDeclare?: boolean;
  /**
   * Where a message goes that cannot be decoded or handled: a queue's name (`<queue>` stands for the message's own),
   * `{ exchange, routingKey }`, `'broker'` (reject: the queue's policy decides) or `'drop'`. Default `'<queue>.dead'`.
   */
  readonly deadLetter?: DeadLetterTarget;
  /** A message that alone took its worker down this often goes to the dead letters. Default 5. */
  readonly maxDeliveries?: number;
  /** What becomes of a message that cannot be decoded, is not accepted, or is too large. Default `'deadLetter'`. */
  readonly onDecodeError?: DecodeErrorAction;
  /** Milliseconds that a callback may take. Default: no limit. */
  readonly timeout?: number;
  /** Milliseconds that a message may wait unstarted before it is given back. Default 600000. */
  readonly maxWait?: number;
  /** Milliseconds that `close()` lets callbacks run on. Default 25000. */
  readonly drainTimeout?: number;
  /** Milliseconds that a worker may take to load its handler. Default 30000. */
  readonly startTimeout?: number;
  /** Milliseconds that a terminated thread may take to exit before the runtime goes on without it. Default 5000. */
  readonly terminateGrace?: number;
  /** Bytes of the largest body. Default 128 MiB; never more than fits in `maxMemory`. */
  readonly maxMessageBytes?: number;
  /** Bytes that a body may have once it is decompressed. Default 256 MiB. */
  readonly maxDecodedBytes?: number;
  readonly types?: ExtendedTypes;
  /** Bytes of raw messages in memory. Default 256 MiB. */
  readonly maxMemory?: number;
  /**
   * Limits of each thread's heap, as `new Worker` takes them. Give `maxYoungGenerationSizeMb` too: without it Node 24 may end
   * the process, not the thread, when a thread's heap is full.
   */
  readonly resourceLimits?: ResourceLimits;
  /** The threads' environment. Default: a copy of this one's. */
  readonly env?: Record<string, string>;
  /** Node options of the threads. */
  readonly execArgv?: readonly string[];
  /** Where the runtime and the workers' `context.logger` log to. Default: nowhere. */
  readonly logger?: ConsumerLogger;
  /** `close()` when it aborts. */
  readonly signal?: AbortSignal;
  /** Arguments of basic.consume. */
  readonly consumerArguments?: Record<string, unknown>;
}

/** When and how often a failed message runs again. */
export interface RetryOptions extends Partial<RetryRules> {
  /** With `orderBy`: does its key wait for it (`'block'`, default), or do others overtake it (`'skip'`)? */
  readonly order?: 'block' | 'skip';
}

const MiB = 1024 * 1024;
/** basic.qos has 16 bits for it. */
const MAX_PREFETCH = 65_535;

const isHandler = (value: unknown): boolean => value instanceof URL || (typeof value === 'string' && value !== '');
const isLogger = (value: unknown): boolean =>
  kinds.object.test(value) && ['debug', 'info', 'warn', 'error'].every((level) => typeof value[level] === 'function');
const isTarget = (value: unknown): boolean =>
  (typeof value === 'string' && value !== '') ||
  (kinds.object.test(value) && typeof (value as { exchange?: unknown }).exchange === 'string');

const isOrder = (value: unknown): boolean =>
  value === 'routingKey' ||
  value === 'queue' ||
  (kinds.object.test(value) && Object.keys(value).join() === 'header' && kinds.name.test(value.header));

export const RETRY_OPTIONS: OptionTable<RetryOptions> = {
  attempts: { kind: kinds.integer(1, 1_000_000), default: 3, doc: 'Runs in all, the first included.' },
  initial: { kind: kinds.milliseconds, default: 1000, doc: 'Before the second run (ms).' },
  factor: {
    kind: kinds.custom<number>('a number from 1 to 1000', (n) => typeof n === 'number' && n >= 1 && n <= 1000),
    default: 2,
    doc: 'Each further wait is so many times as long.',
  },
  max: { kind: kinds.milliseconds, default: 60_000, doc: 'The longest wait (ms).' },
  jitter: {
    kind: kinds.custom<number>('a number from 0 to 1', (n) => typeof n === 'number' && n >= 0 && n <= 1),
    default: 0.2,
    doc: 'Each wait is longer or shorter by up to this part of itself.',
  },
  order: {
    kind: kinds.oneOf('block', 'skip'),
    default: 'block',
    doc: "With `orderBy`. `'block'`: the key waits, the message keeps its place here. `'skip'`: the broker keeps the message, and others of its key overtake it.",
  },
};

export const SHARDED_CONSUMER_OPTIONS: OptionTable<ShardedConsumerOptions> = {
  handler: {
    kind: kinds.custom('a URL or a path', isHandler),
    required: true,
    doc: 'URL or path of the module whose export runs on every worker thread.',
  },
  workers: {
    kind: kinds.integer(1, MAX_THREADS),
    defaultWords: 'availableParallelism() - 1, at least 1',
    doc: 'Threads.',
  },
  concurrency: { kind: kinds.integer(1, 1000), default: 1, doc: 'Callbacks in flight per worker.' },
  prefetchCount: {
    kind: kinds.integer(1, MAX_PREFETCH),
    defaultWords: 'max(64, 16 × workers × concurrency)',
    doc: 'Unsettled deliveries asked of the broker, per queue.',
  },
  ack: {
    kind: kinds.oneOf('auto', 'manual', 'none'),
    default: 'auto',
    doc: "`'auto'`: by the callback's outcome, unless it settles the message itself. `'manual'`: by the callback, or by its failure. `'none'`: as its callback begins.",
  },
  orderBy: {
    kind: kinds.custom<OrderBy>("'routingKey', 'queue' or { header: 'x' }", isOrder),
    defaultWords: 'none',
    doc: "`'routingKey'`, `'queue'`, `{ header: 'x' }`: messages of one key run one after another, in order.",
  },
  retry: {
    kind: kinds.custom<RetryOptions>('an object', kinds.object.test),
    defaultWords: 'none',
    doc: '`{ attempts, initial, factor, max, jitter, order }`, below.',
  },
  maxMessagesPerWorker: {
    kind: kinds.integer(1, Number.MAX_SAFE_INTEGER),
    defaultWords: 'none',
    doc: 'Messages until a worker is replaced.',
  },
  maxWorkerMemory: {
    kind: kinds.bytes(1024 * 1024, Number.MAX_SAFE_INTEGER),
    defaultWords: 'none',
    doc: 'Bytes of heap and buffers until a worker is replaced.',
  },
  accept: {
    kind: kinds.strings,
    default: ['json', 'text', 'raw'],
    doc: 'Content types, or names of serializers, that may be decoded.',
  },
  autoDeclare: { kind: kinds.boolean, default: true, doc: 'Declare the queues.' },
  deadLetter: {
    kind: kinds.custom("a queue's name, { exchange, routingKey }, 'broker' or 'drop'", isTarget),
    default: '<queue>.dead',
    doc: "A durable queue, declared when first needed; `{ exchange, routingKey }`; `'broker'`: reject, the queue's own policy decides; `'drop'`: only if asked for.",
  },
  maxDeliveries: {
    kind: kinds.integer(1, 1_000_000),
    default: 5,
    doc: 'A message that alone took its worker down this often is dead-lettered.',
  },
  onDecodeError: {
    kind: kinds.oneOf('deadLetter', 'reject', 'requeue', 'ack'),
    default: 'deadLetter',
    doc: 'What becomes of a message that cannot be decoded, is not accepted, or is too large.',
  },
  timeout: { kind: kinds.milliseconds, defaultWords: 'none', doc: 'A callback’s time (ms).' },
  maxWait: { kind: kinds.duration, default: 600_000, doc: 'Waiting unstarted (ms); then it is given back.' },
  drainTimeout: { kind: kinds.milliseconds, default: 25_000, doc: 'How long `close()` lets callbacks run on (ms).' },
  startTimeout: { kind: kinds.duration, default: 30_000, doc: 'A worker’s start (ms).' },
  terminateGrace: { kind: kinds.milliseconds, default: 5_000, doc: 'A terminated thread’s exit (ms).' },
  maxMessageBytes: {
    kind: kinds.bytes(1, 2 ** 31 - 1),
    default: 128 * MiB,
    doc: 'The largest body; never more than fits in `maxMemory` (less 2.25 MiB).',
  },
  maxDecodedBytes: { kind: kinds.bytes(1, 2 ** 31 - 1), default: 256 * MiB, doc: 'The largest decompressed body.' },
  types: {
    kind: kinds.oneOf('plain', 'exact'),
    default: 'plain',
    doc: "What JSON's extended types become: a `Date`, a `Buffer` and text, or small classes that lose nothing.",
  },
  maxMemory: { kind: kinds.bytes(8 * MiB, 2047 * MiB), default: 256 * MiB, doc: 'The arena: raw messages in memory.' },
  resourceLimits: {
    kind: kinds.object,
    doc: 'Limits of each thread’s heap, as `new Worker` takes them. Give `maxYoungGenerationSizeMb` too: without it Node 24 may end the process when a thread’s heap is full.',
  },
  env: { kind: kinds.object as never, doc: 'The threads’ environment.' },
  execArgv: { kind: kinds.strings, doc: 'Node options of the threads.' },
  logger: {
    kind: kinds.custom('an object with debug, info, warn and error', isLogger),
    doc: 'Where the runtime and the workers log to; pino’s shape.',
  },
  signal: { kind: kinds.signal, doc: 'Closes the consumer when it aborts.' },
  consumerArguments: { kind: kinds.object, default: {}, doc: 'Arguments of basic.consume.' },
};

type WithDefaults =
  | 'workers'
  | 'concurrency'
  | 'prefetchCount'
  | 'ack'
  | 'accept'
  | 'autoDeclare'
  | 'deadLetter'
  | 'maxDeliveries'
  | 'onDecodeError'
  | 'timeout'
  | 'maxWait'
  | 'drainTimeout'
  | 'startTimeout'
  | 'terminateGrace'
  | 'maxMessageBytes'
  | 'maxDecodedBytes'
  | 'types'
  | 'maxMemory'
  | 'consumerArguments';

export type ResolvedOptions = Omit<ShardedConsumerOptions, 'handler' | 'retry' | WithDefaults> &
  Required<Pick<ShardedConsumerOptions, WithDefaults>> & {
    readonly handler: string;
    readonly retry: Required<RetryOptions> | undefined;
  };

/** Checks everything that can be checked before a thread starts. Throws `OptionError`, `HandlerLoadError`. */
export function readShardedOptions(given: unknown): ResolvedOptions {
  if (typeof (given as { handler?: unknown } | undefined)?.handler === 'function') {
    throw new OptionError(
      "ShardedConsumer: the option 'handler' is a function. It runs on other threads, and a function cannot cross threads: put it into a module of its own and give the module's URL, new URL('./handler.js', import.meta.url)",
      { details: { option: 'handler' } },
    );
  }
  const options = readOptions('ShardedConsumer', SHARDED_CONSUMER_OPTIONS, given);
  if (options.orderBy !== undefined && options.ack === 'none') {
    throw new OptionError(
      "ShardedConsumer: 'orderBy' needs messages that stay unsettled while they run; with ack: 'none' there is no order",
      { details: { option: 'orderBy' } },
    );
  }
  const workers = options.workers ?? Math.max(1, availableParallelism() - 1);
  const maxMemory = Math.floor(options.maxMemory! / SEGMENT_BYTES) * SEGMENT_BYTES;
  return {
    ...options,
    handler: handlerUrl(options.handler),
    workers,
    maxMemory,
    prefetchCount: options.prefetchCount ?? Math.min(MAX_PREFETCH, Math.max(64, 16 * workers * options.concurrency!)),
    timeout: options.timeout ?? 0,
    retry:
      options.retry === undefined
        ? undefined
        : readOptions<RetryOptions>('ShardedConsumer: retry', RETRY_OPTIONS, options.retry),
  } as ResolvedOptions;
}

/** A file: URL of the handler's module, which must be there. A path is taken from the current folder. */
function handlerUrl(handler: URL | string): string {
  const url =
    handler instanceof URL ? handler : handler.startsWith('file:') ? new URL(handler) : pathToFileURL(resolve(handler));
  if (url.protocol !== 'file:') {
    throw new OptionError(
      `ShardedConsumer: the option 'handler' must be a file: URL or a path, not a ${url.protocol} URL`,
      {
        details: { option: 'handler' },
      },
    );
  }
  if (!existsSync(pathOf(url))) {
    throw new HandlerLoadError(`the handler module ${url.href} does not exist`, { details: { url: url.href } });
  }
  return url.href;
}

function pathOf(url: URL): string {
  try {
    return fileURLToPath(url);
  } catch (cause) {
    throw new OptionError(`ShardedConsumer: the option 'handler' is no file here: ${url.href}`, {
      cause,
      details: { option: 'handler' },
    });
  }
}
