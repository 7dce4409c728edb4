/** Generations: what an ended channel delivered is settled by nobody; topology and consumption come back. */
import assert from 'node:assert/strict';
import { Connection, Exchange, errors, Queue } from '#src/index';
import { AmqpTrace } from '../support/amqp-trace.js';
import { TcpProxy } from '../support/proxy.js';
import { brokerTest, uniqueName, waitForQueue } from '../support/rabbitmq.js';
import { consumerOf, EffectsLog, next, publishAll, until } from '../support/rig.js';

async function drop(url: string, queue: Queue): Promise<void> {
  const connection = new Connection(url);
  await queue.bind(connection).delete();
  await connection.close();
}

const sleepers = (count: number, ms: number) =>
  Array.from({ length: count }, (_, i) => ({ body: { id: i, do: 'sleep', ms } }));

brokerTest('a cut socket: late settlements are dropped, the messages come again, acks stay right', async (broker) => {
  await using proxy = await TcpProxy.listen(broker.url);
  const trace = AmqpTrace.attach(proxy);
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('cut'));
  await publishAll(broker.url, queue, sleepers(100, 20));
  const consumer = consumerOf(proxy.url, queue, { concurrency: 4 });
  const events: string[] = [];
  consumer.on('disconnected', () => events.push('disconnected'));
  consumer.on('reconnected', () => events.push('reconnected'));
  try {
    await consumer.consume();
    await until('some are handled', () => effects.read().length >= 20);
    const back = next(consumer, 'reconnected');
    proxy.cutAll();
    await back;
    await until('all are handled', () => effects.counts().size === 100, { state: () => consumer.stats() });
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 0 && unacked === 0);
    assert.deepEqual(events, ['disconnected', 'reconnected']);
    assert.ok(consumer.stats().stale > 0, 'callbacks ended after their connection was gone');
    assert.deepEqual(trace.violations, []);
  } finally {
    await consumer.close();
    await drop(broker.url, queue);
  }
});

brokerTest(
  'the broker closes the connection while callbacks run: consumption goes on, no ack goes astray',
  async (broker) => {
    // A virtual host of its own: the broker closes all connections of one, and other tests run beside this.
    const vhost = uniqueName('forced');
    await broker.ctl('add_vhost', vhost);
    await broker.ctl('set_permissions', '-p', vhost, 'guest', '.*', '.*', '.*');
    const url = new URL(vhost, new URL('/', broker.url)).href;
    await using proxy = await TcpProxy.listen(url);
    const trace = AmqpTrace.attach(proxy);
    using effects = new EffectsLog();
    const queue = new Queue(uniqueName('forced'));
    await publishAll(url, queue, sleepers(100, 20));
    const consumer = consumerOf(proxy.url, queue);
    try {
      await consumer.consume();
      await until('some are handled', () => effects.read().length >= 10);
      const back = next(consumer, 'reconnected');
      await broker.ctl('close_all_connections', '--vhost', vhost, 'a test');
      await back;
      await until('all are handled', () => effects.counts().size === 100, { state: () => consumer.stats() });
      await until('nothing is outstanding', () => consumer.stats().unsettled === 0);
      assert.deepEqual(trace.violations, []);
    } finally {
      await consumer.close();
      await broker.ctl('delete_vhost', vhost);
    }
  },
);

brokerTest('a queue that is deleted under its consumer is declared and consumed again', async (broker) => {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('deleted'));
  const consumer = consumerOf(broker.url, queue);
  const cancelled = next<[Error]>(consumer as never, 'error');
  try {
    await consumer.consume();
    const back = next(consumer, 'reconnected');
    await drop(broker.url, queue);
    const [error] = await cancelled;
    assert.ok(error instanceof errors.ConsumerCancelled && error.message.includes(queue.name));
    await back;
    await publishAll(broker.url, queue, [{ body: { id: 'again' } }]);
    await until('it is handled', () => effects.counts().has('again'));
  } finally {
    await consumer.close();
    await drop(broker.url, queue);
  }
});

brokerTest(
  'exclusive and server-named queues, with their bindings, are there again after a reconnect',
  async (broker) => {
    await using proxy = await TcpProxy.listen(broker.url);
    using effects = new EffectsLog();
    const exchange = new Exchange(uniqueName('topology'), { type: 'topic', autoDelete: true });
    const named = new Queue(uniqueName('exclusive'), exchange, { routingKey: 'a.*', exclusive: true });
    const unnamed = new Queue('', exchange, { routingKey: 'b.*', exclusive: true });
    const consumer = consumerOf(proxy.url, [named, unnamed]);
    const publisher = new Connection(broker.url);
    const send = async (id: string, routingKey: string) => {
      await publisher.Producer().publish({ id }, { exchange, routingKey, mandatory: true });
    };
    try {
      await consumer.consume();
      await send('a1', 'a.x');
      await send('b1', 'b.x');
      await until('both are handled', () => effects.counts().size === 2);
      const back = next(consumer, 'reconnected');
      proxy.cutAll();
      await back;
      await send('a2', 'a.x');
      await send('b2', 'b.x');
      await until('both are handled again', () => effects.counts().size === 4);
    } finally {
      await consumer.close();
      await publisher.close();
    }
  },
);

brokerTest('past its memory a consumer gives messages back and handles all of them once', async (broker) => {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('shed'), { queueArguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': 5 } });
  const pad = 'x'.repeat(1024 * 1024);
  await publishAll(
    broker.url,
    queue,
    Array.from({ length: 30 }, (_, i) => ({ body: { id: i, do: 'busy', ms: 30, pad } })),
  );
  const consumer = consumerOf(broker.url, queue, { maxMemory: 8 * 1024 * 1024 });
  const lost: Error[] = [];
  consumer.on('disconnected', (error) => lost.push(error));
  try {
    await consumer.consume();
    await until('all are handled', () => effects.counts().size === 30, { state: () => consumer.stats() });
    await until('all are acked', () => consumer.stats().acked === 30);
    assert.ok(consumer.stats().shed > 0);
    assert.deepEqual(lost, []);
    assert.ok([...effects.counts().values()].every((count) => count === 1));
    await until('the arena is empty', () => consumer.stats().arena.used === 0);
  } finally {
    await consumer.close();
    await drop(broker.url, queue);
  }
});
