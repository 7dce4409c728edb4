/** `orderBy`: of each key one after another, whatever happens; other keys beside it. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Connection, Exchange, errors, Queue, type ShardedConsumer, type ShardedConsumerOptions } from '#src/index';
import { assertInOrder } from '../support/order-log.js';
import { TcpProxy } from '../support/proxy.js';
import { brokerTest, uniqueName, waitForQueue } from '../support/rabbitmq.js';
import { consumerOf, EffectsLog, next, publishAll, until } from '../support/rig.js';

async function removed(url: string, ...queues: Queue[]): Promise<void> {
  const connection = new Connection(url);
  for (const queue of queues) await queue.bind(connection).delete();
  await connection.close();
}

/** Messages of so many keys in turn; `what` says what the handler does with each. */
function sequences(keys: number, each: number, what: (i: number) => object = (i) => ({ do: 'sleep', ms: i % 7 })) {
  return Array.from({ length: keys * each }, (_, i) => {
    const key = `k${i % keys}`;
    const id = `${key}:${Math.floor(i / keys)}`;
    return { body: { id, ...what(i) }, options: { messageId: id, headers: { key } } };
  });
}

const byHeader: Partial<ShardedConsumerOptions> = { orderBy: { header: 'key' }, concurrency: 4 };

const disturbances: Record<string, (consumer: ShardedConsumer, proxy: TcpProxy, round: number) => Promise<unknown>> = {
  reconnects: async (consumer, proxy) => {
    const back = next(consumer, 'reconnected');
    proxy.cutAll();
    await back;
  },
  'scale up and down': (consumer, _, round) => consumer.scale([1, 5, 2][round % 3]!),
  'pause and resume': async (consumer) => {
    await consumer.pause();
    await consumer.resume();
  },
};

for (const [what, disturb] of Object.entries(disturbances)) {
  brokerTest(`no key's sequence goes back over ${what}`, async (broker) => {
    await using proxy = await TcpProxy.listen(broker.url);
    using effects = new EffectsLog();
    const queue = new Queue(uniqueName('order'));
    await publishAll(broker.url, queue, sequences(7, 60));
    const consumer = consumerOf(proxy.url, queue, byHeader);
    try {
      await consumer.consume();
      for (let round = 0; round < 5; round++) {
        const before = effects.counts().size;
        await until('it goes on', () => effects.counts().size >= Math.min(420, before + 30), {
          state: () => consumer.stats(),
        });
        await disturb(consumer, proxy, round);
      }
      await until('all are handled', () => effects.counts().size === 420, { state: () => consumer.stats() });
      await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
      assertInOrder(effects.read(), { reconnects: what === 'reconnects' ? 5 : 0 });
    } finally {
      await consumer.close();
      await removed(broker.url, queue);
    }
  });
}

brokerTest("no key's sequence goes back over failures, retries, requeues and the deaths of workers", async (broker) => {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('order'));
  const trouble = (i: number): object => {
    if (i % 41 === 5) return { do: 'exit' };
    if (i % 23 === 4) return { do: 'failTwice' };
    if (i % 19 === 3) return { do: 'requeue' };
    if (i % 29 === 2) return { do: 'throw' };
    return { do: 'sleep', ms: i % 5 };
  };
  await publishAll(broker.url, queue, sequences(5, 40, trouble));
  const retry = { attempts: 3, initial: 20, jitter: 0 };
  const consumer = consumerOf(broker.url, queue, { ...byHeader, retry, maxDeliveries: 1 });
  try {
    await consumer.consume();
    const finished = () => consumer.stats().acked + consumer.stats().deadLettered;
    await until('all are handled or dead-lettered', () => finished() === 200, { state: () => consumer.stats() });
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
    const requeues = new Set(sequences(5, 40).flatMap(({ body }, i) => (i % 19 === 3 ? [body.id] : [])));
    assertInOrder(effects.read(), { settlesEarly: (id) => requeues.has(id) });
    const { retried, requeued, deadLettered } = consumer.stats();
    assert.ok(retried > 0 && requeued > 0 && deadLettered > 0, JSON.stringify(consumer.stats()));
  } finally {
    await consumer.close();
    await removed(broker.url, queue, new Queue(`${queue.name}.dead`));
  }
});

brokerTest('a key that waits holds up no other', async (broker) => {
  using effects = new EffectsLog();
  const latch = join(effects.folder, 'latch');
  const queue = new Queue(uniqueName('order'));
  await publishAll(
    broker.url,
    queue,
    sequences(10, 20, (i) => (i === 0 ? { do: 'latch', at: latch } : {})),
  );
  const consumer = consumerOf(broker.url, queue, { orderBy: { header: 'key' }, prefetchCount: 200 });
  try {
    await consumer.consume();
    await until('all others are handled', () => effects.read().length === 180, { state: () => consumer.stats() });
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 0 && unacked === 20);
    assert.ok(effects.read().every(({ id }) => !id.startsWith('k0:')));
    assert.equal(consumer.stats().held, 19);
    writeFileSync(latch, '');
    await until('its key is handled', () => effects.read().length === 200);
    assertInOrder(effects.read());
  } finally {
    await consumer.close();
    await removed(broker.url, queue);
  }
});

brokerTest('orders by routing key, and by queue', async (broker) => {
  const exchange = new Exchange(uniqueName('order'), { type: 'topic', autoDelete: true });
  for (const orderBy of ['routingKey', 'queue'] as const) {
    using effects = new EffectsLog();
    const queues = ['a', 'b'].map((key) => new Queue(uniqueName(key), exchange, { routingKey: `${key}.#` }));
    const connection = new Connection(broker.url);
    for (const queue of queues) await queue.declare(connection);
    const producer = connection.Producer({ exchange });
    for (let i = 0; i < 120; i++) {
      const [queue, key] = [['a', 'b'][i % 2]!, ['x', 'y', 'z'][i % 3]!];
      const id = orderBy === 'queue' ? `${queue}:${i}` : `${queue}.${key}:${i}`;
      await producer.publish({ id, do: 'sleep', ms: i % 6 }, { routingKey: `${queue}.${key}` });
    }
    const consumer = consumerOf(broker.url, queues, { orderBy, concurrency: 4 });
    await consumer.consume();
    await until('all are handled', () => effects.counts().size === 120, { state: () => consumer.stats() });
    assertInOrder(effects.read());
    await consumer.close();
    await connection.close();
    await removed(broker.url, ...queues);
  }
});

brokerTest('past its memory, an ordered consumer gives back in order what it cannot hold', async (broker) => {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('order'));
  const pad = 'x'.repeat(1024 * 1024);
  await publishAll(
    broker.url,
    queue,
    sequences(3, 10, () => ({ do: 'busy', ms: 20, pad })),
  );
  const consumer = consumerOf(broker.url, queue, { orderBy: { header: 'key' }, maxMemory: 8 * 1024 * 1024 });
  try {
    await consumer.consume();
    await until('all are handled', () => effects.counts().size === 30, { state: () => consumer.stats() });
    assert.ok(consumer.stats().shed > 0);
    assertInOrder(effects.read());
    assert.ok([...effects.counts().values()].every((count) => count === 1));
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
  } finally {
    await consumer.close();
    await removed(broker.url, queue);
  }
});

brokerTest('close() and pause() of an ordered consumer leave the queue in order', async (broker) => {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('order'));
  await publishAll(
    broker.url,
    queue,
    sequences(4, 50, (i) => ({ do: 'sleep', ms: 5 + (i % 5) })),
  );
  const first = consumerOf(broker.url, queue, byHeader);
  await first.consume();
  await until('some are handled', () => effects.read().length >= 40);
  await first.pause();
  assert.equal(first.stats().state, 'paused');
  const { ready } = await waitForQueue(broker.ctl, queue.name, ({ unacked }) => unacked === 0);
  assert.equal(ready, 200 - effects.counts().size);
  await first.resume();
  await until('more are handled', () => effects.read().length >= 80);
  await first.close();
  const left = await waitForQueue(broker.ctl, queue.name, ({ unacked }) => unacked === 0);
  assert.equal(left.ready, 200 - effects.counts().size);
  const second = consumerOf(broker.url, queue, byHeader);
  await second.consume();
  await until('all are handled', () => effects.counts().size === 200);
  await second.close();
  assertInOrder(effects.read());
  assert.ok([...effects.counts().values()].every((count) => count === 1));
  await removed(broker.url, queue);
});

brokerTest('the order of a queue holds over a reconnect: what runs is waited for', async (broker) => {
  await using proxy = await TcpProxy.listen(broker.url);
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('order'));
  const bodies = Array.from({ length: 20 }, (_, i) => ({ body: { id: `q:${i}`, do: 'sleep', ms: i === 3 ? 700 : 5 } }));
  await publishAll(broker.url, queue, bodies);
  const consumer = consumerOf(proxy.url, queue, { orderBy: 'queue', concurrency: 4 });
  try {
    await consumer.consume();
    await until('the slow one runs', () => effects.read().length === 3);
    const back = next(consumer, 'reconnected');
    proxy.cutAll();
    await back;
    await until('all are handled', () => effects.counts().size === 20, { state: () => consumer.stats() });
    assertInOrder(effects.read(), { reconnects: 1 });
  } finally {
    await consumer.close();
    await removed(broker.url, queue);
  }
});

brokerTest('close() while an ordered pause waits lets what runs end and be acked', async (broker) => {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('order'));
  await publishAll(broker.url, queue, [{ body: { id: 'k:0', do: 'sleep', ms: 600 } }, { body: { id: 'k:1' } }]);
  const consumer = consumerOf(broker.url, queue, { orderBy: 'queue' });
  await consumer.consume();
  await until('it runs', () => consumer.stats().inFlight === 1);
  const pausing = assert.rejects(consumer.pause(), errors.ClosedError);
  await until('it pauses', () => consumer.stats().state === 'pausing');
  await consumer.close();
  await pausing;
  assert.deepEqual([...effects.counts().keys()], ['k:0']);
  const { acked, stale } = consumer.stats();
  assert.deepEqual({ acked, stale }, { acked: 1, stale: 0 });
  await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 1 && unacked === 0);
  await removed(broker.url, queue);
});

test("orderBy and ack: 'none' exclude each other", () => {
  assert.throws(() => consumerOf('memory://', new Queue('q'), { orderBy: 'queue', ack: 'none' }), errors.OptionError);
});
