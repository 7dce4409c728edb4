/** The transports there are, and the one way to open a connection. */
import type { KombuError } from '../../errors.js';
import type { ConnectionParameters } from '../url.js';
import { connectableTransport } from '../url.js';
import { amqpTransport } from './amqp/transport.js';
import { openFirst } from './failover.js';
import { memoryTransport } from './memory/transport.js';
import { redisTransport } from './redis/transport.js';
import type { BrokerConnection, OpenOptions, Transport } from './transport.js';

const REDIS = new Set(['redis', 'rediss', 'redis+socket', 'sentinel']);

/** Throws `TransportNotAvailable`. */
export function transportOf({ transport }: ConnectionParameters): Transport {
  connectableTransport(transport);
  if (transport === 'memory') return memoryTransport;
  return REDIS.has(transport) ? redisTransport : amqpTransport;
}

/** Connects to the first of the hosts that answers; see `openFirst` for what it throws and what `onFailure` hears. */
export function openConnection(
  parameters: ConnectionParameters,
  options: OpenOptions = {},
  onFailure?: (error: KombuError) => void,
): Promise<BrokerConnection> {
  return openFirst(parameters, options.signal, (host) => transportOf(host).open(host, options), onFailure);
}
