/** Redis, in kombu's keys and envelopes. See docs/redis.md. */
import type { Transport } from '../transport.js';
import { RedisConnection } from './connection.js';
import { RedisSource } from './source.js';

export const redisTransport: Transport = {
  hasPolicies: false,
  open: (parameters, options) => RedisConnection.open(parameters, options),
  source: (options, events) => new RedisSource(options, events),
};
