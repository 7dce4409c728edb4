/** Redis behind the entities: publishing, consuming, getting, priorities, routing, and the keys that all of it is kept in. */
import assert from 'node:assert/strict';
import { Connection, type ConnectionOptions, Consumer, Exchange, type Message, Queue } from '#src/index';
import { type RedisSpace, redisTest } from '../support/redis.js';
import { until } from '../support/rig.js';

const SEP = '\x06\x16';

async function withConnection(
  { url }: RedisSpace,
  transportOptions: Record<string, unknown>,
  run: (connection: Connection) => Promise<void>,
  options: ConnectionOptions = {},
): Promise<void> {
  const connection = new Connection(url, { ...options, transportOptions });
  try {
    await run(connection);
  } finally {
    await connection.close();
  }
}

/** The texts that a consumer of these queues gets, until there are so many. */
async function consume(
  connection: Connection,
  queues: readonly Queue[],
  count: number,
  start: () => Promise<unknown> = async () => undefined,
): Promise<string[]> {
  const got: string[] = [];
  let enough = (): void => undefined;
  const all = new Promise<void>((resolve) => {
    enough = resolve;
  });
  const onMessage = (message: Message): void => {
    got.push(String(message.decode()));
    message.ack();
    if (got.length === count) enough();
  };
  const consumer = new Consumer(connection, queues, { onMessage, prefetchCount: 1 });
  await consumer.consume();
  await start();
  await all;
  await consumer.close();
  return got;
}

redisTest('what is published is kept as kombu keeps it, got, acked, and gone', (redis) =>
  withConnection(redis, {}, async (connection) => {
    const queue = new Queue('q').bind(connection);
    await queue.declare();
    const producer = connection.Producer();
    await producer.publish({ a: 1 }, { routingKey: 'q', headers: { h: 'x' } });
    const kept = JSON.parse(String(await redis.command('LINDEX', 'q', 0)));
    assert.equal(Buffer.from(kept.body, 'base64').toString(), '{"a":1}');
    assert.equal(kept.headers.h, 'x');
    assert.deepEqual(kept.properties.delivery_info, { exchange: '', routing_key: 'q' });
    const message = await queue.get();
    assert.ok(message);
    assert.deepEqual(message.decode(), { a: 1 });
    assert.equal(message.headers.h, 'x');
    assert.equal(message.deliveryInfo.redelivered, false);
    assert.equal(await redis.command('LLEN', 'q'), 0);
    assert.equal(await redis.command('HLEN', 'unacked'), 1);
    assert.equal(await redis.command('ZCARD', 'unacked_index'), 1);
    message.ack();
    await until('the ack', async () => (await redis.command('HLEN', 'unacked')) === 0);
    assert.equal(await redis.command('EXISTS', 'unacked_index'), 0);
    assert.equal(await queue.get(), null);
  }),
);

redisTest('a requeued message comes again first, marked, from the list of its priority', (redis) =>
  withConnection(redis, {}, async (connection) => {
    const queue = new Queue('q').bind(connection);
    await queue.declare(connection);
    const producer = connection.Producer({ routingKey: 'q' });
    await producer.publish('a', { priority: 4 });
    await producer.publish('b', { priority: 4 });
    const first = await queue.get();
    assert.equal(first?.decode(), 'a');
    first.requeue();
    await until('both back', async () => (await redis.command('LLEN', `q${SEP}3`)) === 2);
    const again = await queue.get();
    assert.deepEqual([again?.decode(), again?.deliveryInfo.redelivered], ['a', true]);
    again!.reject();
    await until('rejected', async () => (await redis.command('HLEN', 'unacked')) === 0);
    assert.equal(await redis.command('LLEN', `q${SEP}3`), 1);
  }),
);

redisTest('purge and delete count the messages of all priorities', (redis) =>
  withConnection(redis, {}, async (connection) => {
    const exchange = new Exchange('x', { type: 'direct' });
    const queue = new Queue('q', exchange, { routingKey: 'k' }).bind(connection);
    await queue.declare(connection);
    const producer = connection.Producer({ exchange, routingKey: 'k' });
    for (const priority of [0, 3, 6, 9, 9]) await producer.publish('x', { priority });
    assert.equal((await queue.queueDeclare()).messages, 5);
    assert.equal(await queue.purge(), 5);
    for (const priority of [0, 9]) await producer.publish('x', { priority });
    assert.deepEqual(await redis.command('SMEMBERS', '_kombu.binding.x'), [`k${SEP}${SEP}q`]);
    assert.equal(await queue.delete(), 2);
    assert.equal(await redis.command('DBSIZE'), 0);
  }),
);

for (const [priorityOrder, expected] of [
  ['lowestFirst', ['p0', 'p4', 'p7', 'p9']],
  ['highestFirst', ['p9', 'p7', 'p4', 'p0']],
] as const) {
  redisTest(`priorities come ${priorityOrder}`, (redis) =>
    withConnection(redis, { priorityOrder }, async (connection) => {
      const queue = new Queue('q');
      await queue.declare(connection);
      const producer = connection.Producer({ routingKey: 'q' });
      for (const priority of [4, 0, 9, 7]) await producer.publish(`p${priority}`, { priority });
      assert.deepEqual(await consume(connection, [queue], 4), expected);
    }),
  );
}

redisTest('a message of any priority comes to an idle consumer', (redis) =>
  withConnection(redis, {}, async (connection) => {
    const queue = new Queue('q');
    const producer = connection.Producer({ routingKey: 'q' });
    const send = async (): Promise<void> => {
      for (const priority of [9, 3, 0, 6]) await producer.publish(`p${priority}`, { priority });
    };
    assert.equal((await consume(connection, [queue], 4, send)).length, 4);
  }),
);

redisTest('direct and topic exchanges lead to each queue once, by the matching of kombu', (redis) =>
  withConnection(redis, {}, async (connection) => {
    const topic = new Exchange('t', { type: 'topic' });
    const direct = new Exchange('d', { type: 'direct' });
    const one = new Queue('one', topic, { routingKey: 'a.*.c' }).bind(connection);
    const all = new Queue('all', topic, { routingKey: '#' }).bind(connection);
    const some = new Queue('some', direct, { routingKey: 'a.*' }).bind(connection);
    for (const queue of [one, all, some]) await queue.declare();
    await all.bindTo(topic, { routingKey: 'a.#' });
    const producer = connection.Producer();
    for (const key of ['a.b.c', 'a.c', 'a.b.b.c', 'x-y']) {
      await producer.publish(key, { exchange: topic, routingKey: key });
      await producer.publish(key, { exchange: direct, routingKey: key });
    }
    await producer.publish('own', { exchange: direct, routingKey: 'a.*' });
    // kombu's `*` has points in it
    assert.deepEqual(await consume(connection, [one], 2), ['a.b.c', 'a.b.b.c']);
    assert.deepEqual(await consume(connection, [all], 4), ['a.b.c', 'a.c', 'a.b.b.c', 'x-y']);
    assert.deepEqual(await consume(connection, [some], 1), ['own']);
    assert.equal(await redis.command('LLEN', 'some'), 0);
    assert.ok(
      ((await redis.command('SMEMBERS', '_kombu.binding.t')) as string[]).includes(
        `a.*.c${SEP}^a\\..*?[^\\.]\\.c$${SEP}one`,
      ),
    );
  }),
);

redisTest('an unbound queue gets nothing more', (redis) =>
  withConnection(redis, {}, async (connection) => {
    const exchange = new Exchange('t', { type: 'topic' });
    const queue = new Queue('q', exchange, { routingKey: 'a.*' }).bind(connection);
    await queue.declare();
    await queue.unbindFrom(exchange, { routingKey: 'a.*' });
    assert.equal(await redis.command('EXISTS', '_kombu.binding.t'), 0);
    await connection.Producer().publish('x', { exchange, routingKey: 'a.b' });
    assert.equal(await redis.command('LLEN', 'q'), 0);
  }),
);

redisTest('a mandatory message that no queue is bound for is returned', (redis) =>
  withConnection(redis, {}, async (connection) => {
    const exchange = new Exchange('d', { type: 'direct' });
    await exchange.declare(connection);
    const producer = connection.Producer({ exchange });
    await assert.rejects(producer.publish('x', { routingKey: 'nowhere', mandatory: true }), {
      name: 'MessageReturned',
    });
    await producer.publish('x', { routingKey: 'nowhere' });
    assert.equal(await redis.command('EXISTS', 'nowhere'), 0);
  }),
);

redisTest('deadletterQueue has what a direct exchange has no queue for, and a topic exchange does not', (redis) =>
  withConnection(redis, { deadletterQueue: 'ae.undeliver' }, async (connection) => {
    const producer = connection.Producer();
    const direct = new Exchange('d', { type: 'direct' });
    const topic = new Exchange('t', { type: 'topic' });
    await producer.publish('x', { exchange: direct, routingKey: 'nowhere', declare: [direct] });
    await producer.publish('x', { exchange: topic, routingKey: 'nowhere', declare: [topic] });
    assert.equal(await redis.command('LLEN', 'ae.undeliver'), 1);
  }),
);

redisTest('globalKeyprefix is before every key, and nothing else is touched', (redis) =>
  withConnection(redis, { globalKeyprefix: 'pre.' }, async (connection) => {
    await redis.command('LPUSH', 'q', 'foreign');
    await redis.command('HSET', 'unacked', 'foreign', 'x');
    await redis.command('ZADD', 'unacked_index', 1, 'foreign');
    const exchange = new Exchange('t', { type: 'topic' });
    const queue = new Queue('q', exchange, { routingKey: '#' }).bind(connection);
    await queue.declare(connection);
    const producer = connection.Producer({ exchange });
    for (const priority of [0, 9]) await producer.publish('x', { routingKey: 'a', priority });
    const message = await queue.get();
    const keys = ((await redis.command('KEYS', '*')) as string[]).sort();
    assert.deepEqual(keys, [
      'pre._kombu.binding.t',
      `pre.q${SEP}9`,
      'pre.unacked',
      'pre.unacked_index',
      'q',
      'unacked',
      'unacked_index',
    ]);
    message!.ack();
    assert.equal((await consume(connection, [queue], 1)).length, 1);
    await queue.delete();
    await until('all is told', async () => (await redis.command('DBSIZE')) === 3);
    assert.deepEqual(await redis.command('LRANGE', 'q', 0, -1), ['foreign']);
    assert.deepEqual(await redis.command('HKEYS', 'unacked'), ['foreign']);
  }),
);

redisTest('a fanout exchange is heard by all that listen, by key where patterns are on', (redis) =>
  withConnection(redis, { fanoutPrefix: redis.prefix }, async (connection) => {
    const exchange = new Exchange('f', { type: 'fanout' });
    const got: string[] = [];
    const consumers = [];
    for (const [name, routingKey] of [
      ['one', ''],
      ['two', ''],
      ['three', 'a.#'],
    ] as const) {
      const queue = new Queue(name, exchange, { routingKey });
      const consumer = new Consumer(connection, queue, {
        onMessage: (message) => {
          got.push(`${name}:${message.decode()}`);
          message.ack();
        },
      });
      await consumer.consume();
      consumers.push(consumer);
    }
    const producer = connection.Producer({ exchange });
    await producer.publish('plain');
    await producer.publish('keyed', { routingKey: 'a.b' });
    await until('all that listen heard it', () => got.length >= 3, { state: () => got });
    assert.deepEqual(got.sort(), ['one:plain', 'three:keyed', 'two:plain']);
    for (const consumer of consumers) await consumer.close();
    await assert.rejects(producer.publish('nobody', { mandatory: true }), { name: 'MessageReturned' });
  }),
);

redisTest('the database of the URL is the one that is used', async (redis) => {
  await withConnection(redis, {}, async (connection) => {
    await connection.Producer().publish('x', { routingKey: 'q' });
    assert.equal(await redis.command('LLEN', 'q'), 1);
  });
});

redisTest("bodyEncoding 'utf-8' puts text into the envelope as it is", (redis) =>
  withConnection(redis, { bodyEncoding: 'utf-8' }, async (connection) => {
    const queue = new Queue('q').bind(connection);
    await queue.declare(connection);
    const producer = connection.Producer({ routingKey: 'q' });
    await producer.publish('grüße');
    assert.equal(JSON.parse(String(await redis.command('LINDEX', 'q', 0))).body, 'grüße');
    await producer.publish(Buffer.from([0, 255, 1]));
    assert.equal((await queue.get({ noAck: true }))?.decode(), 'grüße');
    assert.deepEqual((await queue.get({ noAck: true }))?.decode(), Buffer.from([0, 255, 1]));
  }),
);

redisTest('a queue with expires ends when nobody publishes to it, and each publish renews it', (redis) =>
  withConnection(redis, {}, async (connection) => {
    const queue = new Queue('q', { expires: 60_000 }).bind(connection);
    await queue.declare(connection);
    const producer = connection.Producer({ routingKey: 'q' });
    await producer.publish('x');
    assert.ok(Number(await redis.command('PTTL', 'q')) > 50_000);
    await redis.command('PEXPIRE', 'q', 1000);
    await producer.publish('x');
    assert.ok(Number(await redis.command('PTTL', 'q')) > 50_000);
    const exchange = new Exchange('x', { type: 'direct' });
    await queue.bindTo(exchange, { routingKey: 'k' });
    await redis.command('PERSIST', 'q');
    await producer.publish('x', { exchange, routingKey: 'k' });
    assert.ok(Number(await redis.command('PTTL', 'q')) > 50_000);
  }),
);

redisTest('SimpleQueue puts and gets', (redis) =>
  withConnection(redis, {}, async (connection) => {
    const queue = connection.SimpleQueue('simple');
    for (const each of ['a', 'b']) await queue.put(each);
    assert.equal(await queue.qsize(), 2);
    for (const each of ['a', 'b']) {
      const message = await queue.get({ timeout: 30_000 });
      assert.equal(message.decode(), each);
      message.ack();
    }
    await assert.rejects(queue.get({ block: false }), { name: 'Empty' });
    await queue.close();
  }),
);

redisTest('close() gives back what is not settled, in its order, and leaves no socket behind', async (redis) => {
  const clientName = `${redis.prefix}close`;
  await withConnection(redis, { clientName }, async (connection) => {
    const queue = new Queue('q');
    await queue.declare(connection);
    const producer = connection.Producer({ routingKey: 'q' });
    await Promise.all(Array.from({ length: 1200 }, (_, i) => producer.publish(String(i))));
    let taken = 0;
    const consumer = new Consumer(connection, queue, { onMessage: () => taken++, prefetchCount: 1100 });
    await consumer.consume();
    await until('all that may come', () => taken === 1100);
    await connection.close();
    const bodies = ((await redis.command('LRANGE', 'q', 0, -1)) as string[])
      .reverse()
      .map((each) => Number(Buffer.from(JSON.parse(each).body, 'base64').toString()));
    assert.deepEqual(
      bodies,
      Array.from({ length: 1200 }, (_, i) => i),
    );
    assert.equal(await redis.command('EXISTS', 'unacked', 'unacked_index'), 0);
    await until('no socket', async () => !String(await redis.command('CLIENT', 'LIST')).includes(clientName));
  });
});

redisTest('what get() takes while its channel closes goes back', (redis) =>
  withConnection(redis, {}, async (connection) => {
    const queue = new Queue('q');
    await connection.Producer().publish('x', { routingKey: 'q' });
    const channel = await connection.channel();
    const getting = assert.rejects(queue.get(channel), { name: 'ClosedError' });
    await Promise.resolve();
    await Promise.all([getting, channel.close()]);
    await until('it is back', async () => (await redis.command('LLEN', 'q')) === 1, {
      state: () => redis.command('KEYS', '*'),
    });
    assert.equal(await redis.command('EXISTS', 'unacked', 'unacked_index'), 0);
    assert.equal((await queue.get(connection))?.decode(), 'x');
  }),
);

redisTest('a consumer without acks leaves no record', (redis) =>
  withConnection(redis, {}, async (connection) => {
    const queue = new Queue('q');
    await queue.declare(connection);
    const producer = connection.Producer({ routingKey: 'q' });
    for (let i = 0; i < 10; i++) await producer.publish(String(i));
    let count = 0;
    const consumer = new Consumer(connection, queue, { noAck: true, onMessage: () => count++ });
    await consumer.consume();
    await until('all ten', () => count === 10);
    assert.equal(await redis.command('EXISTS', 'unacked'), 0);
    await consumer.close();
  }),
);

redisTest('what Redis has not is refused', (redis) =>
  withConnection(redis, {}, async (connection) => {
    const headers = new Exchange('h', { type: 'headers' }).bind(connection);
    await assert.rejects(headers.declare(), /headers/);
    const source = new Exchange('a', { type: 'direct' }).bind(connection);
    const target = new Exchange('b', { type: 'direct' }).bind(connection);
    await source.declare();
    await target.declare();
    await assert.rejects(target.bindTo(source, { routingKey: 'k' }), /binds no exchange to another/);
    await assert.rejects(new Queue('none', { passive: true }).bind(connection).declare(), { name: 'NotFound' });
    const again = new Exchange('a', { type: 'topic' }).bind(connection);
    await assert.rejects(again.declare(), { name: 'PreconditionFailed' });
  }),
);
