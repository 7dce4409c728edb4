/** amqplib's channel over Redis: what was done before comes before, and nothing of what it held is lost when it ends. */
import assert from 'node:assert/strict';
import { Connection, Exchange, Queue } from '#src/index';
import { type RedisSpace, redisTest } from '../support/redis.js';
import { until } from '../support/rig.js';

const SEP = '\x06\x16';

async function withConnection({ url }: RedisSpace, run: (connection: Connection) => Promise<void>): Promise<void> {
  const connection = new Connection(url);
  try {
    await run(connection);
  } finally {
    await connection.close();
  }
}

/** Takes so many, acks them, and gives their bodies in order. */
async function texts(connection: Connection, count: number): Promise<unknown[]> {
  const got: unknown[] = [];
  for await (const message of connection.Consumer(new Queue('q'), { prefetchCount: 1 })) {
    got.push(message.payload);
    message.ack();
    if (got.length === count) break;
  }
  return got;
}

redisTest('delete({ ifEmpty: true }) refuses a queue with messages, of any priority, and keeps them', (redis) =>
  withConnection(redis, async (connection) => {
    const queue = new Queue('q').bind(connection);
    await queue.declare();
    await connection.Producer().publish('x', { routingKey: 'q', priority: 9 });
    await assert.rejects(queue.delete({ ifEmpty: true }), { name: 'PreconditionFailed', message: /'q' not empty/ });
    assert.equal(await redis.command('LLEN', `q${SEP}9`), 1);
    await queue.purge();
    assert.equal(await queue.delete({ ifEmpty: true }), 0);
  }),
);

redisTest('a low-level callback that throws ends its channel, and none of what was taken with it is lost', (redis) =>
  withConnection(redis, async (connection) => {
    const producer = connection.Producer({ routingKey: 'q' });
    for (const body of ['1', '2', '3', '4', '5']) await producer.publish(body);
    const channel = await connection.channel();
    let calls = 0;
    await channel.raw.prefetch(4);
    await channel.raw.consume('q', () => {
      if (++calls === 2) throw new RangeError('by the callback');
    });
    assert.equal((await channel.ended)?.message.includes('by the callback'), true);
    assert.equal(calls, 2);
    // At once, not when the leases are over.
    assert.equal(await redis.command('EXISTS', 'unacked', 'unacked_index'), 0);
    assert.deepEqual(await texts(connection, 5), ['1', '2', '3', '4', '5']);
  }),
);

redisTest('what is requeued is there for the next question, in the order of its deliveries', (redis) =>
  withConnection(redis, async (connection) => {
    const queue = new Queue('q').bind(connection);
    const producer = connection.Producer({ routingKey: 'q' });
    for (const body of ['1', '2', '3', '4']) await producer.publish(body);
    const [first, second, third] = [await queue.get(), await queue.get(), await queue.get()];
    third!.requeue();
    first!.requeue();
    second!.requeue();
    assert.equal((await queue.queueDeclare()).messages, 4);
    assert.deepEqual(await texts(connection, 4), ['1', '2', '3', '4']);
  }),
);

redisTest('a channel that is closed has published all that it was given, and says when', (redis) =>
  withConnection(redis, async (connection) => {
    const { raw } = await connection.channel();
    const confirmed: number[] = [];
    for (const i of [1, 2, 3]) raw.publish('', 'q', Buffer.from('x'), {}, () => confirmed.push(i));
    await raw.waitForConfirms();
    assert.deepEqual(confirmed, [1, 2, 3]);
    raw.publish('', 'q', Buffer.from('x'), {}, () => confirmed.push(4));
    await raw.close();
    assert.deepEqual(confirmed, [1, 2, 3, 4]);
    assert.equal(await redis.command('LLEN', 'q'), 4);
    const refused = await connection.channel();
    await redis.command('SET', 'no-list', 'x');
    refused.raw.publish('', 'no-list', Buffer.from('x'));
    await assert.rejects(refused.raw.waitForConfirms(), /WRONGTYPE/);
    await refused.raw.waitForConfirms();
  }),
);

redisTest('a channel that ends for a key that is no list gives back at once what it holds', (redis) =>
  withConnection(redis, async (connection) => {
    await connection.Producer({ routingKey: 'q' }).publish('held');
    const channel = await connection.channel();
    let held = 0;
    await channel.raw.consume('q', () => held++);
    await until('it is held', () => held === 1);
    await redis.command('SET', `q${SEP}3`, 'no list');
    assert.equal((await channel.ended)?.name, 'PreconditionFailed');
    assert.equal(await redis.command('LLEN', 'q'), 1);
    assert.equal(await redis.command('EXISTS', 'unacked'), 0);
  }),
);

redisTest('a prefetch count of a whole channel is refused, since it would do nothing', (redis) =>
  withConnection(redis, async (connection) => {
    const { raw } = await connection.channel();
    await assert.rejects(raw.prefetch(3, true), /each consumer has a prefetch count of its own/);
    await raw.prefetch(3);
  }),
);

redisTest(
  'exclusive queues after a loss: without a name they are gone, with one they are used again',
  async (redis) => {
    const exchange = new Exchange('passing', { type: 'direct' });
    const given: string[] = [];
    const queues = [
      new Queue('', exchange, { routingKey: 'k', exclusive: true, onDeclared: (name) => given.push(name) }),
      new Queue('named', exchange, { routingKey: 'k', exclusive: true }),
    ];
    await withConnection(redis, async (connection) => {
      for (const queue of queues) await queue.declare(connection);
      await connection.Producer({ exchange }).publish('before', { routingKey: 'k' });
      assert.equal(await redis.command('LLEN', given[0]!), 1);
      connection.collect();
      for (const queue of queues) await queue.declare(connection);
      assert.notEqual(given[0], given[1]);
      assert.equal(await redis.command('EXISTS', given[0]!), 0);
      await connection.Producer({ exchange }).publish('after', { routingKey: 'k' });
      const sizes = ['named', ...given].map((name) => redis.command('LLEN', name));
      assert.deepEqual(await Promise.all(sizes), [2, 0, 1]);
      assert.equal(await redis.command('SCARD', '_kombu.binding.passing'), 2);
    });
    assert.equal(await redis.command('DBSIZE'), 0, 'what is exclusive goes with a connection that is closed');
  },
);
