/** Redis 5 knows neither HELLO nor BLMOVE: who waits there looks, soon at first and then four times a second. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection, Consumer, Queue, ShardedConsumer } from '#src/index';
import { RedisServer, redisServerTest } from '../support/redis.js';
import { EFFECTS_HANDLER, EffectsLog, until } from '../support/rig.js';

const OLD = { config: { 'rename-command': ['HELLO ""', 'BLMOVE ""'] } };

/** How often the server was asked to run scripts. */
async function scripts(server: RedisServer): Promise<number> {
  const stats = String(await server.command('INFO', 'commandstats'));
  return [...stats.matchAll(/cmdstat_eval(?:sha)?:calls=(\d+)/g)].reduce((sum, [, calls]) => sum + Number(calls), 0);
}

redisServerTest('a server without HELLO and BLMOVE is consumed from, inline and on workers', async () => {
  await using server = await RedisServer.start(OLD);
  using effects = new EffectsLog();
  const connection = new Connection(server.url);
  const sharded = new ShardedConsumer(new Connection(server.url), new Queue('q'), {
    handler: EFFECTS_HANDLER,
    workers: 1,
  });
  const errors: Error[] = [];
  sharded.on('error', (error) => errors.push(error));
  const got: unknown[] = [];
  const inline = new Consumer(connection, new Queue('inline'), {
    onMessage: (message) => {
      got.push(message.decode());
      message.ack();
    },
  });
  await Promise.all([sharded.consume(), inline.consume()]);
  const producer = connection.Producer();
  for (let id = 0; id < 20; id++) {
    await producer.publish({ id }, { routingKey: 'q', priority: id % 10 });
    await producer.publish({ id }, { routingKey: 'inline', priority: id % 10 });
  }
  await until('all', () => effects.counts().size === 20 && got.length === 20);
  await until('nothing is left', async () => (await server.command('DBSIZE')) === 0);
  // It has come to rest: a look every quarter of a second by each of the two.
  await sleep(1000);
  const [before, at] = [await scripts(server), performance.now()];
  await sleep(2000);
  const looks = (await scripts(server)) - before;
  assert.ok(looks <= (2 * (performance.now() - at)) / 250 + 4, `${looks} looks`);
  assert.ok(looks > 0);
  assert.doesNotMatch(String(await server.command('INFO', 'commandstats')), /cmdstat_(blmove|hello)/i);
  assert.deepEqual(errors, []);
  await sharded.close();
  await inline.close();
  await connection.close();
});
