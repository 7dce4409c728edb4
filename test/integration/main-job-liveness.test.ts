/** The connection lives and acks flow while workers are stuck; an idle worker takes what a slow one cannot. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Connection, errors, Queue, ShardedConsumer } from '#src/index';
import { AmqpTrace } from '../support/amqp-trace.js';
import { TcpProxy } from '../support/proxy.js';
import { brokerTest, uniqueName, waitForQueue } from '../support/rabbitmq.js';
import { consumerOf, EFFECTS_HANDLER, EffectsLog, publishAll, until } from '../support/rig.js';

const orders = (count: number, order: (i: number) => object = () => ({})) =>
  Array.from({ length: count }, (_, i) => ({ body: { id: i, ...order(i) }, options: { messageId: String(i) } }));

async function removed(url: string, ...queues: Queue[]): Promise<void> {
  const connection = new Connection(url);
  for (const queue of queues) await queue.bind(connection).delete();
  await connection.close();
}

brokerTest('a heartbeat of 2 s outlives workers that are all blocked for 15 s', async (broker) => {
  await using proxy = await TcpProxy.listen(broker.url);
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('liveness'));
  await publishAll(
    broker.url,
    queue,
    orders(4, (i) => (i < 2 ? { do: 'busy', ms: 15_000 } : {})),
  );
  const consumer = new ShardedConsumer(new Connection(proxy.url, { heartbeat: 2 }), queue, {
    handler: EFFECTS_HANDLER,
    workers: 2,
  });
  try {
    const lost: Error[] = [];
    consumer.on('disconnected', (error) => lost.push(error));
    await consumer.consume();
    await until('all four are handled', () => effects.read().length >= 4, {
      state: () => [lost.map(String), consumer.stats()],
    });
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 0 && unacked === 0);
    assert.deepEqual(lost, []);
    assert.equal(proxy.connections.length, 1, 'the consumer had to connect again');
    assert.equal(consumer.stats().redelivered, 0);
    assert.deepEqual([...effects.counts().values()], [1, 1, 1, 1]);
  } finally {
    await consumer.close();
    await removed(broker.url, queue);
  }
});

brokerTest('a slow message holds up no other: 999 are acked before it ends', async (broker) => {
  await using proxy = await TcpProxy.listen(broker.url);
  const trace = AmqpTrace.attach(proxy);
  using effects = new EffectsLog();
  const latch = join(effects.folder, 'latch');
  const queue = new Queue(uniqueName('latch'));
  await publishAll(
    broker.url,
    queue,
    orders(1000, (i) => (i === 0 ? { do: 'latch', at: latch } : {})),
  );
  const consumer = consumerOf(proxy.url, queue, { prefetchCount: 100 });
  try {
    await consumer.consume();
    await until('the others are handled', () => effects.read().length === 999, { state: () => consumer.stats() });
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 0 && unacked === 1);
    writeFileSync(latch, '');
    await until('the slow one is handled', () => effects.read().length === 1000);
    await waitForQueue(broker.ctl, queue.name, ({ unacked }) => unacked === 0);
    trace.assertClean();
    const workers = consumer.stats().workers.map(({ processed }) => processed);
    assert.equal(Math.min(...workers), 1, `one worker ran the slow message alone: ${workers}`);
  } finally {
    await consumer.close();
    await removed(broker.url, queue);
  }
});

brokerTest('messages that are settled together share an ack', async (broker) => {
  await using proxy = await TcpProxy.listen(broker.url);
  const trace = AmqpTrace.attach(proxy);
  using effects = new EffectsLog();
  const latch = join(effects.folder, 'latch');
  const queue = new Queue(uniqueName('acks'));
  await publishAll(
    broker.url,
    queue,
    orders(500, (i) => (i === 0 ? { do: 'latch', at: latch } : {})),
  );
  const consumer = consumerOf(proxy.url, queue, { workers: 1, prefetchCount: 500 });
  try {
    await consumer.consume();
    // One worker is held, so that all the others are there before the first can be settled.
    await until('all are delivered', () => consumer.stats().waiting === 499);
    writeFileSync(latch, '');
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 0 && unacked === 0);
    trace.assertClean();
    assert.equal(trace.outstanding().length, 0);
    assert.ok(trace.acks.length < 250, `${trace.acks.length} frames for 500 acks`);
  } finally {
    await consumer.close();
    await removed(broker.url, queue);
  }
});

brokerTest('callbacks run on worker threads, and a function cannot be one', async (broker) => {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('threads'));
  await publishAll(
    broker.url,
    queue,
    orders(50, () => ({ do: 'sleep', ms: 5 })),
  );
  const consumer = consumerOf(broker.url, queue);
  try {
    await consumer.consume();
    await until('all are handled', () => effects.read().length === 50);
    const { workers } = consumer.stats();
    assert.ok(workers.every(({ threadId }) => threadId > 0));
    assert.equal(
      workers.reduce((sum, { processed }) => sum + processed, 0),
      50,
    );
    assert.throws(
      () => consumerOf(broker.url, queue, { handler: (() => undefined) as never }),
      (error) => error instanceof errors.OptionError && /cross threads/.test(error.message),
    );
  } finally {
    await consumer.close();
    await removed(broker.url, queue);
  }
});
