/** Failover between real nodes, one of which dies. kombu's B04 and B39. */
import assert from 'node:assert/strict';
import { Connection, pools, Queue } from '#src/index';
import { nodeTest, RabbitNode, sharedBroker, uniqueName } from '../support/rabbitmq.js';

nodeTest('connections, ensure and pools go on at the second node when the first is killed', async () => {
  const second = sharedBroker()?.url;
  assert.ok(second, 'the broker of all tests is the second node');
  await using first = await RabbitNode.start();
  const urls = [first.url, second];
  const hostOf = (url: string) => new Connection(url).host;
  await using connection = new Connection(urls);
  await connection.connect();
  assert.equal(connection.host, hostOf(first.url));
  const group = new pools.Producers({ limit: 1 });
  const queue = new Queue(uniqueName('failover'));
  const told: number[] = [];
  try {
    const publish = async (body: string): Promise<void> => {
      await using producer = await group.get(urls).acquire();
      await producer.publish(body, { routingKey: queue.name, declare: [queue], retry: true });
    };
    await publish('to the first');
    const lost = new Promise((resolve) => connection.once('disconnected', resolve));
    await first.kill();
    await lost;
    const declare = connection.ensure(() => queue.declare(connection), {
      errback: (_, interval) => told.push(interval),
    });
    assert.equal(await declare(), queue.name);
    assert.equal(connection.host, hostOf(second));
    await publish('to the second');
    const message = await queue.get(connection, { noAck: true });
    assert.equal(message?.payload, 'to the second');
    // What answered last is tried first: a new connection of the same parameters does not ask the dead node.
    await connection.collect();
    const failures: unknown[] = [];
    await connection.ensureConnection({ errback: (error) => failures.push(error) });
    assert.deepEqual([failures, connection.host], [[], hostOf(second)]);
  } finally {
    await group.reset();
    await queue.delete(connection);
  }
});
