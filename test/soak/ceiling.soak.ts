/** The arena at its ceiling for three minutes: memory stays bounded, the connection lives, everything is handled in the end. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Connection, Queue } from '#src/index';
import { sharedBroker, uniqueName, waitForQueue } from '../support/rabbitmq.js';
import { consumerOf, EffectsLog, until } from '../support/rig.js';

const SECONDS = Number(process.env.MOZUKU_SOAK_SECONDS ?? 180);
const MiB = 1024 * 1024;
const BODY = 4 * MiB;

test('at the ceiling memory is bounded, nobody is disconnected, and all is handled', {
  timeout: 1_800_000,
}, async () => {
  const broker = sharedBroker();
  assert.ok(broker !== undefined, 'this soak needs a RabbitMQ');
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('ceiling'));
  const connection = new Connection(broker.url);
  await queue.declare(connection);
  const producer = connection.Producer({ routingKey: queue.name });
  await using consumer = consumerOf(broker.url, queue, { workers: 2, maxMemory: 32 * MiB, prefetchCount: 64 });
  let disconnected = 0;
  let pressure = 0;
  consumer.on('disconnected', () => disconnected++);
  consumer.on('pressure', () => pressure++);
  await consumer.consume();
  const pad = 'x'.repeat(BODY - 100);
  const until180 = performance.now() + SECONDS * 1000;
  let published = 0;
  let atStart = 0;
  let most = 0;
  const handled = (): number => consumer.stats().acked;
  while (performance.now() < until180) {
    // More than the prefetch, less than what would fill the broker's memory.
    if (published - handled() < 100) {
      await Promise.all(
        Array.from({ length: 10 }, (_, i) => producer.publish({ id: published + i, do: 'busy', ms: 75, pad })),
      );
      published += 10;
    } else {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const { rss } = process.memoryUsage();
    if (atStart === 0 && published >= 200) atStart = rss;
    most = Math.max(most, rss);
  }
  await until('all are handled', () => handled() >= published, { timeoutMs: 600_000, state: () => consumer.stats() });
  await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 0 && unacked === 0);
  const { shed, redelivered, arena } = consumer.stats();
  await consumer.close();
  await queue.bind(connection).delete();
  await connection.close();
  const counts = effects.counts();
  const grown = (most - atStart) / MiB;
  console.log(
    `ceiling: asked ${SECONDS} s, ${published} bodies of 4 MiB in 32 MiB; shed ${shed}, redelivered ${redelivered}, pressure events ${pressure}`,
  );
  console.log(`disconnects: asked 0, measured ${disconnected}`);
  console.log(
    `handled once: asked ${published}, measured ${[...counts.values()].filter((count) => count === 1).length}`,
  );
  console.log(
    `RSS: asked bounded, measured ${(atStart / MiB).toFixed(0)} MiB at the start, ${(most / MiB).toFixed(0)} MiB at most`,
  );
  assert.equal(disconnected, 0);
  assert.ok(shed > 0 && pressure > 0, 'the ceiling was not reached');
  assert.equal(counts.size, published);
  assert.ok([...counts.values()].every((count) => count === 1));
  // The publisher's own buffers are in this process too: what matters is that it does not go on growing.
  assert.ok(grown < 250, `RSS grew by ${grown.toFixed(0)} MiB`);
  assert.equal(arena.used, 0);
});
