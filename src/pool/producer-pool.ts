/** Producers, each of which has a connection of another pool for as long as it is lent. */
import type { Connection } from '../main/connection.js';
import type { Producer } from '../main/producer.js';
import type { ConnectionPool } from './connection-pool.js';
import type { LoadMembers } from './members.js';
import { type AcquireOptions, ResourcePool } from './resource-pool.js';
import type { Ticket } from './ticket.js';

interface Lent {
  connection: Connection | undefined;
}

/**
 * A lease is a `Producer`. `release()`, or the end of an `await using` block, waits for what is being published and gives it and
 * its connection back; `close()` does the same, but takes the connection out of its pool.
 */
export class ProducerPool extends ResourcePool<Lent, Producer> {
  /** Where the connections come from. */
  readonly connections: ConnectionPool;
  readonly #load: LoadMembers;

  /** @internal */
  constructor(connections: ConnectionPool, load: LoadMembers, limit?: number) {
    super(limit);
    this.connections = connections;
    this.#load = load;
  }

  protected override make(): Lent {
    return { connection: undefined };
  }

  protected override async lend(lent: Lent, ticket: Ticket, options: AcquireOptions): Promise<Producer> {
    const members = await this.#load();
    const connection = await this.connections.acquire(options);
    lent.connection = connection;
    return members.producer(connection, ticket);
  }

  /** The connection, if the producer still has it: one that was given back is not closed by this. */
  protected override async destroy(lent: Lent): Promise<void> {
    await lent.connection?.close();
  }
}
