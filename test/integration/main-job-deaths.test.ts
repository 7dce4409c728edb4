/** Whatever a message does to its worker: the worker is replaced, the others are handled, the culprit is kept. */
import assert from 'node:assert/strict';
import { Connection, Queue, type WorkerEvent } from '#src/index';
import { deaths, dieInTheMiddle } from '../support/deaths.js';
import { brokerTest, uniqueName } from '../support/rabbitmq.js';
import { consumerOf, EffectsLog, publishAll, until } from '../support/rig.js';

for (const [name, death] of Object.entries(deaths)) {
  brokerTest(`a message that ${name}: replaced, kept, and no other harmed`, async (broker) => {
    await dieInTheMiddle(broker, death, 200);
  });
}

brokerTest(
  'of several that ran beside each other the suspects run alone, and only the culprit is kept',
  async (broker) => {
    using effects = new EffectsLog();
    const queue = new Queue(uniqueName('suspects'));
    await publishAll(
      broker.url,
      queue,
      Array.from({ length: 40 }, (_, i) => ({
        body: i === 20 ? { id: 'culprit', do: 'exit' } : { id: i, do: 'sleep', ms: 10 },
      })),
    );
    const consumer = consumerOf(broker.url, queue, { concurrency: 4, maxDeliveries: 2 });
    try {
      await consumer.consume();
      await until('all but one are handled', () => consumer.stats().acked === 39, { state: () => consumer.stats() });
      await until('the culprit is dead-lettered', () => consumer.stats().deadLettered === 1);
      assert.equal([...effects.counts().keys()].filter((id) => id !== 'culprit').length, 39);
    } finally {
      await consumer.close();
      const connection = new Connection(broker.url);
      await queue.bind(connection).delete();
      await new Queue(`${queue.name}.dead`).bind(connection).delete();
      await connection.close();
    }
  },
);

brokerTest('an asynchronous callback past its timeout fails alone', async (broker) => {
  const queue = new Queue(uniqueName('timeout'));
  await publishAll(broker.url, queue, [
    { body: { id: 'never', do: 'never' } },
    ...Array.from({ length: 20 }, (_, i) => ({ body: { id: i, do: 'sleep', ms: 10 } })),
  ]);
  const consumer = consumerOf(broker.url, queue, { workers: 1, concurrency: 4, timeout: 200 });
  const failed: string[] = [];
  const exits: WorkerEvent[] = [];
  consumer.on('failed', ({ error }) => failed.push(error.name));
  consumer.on('worker', (event) => event.state === 'exited' && exits.push(event));
  try {
    await consumer.consume();
    await until('the others are handled', () => consumer.stats().acked === 20);
    await until('the late one is dead-lettered', () => consumer.stats().deadLettered === 1);
    assert.deepEqual(failed, ['TimeoutError']);
    assert.deepEqual(exits, [], 'its worker lives on');
  } finally {
    await consumer.close();
    const connection = new Connection(broker.url);
    await queue.bind(connection).delete();
    await new Queue(`${queue.name}.dead`).bind(connection).delete();
    await connection.close();
  }
});
