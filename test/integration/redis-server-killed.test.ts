/** Consumers outlive the server: what they hear of is a lost connection, and they go on when it is back. */
import assert from 'node:assert/strict';
import { Connection, Queue } from '#src/index';
import { RedisServer, redisServerTest } from '../support/redis.js';
import { consumerOf, EffectsLog, until } from '../support/rig.js';

redisServerTest(
  'a sharded consumer goes on after its server was killed, and nothing is thrown at the process',
  async () => {
    await using server = await RedisServer.start({ config: { appendonly: 'yes', appendfsync: 'always' } });
    using effects = new EffectsLog();
    const consumer = consumerOf(server.url, new Queue('q'));
    const told: string[] = [];
    consumer.on('disconnected', () => told.push('disconnected'));
    consumer.on('reconnected', () => told.push('reconnected'));
    const publish = async (ids: readonly string[]): Promise<void> => {
      await using connection = new Connection(server.url);
      const producer = connection.Producer({ routingKey: 'q' });
      for (const id of ids) await producer.publish({ id });
    };
    try {
      await consumer.consume();
      await publish(['a', 'b']);
      await until('they are acked', () => consumer.stats().acked === 2);
      for (let time = 1; time <= 2; time++) {
        await server.kill();
        await until('it has noticed', () => told.length === 2 * time - 1);
        await server.restart();
        await publish([`c${time}`, `d${time}`]);
        await until('it goes on', () => consumer.stats().acked === 2 + 2 * time, {
          state: () => [told, consumer.stats()],
        });
      }
      assert.deepEqual(told, ['disconnected', 'reconnected', 'disconnected', 'reconnected']);
      assert.deepEqual([...effects.counts().values()], [1, 1, 1, 1, 1, 1]);
    } finally {
      await consumer.close();
    }
  },
);
