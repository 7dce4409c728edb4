/** What the pools hold; loaded by the first `acquire()` of a thread. */
import type { Members } from '../pool/members.js';
import { connectionMember } from './connection.js';
import { PooledProducer } from './pooled-producer.js';

export const members: Members = {
  connection: connectionMember,
  producer: (connection, ticket) => new PooledProducer(connection, ticket),
};
