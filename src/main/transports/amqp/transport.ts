/** AMQP 0-9-1: connections by amqplib, sharded consumers by the tap. */
import type { Transport } from '../transport.js';
import { openHost } from './client.js';
import { AmqpSource } from './source.js';

export const amqpTransport: Transport = {
  hasPolicies: true,
  open: openHost,
  source: (options, events) => new AmqpSource(options, events),
};
