/**
 * What an entity can talk to the broker through: a connection, whose default channel is used, or a channel. Entities are
 * immutable; binding one gives a copy that remembers its target.
 */
import { NotBoundError, OptionError } from '../../errors.js';
import { type Kind, kinds } from '../../options.js';
import { type CallOptions, Channel } from './channel.js';

/** The part of `Connection` that entities need; naming the class itself would make a circle of imports. */
export interface ChannelSource {
  readonly closed: boolean;
  defaultChannel(): Promise<Channel>;
  channel(options?: CallOptions): Promise<Channel>;
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

/** The channel to use: of `given`, else of what the entity is bound to. Throws `NotBoundError` if there is neither. */
export async function channelOf(given: Target | undefined, bound: Target | undefined, who: string): Promise<Channel> {
  const target = given ?? bound;
  if (target === undefined) {
    throw new NotBoundError(`${who} is not bound: pass a connection or channel, or bind() it to one first`);
  }
  if (!isTarget(target)) throw new OptionError(`${who}: expected ${targetKind.words}`);
  return target instanceof Channel ? target : target.defaultChannel();
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
