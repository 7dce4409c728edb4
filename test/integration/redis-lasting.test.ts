/** Queues with `expires`: what renews them, and what does not outlive them or end before them. */
import assert from 'node:assert/strict';
import { Connection, Consumer, Exchange, Queue } from '#src/index';
import { type RedisSpace, redisTest } from '../support/redis.js';
import { until } from '../support/rig.js';

const SEP = '\x06\x16';
const LASTS = 60_000;
/** What a TTL of `LASTS` has left within a test. */
const NEW = LASTS - 20_000;

/** Milliseconds that a list has left; -1: for ever, -2: there is none. */
async function ttl({ command }: RedisSpace, list: string): Promise<number> {
  return Number(await command('PTTL', list));
}

async function isRenewed(redis: RedisSpace, list: string): Promise<boolean> {
  const left = await ttl(redis, list);
  return left > NEW && left <= LASTS;
}

for (const type of ['direct', 'topic']) {
  redisTest(`a publish to a ${type} exchange renews all lists of the queues that it reaches`, async (redis) => {
    await using connection = new Connection(redis.url);
    const exchange = new Exchange(`x-${type}`, { type });
    const queues = ['a', 'b', 'c'].map((name) => new Queue(name, { expires: LASTS }).bind(connection));
    for (const queue of queues) await queue.declare();
    const [a, b] = queues;
    await exchange.declare(connection);
    await a!.bindTo(exchange, { routingKey: 'k' });
    await b!.bindTo(exchange, { routingKey: 'other' });
    // Somebody else has bound this one, which was declared here.
    await redis.command('SADD', `_kombu.binding.x-${type}`, ['k', type === 'topic' ? '^k$' : '', 'c'].join(SEP));
    const producer = connection.Producer();
    for (const queue of queues) await producer.publish('old', { routingKey: queue.name, priority: 9 });
    const lists = ['a', 'b', 'c'].map((name) => `${name}${SEP}9`);
    for (const list of lists) await redis.command('PEXPIRE', list, 10_000);
    await producer.publish('new', { exchange, routingKey: 'k' });
    for (const list of ['a', 'c', lists[0]!, lists[2]!]) assert.ok(await isRenewed(redis, list), list);
    assert.ok((await ttl(redis, lists[1]!)) <= 10_000);
    assert.equal(await ttl(redis, 'b'), -2);
    // Declared without `expires` it has none any more.
    await new Queue('a').bind(connection).declare();
    await redis.command('PERSIST', 'a');
    await producer.publish('new', { exchange, routingKey: 'k' });
    assert.equal(await ttl(redis, 'a'), -1);
  });
}

redisTest('get() renews a queue, also where it finds nothing in one of its lists', async (redis) => {
  await using connection = new Connection(redis.url);
  const queue = new Queue('q', { expires: LASTS }).bind(connection);
  await queue.declare();
  await connection.Producer().publish('x', { routingKey: 'q', priority: 9 });
  await connection.Producer().publish('x', { routingKey: 'q' });
  await redis.command('PEXPIRE', `q${SEP}9`, 10_000);
  const message = await queue.get();
  assert.ok(await isRenewed(redis, `q${SEP}9`));
  message!.ack();
});

redisTest('what is put back lasts as long as its queue, and no list that lasts for ever is ended', async (redis) => {
  await using connection = new Connection(redis.url);
  const queues = ['made', 'short', 'ever', 'plain'].map((name) =>
    new Queue(name, name === 'plain' ? {} : { expires: LASTS }).bind(connection),
  );
  const producer = connection.Producer();
  for (const queue of queues) {
    await queue.declare();
    for (const body of ['first', 'second']) await producer.publish(body, { routingKey: queue.name, priority: 6 });
  }
  const list = (name: string): string => `${name}${SEP}6`;
  const taken = [];
  for (const queue of queues) taken.push((await queue.get())!);
  // As if its time had run out, had nearly run out, and had been given by nobody.
  await redis.command('DEL', list('made'));
  await redis.command('PEXPIRE', list('short'), 10_000);
  await redis.command('PERSIST', list('ever'));
  for (const message of taken) message.requeue();
  await until('they are back', async () => (await redis.command('HLEN', 'unacked')) === 0);
  assert.equal(await redis.command('LLEN', list('made')), 1);
  assert.ok(await isRenewed(redis, list('made')));
  assert.ok(await isRenewed(redis, list('short')));
  assert.equal(await ttl(redis, list('ever')), -1);
  assert.equal(await ttl(redis, list('plain')), -1);
});

redisTest('what a dead consumer held lasts as long as its queue, when it is restored', async (redis) => {
  await using connection = new Connection(redis.url, { transportOptions: { visibilityTimeout: 1000 } });
  const queue = new Queue('q', { expires: LASTS }).bind(connection);
  await queue.declare();
  await new Exchange('x', { type: 'direct' }).declare(connection);
  await queue.bindTo('x', { routingKey: 'k' });
  await connection.Producer().publish('x', { routingKey: 'q' });
  const envelope = String(await redis.command('RPOP', 'q'));
  // One of ours, and one of Python's, of consumers that have not been there for long.
  await redis.command('HSET', 'unacked', 'ours', `[${envelope}, "", "q"]`, 'theirs', `[${envelope}, "x", "k"]`);
  await redis.command('ZADD', 'unacked_index', 1000, 'ours', 1001, 'theirs');
  await using consumer = new Consumer(connection, new Queue('unrelated'), { onMessage: () => undefined });
  await consumer.consume();
  await until('they are back', async () => (await redis.command('LLEN', 'q')) === 2);
  assert.ok(await isRenewed(redis, 'q'));
});
