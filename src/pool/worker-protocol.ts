/**
 * What main and a worker thread say to each other besides shared memory: the task a worker is started with, and the rare
 * messages on its port. Nothing here travels once a message but what handlers publish.
 */

import type { MessagePort } from 'node:worker_threads';
import type { ExtendedTypes } from '../codec/extended-types.js';
import type { ConnectionParameters } from '../connection-parameters.js';
import type { MemoryHandles } from './memory.js';
import type { PublishAbandoned, PublishAnswers, PublishBatch } from './publish-protocol.js';

export type DecodeErrorAction = 'deadLetter' | 'reject' | 'requeue' | 'ack';

/** When and how often a failed message runs again. */
export interface RetryRules {
  /** Runs in all, the first included. */
  readonly attempts: number;
  /** Milliseconds before the second run; each further wait is `factor` times as long, `max` at most, ± `jitter` of it. */
  readonly initial: number;
  readonly factor: number;
  readonly max: number;
  readonly jitter: number;
}

/** What a worker needs to run: structured-cloned, its port transferred. */
export interface WorkerTask {
  readonly memory: MemoryHandles;
  readonly block: SharedArrayBuffer;
  /** Signs this life's claims, 1 to 255. */
  readonly incarnation: number;
  /** The worker's number for people, 0 and up; a replacement inherits it. */
  readonly worker: number;
  /** file: URL of the handler module. */
  readonly handler: string;
  readonly concurrency: number;
  readonly ack: 'auto' | 'manual' | 'none';
  readonly retry: RetryRules | undefined;
  /** Content types that may be decoded. */
  readonly accept: readonly string[];
  readonly onDecodeError: DecodeErrorAction;
  /** Milliseconds a callback may take, 0: no limit. */
  readonly timeout: number;
  readonly maxDecodedBytes: number;
  readonly types: ExtendedTypes;
  /** For connections of its own; undefined where something in it cannot cross threads. */
  readonly connection: ConnectionParameters | undefined;
  /** Consumer tag to queue name. */
  readonly queues: Readonly<Record<string, string>>;
  readonly port: MessagePort;
}

/** An error as it crosses threads: its own fields as text, its causes the same way. */
export interface PortableError {
  readonly name: string;
  readonly message: string;
  readonly stack?: string;
  readonly code?: string;
  readonly cause?: PortableError;
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

export type FromWorker =
  | PublishBatch
  | PublishAbandoned
  /** The handler is loaded and set up. */
  | { readonly type: 'ready' }
  /** Every callback has ended after "stop"; what follows is the module's teardown. */
  | { readonly type: 'drained' }
  | {
      readonly type: 'failed';
      readonly error: PortableError;
      readonly deliveryTag: number;
      readonly queue: string;
      readonly messageId?: string;
      readonly attempt: number;
      /** What became of the message. */
      readonly outcome: 'deadLetter' | 'reject' | 'requeue' | 'ack' | 'retry' | 'none';
    }
  /** Failures beyond the first 100 of a second, by the error's name. */
  | { readonly type: 'failures'; readonly counts: Readonly<Record<string, number>> }
  | {
      readonly type: 'log';
      readonly level: LogLevel;
      readonly text: string;
      readonly fields?: Record<string, unknown>;
    };

export type ToWorker =
  | PublishAnswers
  /** Callbacks of other generations than this can no longer settle: their signals abort. */
  | { readonly type: 'generation'; readonly generation: number }
  /** The drain deadline passed: all signals abort. */
  | { readonly type: 'abort'; readonly reason: string }
  | { readonly type: 'queues'; readonly queues: Readonly<Record<string, string>> };

/** Consumer tags whose queues are remembered: each reconnect brings new ones, and messages of old ones may still run. */
export const MOST_TAGS = 16_384;

const MAX_CAUSES = 5;
const MAX_TEXT = 16_384;

function field(value: unknown, key: string): string | undefined {
  // A hostile error can have getters that throw.
  try {
    const found = (value as Record<string, unknown>)[key];
    return typeof found === 'string' ? found.slice(0, MAX_TEXT) : undefined;
  } catch {
    return undefined;
  }
}

function textOf(thrown: unknown): string {
  // Even a function can have a toString that throws.
  try {
    return String(thrown);
  } catch {
    return 'something without a text';
  }
}

/** Whatever was thrown, as plain bounded text. Never throws. */
export function toPortableError(thrown: unknown, depth = 0): PortableError {
  if (typeof thrown !== 'object' || thrown === null) {
    return { name: 'Error', message: `${typeof thrown} thrown: ${textOf(thrown).slice(0, MAX_TEXT)}` };
  }
  const stack = field(thrown, 'stack');
  const code = field(thrown, 'code');
  let cause: unknown;
  try {
    cause = (thrown as { cause?: unknown }).cause;
  } catch {
    cause = undefined;
  }
  return {
    name: field(thrown, 'name') ?? 'Error',
    message: field(thrown, 'message') ?? 'an object that is no Error was thrown',
    ...(stack === undefined ? {} : { stack }),
    ...(code === undefined ? {} : { code }),
    ...(cause === undefined || cause === null || depth >= MAX_CAUSES
      ? {}
      : { cause: toPortableError(cause, depth + 1) }),
  };
}
