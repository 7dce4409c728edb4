/** A Redis that refuses writes: its memory is full, or it could not save its data. What cannot be done is told, and all goes on after it. */
import assert from 'node:assert/strict';
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Connection, Exchange, type Message, Queue, ShardedConsumer } from '#src/index';
import { RedisServer, redisServerTest } from '../support/redis.js';
import { EFFECTS_HANDLER, EffectsLog, until } from '../support/rig.js';

const LIMIT = { timeout: 60_000 };

/** What makes it refuse writes, and what ends that. */
interface Trouble {
  begin(server: RedisServer): Promise<void>;
  end(server: RedisServer): Promise<void>;
}

const TROUBLES: Readonly<Record<'OOM' | 'MISCONF', Trouble>> = {
  OOM: {
    begin: async (server) => {
      await server.command('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
      await server.command('CONFIG', 'SET', 'maxmemory', '1');
    },
    end: async (server) => {
      await server.command('CONFIG', 'SET', 'maxmemory', '0');
    },
  },
  MISCONF: {
    begin: async (server) => {
      // In the place of the file there is a folder.
      mkdirSync(join(server.folder, 'dump.rdb'));
      await server.command('CONFIG', 'SET', 'save', '3600 1');
      await server.command('BGSAVE');
      const refusing = async (): Promise<boolean> =>
        String(await server.command('INFO', 'persistence')).includes('rdb_last_bgsave_status:err');
      await until('it could not save', refusing);
    },
    end: async (server) => {
      rmdirSync(join(server.folder, 'dump.rdb'));
      await server.command('SAVE');
    },
  },
};

for (const [word, trouble] of Object.entries(TROUBLES)) {
  redisServerTest(
    `${word}: what is published is refused, what was taken is settled, and no connection is lost`,
    LIMIT,
    async () => {
      await using server = await RedisServer.start();
      using effects = new EffectsLog();
      const latch = join(effects.folder, 'latch');
      const connection = new Connection(server.url);
      const losses: unknown[] = [];
      const producer = connection.Producer();
      await new Queue('bound', new Exchange('direct', { type: 'direct' }), { routingKey: 'inline' }).declare(
        connection,
      );
      const sharded = new ShardedConsumer(new Connection(server.url), new Queue('sharded'), {
        handler: EFFECTS_HANDLER,
        workers: 1,
        concurrency: 8,
      });
      const problems: Error[] = [];
      sharded.on('error', (error) => problems.push(error));
      sharded.on('disconnected', (error) => losses.push(error));
      await sharded.consume();
      const held: Message[] = [];
      const inline = connection.Consumer(new Queue('inline'), { onMessage: (message) => held.push(message) });
      await inline.consume();
      void inline.closed.then(
        () => losses.push('closed'),
        (error: unknown) => losses.push(error),
      );
      try {
        for (let id = 0; id < 4; id++) {
          await producer.publish({ id: `held-${id}`, do: 'latch', at: latch }, { routingKey: 'sharded' });
          await producer.publish({ id }, { routingKey: 'inline' });
        }
        await until('all are taken', () => sharded.stats().received === 4 && held.length === 4, {
          timeoutMs: 10_000,
          state: () => [sharded.stats(), held.length],
        });

        await trouble.begin(server);
        for (const exchange of ['', 'direct']) {
          await assert.rejects(producer.publish('x', { exchange, routingKey: 'inline' }), {
            name: 'ResourceError',
            message: new RegExp(`\\b${word}\\b`),
          });
        }
        // What runs ends, and is settled now or when that is possible.
        writeFileSync(latch, '');
        await until('they have run', () => effects.counts().size === 4, { timeoutMs: 10_000 });
        held[0]!.ack();
        held[1]!.requeue();
        held[2]!.reject();
        await trouble.end(server);

        await producer.publish({ id: 'after' }, { routingKey: 'sharded' });
        await producer.publish({ id: 'after' }, { routingKey: 'inline' });
        await until('the next ones come', () => effects.counts().has('after') && held.length >= 6, {
          timeoutMs: 10_000,
          state: () => [sharded.stats(), held.length, problems.map(String), losses.map(String)],
        });
        const again = held.slice(4).map((message) => [message.decode(), message.deliveryInfo.redelivered]);
        assert.deepEqual(
          again.sort(),
          [
            [{ id: 1 }, true],
            [{ id: 'after' }, false],
          ].sort(),
        );
        for (const message of [held[3]!, ...held.slice(4)]) message.ack();
        await until('all is settled', async () => (await server.command('EXISTS', 'unacked', 'unacked_index')) === 0, {
          timeoutMs: 10_000,
          state: () => server.command('HGETALL', 'unacked'),
        });
        assert.equal(held.length, 6);
        assert.ok([...effects.counts().values()].every((count) => count === 1));
        assert.deepEqual(losses, []);
        assert.ok(
          problems.every((error) => error.name === 'ResourceError'),
          problems.map(String).join(),
        );
      } finally {
        await sharded.close();
        await connection.close();
      }
    },
  );

  redisServerTest(
    `${word}: what waits in a queue comes when it is over, without anything else happening`,
    LIMIT,
    async () => {
      await using server = await RedisServer.start();
      using effects = new EffectsLog();
      const connection = new Connection(server.url);
      await connection.Producer().publish({ id: 'waiting' }, { routingKey: 'q' });
      await trouble.begin(server);
      const consumer = new ShardedConsumer(new Connection(server.url), new Queue('q'), {
        handler: EFFECTS_HANDLER,
        workers: 1,
      });
      const problems: Error[] = [];
      consumer.on('error', (error) => problems.push(error));
      try {
        await consumer.consume();
        // A full server lets it be taken, one that could not save does not.
        if (word === 'MISCONF') await until('it is told', () => problems.length > 0);
        await trouble.end(server);
        await until('it has run', () => effects.counts().has('waiting'), { state: () => problems.map(String) });
        await until('all is settled', async () => (await server.command('EXISTS', 'q', 'unacked')) === 0, {
          timeoutMs: 10_000,
        });
        assert.deepEqual([...new Set(problems.map(({ name }) => name))], word === 'MISCONF' ? ['ResourceError'] : []);
      } finally {
        await consumer.close();
        await connection.close();
      }
    },
  );
}
