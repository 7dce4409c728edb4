/** A service as users write it, for tests that send it signals: `child-consumer.js URL QUEUE`. */
import { Connection, Queue, ShardedConsumer } from '#src/index';
import { EFFECTS_HANDLER } from './rig.js';

const [, , url = '', queue = ''] = process.argv;
const consumer = new ShardedConsumer(new Connection(url), new Queue(queue), {
  handler: EFFECTS_HANDLER,
  workers: 2,
  concurrency: 4,
});
await consumer.consume();
process.once('SIGTERM', () => consumer.close());
await consumer.closed;
