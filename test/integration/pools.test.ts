/** Pools against a broker: how many connections there are, what a broker's own closing does, pools on a worker thread. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { Connection, pools, Queue } from '#src/index';
import type { PoolWorkerAnswer, PoolWorkerData } from '../support/pool-worker.js';
import { TcpProxy } from '../support/proxy.js';
import { brokerTest, nodeTest, RabbitNode, uniqueName } from '../support/rabbitmq.js';

brokerTest('1,000 who publish at once have three connections, which are all there are', async ({ url }) => {
  await using proxy = await TcpProxy.listen(url);
  const queue = new Queue(uniqueName('pools'), { exclusive: false, autoDelete: false });
  const connections = new pools.Connections({ limit: 3 });
  const group = new pools.Producers({ limit: 3, connections });
  await using own = new Connection(url);
  await queue.declare(own);
  try {
    const pool = group.get(proxy.url);
    const one = async (_: unknown, n: number): Promise<void> => {
      await using producer = await pool.acquire({ block: true });
      await producer.publish(n, { routingKey: queue.name });
    };
    await Promise.all(Array.from({ length: 1000 }, one));
    assert.equal(proxy.connections.length, 3);
    assert.equal(await queue.purge(own), 1000);
    await group.reset();
    await connections.reset();
    await Promise.all(proxy.connections.map((connection) => connection.closed));
  } finally {
    await queue.delete(own);
  }
});

nodeTest('connections that an operator closed are replaced, idle or in use', async () => {
  await using node = await RabbitNode.start();
  await using pool = new Connection(node.url).Pool(2);
  const [idle, used] = await Promise.all([pool.acquire(), pool.acquire()]);
  await Promise.all([idle.connect(), used.connect()]);
  // The one that lies idle is closed by the same command.
  const gone = await idle.channel();
  const both = Promise.all([gone.ended, new Promise((resolve) => used.once('disconnected', resolve))]);
  await node.ctl('close_all_connections', 'an operator wants it so');
  await both;
  await idle.release();
  await used.release();
  assert.deepEqual([pool.inUse, pool.idle], [0, 0]);
  for (const lease of await Promise.all([pool.acquire(), pool.acquire()])) {
    assert.equal(lease.connected, false);
    await lease.defaultChannel();
    await lease.release();
  }
  assert.equal(pool.idle, 2);
});

brokerTest(
  'pools work on a worker thread, without heartbeats, and survive a thread that was blocked',
  async ({ url }) => {
    await using proxy = await TcpProxy.listen(url);
    await using connection = new Connection(url);
    const queue = new Queue(uniqueName('pools-worker'));
    await queue.declare(connection);
    const flag = new Int32Array(new SharedArrayBuffer(4));
    const { parameters } = new Connection(proxy.url);
    const workerData: PoolWorkerData = { parameters: { ...parameters }, routingKey: queue.name, flag };
    const worker = new Worker(new URL('../support/pool-worker.js', import.meta.url), { workerData });
    const answer = async () => ((await once(worker, 'message')) as [PoolWorkerAnswer])[0];
    try {
      worker.postMessage({ body: 'first' });
      assert.deepEqual(await answer(), { heartbeat: 0, interval: 0 });
      assert.equal(proxy.connections.length, 1);
      // The thread is blocked, hears nothing, and acquires before its event loop has turned.
      worker.postMessage({ body: 'second', block: true });
      await Atomics.waitAsync(flag, 0, 0).value;
      proxy.cutAll();
      await proxy.connections[0]!.closed;
      const answered = answer();
      Atomics.store(flag, 0, 2);
      Atomics.notify(flag, 0);
      assert.deepEqual(await answered, { heartbeat: 0, interval: 0 });
      assert.equal(proxy.connections.length, 2);
      const exited = once(worker, 'exit');
      worker.postMessage({});
      await exited;
      assert.deepEqual(await queue.purge(connection), 2);
    } finally {
      await worker.terminate();
      await queue.delete(connection);
    }
  },
);

brokerTest('a heartbeat that was asked for is kept on a worker thread', async ({ url }) => {
  const flag = new Int32Array(new SharedArrayBuffer(4));
  const { parameters } = new Connection(url, { heartbeat: 30 });
  const workerData: PoolWorkerData = { parameters: { ...parameters }, routingKey: 'nowhere', flag };
  const worker = new Worker(new URL('../support/pool-worker.js', import.meta.url), { workerData });
  try {
    worker.postMessage({ body: 'x' });
    const [answer] = (await once(worker, 'message')) as [PoolWorkerAnswer];
    assert.deepEqual(answer, { heartbeat: 30, interval: 30 });
  } finally {
    await worker.terminate();
  }
});
