/**
 * What an entity can talk to the broker through: a connection, whose default channel is used, or a channel. Entities are
 * immutable; binding one gives a copy that remembers its target.
 */
import type * as amqplib from 'amqplib';
import { NotBoundError, OptionError } from '../../errors.js';
import { type Kind, kinds, type OptionTable, readOptions } from '../../options.js';
import { withDeadline } from '../deadline.js';
import { CALL_TIMEOUT, type CallOptions, Channel } from './channel.js';

/** The part of `Connection` that entities need; naming the class itself would make a circle of imports. */
export interface ChannelSource {
  readonly closed: boolean;
  defaultChannel(): Promise<Channel>;
  /** A new one, to be closed by whoever asked for it. */
  channel(options?: CallOptions): Promise<Channel>;
  /** Where producers of a pool share a channel: that one. */
  publishingChannel?(): Promise<Channel>;
}

export type Target = ChannelSource | Channel;

export function isTarget(value: unknown): value is Target {
  return value instanceof Channel || typeof (value as Partial<ChannelSource> | null)?.defaultChannel === 'function';
}

export const targetKind: Kind<Target> = kinds.custom('a Connection or a Channel', isTarget);

/** For option tables: a function of a certain type, of which only that it is one can be checked. */
export function functionKind<T extends (...args: never[]) => unknown>(): Kind<T> {
  return kinds.custom<T>('a function', (value) => typeof value === 'function');
}

/** What every method takes that asks the broker. */
export const CALL_OPTIONS: OptionTable<CallOptions> = {
  timeout: { kind: kinds.milliseconds, defaultWords: '10 s', doc: 'Until the answer (ms).' },
  signal: { kind: kinds.signal, doc: 'Stops waiting; what was asked for may have been done.' },
};

/** For methods that take nothing else. Throws `OptionError`. */
export function readCallOptions(owner: string, options: CallOptions | undefined): CallOptions {
  return readOptions<CallOptions>(owner, CALL_OPTIONS, options);
}

/** `given`, else what the entity is bound to. Throws `NotBoundError` if there is neither. */
export function targetOf(given: Target | undefined, bound: Target | undefined, who: string): Target {
  const target = given ?? bound;
  if (target === undefined) {
    throw new NotBoundError(`${who} is not bound: pass a connection or channel, or bind() it to one first`);
  }
  if (!isTarget(target)) throw new OptionError(`${who}: expected ${targetKind.words}`);
  return target;
}

/** The target itself, or a connection's default channel. It connects in its own time, but no longer than the caller waits. */
export function channelOf(target: Target, doing: string, { timeout, signal }: CallOptions): Promise<Channel> {
  if (target instanceof Channel) return Promise.resolve(target);
  return withDeadline(target.defaultChannel(), doing, timeout ?? 0x7fffffff, signal);
}

type Method<T> = (raw: amqplib.ConfirmChannel, channel: Channel) => Promise<T>;

/**
 * Asks the broker on a channel, or on a connection's default channel. That one is shared: where the broker closes it over
 * another question, this one is asked again, on a channel of its own. Throws as `Channel.call`.
 */
export async function ask<T>(target: Target, doing: string, method: Method<T>, options: CallOptions = {}): Promise<T> {
  const began = performance.now();
  const first = await channelOf(target, doing, options);
  try {
    return await first.call(doing, (raw) => method(raw, first), rest(options, began));
  } catch (error) {
    if (target instanceof Channel || !first.closedOverAnother(error)) throw error;
  }
  const own = await target.channel(rest(options, began));
  try {
    return await own.call(doing, (raw) => method(raw, own), rest(options, began));
  } finally {
    await own.close();
  }
}

/** The same for what is still of use of the channel after the answer: it is asked again on the next default channel. */
export async function askAndStay<T>(
  target: Target,
  doing: string,
  method: Method<T>,
  options: CallOptions,
  late: (answer: T) => void,
): Promise<T> {
  const began = performance.now();
  for (;;) {
    const channel = await channelOf(target, doing, rest(options, began));
    try {
      return await channel.call(doing, (raw) => method(raw, channel), rest(options, began), late);
    } catch (error) {
      const over = performance.now() - began >= (options.timeout ?? CALL_TIMEOUT);
      if (over || target instanceof Channel || !channel.closedOverAnother(error)) throw error;
    }
  }
}

/** What is left of a timeout that somebody has set; the default is each question's own. */
function rest({ timeout, signal }: CallOptions, began: number): CallOptions {
  const left = timeout === undefined ? {} : { timeout: Math.max(0, timeout - (performance.now() - began)) };
  return { ...left, ...(signal === undefined ? {} : { signal }) };
}

/** Sorts out `(target, options)` and `(options)`. */
export function targetFirst<Options extends object>(
  first: Target | Options | undefined,
  second: Options | undefined,
): [target: Target | undefined, options: Options | undefined] {
  return isTarget(first) ? [first, second] : [undefined, first ?? second];
}

/** A copy of a table that cannot be changed from outside, or undefined. */
export function frozenTable(table: Record<string, unknown> | undefined): Readonly<Record<string, unknown>> | undefined {
  return table === undefined ? undefined : Object.freeze({ ...table });
}
