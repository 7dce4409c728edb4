/**
 * What the pools hold, as they know it. They run on every thread, but what opens sockets is loaded only where, and when,
 * somebody acquires a connection.
 */

import type { ConnectionParameters } from '../connection-parameters.js';
import type { Connection } from '../main/connection.js';
import type { Producer } from '../main/producer.js';
import type { Ticket } from './ticket.js';

/** A connection that outlives those that it is lent to. */
export interface ConnectionMember {
  /** False once it was lost, or made to connect elsewhere. */
  readonly usable: boolean;
  lend(ticket: Ticket): Connection;
  /** Never rejects. */
  destroy(): Promise<void>;
}

export interface Members {
  /** Does no I/O. */
  connection(parameters: ConnectionParameters): ConnectionMember;
  /** A producer that publishes through a connection of a pool, and gives both back. */
  producer(connection: Connection, ticket: Ticket): Producer;
}

export type LoadMembers = () => Promise<Members>;

export const loadMembers: LoadMembers = async () => (await import('../main/pool-members.js')).members;
