// Makes thumbnails on worker threads, until Ctrl-C: node examples/thumbnails/consumer.mjs
// AMQP_URL names the broker, OUT the folder for the thumbnails.

import { Connection, Queue, ShardedConsumer } from 'mozuku';

const connection = new Connection(process.env.AMQP_URL ?? 'amqp://guest:guest@localhost:5672//');
const consumer = new ShardedConsumer(connection, new Queue('thumbnails'), {
  handler: new URL('./handler.mjs', import.meta.url),
  workers: 2,
  // Pictures come as msgpack, which must be asked for.
  accept: ['msgpack'],
  timeout: 10_000,
  // The workers' context.logger ends here.
  logger: console,
});

consumer.on('failed', ({ error, messageId, outcome }) => console.error(`${messageId}: ${error.message} (${outcome})`));
consumer.on('worker', ({ id, state, reason }) => console.log(`worker ${id} ${state}${reason ? `: ${reason}` : ''}`));
consumer.on('disconnected', (error) => console.error(error.message));

for (const signal of ['SIGINT', 'SIGTERM']) {
  // Takes no more, finishes what runs, gives the rest back to the queue.
  process.once(signal, () => consumer.close());
}

await consumer.consume();
console.log('waiting for pictures; Ctrl-C ends it');
await consumer.closed;
const { acked, deadLettered, latency } = consumer.stats();
console.log(`${acked} thumbnails, ${deadLettered} dead letters; 99 % settled within ${latency.p99.toFixed(0)} ms`);
await connection.close();
