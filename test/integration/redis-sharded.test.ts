/** The sharded consumer on Redis: each message once, leases, takeover, giving back, order, dead letters, limits. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach } from 'node:test';
import {
  Connection,
  Consumer,
  Exchange,
  type Message,
  Queue,
  ShardedConsumer,
  type ShardedConsumerOptions,
} from '#src/index';
import { type RedisSpace, redisTest } from '../support/redis.js';
import { EFFECTS_HANDLER, EffectsLog, publishAll, sha256, until } from '../support/rig.js';

const LIMIT = { timeout: 120_000 };

function consumerOf(
  { url }: RedisSpace,
  queue: Queue | readonly Queue[],
  options: Partial<ShardedConsumerOptions> = {},
  transportOptions: Record<string, unknown> = {},
): ShardedConsumer {
  const connection = new Connection(url, { transportOptions });
  const consumer = new ShardedConsumer(connection, queue, { handler: EFFECTS_HANDLER, workers: 2, ...options });
  consumers.push(consumer);
  return consumer;
}

// One that a failed test left open would take the messages of the next.
const consumers: ShardedConsumer[] = [];
afterEach(() => Promise.all(consumers.splice(0).map((consumer) => consumer.close())));

const empty = async ({ command }: RedisSpace, queue: string): Promise<boolean> =>
  (await command('LLEN', queue)) === 0 && (await command('HLEN', 'unacked')) === 0;

/** Bodies in the order in which they would be taken. */
async function bodiesOf({ command }: RedisSpace, list: string): Promise<string[]> {
  const envelopes = (await command('LRANGE', list, 0, -1)) as string[];
  return envelopes.reverse().map((each) => Buffer.from(JSON.parse(each).body, 'base64').toString());
}

function* orders(count: number, more: object = {}): Generator<{ body: object }> {
  for (let id = 0; id < count; id++) yield { body: { id, ...more } };
}

redisTest('10,000 messages are run once each, and acked', LIMIT, async (redis) => {
  using effects = new EffectsLog();
  const queue = new Queue('q');
  await publishAll(redis.url, queue, orders(10_000));
  const consumer = consumerOf(redis, queue);
  await consumer.consume();
  await until('all', () => consumer.stats().acked === 10_000, { timeoutMs: 100_000, state: () => consumer.stats() });
  await consumer.close();
  const counts = effects.counts();
  assert.equal(counts.size, 10_000);
  assert.ok([...counts.values()].every((count) => count === 1));
  assert.equal(await redis.command('DBSIZE'), 0);
});

redisTest('a handler that is longer than the visibility timeout runs once', LIMIT, async (redis) => {
  using effects = new EffectsLog();
  const queue = new Queue('q');
  await publishAll(redis.url, queue, orders(2, { do: 'sleep', ms: 2500 }));
  const options = { visibilityTimeout: 500 };
  const [one, two] = [consumerOf(redis, queue, {}, options), consumerOf(redis, queue, {}, options)];
  await one.consume();
  await until('both are taken', () => one.stats().received === 2);
  await two.consume();
  await until('both are over', () => one.stats().acked === 2, { state: () => [one.stats(), two.stats()] });
  assert.equal(two.stats().received, 0);
  await Promise.all([one.close(), two.close()]);
  assert.deepEqual([...effects.counts()].sort(), [
    ['0', 1],
    ['1', 1],
  ]);
});

redisTest('close() gives back in order what has not begun', LIMIT, async (redis) => {
  using effects = new EffectsLog();
  const latch = join(effects.folder, 'latch');
  const queue = new Queue('q');
  await publishAll(redis.url, queue, orders(1000, { do: 'latch', at: latch }));
  const consumer = consumerOf(redis, queue, { workers: 1, concurrency: 1, prefetchCount: 900 });
  await consumer.consume();
  await until('they are taken', () => consumer.stats().received === 900);
  const closed = consumer.close();
  writeFileSync(latch, '');
  await closed;
  const left = (await bodiesOf(redis, 'q')).map((body) => Number(JSON.parse(body).id));
  assert.deepEqual(
    left,
    [...left].sort((a, b) => a - b),
  );
  const done = [...effects.counts().keys()].map(Number);
  assert.equal(new Set([...done, ...left]).size, 1000);
  assert.equal(done.length + left.length, 1000);
  assert.equal(await redis.command('EXISTS', 'unacked', 'unacked_index'), 0);
});

redisTest('pause() takes nothing more, resume() goes on, and workers can be more and fewer', LIMIT, async (redis) => {
  using effects = new EffectsLog();
  const queue = new Queue('q');
  const consumer = consumerOf(redis, queue);
  await consumer.consume();
  await publishAll(redis.url, queue, orders(100));
  await until('the first', () => consumer.stats().acked === 100);
  await consumer.pause();
  await publishAll(redis.url, queue, orders(100));
  assert.equal(await redis.command('LLEN', 'q'), 100);
  await consumer.resume();
  await consumer.scale(3);
  await until('the rest', () => consumer.stats().acked === 200, { state: () => consumer.stats() });
  await consumer.scale(1);
  await publishAll(redis.url, queue, orders(100));
  await until('and more', () => consumer.stats().acked === 300, { state: () => consumer.stats() });
  await consumer.close();
  assert.equal(effects.read().length, 300);
});

redisTest('a worker that dies gives its message to another one', LIMIT, async (redis) => {
  using effects = new EffectsLog();
  const queue = new Queue('q');
  await publishAll(redis.url, queue, [{ body: { id: 'dies', do: 'exit' } }, ...orders(50)]);
  const consumer = consumerOf(redis, queue, { deadLetter: 'dead' });
  consumer.on('error', () => undefined);
  await consumer.consume();
  await until('all', () => consumer.stats().acked === 50, { state: () => consumer.stats() });
  await until('the dead letter', async () => (await redis.command('LLEN', 'dead')) === 1);
  await until('it is settled', () => empty(redis, 'q'));
  await consumer.close();
  assert.equal(effects.counts().size, 50);
});

for (const [orderBy, options] of [
  ['queue', {}],
  ['routingKey', {}],
  [{ header: 'customer' }, { headers: { customer: 'c' } }],
] as const) {
  redisTest(`orderBy ${JSON.stringify(orderBy)} keeps the order`, LIMIT, async (redis) => {
    using effects = new EffectsLog();
    const queue = new Queue('q');
    const bodies = Array.from({ length: 300 }, (_, id) => ({ body: { id, do: 'sleep', ms: id % 3 }, options }));
    await publishAll(redis.url, queue, bodies);
    const consumer = consumerOf(redis, queue, { orderBy: orderBy as 'queue', concurrency: 4 });
    await consumer.consume();
    await until('all', () => consumer.stats().acked === 300, { state: () => consumer.stats() });
    await consumer.close();
    assert.deepEqual(
      effects.read().map(({ id }) => Number(id)),
      Array.from({ length: 300 }, (_, id) => id),
    );
  });
}

redisTest('a retry is held here, and runs again', LIMIT, async (redis) => {
  using effects = new EffectsLog();
  const queue = new Queue('q');
  await publishAll(redis.url, queue, orders(3, { do: 'retry', ms: 50 }));
  const consumer = consumerOf(redis, queue);
  await consumer.consume();
  await until('all', () => consumer.stats().acked === 3, { state: () => consumer.stats() });
  await consumer.close();
  assert.deepEqual(
    effects.read().map(({ attempt }) => attempt),
    [2, 2, 2],
  );
  assert.equal(await redis.command('DBSIZE'), 0);
});

redisTest('what fails goes to the dead-letter queue with its bytes', LIMIT, async (redis) => {
  using _effects = new EffectsLog();
  const queue = new Queue('q');
  await publishAll(redis.url, queue, orders(1, { do: 'giveUp' }));
  const consumer = consumerOf(redis, queue, { deadLetter: 'dead' });
  await consumer.consume();
  await until('it is over', () => consumer.stats().deadLettered === 1, { state: () => consumer.stats() });
  await until('settled', () => empty(redis, 'q'));
  await consumer.close();
  const dead = JSON.parse(String(await redis.command('LINDEX', 'dead', 0)));
  assert.deepEqual(JSON.parse(Buffer.from(dead.body, 'base64').toString()), { id: 0, do: 'giveUp' });
  assert.equal(dead.headers['x-mozuku-reason'], 'failed');
  assert.equal(dead.headers['x-mozuku-queue'], 'q');
});

redisTest("deadLetter 'broker' is refused: Redis drops what is rejected", async (redis) => {
  assert.throws(() => consumerOf(redis, new Queue('q'), { deadLetter: 'broker' }), { name: 'OptionError' });
});

redisTest('large bodies pass through a small arena', LIMIT, async (redis) => {
  using effects = new EffectsLog();
  const queue = new Queue('q');
  const bodies = Array.from({ length: 60 }, (_, i) => ({
    body: Buffer.alloc(700_000 + i, i),
    options: { messageId: String(i) },
  }));
  await publishAll(redis.url, queue, bodies);
  const consumer = consumerOf(redis, queue, { maxMemory: 8 * 1024 * 1024, maxMessageBytes: 2 * 1024 * 1024 });
  await consumer.consume();
  await until('all', () => consumer.stats().acked === 60, { timeoutMs: 100_000, state: () => consumer.stats() });
  await consumer.close();
  for (const { id, hash } of effects.read()) assert.equal(hash, sha256(bodies[Number(id)]!.body));
  assert.equal(effects.counts().size, 60);
});

redisTest(
  'a message over maxMessageBytes goes to the dead letters, one over the arena stays and is told',
  LIMIT,
  async (redis) => {
    using _effects = new EffectsLog();
    const queue = new Queue('q');
    await publishAll(redis.url, queue, [
      { body: Buffer.alloc(3_000_000) },
      { body: Buffer.alloc(9_000_000) },
      { body: { id: 'small' } },
    ]);
    const errors: Error[] = [];
    const consumer = consumerOf(redis, queue, {
      maxMemory: 8 * 1024 * 1024,
      maxMessageBytes: 1_000_000,
      deadLetter: 'dead',
    });
    consumer.on('error', (error) => errors.push(error));
    await consumer.consume();
    await until('the small one', () => consumer.stats().acked === 1, { state: () => consumer.stats() });
    await until('the large one', async () => (await redis.command('LLEN', 'dead')) === 1);
    await until('the error', () => errors.length > 0);
    assert.equal(errors[0]!.name, 'MessageTooLarge');
    await until(
      'only the one that fits nowhere is unsettled',
      async () => (await redis.command('HLEN', 'unacked')) === 1,
    );
    await consumer.close();
    assert.deepEqual([await redis.command('LLEN', 'q'), await redis.command('HLEN', 'unacked')], [1, 0]);
  },
);

redisTest('a body just under maxMessageBytes is no larger for its base64', LIMIT, async (redis) => {
  using effects = new EffectsLog();
  const queue = new Queue('q');
  await publishAll(redis.url, queue, [{ body: Buffer.alloc(95_000), options: { messageId: 'fits' } }]);
  const consumer = consumerOf(redis, queue, { maxMessageBytes: 100_000, deadLetter: 'dead' });
  await consumer.consume();
  await until('it is settled', () => consumer.stats().acked + consumer.stats().deadLettered === 1);
  await consumer.close();
  assert.deepEqual([...effects.counts()], [['fits', 1]]);
});

redisTest('a fanout queue is heard by workers, and priorities come to idle ones', LIMIT, async (redis) => {
  using effects = new EffectsLog();
  const exchange = new Exchange(`${redis.prefix}f`, { type: 'fanout' });
  const heard = new Queue('heard', exchange);
  const queue = new Queue('q');
  const consumer = consumerOf(redis, [heard, queue]);
  await consumer.consume();
  const connection = new Connection(redis.url);
  const producer = connection.Producer();
  for (let id = 0; id < 20; id++) {
    await producer.publish({ id }, { exchange, declare: [exchange] });
    await producer.publish({ id: `p${id}` }, { routingKey: 'q', priority: id % 10 });
  }
  await until('all', () => consumer.stats().acked === 40, { state: () => consumer.stats() });
  await connection.close();
  await consumer.close();
  assert.equal(effects.counts().size, 40);
});

redisTest('a queue whose messages may not come now costs the others nothing', LIMIT, async (redis) => {
  using effects = new EffectsLog();
  const latch = join(effects.folder, 'latch');
  const [full, other] = [new Queue('full'), new Queue('other')];
  await publishAll(redis.url, full, orders(20, { do: 'latch', at: latch }));
  const consumer = consumerOf(redis, [full, other], { prefetchCount: 4, concurrency: 16 });
  await consumer.consume();
  await until('as many as may come', () => consumer.stats().received === 4);
  const calls = async (): Promise<number> =>
    Number(/total_commands_processed:(\d+)/.exec(String(await redis.command('INFO', 'stats')))![1]);
  // Whatever is waited for: no command may be asked over and over meanwhile.
  const before = await calls();
  const start = performance.now();
  await until('a second', () => performance.now() - start > 1000);
  const asked = (await calls()) - before;
  assert.ok(asked < 1500, `${asked} commands in a second`);
  await publishAll(redis.url, other, orders(5));
  await until('those of the other queue', () => consumer.stats().acked === 5, { state: () => consumer.stats() });
  writeFileSync(latch, '');
  await until('all', () => consumer.stats().acked === 25, { state: () => consumer.stats() });
  await consumer.close();
});

redisTest('inline and sharded consumers share a queue', LIMIT, async (redis) => {
  using effects = new EffectsLog();
  const queue = new Queue('q');
  const connection = new Connection(redis.url);
  let inline = 0;
  const onMessage = (message: Message): void => {
    inline++;
    message.ack();
  };
  const consumer = consumerOf(redis, queue, { prefetchCount: 8 });
  await consumer.consume();
  const other = new Consumer(connection, queue, { onMessage, prefetchCount: 8 });
  await other.consume();
  await publishAll(redis.url, queue, orders(2000));
  await until('all', () => consumer.stats().acked + inline === 2000, { state: () => [consumer.stats(), inline] });
  await other.close();
  await connection.close();
  await consumer.close();
  assert.equal(effects.counts().size, 2000 - inline);
  assert.equal(await redis.command('EXISTS', 'q', 'unacked'), 0);
});
