/** Pools of connections, channels and producers. kombu's B07, B08, B21. */
import assert from 'node:assert/strict';
import { Connection, Exchange, errors, Producer, pools, Queue } from '#src/index';
import { onBothBrokers } from '../support/both-brokers.js';
import { lose } from '../support/lose.js';

const { ClosedError, ConnectionLimitExceeded, ChannelLimitExceeded } = errors;

onBothBrokers(
  'a lease is a connection, which connects when it is used and stays connected for the next',
  async (scene) => {
    await using group = new Group(new pools.Connections({ limit: 2 }));
    const pool = group.get(scene.connection);
    const first = await pool.acquire();
    assert.ok(first instanceof Connection);
    assert.deepEqual([first.connected, first.asUri()], [false, scene.connection.asUri()]);
    await first.connect();
    await first.release();
    const second = await pool.acquire();
    assert.notEqual(second, first);
    second.on('connected', () => assert.fail('it connected again'));
    assert.equal(second.connected, true);
    await second.channel();
  },
);

onBothBrokers(
  'a lease that was given back can be used no more, and giving it back again does nothing',
  async (scene) => {
    await using group = new Group(new pools.Connections({ limit: 1 }));
    const pool = group.get(scene.connection);
    const first = await pool.acquire();
    const producer = first.Producer();
    const channel = await first.channel();
    await Promise.all([first.release(), first.release()]);
    const second = await pool.acquire();
    await first.release();
    await first.close();
    await first[Symbol.asyncDispose]();
    assert.deepEqual([pool.inUse, second.connected], [1, true]);
    assert.deepEqual([first.closed, first.connected, channel.closed], [true, false, true]);
    const over = { name: 'ClosedError', message: /given back to its pool/ };
    await assert.rejects(first.channel(), over);
    await assert.rejects(first.connect(), over);
    await assert.rejects(first.ensureConnection(), over);
    await assert.rejects(first.defaultChannel(), over);
    await assert.rejects(first.switch('amqp://elsewhere'), over);
    await assert.rejects(producer.publish('x', { routingKey: 'q' }), ClosedError);
    await second.channel();
  },
);

onBothBrokers('what a lease left unsettled goes back to its queue when it is given back', async (scene) => {
  await using group = new Group(new pools.Connections({ limit: 1 }));
  const queue = await scene.queue();
  await scene.send(queue, 'by default', 'by channel');
  const pool = group.get(scene.connection);
  {
    await using lease = await pool.acquire();
    assert.ok(await new Queue(queue).get(lease));
    assert.ok(await (await lease.channel()).raw.get(queue));
    assert.equal(await scene.size(queue), 0);
  }
  await scene.hasReady(queue, 2);
  assert.deepEqual([pool.inUse, pool.idle], [0, 1]);
});

onBothBrokers('a lease that is closed leaves the pool, and the next one connects anew', async (scene) => {
  await using group = new Group(new pools.Connections({ limit: 1 }));
  const pool = group.get(scene.connection);
  const first = await pool.acquire();
  await first.connect();
  await first.close();
  await assert.rejects(first.connect(), ClosedError);
  assert.deepEqual([pool.inUse, pool.idle], [0, 0]);
  const second = await pool.acquire();
  assert.equal(second.connected, false);
  await second.channel();
});

onBothBrokers('a connection that was lost while it lay idle is replaced before it is lent', async (scene) => {
  await using group = new Group(new pools.Connections({ limit: 1 }));
  const pool = group.get(scene.connection);
  const first = await pool.acquire();
  await first.connect();
  await first.release();
  const again = await pool.acquire();
  const lost = new Promise((resolve) => again.once('disconnected', resolve));
  await lose(scene, again);
  await lost;
  await again.release();
  assert.deepEqual([pool.inUse, pool.idle], [0, 0]);
  const third = await pool.acquire();
  assert.equal(third.connected, false);
  assert.equal((await third.channel()).closed, false);
});

onBothBrokers(
  'connections are not lent beyond the limit; who waits gets the next, or ConnectionLimitExceeded',
  async (scene) => {
    await using group = new Group(new pools.Connections({ limit: 1 }));
    const pool = group.get(scene.connection);
    const first = await pool.acquire();
    await assert.rejects(pool.acquire(), ConnectionLimitExceeded);
    await assert.rejects(pool.acquire({ block: true, timeout: 5 }), ConnectionLimitExceeded);
    const waiting = pool.acquire({ block: true });
    await first.release();
    await (await waiting).release();
  },
);

onBothBrokers('the pool of a connection is its own, and without a limit keeps nothing', async (scene) => {
  await using limited = scene.connection.Pool(1);
  const first = await limited.acquire();
  await first.connect();
  await assert.rejects(limited.acquire(), ConnectionLimitExceeded);
  await first.release();
  assert.equal((await limited.acquire()).connected, true);
  await using unlimited = scene.connection.Pool();
  const one = await unlimited.acquire();
  await one.connect();
  await one.release();
  assert.deepEqual([unlimited.limit, unlimited.idle, one.connected], [0, 0, false]);
  const [connection, channel] = await limited.acquireChannel({ block: true, timeout: 1 }).catch(() => []);
  assert.deepEqual([connection, channel], [undefined, undefined]);
  const [other, own] = await unlimited.acquireChannel();
  assert.equal(own, await other.defaultChannel());
  await other.release();
  assert.equal(own.closed, true);
});

onBothBrokers('a pool that is closed ends its leases and those who wait', async (scene) => {
  const pool = scene.connection.Pool(1);
  const lease = await pool.acquire();
  await lease.connect();
  const waiting = assert.rejects(pool.acquire({ block: true }), ClosedError);
  await pool.forceCloseAll();
  await waiting;
  assert.deepEqual([lease.connected, lease.closed], [false, true]);
  await assert.rejects(lease.connect(), ClosedError);
  await assert.rejects(lease.channel(), ClosedError);
  await lease.release();
  await assert.rejects(pool.acquire(), ClosedError);
});

onBothBrokers('a pool of channels lends channels of one connection, each of them once', async (scene) => {
  await using pool = scene.connection.ChannelPool(2);
  const queue = await scene.queue();
  const first = await pool.acquire();
  await new Producer(first, { routingKey: queue }).publish('x');
  await first.release();
  await first.release();
  const second = await pool.acquire();
  assert.notEqual(second, first);
  assert.equal(second.raw, first.raw);
  assert.deepEqual([first.closed, second.closed], [true, false]);
  assert.throws(() => first.call('asking', (raw) => raw.checkQueue(queue)), ClosedError);
  const message = await new Queue(queue).get(second);
  message!.ack();
  const third = await pool.acquire();
  await assert.rejects(pool.acquire(), ChannelLimitExceeded);
  await third.close();
  assert.equal(pool.inUse, 1);
  const fourth = await pool.acquire();
  assert.notEqual(fourth.raw, third.raw);
  await assert.rejects(new Queue(scene.unique('none'), undefined, { passive: true }).declare(fourth), errors.NotFound);
  await fourth.release();
  assert.equal(pool.idle, 0);
});

onBothBrokers('a producer of a pool publishes, and has its connection only while it is lent', async (scene) => {
  const queue = new Queue(await scene.queue());
  const connections = new pools.Connections({ limit: 1 });
  await using group = new Group(new pools.Producers({ limit: 1, connections }), connections);
  const pool = group.get(scene.connection);
  assert.equal(pool.connections, connections.get(scene.connection));
  {
    await using producer = await pool.acquire();
    assert.ok(producer instanceof Producer);
    await producer.publish({ n: 1 }, { routingKey: queue.name, declare: [queue] });
    assert.deepEqual([pool.inUse, pool.connections.inUse], [1, 1]);
    await assert.rejects(pool.acquire(), errors.LimitExceeded);
    await assert.rejects(pool.connections.acquire(), ConnectionLimitExceeded);
  }
  assert.deepEqual([pool.inUse, pool.connections.inUse, pool.connections.idle], [0, 0, 1]);
  const second = await pool.acquire();
  await second.publish({ n: 2 }, { routingKey: queue.name, declare: [queue] });
  await second.release();
  await second.release();
  await assert.rejects(second.publish('x', { routingKey: queue.name }), { message: /given back to its pool/ });
  assert.deepEqual(await scene.texts(queue.name), ['{"n":1}', '{"n":2}']);
});

onBothBrokers('a producer that gets no connection gives its place back', async (scene) => {
  const connections = new pools.Connections({ limit: 1 });
  await using group = new Group(new pools.Producers({ limit: 5, connections }), connections);
  const pool = group.get(scene.connection);
  const connection = await pool.connections.acquire();
  await assert.rejects(pool.acquire(), ConnectionLimitExceeded);
  assert.equal(pool.inUse, 0);
  const waiting = pool.acquire({ block: true });
  await connection.release();
  await (await waiting).release();
});

onBothBrokers('a producer is given back once what it publishes has ended', async (scene) => {
  const queue = await scene.queue();
  await using group = new Group(new pools.Producers({ limit: 1 }));
  const pool = group.get(scene.connection);
  const producer = await pool.acquire();
  const ended: string[] = [];
  const publishing = producer.publish('x', { routingKey: queue }).then(() => ended.push('published'));
  await producer.release().then(() => ended.push('released'));
  await publishing;
  assert.deepEqual(ended, ['published', 'released']);
});

onBothBrokers('a producer of a pool survives what closes its channel, and so does the next', async (scene) => {
  const queue = await scene.queue();
  await using group = new Group(new pools.Producers({ limit: 1 }));
  const pool = group.get(scene.connection);
  const producer = await pool.acquire();
  await assert.rejects(producer.publish('x', { exchange: scene.unique('none') }), errors.NotFound);
  await producer.publish('same', { routingKey: queue });
  await assert.rejects(producer.publish('x', { exchange: scene.unique('none') }), errors.NotFound);
  await producer.release();
  const next = await pool.acquire();
  await next.publish('next', { routingKey: queue });
  await next.release();
  assert.deepEqual(await scene.texts(queue), ['same', 'next']);
});

onBothBrokers('a producer that is closed takes its connection out of the pool', async (scene) => {
  await using group = new Group(new pools.Producers({ limit: 1 }));
  const pool = group.get(scene.connection);
  const producer = await pool.acquire();
  await producer.close();
  assert.deepEqual([pool.inUse, pool.connections.inUse, pool.connections.idle], [0, 0, 0]);
});

onBothBrokers('a producer whose broker was silent for too long takes its connection out of the pool', async (scene) => {
  await using group = new Group(new pools.Producers({ limit: 1 }));
  const pool = group.get(scene.connection);
  const producer = await pool.acquire();
  const publishing = assert.rejects(producer.publish('x', { routingKey: 'q', timeout: 0 }), errors.TimeoutError);
  // The time is over before anything can be read.
  for (const until = performance.now() + 5; performance.now() < until; );
  await publishing;
  await producer.release();
  assert.deepEqual([pool.inUse, pool.connections.inUse, pool.connections.idle], [0, 0, 0]);
});

onBothBrokers('many publish at once through a few connections', async (scene) => {
  const exchange = new Exchange(await scene.exchange('fanout'), { type: 'fanout' });
  const queue = await scene.bound(exchange.name, '');
  await using group = new Group(new pools.Producers({ limit: 3 }));
  const pool = group.get(scene.connection);
  const one = async (_: unknown, n: number): Promise<void> => {
    await using producer = await pool.acquire({ block: true });
    await producer.publish(n, { exchange, declare: [exchange] });
  };
  await Promise.all(Array.from({ length: 200 }, one));
  assert.deepEqual([pool.idle, pool.connections.idle], [3, 3]);
  const bodies = (await scene.texts(queue)).map(Number).sort((a, b) => a - b);
  assert.deepEqual(bodies, [...Array(200).keys()]);
});

/** A group that is closed at the end of the test, and the connections beneath it. */
class Group<Pool extends pools.ConnectionPool | pools.ProducerPool> {
  readonly #groups: readonly pools.PoolGroup<Pool>[];
  constructor(group: pools.PoolGroup<Pool>, connections?: pools.Connections) {
    this.#groups = [group, ...(connections === undefined ? [] : [connections as unknown as pools.PoolGroup<Pool>])];
  }
  get(connection: Connection): Pool {
    return this.#groups[0]!.get(connection);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    for (const each of this.#groups) await each.reset();
  }
}
