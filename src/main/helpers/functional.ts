/** Sequences of waits, and trying again by them: kombu's, in milliseconds. */
import { setTimeout as sleep } from 'node:timers/promises';
import { OptionError, TimeoutError } from '../../errors.js';
import { kinds, type OptionTable, readOptions } from '../../options.js';
import { functionKind } from '../entities/target.js';

/** start, start + step, … not beyond `stop`; then for ever the last one, if it is to be repeated. Without `stop` it does not end. */
export function* fxrange(
  start = 1,
  stop: number | undefined = undefined,
  step = 1,
  repeatLast = false,
): Generator<number, void, undefined> {
  let last: number | undefined;
  for (let current = start; stop === undefined || current <= stop; current += step) {
    last = current;
    yield current;
  }
  while (repeatLast && last !== undefined) yield last;
}

type ErrorClass = abstract new (...args: never[]) => Error;

export interface RetryOverTimeOptions {
  readonly maxRetries?: number;
  readonly intervalStart?: number;
  readonly intervalStep?: number;
  readonly intervalMax?: number;
  readonly timeout?: number;
  readonly errback?: (error: unknown, interval: number, retries: number) => number | undefined;
  readonly signal?: AbortSignal;
}

export const RETRY_OVER_TIME_OPTIONS: OptionTable<RetryOverTimeOptions> = {
  maxRetries: {
    kind: kinds.integer(0, Number.MAX_SAFE_INTEGER),
    defaultWords: 'for ever',
    doc: 'How often to try again after the first time.',
  },
  intervalStart: { kind: kinds.milliseconds, default: 2000, doc: 'The first wait (ms).' },
  intervalStep: {
    kind: kinds.milliseconds,
    default: 2000,
    doc: 'How much longer each wait is than the one before (ms).',
  },
  intervalMax: { kind: kinds.milliseconds, default: 30_000, doc: 'The longest wait (ms).' },
  timeout: { kind: kinds.milliseconds, defaultWords: 'none', doc: 'No attempt begins after so long (ms).' },
  errback: {
    kind: functionKind(),
    doc: 'Called with (error, interval, retries); a number that it returns is waited instead (ms).',
  },
  signal: { kind: kinds.signal, doc: 'Gives up; rejects with its reason.' },
};

/**
 * Calls `fun`, and again after each error of one of `classes`. Resolves with what it resolves with. Throws the last error, other
 * errors at once, `TimeoutError` (with the last error as `cause`), or the signal's reason.
 */
export async function retryOverTime<T>(
  fun: () => Promise<T> | T,
  classes: ErrorClass | readonly ErrorClass[],
  options: RetryOverTimeOptions = {},
): Promise<T> {
  const given = readOptions('retryOverTime', RETRY_OVER_TIME_OPTIONS, options);
  const { maxRetries = Number.POSITIVE_INFINITY, timeout = Number.POSITIVE_INFINITY, errback, signal } = given;
  const caught = Array.isArray(classes) ? classes : [classes];
  if (typeof fun !== 'function' || !caught.every((each) => typeof each === 'function')) {
    throw new OptionError('retryOverTime: expected a function, and a class of errors or a list of them');
  }
  const end = performance.now() + timeout;
  const { intervalStart: start, intervalStep: step, intervalMax: max } = given;
  for (let retries = 0; ; retries++) {
    signal?.throwIfAborted();
    try {
      return await fun();
    } catch (error) {
      if (retries >= maxRetries || !caught.some((each) => error instanceof each)) throw error;
      const interval = Math.min(start! + retries * step!, max!);
      const wait = errback?.(error, interval, retries) ?? interval;
      if (performance.now() + wait >= end) {
        const text = `retryOverTime: not done within ${timeout} ms: ${String(error)}`;
        throw new TimeoutError(text, { cause: error, details: { milliseconds: timeout } });
      }
      await sleep(wait, undefined, signal === undefined ? {} : { signal }).catch(() => signal?.throwIfAborted());
    }
  }
}
