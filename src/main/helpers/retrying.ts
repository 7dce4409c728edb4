/** Doing something with the broker again until it succeeds: what failed may be the connection, not the deed. */
import { ChannelError, ClosedError, ConnectionError, ResourceLocked, TimeoutError } from '../../errors.js';
import { kinds, type OptionTable, readOptions } from '../../options.js';
import { RETRY_POLICY } from '../../pool/publication.js';
import { withDeadline } from '../deadline.js';
import type { Channel } from '../entities/channel.js';
import { type ChannelSource, functionKind } from '../entities/target.js';
import { isRecoverable, pause, reconnectDelay } from '../transports/reconnect.js';

export interface RepeatOptions {
  readonly maxRetries?: number;
  readonly intervalStart?: number;
  readonly intervalMax?: number;
  readonly errback?: (error: unknown, interval: number) => void;
  readonly timeout?: number;
  readonly signal?: AbortSignal;
}

export const REPEAT_OPTIONS: OptionTable<RepeatOptions> = {
  ...RETRY_POLICY,
  errback: { kind: functionKind(), doc: 'Called with each error and the milliseconds until the next attempt.' },
  timeout: { kind: kinds.milliseconds, default: 30_000, doc: 'For all attempts together (ms).' },
  signal: { kind: kinds.signal, doc: 'Gives up; the promise rejects with its reason.' },
};

/** True for failures of the connection or channel that may have passed by the next attempt. */
export function isPassing(error: unknown): boolean {
  return isRecoverable(error) || error instanceof ResourceLocked || error instanceof ClosedError;
}

/**
 * Calls `attempt` until it succeeds or fails for good, options checked by `REPEAT_OPTIONS`. Throws its last error, `TimeoutError`
 * (with that as `cause`), or the signal's reason; an attempt under way then runs on, and how it ends is of no interest.
 */
export async function repeating<T>(
  doing: string,
  given: RepeatOptions,
  attempt: (count: number) => Promise<T>,
  again: (error: unknown) => boolean,
): Promise<T> {
  const { maxRetries = Number.POSITIVE_INFINITY, intervalStart, intervalMax, errback, timeout, signal } = given;
  const end = performance.now() + timeout!;
  let failure: unknown;
  for (let count = 0; ; count++) {
    try {
      return await withDeadline(attempt(count), doing, Math.max(0, end - performance.now()), signal);
    } catch (error) {
      if (signal?.aborted || count >= maxRetries || !again(error)) throw error;
      const wait = reconnectDelay(count, { initial: intervalStart!, max: intervalMax! });
      // An attempt that the deadline has cut short says nothing; the one before it does.
      if (failure === undefined || performance.now() < end) failure = error;
      if (performance.now() + wait >= end) {
        const text = `${doing}: not done within ${timeout} ms: ${failure instanceof Error ? failure.message : String(failure)}`;
        throw new TimeoutError(text, { cause: failure, details: { milliseconds: timeout } });
      }
      errback?.(error, wait);
      await pause(wait, signal);
      signal?.throwIfAborted();
    }
  }
}

/** A connection that a pool lends. */
export interface LentConnection extends ChannelSource {
  release(): unknown;
  /** Before it is given back, where it is of no use to anybody. */
  close?(options: { timeout: number }): unknown;
}

/** The part of a pool of connections that `insured` needs. */
export interface ConnectionLender<Lent extends LentConnection = LentConnection> {
  acquire(options: { block: true; timeout: number; signal?: AbortSignal }): Promise<Lent>;
}

export interface InsuredOptions extends RepeatOptions {
  readonly onRevive?: (channel: Channel) => void;
}

export const INSURED_OPTIONS: OptionTable<InsuredOptions> = {
  ...REPEAT_OPTIONS,
  onRevive: { kind: functionKind(), doc: 'Called with the new channel before each attempt but the first.' },
};

/**
 * Borrows a connection from `pool`, calls `fun(connection, channel)` with its default channel, calls it again with a new one if the
 * connection or channel fails, and gives the connection back; after a `TimeoutError` it is closed instead, so that nobody else
 * waits for the same silent broker. Resolves with what it resolves with. Throws what `fun` throws otherwise, and `TimeoutError`.
 * Whatever `fun` does is done again: a message it had published may be there twice. It is not called any more after the end.
 */
export async function insured<T, Lent extends LentConnection>(
  pool: ConnectionLender<Lent>,
  fun: (connection: Lent, channel: Channel) => Promise<T> | T,
  options: InsuredOptions = {},
): Promise<T> {
  const given = readOptions('insured', INSURED_OPTIONS, options);
  const { signal, timeout, onRevive } = given;
  const connection = await pool.acquire({
    block: true,
    timeout: timeout!,
    ...(signal === undefined ? {} : { signal }),
  });
  let over = false;
  let silent = false;
  try {
    const attempt = async (count: number): Promise<T> => {
      const channel = await connection.defaultChannel();
      if (over) throw new ClosedError('insured: the connection was given back while its channel was being opened');
      if (count > 0) onRevive?.(channel);
      return fun(connection, channel);
    };
    return await repeating('insured', given, attempt, (error) => isPassing(error) && !connection.closed);
  } catch (error) {
    silent = error instanceof TimeoutError;
    throw error;
  } finally {
    over = true;
    if (silent) await connection.close?.({ timeout: 0 });
    await connection.release();
  }
}

type ErrorClass = abstract new (...args: never[]) => Error;

/** What says itself which errors are its connection's and its channels'; every other connection has those of this library. */
export interface KnowsItsErrors {
  readonly connectionErrors: readonly ErrorClass[];
  readonly channelErrors: readonly ErrorClass[];
}

const CONNECTION_ERRORS: readonly ErrorClass[] = [ConnectionError, ClosedError, TimeoutError];

/**
 * Calls `fun` and takes no notice if the connection or channel fails meanwhile: then it resolves with undefined. For clearing up
 * only, when things may be gone already. Throws everything else.
 */
export async function ignoreErrors<T>(
  connection: Partial<KnowsItsErrors> | object,
  fun: () => Promise<T> | T,
): Promise<T | undefined> {
  const { connectionErrors = CONNECTION_ERRORS, channelErrors = [ChannelError] } =
    connection as Partial<KnowsItsErrors>;
  try {
    return await fun();
  } catch (error) {
    if ([...connectionErrors, ...channelErrors].some((each) => error instanceof each)) return undefined;
    throw error;
  }
}
