/** A consumer to be killed: `redis-soak-consumer.js URL QUEUE KIND PREFETCH TRANSPORT-OPTIONS`. Its effects go to MOZUKU_EFFECTS. */
import { openSync, writeSync } from 'node:fs';
import { Connection, Queue, ShardedConsumer } from '#src/index';
import { EFFECTS_HANDLER } from './rig.js';

const [, , url = '', name = '', kind = '', prefetch = '', options = ''] = process.argv;
const connection = new Connection(url, { transportOptions: JSON.parse(options) as Record<string, unknown> });
const queue = new Queue(name);
const prefetchCount = Number(prefetch);
if (kind === 'sharded') {
  const handler = { handler: EFFECTS_HANDLER, workers: 1, concurrency: 8 };
  await new ShardedConsumer(connection, queue, { ...handler, prefetchCount }).consume();
} else {
  const log = openSync(process.env.MOZUKU_EFFECTS!, 'a');
  await connection
    .Consumer([queue], {
      prefetchCount,
      onMessage: async (message) => {
        const { id, ms } = message.payload as { id: string; ms: number };
        await new Promise((resolve) => setTimeout(resolve, ms));
        writeSync(log, `${id} 0\n`);
        message.ack();
      },
    })
    .consume();
}
console.log('consuming');
