/** A consumer in a process of its own that a test kills: `child-redis-consumer.js URL QUEUE VISIBILITY`. Says when it consumes. */
import { Connection, Queue, ShardedConsumer } from '#src/index';
import { EFFECTS_HANDLER } from './rig.js';

const [, , url = '', queue = '', visibility = ''] = process.argv;
const connection = new Connection(url, { transportOptions: { visibilityTimeout: Number(visibility) } });
const consumer = new ShardedConsumer(connection, new Queue(queue), {
  handler: EFFECTS_HANDLER,
  workers: 1,
  concurrency: 4,
});
await consumer.consume();
process.stdout.write('consuming\n');
await consumer.closed;
