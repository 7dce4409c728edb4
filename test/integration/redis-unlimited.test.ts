/** Inline consumers on Redis without a prefetch: what is taken does not outrun what is handled. */
import assert from 'node:assert/strict';
import { Connection, Consumer, type ConsumerOptions, type Message, Queue } from '#src/index';
import { MOST_RUNNING, MOST_RUNNING_BYTES } from '#src/main/transports/redis/consumption';
import { type RedisSpace, redisTest } from '../support/redis.js';
import { publishAll, until } from '../support/rig.js';

const LIMIT = { timeout: 120_000 };
const MANY = 3 * MOST_RUNNING;

function* numbers(count: number, bytes = 0): Generator<{ body: object }> {
  for (let id = 0; id < count; id++) yield { body: { id, padding: 'x'.repeat(bytes) } };
}

async function left({ command }: RedisSpace): Promise<number> {
  return Number(await command('LLEN', 'q'));
}

for (const options of [{}, { noAck: true }] as ConsumerOptions[]) {
  redisTest(`callbacks that run bound what is taken: ${JSON.stringify(options)}`, LIMIT, async (redis) => {
    await publishAll(redis.url, new Queue('q'), numbers(MANY));
    await using connection = new Connection(redis.url);
    let release = (): void => undefined;
    const opened = new Promise<void>((resolve) => {
      release = resolve;
    });
    let count = 0;
    const onMessage = async (message: Message): Promise<void> => {
      count++;
      await opened;
      if (options.noAck !== true) message.ack();
    };
    const consumer = new Consumer(connection, new Queue('q'), { onMessage, ...options });
    await consumer.consume();
    await until('all that may run', () => count === MOST_RUNNING);
    // What comes now wakes whoever waits, and stays all the same.
    await connection.Producer().publish({ id: 'more' }, { routingKey: 'q' });
    assert.equal(await left(redis), MANY - MOST_RUNNING + 1);
    assert.equal(count, MOST_RUNNING);
    release();
    await until('all', () => count === MANY + 1, { state: () => count });
    await until('nothing is held', async () => (await redis.command('DBSIZE')) === 0);
    await consumer.close();
  });
}

redisTest('callbacks that run bound the bytes that are taken', LIMIT, async (redis) => {
  const bytes = MOST_RUNNING_BYTES / 16;
  await publishAll(redis.url, new Queue('q'), numbers(24, bytes));
  await using connection = new Connection(redis.url);
  let release = (): void => undefined;
  const opened = new Promise<void>((resolve) => {
    release = resolve;
  });
  let count = 0;
  const onMessage = async (message: Message): Promise<void> => {
    count++;
    await opened;
    message.ack();
  };
  const consumer = new Consumer(connection, new Queue('q'), { onMessage });
  await consumer.consume();
  // In base64: a third more.
  await until('all that may run', () => count === 12);
  assert.equal(await left(redis), 12);
  release();
  await until('all', () => count === 24);
  await consumer.close();
});

redisTest('callbacks that keep messages and return may keep any number', LIMIT, async (redis) => {
  await publishAll(redis.url, new Queue('q'), numbers(MANY));
  await using connection = new Connection(redis.url);
  const kept: Message[] = [];
  const consumer = new Consumer(connection, new Queue('q'), { onMessage: (message) => kept.push(message) });
  await consumer.consume();
  await until('all', () => kept.length === MANY, { state: () => kept.length });
  for (const message of kept) message.ack();
  await until('nothing is held', async () => (await redis.command('DBSIZE')) === 0);
  await consumer.close();
});

redisTest('a loop without acks takes no more than it has not come to', LIMIT, async (redis) => {
  await publishAll(redis.url, new Queue('q'), numbers(MANY));
  await using connection = new Connection(redis.url);
  const consumer = new Consumer(connection, new Queue('q'), { noAck: true });
  let count = 0;
  for await (const message of consumer) {
    assert.deepEqual((message.decode() as { id: number }).id, count++);
    if (count === 1) {
      await until('all that may wait', async () => (await left(redis)) < MANY - MOST_RUNNING);
      assert.equal(await left(redis), MANY - MOST_RUNNING - 1);
    }
    if (count === MANY) break;
  }
  await consumer.close();
  assert.equal(await redis.command('DBSIZE'), 0);
});
