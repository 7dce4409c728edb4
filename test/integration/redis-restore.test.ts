/** Looking for what dead consumers held: how often, how many at a time, and what is put back and what is not. */
import assert from 'node:assert/strict';
import { Connection, Consumer, Queue } from '#src/index';
import { storedIn } from '../support/envelopes.js';
import { type RedisSpace, redisTest } from '../support/redis.js';
import { until } from '../support/rig.js';

const HOUR = 3_600_000;

const envelope = (id: string): string => storedIn('q', id, id);

/** As a consumer leaves them that died in 1970. */
async function leave({ command }: RedisSpace, ...ids: string[]): Promise<void> {
  for (const [i, id] of ids.entries()) {
    await command('HSET', 'unacked', id, JSON.stringify([JSON.parse(envelope(id)), '', 'q']));
    await command('ZADD', 'unacked_index', i + 1, id);
  }
}

async function bodies({ command }: RedisSpace): Promise<string[]> {
  const list = (await command('LRANGE', 'q', 0, -1)) as string[];
  return list.reverse().map((text) => Buffer.from(JSON.parse(text).body, 'base64').toString());
}

/** Somebody who consumes, though not this queue: whoever does looks for all. */
async function consuming({ url }: RedisSpace, transportOptions: object, run: () => Promise<void>): Promise<void> {
  const connection = new Connection(url, { transportOptions: { ...transportOptions } });
  const consumer = new Consumer(connection, new Queue('other'), { onMessage: () => undefined });
  try {
    await consumer.consume();
    await run();
  } finally {
    await connection.close();
  }
}

redisTest('all that is overdue goes back at the first look, however few are put back at a time', (redis) =>
  consuming(redis, { unackedRestoreLimit: 4 }, async () => {
    const ids = Array.from({ length: 30 }, (_, i) => String(i));
    await leave(redis, ...ids);
    await consuming(redis, { unackedRestoreLimit: 4, visibilityTimeout: HOUR }, async () => {
      await until('all are back', async () => (await redis.command('LLEN', 'q')) === 30);
    });
    const found = await bodies(redis);
    assert.deepEqual([...found].sort(), [...ids].sort());
    assert.equal(await redis.command('EXISTS', 'unacked', 'unacked_index'), 0);
    const [one] = (await redis.command('LRANGE', 'q', 0, 0)) as string[];
    const { headers, properties } = JSON.parse(one!);
    assert.deepEqual([headers.redelivered, properties.delivery_info.redelivered], [true, true]);
  }),
);

for (const [unackedRestoreInterval, visibilityTimeout] of [
  [50, HOUR],
  [HOUR, 200],
] as const) {
  redisTest(
    `it is looked for again: every ${unackedRestoreInterval} ms, with leases of ${visibilityTimeout} ms`,
    (redis) =>
      consuming(redis, { unackedRestoreInterval, visibilityTimeout }, async () => {
        for (const id of ['first', 'second', 'third']) {
          await leave(redis, id);
          await until('it is back', async () => (await bodies(redis)).includes(id), { timeoutMs: 5000 });
        }
      }),
  );
}

redisTest('until then nothing is looked for', (redis) =>
  consuming(redis, { unackedRestoreInterval: HOUR, visibilityTimeout: HOUR }, async () => {
    await leave(redis, 'late');
    const start = performance.now();
    await until('a while', () => performance.now() - start > 500);
    assert.equal(await redis.command('LLEN', 'q'), 0);
    assert.equal(await redis.command('HLEN', 'unacked'), 1);
  }),
);

redisTest('a delivery without a record, and a record without a delivery, are given to nobody', (redis) =>
  consuming(redis, { unackedRestoreInterval: 50, visibilityTimeout: HOUR }, async () => {
    // Settled by another one in this moment.
    await redis.command('ZADD', 'unacked_index', 1, 'gone');
    await leave(redis, 'overdue');
    await until('the other is back', async () => (await redis.command('LLEN', 'q')) === 1);
    await until('the index is rid of it', async () => (await redis.command('EXISTS', 'unacked_index')) === 0, {
      timeoutMs: 5000,
      state: () => redis.command('ZRANGE', 'unacked_index', 0, -1),
    });
    assert.deepEqual(await bodies(redis), ['overdue']);
  }),
);

redisTest('an interval of nothing is refused', async ({ url }) => {
  const transportOptions = { unackedRestoreInterval: 0 };
  assert.throws(() => new Connection(url, { transportOptions }), { name: 'OptionError' });
});
