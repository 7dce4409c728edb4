/**
 * Pools of connections and producers, in groups that find the pool by what it connects to. The two groups of the process,
 * `connections` and `producers`, share a limit; on a worker thread they are the thread's own.
 */
import { connectionKey } from '../connection-key.js';
import { type ConnectionOptions, type ConnectionParameters, readParameters } from '../connection-parameters.js';
import { OptionError } from '../errors.js';
import type { Connection } from '../main/connection.js';
import { kinds, type OptionTable, readOptions } from '../options.js';
import { ChannelPool, type PooledChannel } from './channel-pool.js';
import { ConnectionPool, pooledParameters } from './connection-pool.js';
import { loadMembers } from './members.js';
import { ProducerPool } from './producer-pool.js';
import { type AcquireOptions, type ResizeOptions, ResourcePool, readLimit } from './resource-pool.js';
import type { Ticket } from './ticket.js';

export {
  type AcquireOptions,
  ChannelPool,
  ConnectionPool,
  type PooledChannel,
  ProducerPool,
  type ResizeOptions,
  ResourcePool,
  type Ticket,
};

/** As a group's limit: the one of the process (`getLimit`), also when it changes. */
export const useGlobalLimit: unique symbol = Symbol('useGlobalLimit');

export type GroupLimit = number | typeof useGlobalLimit;

/** What a pool can be asked for by: a connection, its URL or URLs, or its parameters. */
export type PoolTarget = Connection | ConnectionOptions | ConnectionParameters | string | URL | readonly string[];

const limitKind = kinds.custom<GroupLimit>(
  'a whole number, 0 for no limit, or useGlobalLimit',
  (value) => value === useGlobalLimit || kinds.integer(0, 0x7fffffff).test(value),
);

export interface PoolGroupOptions {
  readonly limit?: GroupLimit | undefined;
}

const GROUP_OPTIONS: OptionTable<PoolGroupOptions> = {
  limit: { kind: limitKind, default: 0, defaultWords: 'no limit', doc: 'Of each pool of the group.' },
};

export interface ProducersOptions extends PoolGroupOptions {
  readonly connections?: Connections;
}

function parametersOf(target: PoolTarget): ConnectionParameters {
  if (typeof target === 'string' || Array.isArray(target)) return readParameters(target as string | string[], {});
  if (target instanceof URL) return readParameters(target.href, {});
  if (!kinds.object.test(target)) {
    throw new OptionError('pools: expected a Connection, a URL, a list of URLs, or parameters of a connection');
  }
  // A connection has `parameters`, which as an option is not known.
  if ('parameters' in target) return (target as unknown as Connection).parameters;
  return readParameters(undefined, target as ConnectionOptions);
}

/** What a group needs of the pools in it. */
type AnyPool = Pick<ResourcePool<never, unknown>, 'limit' | 'inUse' | 'mayBecome' | 'resize' | 'forceCloseAll'>;

/** Pools by what they connect to: equal parameters, one pool. */
export abstract class PoolGroup<Pool extends AnyPool> {
  /** Of each pool; 0: none. */
  readonly limit: GroupLimit;
  readonly #pools = new Map<string, Pool>();

  constructor(options: PoolGroupOptions = {}) {
    this.limit = readOptions('PoolGroup', GROUP_OPTIONS, options).limit!;
  }

  /** A new pool. */
  protected abstract create(parameters: ConnectionParameters, limit: number): Pool;

  /** The pool for connections such as this one, made if there is none. Does no I/O. Throws what `new Connection` throws. */
  get(target: PoolTarget): Pool {
    const parameters = pooledParameters(parametersOf(target));
    const key = connectionKey(parameters);
    let pool = this.#pools.get(key);
    if (pool === undefined) {
      pool = this.create(parameters, this.limit === useGlobalLimit ? globalLimit : this.limit);
      this.#pools.set(key, pool);
    }
    return pool;
  }

  /** True if there is a pool for such connections. */
  has(target: PoolTarget): boolean {
    return this.#pools.has(connectionKey(pooledParameters(parametersOf(target))));
  }

  /** The pools there are. */
  values(): IterableIterator<Pool> {
    return this.#pools.values();
  }

  get size(): number {
    return this.#pools.size;
  }

  /** Closes all pools, also what is in use, and forgets them. */
  async reset(): Promise<void> {
    const pools = [...this.#pools.values()];
    this.#pools.clear();
    await Promise.all(pools.map((pool) => pool.forceCloseAll()));
  }
}

/** Pools of connections. `new Connections({ limit })`: of each pool; without one, or with 0, there is none. */
export class Connections extends PoolGroup<ConnectionPool> {
  protected override create(parameters: ConnectionParameters, limit: number): ConnectionPool {
    return new ConnectionPool(parameters, loadMembers, limit);
  }
}

const PRODUCERS_OPTIONS: OptionTable<ProducersOptions> = {
  ...GROUP_OPTIONS,
  connections: {
    kind: kinds.custom<Connections>('a Connections', (value) => value instanceof Connections),
    defaultWords: 'a group of its own with the same limit; with `useGlobalLimit` the one of the process',
    doc: 'Where the connections come from.',
  },
};

/** Pools of producers. A producer has a connection of `connections` while it is lent, and only then. */
export class Producers extends PoolGroup<ProducerPool> {
  readonly connections: Connections;
  readonly #own: boolean;

  constructor(options: ProducersOptions = {}) {
    const { limit, connections: given } = readOptions('Producers', PRODUCERS_OPTIONS, options);
    super({ limit });
    this.#own = given === undefined && limit !== useGlobalLimit;
    this.connections = given ?? (this.#own ? new Connections({ limit }) : connections);
  }

  /** Also the connections, if the group has its own. */
  override async reset(): Promise<void> {
    await super.reset();
    if (this.#own) await this.connections.reset();
  }

  protected override create(parameters: ConnectionParameters, limit: number): ProducerPool {
    return new ProducerPool(this.connections.get(parameters), loadMembers, limit);
  }
}

let globalLimit = 10;
const groups = new Set<PoolGroup<AnyPool>>();

/** Makes `setLimit` (if its limit is `useGlobalLimit`) and `reset` reach a group of one's own. Gives the group. */
export function registerGroup<Group extends PoolGroup<AnyPool>>(group: Group): Group {
  groups.add(group);
  return group;
}

/** The connections of this process: at most `getLimit()` to each place. */
export const connections = registerGroup(new Connections({ limit: useGlobalLimit }));

/** The producers of this process. */
export const producers = registerGroup(new Producers({ limit: useGlobalLimit }));

/** The most connections, and the most producers, for each place; 0: no limit. */
export function getLimit(): number {
  return globalLimit;
}

/**
 * Changes that limit, also of the pools there are; gives it. It may grow at any time. Throws `LimitExceeded`, and changes nothing,
 * if it is lowered while anything of theirs is in use.
 */
export function setLimit(limit: number): number {
  const checked = readLimit('setLimit', limit);
  const pools = [...groups].filter((group) => group.limit === useGlobalLimit).flatMap((group) => [...group.values()]);
  for (const pool of pools) pool.mayBecome(checked);
  globalLimit = checked;
  for (const pool of pools) pool.limit = checked;
  return checked;
}

/** Closes all pools of all registered groups, also what is in use, and forgets them. Call it before a program ends. */
export async function reset(): Promise<void> {
  await Promise.all([...groups].map((group) => group.reset()));
}
