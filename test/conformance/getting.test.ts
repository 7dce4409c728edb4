/** basic.get, purging, deleting. */
import assert from 'node:assert/strict';
import { onBothBrokers, refused, textOf } from '../support/both-brokers.js';

onBothBrokers('get from an empty queue gives false', async (scene) => {
  const queue = await scene.queue();
  assert.equal(await (await scene.raw()).get(queue), false);
});

onBothBrokers('get tells how many are left', async (scene) => {
  const queue = await scene.queue();
  await scene.send(queue, '1', '2', '3');
  const messages = await scene.drain(queue);
  assert.deepEqual(
    messages.map((message) => [textOf(message), message.fields.messageCount]),
    [
      ['1', 2],
      ['2', 1],
      ['3', 0],
    ],
  );
});

onBothBrokers('what was got and not settled goes back when its channel closes', async (scene) => {
  const queue = await scene.queue();
  await scene.send(queue, '1', '2');
  const raw = await scene.open();
  await raw.get(queue);
  await raw.get(queue);
  await raw.close();
  const messages = await scene.drain(queue);
  assert.deepEqual(messages.map(textOf), ['1', '2']);
  assert.ok(messages.every(({ fields }) => fields.redelivered));
});

onBothBrokers('get has no prefetch', async (scene) => {
  const queue = await scene.queue();
  await scene.send(queue, '1', '2');
  const raw = await scene.open();
  await raw.prefetch(1);
  assert.ok(await raw.get(queue));
  assert.ok(await raw.get(queue));
});

onBothBrokers('get and consume share the tags of a channel', async (scene) => {
  const queue = await scene.queue();
  await scene.send(queue, '1', '2');
  const raw = await scene.open();
  const first = await raw.get(queue);
  const inbox = await scene.inbox(queue, {}, raw);
  await inbox.count(1);
  assert.equal((first as { fields: { deliveryTag: number } }).fields.deliveryTag, 1);
  assert.equal(inbox.messages[0]!.fields.deliveryTag, 2);
});

onBothBrokers('get from no queue is refused', async (scene) => {
  const name = scene.unique('none');
  const raw = await scene.open();
  assert.deepEqual(await refused(raw.get(name)), [404, `NOT_FOUND - no queue '${name}' in vhost '/'`]);
});

onBothBrokers('purge counts what waited, and leaves what is unsettled', async (scene) => {
  const queue = await scene.queue();
  await scene.send(queue, '1', '2', '3');
  const raw = await scene.open();
  await raw.get(queue);
  assert.deepEqual(await raw.purgeQueue(queue), { messageCount: 2 });
  await raw.close();
  assert.deepEqual(await scene.texts(queue), ['1']);
});

onBothBrokers('purging no queue is refused', async (scene) => {
  const name = scene.unique('none');
  const raw = await scene.open();
  assert.deepEqual(await refused(raw.purgeQueue(name)), [404, `NOT_FOUND - no queue '${name}' in vhost '/'`]);
});

onBothBrokers('delete counts what waited', async (scene) => {
  const queue = await scene.queue();
  await scene.send(queue, '1', '2');
  assert.deepEqual(await (await scene.raw()).deleteQueue(queue), { messageCount: 2 });
  assert.deepEqual(await (await scene.raw()).deleteQueue(queue), { messageCount: 0 });
});

onBothBrokers('a queue with messages is not deleted ifEmpty', async (scene) => {
  const queue = await scene.queue();
  await scene.send(queue, '1');
  const raw = await scene.open();
  const told = `PRECONDITION_FAILED - queue '${queue}' in vhost '/' not empty`;
  assert.deepEqual(await refused(raw.deleteQueue(queue, { ifEmpty: true })), [406, told]);
  assert.equal(await scene.size(queue), 1);
});

onBothBrokers('a queue with consumers is not deleted ifUnused', async (scene) => {
  const queue = await scene.queue();
  await scene.inbox(queue, {}, await scene.open());
  const raw = await scene.open();
  const told = `PRECONDITION_FAILED - queue '${queue}' in vhost '/' in use`;
  assert.deepEqual(await refused(raw.deleteQueue(queue, { ifUnused: true })), [406, told]);
});

onBothBrokers('a queue that is empty and unused is deleted', async (scene) => {
  const queue = await scene.queue();
  assert.deepEqual(await (await scene.raw()).deleteQueue(queue, { ifUnused: true, ifEmpty: true }), {
    messageCount: 0,
  });
  await scene.gone(queue);
});

onBothBrokers('what stands behind a message that is got expires in its time', async (scene) => {
  const graves = await scene.queue();
  const queue = await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: graves });
  await scene.send(queue, 'stays');
  await scene.publish('', queue, 'goes', { expiration: '100' });
  assert.ok(await (await scene.raw()).get(queue, { noAck: true }));
  assert.equal(textOf(await (await scene.inbox(graves)).next()), 'goes');
});

onBothBrokers('a prefetch of the whole channel does not count what was got', async (scene) => {
  const queue = await scene.queue();
  await scene.send(queue, 'got', '1', '2');
  const raw = await scene.open();
  await raw.prefetch(1, true);
  const got = await raw.get(queue);
  const inbox = await scene.inbox(queue, {}, raw);
  assert.equal(textOf(await inbox.next()), '1');
  // Nor does settling it make room for another.
  raw.ack(got as never);
  assert.equal(await scene.size(queue), 1);
  raw.ack(inbox.messages[0]!);
  assert.equal(textOf(await inbox.next()), '2');
});

onBothBrokers('what is acked just before its connection is closed does not come back', async (scene) => {
  const queue = await scene.queue();
  await scene.send(queue, ...Array.from({ length: 50 }, (_, i) => String(i)));
  const connection = scene.connect();
  const raw = await scene.open(connection);
  for (let left = 50; left > 0; left--) {
    const message = await raw.get(queue);
    if (left > 1) raw.ack(message as never);
    else {
      // Nothing is awaited between the last ack and the goodbye.
      raw.ack(message as never);
      await connection.close();
    }
  }
  assert.equal(await scene.size(queue), 0);
});
