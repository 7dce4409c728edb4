/** Settling by the callback itself, `ack: 'manual'`, and what waits too long to be started. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Connection, type FailedMessage, Queue } from '#src/index';
import { AmqpTrace } from '../support/amqp-trace.js';
import { TcpProxy } from '../support/proxy.js';
import { brokerTest, uniqueName, waitForQueue } from '../support/rabbitmq.js';
import { consumerOf, EffectsLog, publishAll, until } from '../support/rig.js';

async function removed(url: string, ...queues: Queue[]): Promise<void> {
  const connection = new Connection(url);
  for (const queue of queues) await queue.bind(connection).delete();
  await connection.close();
}

const selfSettling = ['ack', 'reject', 'requeue', 'twice'].map((what) => ({ body: { id: what, do: what } }));

for (const ack of ['auto', 'manual'] as const) {
  brokerTest(`with ack: '${ack}' a callback can settle its message itself, once`, async (broker) => {
    await using proxy = await TcpProxy.listen(broker.url);
    const trace = AmqpTrace.attach(proxy);
    using effects = new EffectsLog();
    const queue = new Queue(uniqueName('settling'));
    await publishAll(broker.url, queue, selfSettling);
    const failed: FailedMessage[] = [];
    const consumer = consumerOf(proxy.url, queue, { ack, workers: 1 });
    consumer.on('failed', (failure) => failed.push(failure));
    try {
      await consumer.consume();
      // 'requeue' runs twice: it acks what comes again. 'twice' fails after its ack, and stays acked.
      await until('all are done', () => effects.read().length === 4 && failed.length === 1, {
        state: () => [effects.read(), failed],
      });
      await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
      assert.deepEqual(Object.fromEntries(effects.counts()), { ack: 1, reject: 1, requeue: 2 });
      assert.equal(failed[0]!.error.name, 'MessageStateError');
      assert.equal(failed[0]!.outcome, 'none');
      const { acked, rejected, requeued, deadLettered } = consumer.stats();
      assert.deepEqual(
        { acked, rejected, requeued, deadLettered },
        { acked: 3, rejected: 1, requeued: 1, deadLettered: 0 },
      );
      trace.assertClean();
    } finally {
      await consumer.close();
      await removed(broker.url, queue);
    }
  });
}

brokerTest('ack({ multiple: true }) is refused on a worker, and its message fails', async (broker) => {
  using _effects = new EffectsLog();
  const queue = new Queue(uniqueName('multiple'));
  await publishAll(broker.url, queue, [{ body: { id: 'all', do: 'multiple' } }]);
  const failed: FailedMessage[] = [];
  const consumer = consumerOf(broker.url, queue);
  consumer.on('failed', (failure) => failed.push(failure));
  try {
    await consumer.consume();
    await until('it is dead-lettered', () => consumer.stats().deadLettered === 1);
    assert.match(failed[0]!.error.message, /other workers/);
  } finally {
    await consumer.close();
    await removed(broker.url, queue, new Queue(`${queue.name}.dead`));
  }
});

brokerTest("with ack: 'manual' a message stays the callback's after it has returned", async (broker) => {
  using effects = new EffectsLog();
  const latch = join(effects.folder, 'latch');
  const queue = new Queue(uniqueName('later'));
  await publishAll(
    broker.url,
    queue,
    Array.from({ length: 10 }, (_, i) => ({ body: { id: i, do: 'later', at: latch } })),
  );
  const consumer = consumerOf(broker.url, queue, { ack: 'manual', prefetchCount: 6 });
  try {
    await consumer.consume();
    await until('as many as the prefetch allows have returned', () => effects.counts().size === 6);
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 4 && unacked === 6);
    assert.equal(consumer.stats().acked, 0);
    writeFileSync(latch, '');
    await until('all are acked', () => consumer.stats().acked === 10, { state: () => consumer.stats() });
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
  } finally {
    await consumer.close();
    await removed(broker.url, queue);
  }
});

brokerTest('what waits unstarted for maxWait goes back, and another consumer takes it', async (broker) => {
  using effects = new EffectsLog();
  const latch = join(effects.folder, 'latch');
  const queue = new Queue(uniqueName('wait'));
  await publishAll(broker.url, queue, [
    { body: { id: 'slow', do: 'latch', at: latch } },
    ...Array.from({ length: 9 }, (_, i) => ({ body: { id: i } })),
  ]);
  const busy = consumerOf(broker.url, queue, { workers: 1, prefetchCount: 10, maxWait: 200 });
  const free = consumerOf(broker.url, queue, { workers: 1 });
  try {
    await busy.consume();
    await until('all are with the busy one', () => busy.stats().inFlight === 1 && busy.stats().received >= 10);
    await free.consume();
    await until('the free one has handled the others', () => effects.counts().size === 9, {
      state: () => [busy.stats(), free.stats()],
    });
    assert.ok(busy.stats().requeued >= 9);
    assert.equal(busy.stats().acked, 0, 'what runs is not given back');
    writeFileSync(latch, '');
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
    assert.ok([...effects.counts().values()].every((count) => count === 1));
    assert.equal(busy.stats().acked, 1);
  } finally {
    await busy.close();
    await free.close();
    await removed(broker.url, queue);
  }
});
