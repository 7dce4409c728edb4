/** Trying again: connecting until it works, and functions that are run again when the connection was lost under them. */
import {
  ClosedError,
  type KombuError,
  OperationalError,
  RecoverableChannelError,
  RecoverableConnectionError,
} from '../errors.js';
import { kinds, type OptionTable, readOptions } from '../options.js';
import { RETRY_POLICY } from '../pool/publication.js';
import type { Waits } from './connection-core.js';
import { Channel } from './entities/channel.js';
import { functionKind } from './entities/target.js';
import { reconnectDelay } from './transports/reconnect.js';

export interface EnsureConnectionOptions {
  readonly maxRetries?: number;
  readonly timeout?: number;
  readonly intervalStart?: number;
  readonly intervalStep?: number;
  readonly intervalMax?: number;
  readonly errback?: (error: KombuError, interval: number) => void;
  readonly signal?: AbortSignal;
}

/** What is thrown may be any class, also one that is none of ours. */
export type ErrorClass = abstract new (...args: never[]) => unknown;

export interface EnsureOptions extends Omit<EnsureConnectionOptions, 'errback'> {
  readonly errback?: (error: unknown, interval: number) => void;
  readonly onRevive?: (channel: Channel) => unknown;
  readonly retryErrors?: readonly ErrorClass[];
}

export interface AutoretryOptions extends EnsureOptions {
  readonly channel?: Channel;
}

const INTERVALS = {
  intervalStart: RETRY_POLICY.intervalStart,
  intervalStep: { kind: kinds.milliseconds, doc: 'Each wait is so much longer instead (ms), exactly.' },
  intervalMax: RETRY_POLICY.intervalMax,
} as const;

export const ENSURE_CONNECTION_OPTIONS: OptionTable<EnsureConnectionOptions> = {
  maxRetries: {
    kind: kinds.integer(0, Number.MAX_SAFE_INTEGER),
    defaultWords: 'for ever',
    doc: 'How often to try again after the first time.',
  },
  timeout: { kind: kinds.milliseconds, defaultWords: 'none', doc: 'For all attempts together (ms).' },
  ...INTERVALS,
  errback: {
    kind: functionKind(),
    doc: 'Called with each error and the milliseconds until the next attempt: 0 while there are more hosts to try.',
  },
  signal: { kind: kinds.signal, doc: 'Gives up; the promise rejects with its reason.' },
};

const classesKind = kinds.custom<readonly ErrorClass[]>(
  'a list of classes',
  (value) => Array.isArray(value) && value.every((each) => typeof each === 'function'),
);

export const ENSURE_OPTIONS: OptionTable<EnsureOptions> = {
  maxRetries: {
    kind: kinds.integer(0, Number.MAX_SAFE_INTEGER),
    defaultWords: 'until `timeout`',
    doc: 'How often to run the function again.',
  },
  timeout: {
    kind: kinds.milliseconds,
    default: 30_000,
    doc: 'From the first failure until the last run begins (ms), reconnecting included.',
  },
  ...INTERVALS,
  errback: { kind: functionKind(), doc: 'Called with each error and the milliseconds until the next attempt.' },
  signal: { kind: kinds.signal, doc: 'Ends the waits between runs; the promise rejects with its reason.' },
  onRevive: { kind: functionKind(), doc: 'Called with the new default channel after the connection was lost.' },
  retryErrors: { kind: classesKind, default: [], doc: 'More errors after which the function is run again.' },
};

export const AUTORETRY_OPTIONS: OptionTable<AutoretryOptions> = {
  ...ENSURE_OPTIONS,
  channel: {
    kind: kinds.custom<Channel>('a Channel', (value) => value instanceof Channel),
    defaultWords: 'the default channel',
    doc: 'For the first run.',
  },
};

/** `given` has been checked, and defaults filled in. */
function waitsOf(given: EnsureConnectionOptions): Waits {
  const { maxRetries = Number.POSITIVE_INFINITY, timeout, intervalStep, errback, signal } = given;
  const { intervalStart: initial = 100, intervalMax: max = 2000 } = given;
  const interval = (attempt: number): number =>
    intervalStep === undefined
      ? reconnectDelay(attempt, { initial, max })
      : Math.min(max, initial + intervalStep * attempt);
  return { maxRetries, timeout, interval, errback, signal };
}

export function readWaits(options: EnsureConnectionOptions): Waits {
  return waitsOf(readOptions('ensureConnection', ENSURE_CONNECTION_OPTIONS, options));
}

/** The part of a connection that trying again needs. */
export interface Reviving {
  readonly closed: boolean;
  readonly connected: boolean;
  connect(waits: Waits): Promise<unknown>;
  pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void>;
  defaultChannel(): Promise<Channel>;
}

type Failure = 'connection' | 'channel' | 'asked' | undefined;

function failureOf(error: unknown, retryErrors: readonly ErrorClass[]): Failure {
  if (retryErrors.some((Class) => error instanceof Class)) return 'asked';
  // What says that a channel is closed says with it that the connection is gone.
  const beneath = error instanceof ClosedError && error.cause !== undefined ? error.cause : error;
  if (beneath instanceof RecoverableConnectionError) return 'connection';
  return beneath instanceof RecoverableChannelError ? 'channel' : undefined;
}

/** `fn`, run again as `Connection.ensure` says. `options` have been read. */
export function ensured<Args extends unknown[], Result>(
  connection: Reviving,
  fn: (...args: Args) => Result | Promise<Result>,
  options: EnsureOptions,
): (...args: Args) => Promise<Result> {
  const { errback, onRevive, retryErrors = [], signal, timeout } = options;
  const { interval, maxRetries, ...waits } = waitsOf(options as EnsureConnectionOptions);
  return async (...args) => {
    let deadline: number | undefined;
    for (let retries = 0; ; retries++) {
      signal?.throwIfAborted();
      try {
        return await fn(...args);
      } catch (error) {
        const failure = failureOf(error, retryErrors);
        if (failure === undefined || connection.closed) throw error;
        deadline ??= performance.now() + timeout!;
        // The first time at once: most failures are over with the reconnect.
        const wait = retries === 0 ? 0 : interval(retries - 1);
        if (retries >= maxRetries || performance.now() + wait >= deadline) {
          if (failure === 'asked') throw error;
          const text = `given up after ${retries === 1 ? '1 retry' : `${retries} retries`}: ${(error as Error).message}`;
          throw new OperationalError(text, { cause: error, details: { retries } });
        }
        errback?.(error, wait);
        await connection.pause(wait, signal);
        if (failure === 'connection') {
          const left = { maxRetries: Math.max(maxRetries - retries, 1), timeout: deadline - performance.now() };
          await connection.connect({ ...waits, interval, ...left });
          await onRevive?.(await connection.defaultChannel());
        }
      }
    }
  };
}
