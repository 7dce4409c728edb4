/** The embedded broker: `memory://` is this thread's own, `memory://name` another one. See docs/memory.md. */

import type { ConnectionParameters } from '../../url.js';
import type { OpenOptions, Transport } from '../transport.js';
import { MemoryConnection } from './connection.js';
import { MemorySource } from './source.js';

export const memoryTransport: Transport = {
  hasPolicies: true,
  open: async (parameters: ConnectionParameters, { signal }: OpenOptions) => {
    signal?.throwIfAborted();
    return new MemoryConnection(parameters);
  },
  source: (options, events) => new MemorySource(options, events),
};
