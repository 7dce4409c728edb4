/** A broker that is short of memory takes no publishes for a while: what a connection tells, and what a publish does. */
import assert from 'node:assert/strict';
import { Connection, errors, Queue } from '#src/index';
import { nodeTest, RabbitNode, uniqueName } from '../support/rabbitmq.js';

nodeTest('a memory alarm is told by events, and publishes wait for its end, or for their timeout', async () => {
  await using node = await RabbitNode.start();
  await using connection = new Connection(node.url);
  const queue = new Queue(uniqueName('blocked'));
  const producer = connection.Producer({ routingKey: queue.name });
  await producer.publish('before', { declare: [queue] });
  const event = (name: 'blocked' | 'unblocked') =>
    new Promise<unknown>((resolve) => connection.once(name as 'blocked', resolve));
  const blocked = event('blocked');
  await node.ctl('set_vm_memory_high_watermark', '0.0000001');
  // The broker says it to who publishes.
  const waiting = producer.publish('meanwhile', { timeout: 600_000 });
  assert.match(String(await blocked), /memory/);
  await assert.rejects(producer.publish('in vain', { timeout: 20 }), errors.TimeoutError);
  const unblocked = event('unblocked');
  await node.ctl('set_vm_memory_high_watermark', '0.6');
  await unblocked;
  await waiting;
  assert.equal((await queue.get(connection, { noAck: true }))?.payload, 'before');
  assert.equal((await queue.get(connection, { noAck: true }))?.payload, 'meanwhile');
});
