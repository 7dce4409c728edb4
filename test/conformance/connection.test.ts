/** What a connection does when it is lost: ensure, autoretry, the default channel, what was declared. kombu's B05, B06, B19. */
import assert from 'node:assert/strict';
import { type Channel, type Connection, Exchange, errors, Queue } from '#src/index';
import { onBothBrokers, type Scene } from '../support/both-brokers.js';
import { lose } from '../support/lose.js';

/** A connection of the scene's broker that is lost in the first run of what it does. */
async function flaky(scene: Scene): Promise<{ connection: Connection; loseOnce: () => Promise<void> }> {
  const connection = await scene.connect().connect();
  let left = 1;
  const loseOnce = async () => {
    if (left-- > 0) await lose(scene, connection);
  };
  return { connection, loseOnce };
}

onBothBrokers('ensure runs a function again on a connection that was lost under it', async (scene) => {
  const queue = await scene.queue();
  const { connection, loseOnce } = await flaky(scene);
  const told: unknown[] = [];
  const revived: Channel[] = [];
  let channel = await connection.channel();
  const ask = connection.ensure(
    async (name: string) => {
      await loseOnce();
      return channel.call('asking', (raw) => raw.checkQueue(name));
    },
    {
      errback: (error, interval) => told.push([error instanceof errors.KombuError, interval]),
      onRevive: (fresh) => {
        revived.push(fresh);
        channel = fresh;
      },
    },
  );
  assert.equal((await ask(queue)).queue, queue);
  assert.deepEqual(told, [[true, 0]]);
  assert.deepEqual(revived, [await connection.defaultChannel()]);
});

onBothBrokers('ensure leaves what the broker refuses to its caller', async (scene) => {
  const connection = scene.connect();
  let runs = 0;
  const ask = connection.ensure(async () => {
    runs++;
    await new Queue(scene.unique('none'), undefined, { passive: true }).declare(connection);
  });
  await assert.rejects(ask(), errors.NotFound);
  assert.equal(runs, 1);
});

onBothBrokers(
  'autoretry gives the default channel, a new one after a loss, and the last one with the result',
  async (scene) => {
    const queue = await scene.queue();
    const { connection, loseOnce } = await flaky(scene);
    const own = await connection.channel();
    const given: Channel[] = [];
    const revived: Channel[] = [];
    const publish = connection.autoretry(
      async (channel: Channel, body: string) => {
        given.push(channel);
        await loseOnce();
        await channel.publish('', queue, Buffer.from(body), {});
        return body.length;
      },
      { channel: own, onRevive: (channel) => revived.push(channel) },
    );
    const [result, last] = await publish('hello');
    assert.equal(result, 5);
    assert.deepEqual(given, [own, last]);
    assert.deepEqual(revived, [last]);
    assert.deepEqual(await publish('again'), [5, last]);
    assert.deepEqual(await scene.texts(queue), ['hello', 'again']);
    // Not one more for each: nobody would close them.
    for (let i = 0; i < 2; i++) {
      const [, through] = await connection.autoretry((channel: Channel) => channel.closed)();
      assert.equal(through, await connection.defaultChannel());
    }
    const refused = connection.autoretry(async (channel: Channel) => {
      await new Queue(scene.unique('none'), undefined, { passive: true }).declare(channel);
    });
    const broken = await connection.defaultChannel();
    await assert.rejects(refused(), errors.NotFound);
    const [, next] = await connection.autoretry((channel: Channel) => channel.closed)();
    // On Redis a mistake closes no channel.
    assert.equal(next === broken, scene.kind === 'redis');
  },
);

onBothBrokers('the default channel is opened anew after a loss, and not after close()', async (scene) => {
  const connection = scene.connect();
  const first = await connection.defaultChannel();
  await lose(scene, connection);
  const second = await connection.defaultChannel();
  assert.notEqual(second, first);
  await connection.revive(second);
  assert.equal(await connection.defaultChannel(), second);
  await connection.revive();
  assert.equal(second.closed, true);
  const third = await connection.defaultChannel();
  await connection.maybeCloseChannel(third);
  await connection.maybeCloseChannel(third);
  assert.equal(third.closed, true);
  await connection.close();
  await assert.rejects(connection.defaultChannel(), errors.ClosedError);
  await connection.connect();
  assert.equal((await connection.defaultChannel()).closed, false);
});

onBothBrokers('what was declared is remembered for the life of a connection, and for its own', async (scene) => {
  const exchange = new Exchange(await scene.exchange('direct'), { type: 'direct', durable: true });
  const queue = new Queue(await scene.queue({ durable: true }), exchange, { routingKey: 'k' });
  const connection = scene.connect();
  const publish = (through: Connection) =>
    through.Producer({ exchange, routingKey: 'k' }).publish('x', { declare: [queue] });
  const unbind = async () => {
    // By hand, so that the connection does not know.
    const raw = await scene.raw();
    await raw.unbindQueue(queue.name, exchange.name, 'k');
    await raw.purgeQueue(queue.name);
  };
  await publish(connection);
  await unbind();
  await publish(connection);
  assert.equal(await scene.size(queue.name), 0);
  await publish(scene.connect());
  assert.equal(await scene.size(queue.name), 1);
  await unbind();
  await lose(scene, connection);
  await publish(connection);
  assert.equal(await scene.size(queue.name), 1);
});

onBothBrokers('connecting twice is connecting once; events tell of the loss', async (scene) => {
  const connection = scene.connect();
  const events: string[] = [];
  connection.on('connected', () => events.push('connected'));
  connection.on('disconnected', (error) => events.push(error === undefined ? 'closed' : 'lost'));
  await Promise.all([connection.connect(), connection.connect()]);
  await connection.connect();
  const lost = new Promise((resolve) => connection.once('disconnected', resolve));
  await lose(scene, connection);
  await lost;
  assert.equal(connection.connected, false);
  await connection.channel();
  const closed = new Promise((resolve) => connection.once('disconnected', resolve));
  await connection.close();
  await closed;
  assert.deepEqual(events, ['connected', 'lost', 'connected', 'closed']);
});

onBothBrokers(
  'collect() cuts what is open and keeps the connection usable; heartbeatCheck() says what was lost',
  async (scene) => {
    const connection = scene.connect();
    connection.heartbeatCheck();
    const channel = await connection.channel();
    connection.heartbeatCheck();
    connection.collect();
    assert.equal(connection.connected, false);
    await channel.ended;
    connection.heartbeatCheck();
    await connection.channel();
    await lose(scene, connection);
    assert.throws(() => connection.heartbeatCheck(), errors.ConnectionError);
    await connection.connect();
    connection.heartbeatCheck();
  },
);

onBothBrokers('switch() closes what is open and connects elsewhere when it is next needed', async (scene) => {
  const connection = scene.connect();
  const channel = await connection.channel();
  await connection.switch(scene.url);
  assert.deepEqual([channel.closed, connection.connected], [true, false]);
  await connection.channel();
  assert.equal(connection.host, new URL(connection.asUri()).host);
});

onBothBrokers('a connection tells what the broker can do', async (scene) => {
  const connection = scene.connect();
  for (const type of ['direct', 'topic', 'fanout', 'headers']) assert.ok(connection.supportsExchangeType(type));
  assert.ok(!connection.supportsExchangeType('x-consistent-hash'));
  assert.equal(connection.getHeartbeatInterval(), 0);
  await connection.connect();
  const amqp = scene.kind === 'rabbitmq';
  assert.deepEqual([connection.supportsHeartbeats, connection.getHeartbeatInterval() > 0], [amqp, amqp]);
});
