/** Which of several queues comes first: in turn, as they were given, or by name, as kombu's strategies of the same names. */
import assert from 'node:assert/strict';
import { Connection, Queue, ShardedConsumer } from '#src/index';
import { storedIn } from '../support/envelopes.js';
import { type RedisSpace, redisTest } from '../support/redis.js';
import { EFFECTS_HANDLER, EffectsLog, until } from '../support/rig.js';

const NAMES = ['m', 'z', 'a'];

const envelope = (id: string): string => storedIn('', id);

/** All three queues get a message in one step, so often, and each time it is seen in which order these run. */
async function rounds({ url, command }: RedisSpace, count: number, transportOptions = {}): Promise<string[]> {
  using effects = new EffectsLog();
  const connection = new Connection(url, { transportOptions });
  const queues = NAMES.map((name) => new Queue(name));
  const consumer = new ShardedConsumer(connection, queues, { handler: EFFECTS_HANDLER, workers: 1 });
  const push = "for i, key in ipairs(KEYS) do redis.call('LPUSH', key, ARGV[i]) end";
  try {
    await consumer.consume();
    for (let round = 1; round <= count; round++) {
      await command('EVAL', push, NAMES.length, ...NAMES, ...NAMES.map(envelope));
      await until('they have run', () => consumer.stats().acked === round * NAMES.length);
    }
  } finally {
    await consumer.close();
  }
  const ids = effects.read().map(({ id }) => id);
  return Array.from({ length: count }, (_, round) => ids.slice(round * 3, round * 3 + 3).join(''));
}

redisTest('round_robin: each queue is the first in turn', async (redis) => {
  const seen = new Set(await rounds(redis, 20));
  assert.deepEqual([...seen].sort(), ['amz', 'mza', 'zam']);
});

redisTest('priority: queues come as they were given', async (redis) => {
  const seen = new Set(await rounds(redis, 6, { queueOrderStrategy: 'priority' }));
  assert.deepEqual([...seen], ['mza']);
});

redisTest('sorted: queues come by name', async (redis) => {
  const seen = new Set(await rounds(redis, 6, { queueOrderStrategy: 'sorted' }));
  assert.deepEqual([...seen], ['amz']);
});
