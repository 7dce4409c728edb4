/** Ends: close() and SIGTERM in mid-flight lose nothing and repeat nothing; a callback that never ends does not hold them. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Connection, errors, Queue } from '#src/index';
import { brokerTest, queueStats, uniqueName, waitForQueue } from '../support/rabbitmq.js';
import { consumerOf, EffectsLog, publishAll, until } from '../support/rig.js';

const CHILD = new URL('../support/child-consumer.js', import.meta.url).pathname;
const sleepers = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ body: { id: i, do: 'sleep', ms: 20 + (i % 30) } }));

async function deleteQueue(url: string, queue: Queue): Promise<void> {
  const connection = new Connection(url);
  await queue.bind(connection).delete();
  await connection.close();
}

brokerTest('close() in mid-flight: what was published is handled once or ready again', async (broker) => {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('close'));
  const published = await publishAll(broker.url, queue, sleepers(300));
  const consumer = consumerOf(broker.url, queue, { concurrency: 4 });
  await consumer.consume();
  await until('some are handled', () => effects.read().length >= 50);
  const closing = consumer.close();
  assert.equal(consumer.close(), closing, 'closing twice is closing once');
  await closing;
  await consumer.closed;
  const { ready, unacked } = await queueStats(broker.ctl, queue.name);
  const handled = effects.counts();
  assert.equal(unacked, 0);
  assert.equal(handled.size + ready, published);
  assert.ok([...handled.values()].every((count) => count === 1));
  assert.ok(ready > 0, 'it was closed in mid-flight');
  assert.equal(consumer.stats().state, 'closed');
  await assert.rejects(consumer.consume(), errors.ClosedError);
  await deleteQueue(broker.url, queue);
});

brokerTest('SIGTERM in mid-flight: the process finishes what runs and exits by itself', async (broker) => {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('sigterm'));
  const published = await publishAll(broker.url, queue, sleepers(300));
  const child = spawn(process.execPath, [CHILD, broker.url, queue.name], { stdio: ['ignore', 'inherit', 'inherit'] });
  const exited = once(child, 'exit');
  await until('some are handled', () => effects.read().length >= 50);
  child.kill('SIGTERM');
  assert.deepEqual(await exited, [0, null]);
  const { ready, unacked } = await queueStats(broker.ctl, queue.name);
  const handled = effects.counts();
  assert.equal(unacked, 0);
  assert.equal(handled.size + ready, published);
  assert.ok([...handled.values()].every((count) => count === 1));
  await deleteQueue(broker.url, queue);
});

brokerTest('a callback that never ends is cut off after drainTimeout, and its message goes back', async (broker) => {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('drain'));
  await publishAll(broker.url, queue, [{ body: { id: 'never', do: 'never' } }, { body: { id: 'fine' } }]);
  const consumer = consumerOf(broker.url, queue, { drainTimeout: 300 });
  await consumer.consume();
  await until('the other is acked', () => consumer.stats().acked === 1 && consumer.stats().inFlight === 1);
  await consumer.close();
  await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 1 && unacked === 0);
  assert.deepEqual([...effects.counts()], [['fine', 1]]);
  await deleteQueue(broker.url, queue);
});

brokerTest('a consumer can be closed before it consumes, and by a signal', async (broker) => {
  const queue = new Queue(uniqueName('early'));
  const idle = consumerOf(broker.url, queue);
  await idle.close();
  await idle.closed;
  const abort = new AbortController();
  const consumer = consumerOf(broker.url, queue, { signal: abort.signal });
  await consumer.consume();
  abort.abort();
  await consumer.closed;
  assert.equal(consumer.stats().state, 'closed');
  await deleteQueue(broker.url, queue);
});
