/** A server that stands still while consumption pauses, and then does what it was asked long ago. Takes half a minute: a take's time. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection, Queue, ShardedConsumer } from '#src/index';
import { TAKE_TIMEOUT } from '#src/main/transports/redis/taker';
import { TcpProxy } from '../support/proxy.js';
import { RedisServer, redisServerTest } from '../support/redis.js';
import { EFFECTS_HANDLER, EffectsLog, until } from '../support/rig.js';

redisServerTest(
  'a take that is given up while consumption pauses: its tags are not used again',
  { timeout: 180_000 },
  async () => {
    await using server = await RedisServer.start();
    using effects = new EffectsLog();
    const client = await server.connect();
    await using proxy = await TcpProxy.listen(server.url);
    // It stands still just behind the answer to a look: none is under way, and the next one will wait.
    let isToFreeze = false;
    let looking: unknown;
    proxy.observe((line, direction, bytes) => {
      if (direction === 'toServer' && bytes.includes('evalsha')) looking = line;
      if (!isToFreeze || direction !== 'toClient' || line !== looking) return;
      isToFreeze = false;
      server.freeze();
    });
    const url = `${server.url}?heartbeat=0`;
    // With a second queue in turn no wait takes by itself.
    const queues = [new Queue('q'), new Queue('other')];
    const consumer = new ShardedConsumer(new Connection(`${proxy.url}?heartbeat=0`), queues, {
      handler: EFFECTS_HANDLER,
      workers: 1,
    });
    const connection = new Connection(url);
    const producer = connection.Producer({ routingKey: 'q' });
    await consumer.consume();
    await producer.publish({ id: 'before' });
    await producer.publish({ id: 'during' }, { routingKey: 'sample' });
    const envelope = String(await client.call('RPOP', 'sample'));
    await until('the first', () => consumer.stats().acked === 1);
    isToFreeze = true;
    await until('it stands still', () => !isToFreeze, { everyMs: 1 });
    // It is there before the next look, whose answer comes when nobody waits for it any more.
    const pushed = client.call('LPUSH', 'q', envelope);
    await sleep(500);
    await assert.rejects(consumer.pause(), { name: 'TimeoutError' });
    await sleep(TAKE_TIMEOUT);
    server.thaw();
    await pushed;
    await until('it was taken', async () => (await client.call('HLEN', 'unacked')) === 1);
    await producer.publish({ id: 'after' });
    await consumer.resume();
    await until('all', () => effects.counts().size === 3, { state: () => [...effects.counts()] });
    await consumer.close();
    await connection.close();
    client.close();
    assert.equal(await server.command('DBSIZE'), 0);
  },
);
