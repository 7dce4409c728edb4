/** 1,000,000 messages: memory does not grow, and at the end nothing is left in ledger, lane or arena. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Connection, Queue, ShardedConsumer } from '#src/index';
import { sharedBroker, uniqueName } from '../support/rabbitmq.js';
import { until } from '../support/rig.js';

const TOTAL = Number(process.env.MOZUKU_SOAK_MESSAGES ?? 1_000_000);
const MiB = 1024 * 1024;

test('memory is flat over a million messages, and nothing is left over', { timeout: 1_800_000 }, async () => {
  const broker = sharedBroker();
  assert.ok(broker !== undefined, 'this soak needs a RabbitMQ');
  const queue = new Queue(uniqueName('million'));
  const connection = new Connection(broker.url);
  await queue.declare(connection);
  const counts: number[] = [];
  const ignore = (): void => undefined;
  await using consumer = new ShardedConsumer(connection, queue, {
    handler: new URL('./handlers-count.js', import.meta.url),
    workers: 2,
    prefetchCount: 1000,
    logger: {
      debug: ignore,
      info: (fields) => counts.push((fields as { count: number }).count),
      warn: ignore,
      error: ignore,
    },
  });
  await consumer.consume();
  const producer = connection.Producer({ routingKey: queue.name });
  const pad = 'x'.repeat(170);
  let at300 = 0;
  for (let from = 0; from < TOTAL; from += 1000) {
    await Promise.all(
      Array.from({ length: Math.min(1000, TOTAL - from) }, (_, i) => producer.publish({ id: from + i, pad })),
    );
    if (at300 === 0 && consumer.stats().acked >= TOTAL * 0.3) at300 = process.memoryUsage().rss;
  }
  // An ack is counted when it is due, and written a moment later, with others.
  const done = (): boolean => consumer.stats().acked >= TOTAL && consumer.stats().unsettled === 0;
  await until('everything is acked, and written', done, { timeoutMs: 600_000 });
  const atEnd = process.memoryUsage().rss;
  const { unsettled, waiting, inFlight, held, arena, redelivered } = consumer.stats();
  await consumer.close();
  await queue.bind(connection).delete();
  await connection.close();
  const handled = counts.reduce((sum, count) => sum + count, 0);
  const grown = (atEnd - at300) / MiB;
  console.log(`handled: asked ${TOTAL}, measured ${handled}, redelivered ${redelivered}`);
  console.log(
    `RSS from 30 % to the end: asked within 10 % or 20 MiB, measured ${(at300 / MiB).toFixed(0)} to ${(atEnd / MiB).toFixed(0)} MiB (${grown.toFixed(1)} MiB)`,
  );
  console.log(
    `left over: asked 0, measured unsettled ${unsettled}, waiting ${waiting}, in flight ${inFlight}, held ${held}, arena ${arena.used} B`,
  );
  assert.equal(handled, TOTAL);
  assert.ok(grown <= Math.max(20, (at300 / MiB) * 0.1), `RSS grew by ${grown.toFixed(1)} MiB`);
  assert.deepEqual([unsettled, waiting, inFlight, held, arena.used], [0, 0, 0, 0, 0]);
});
