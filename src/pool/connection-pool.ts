/** Connections with the same parameters. */
import { setImmediate as turn } from 'node:timers/promises';
import { isMainThread } from 'node:worker_threads';
import type { ConnectionParameters } from '../connection-parameters.js';
import { ConnectionLimitExceeded, TimeoutError } from '../errors.js';
import type { Connection } from '../main/connection.js';
import type { Channel } from '../main/entities/channel.js';
import { readOptions } from '../options.js';
import type { ConnectionMember, LoadMembers } from './members.js';
import { ACQUIRE_OPTIONS, type AcquireOptions, ResourcePool } from './resource-pool.js';
import type { Ticket } from './ticket.js';

/** What the broker sent before it hung up is read first, a turn for each read; newer versions of Node poll later in a turn. */
const TURNS = 6;

/** The parameters as a pool of this thread uses them: a worker thread may compute for longer than a broker waits for heartbeats. */
export function pooledParameters(parameters: ConnectionParameters): ConnectionParameters {
  return isMainThread || parameters.heartbeat !== undefined
    ? parameters
    : Object.freeze({ ...parameters, heartbeat: 0 });
}

/**
 * A lease is a `Connection`, which connects when it is first used, if the one before has not. `release()`, or the end of an
 * `await using` block, gives it back; `close()` takes it out of the pool. Leaving the block by an error cannot be told from
 * leaving it in the usual way: call `close()` where a connection may be defective.
 */
export class ConnectionPool extends ResourcePool<ConnectionMember, Connection> {
  protected override readonly LimitExceeded = ConnectionLimitExceeded;
  readonly #parameters: ConnectionParameters;
  readonly #load: LoadMembers;

  /** @internal */
  constructor(parameters: ConnectionParameters, load: LoadMembers, limit?: number) {
    super(limit);
    this.#parameters = pooledParameters(parameters);
    this.#load = load;
  }

  /** A connection and its default channel, within the same `timeout`; both are over when the connection is given back. */
  async acquireChannel(options: AcquireOptions = {}): Promise<[connection: Connection, channel: Channel]> {
    const { timeout, signal } = readOptions('acquireChannel', ACQUIRE_OPTIONS, options);
    const end = performance.now() + timeout!;
    const connection = await this.acquire(options);
    try {
      const left = Math.max(0, end - performance.now());
      const channel = await connection.defaultChannel({ timeout: left, ...(signal !== undefined && { signal }) });
      return [connection, channel];
    } catch (error) {
      // A broker that has not answered would not answer a goodbye either.
      await connection.close(error instanceof TimeoutError ? { timeout: 0 } : {});
      throw error;
    }
  }

  protected override async make(): Promise<ConnectionMember> {
    const members = await this.#load();
    return members.connection(this.#parameters);
  }

  protected override lend(member: ConnectionMember, ticket: Ticket): Connection {
    return member.lend(ticket);
  }

  protected override usable(member: ConnectionMember): boolean {
    return member.usable;
  }

  protected override async stillUsable(member: ConnectionMember): Promise<boolean> {
    // A thread that was busy has not heard yet that the broker hung up.
    for (let i = 0; i < TURNS && member.usable; i++) await turn();
    return member.usable;
  }

  protected override destroy(member: ConnectionMember): Promise<void> {
    return member.destroy();
  }
}
