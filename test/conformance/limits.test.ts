/** Time to live, expiry of queues, lengths, priorities. Deaths are seen where the dead letters go. */
import assert from 'node:assert/strict';
import { onBothBrokers, publishOn, type Scene, textOf } from '../support/both-brokers.js';

/** A queue whose dead letters go to another one, and a consumer of that. */
async function mortal(scene: Scene, options: object = {}) {
  const graves = await scene.queue();
  const queue = await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: graves, ...options });
  return { queue, graves: await scene.inbox(graves, { noAck: true }) };
}

const reasonOf = (message: { properties: { headers?: { 'x-death'?: { reason: string }[] } | undefined } }) =>
  message.properties.headers?.['x-death']?.[0]?.reason;

onBothBrokers('a message expires by its own time to live', async (scene) => {
  const { queue, graves } = await mortal(scene);
  await scene.publish('', queue, '1', { expiration: '30' });
  assert.equal(reasonOf(await graves.next()), 'expired');
  assert.equal(await scene.size(queue), 0);
});

onBothBrokers('a message expires by the time to live of its queue', async (scene) => {
  const { queue, graves } = await mortal(scene, { messageTtl: 30 });
  await scene.publish('', queue, '1');
  assert.equal(reasonOf(await graves.next()), 'expired');
});

onBothBrokers('of two times to live the shorter counts', async (scene) => {
  const { queue, graves } = await mortal(scene, { messageTtl: 30 });
  await scene.publish('', queue, 'long', { expiration: '600000' });
  assert.equal(textOf(await graves.next()), 'long');
  const other = await mortal(scene, { messageTtl: 600_000 });
  await scene.publish('', other.queue, 'short', { expiration: '30' });
  assert.equal(textOf(await other.graves.next()), 'short');
});

onBothBrokers('what stands behind a message that lives longer waits for it', async (scene) => {
  const { queue, graves } = await mortal(scene);
  await scene.publish('', queue, 'first', { expiration: '150' });
  await scene.publish('', queue, 'second', { expiration: '1' });
  await scene.publish('', queue, 'stays');
  await graves.count(2);
  assert.deepEqual(graves.texts, ['first', 'second']);
  assert.deepEqual(await scene.texts(queue), ['stays']);
});

onBothBrokers(
  'a message behind one without a time to live is counted, and dropped when it would be given out',
  async (scene) => {
    const { queue, graves } = await mortal(scene);
    await scene.publish('', queue, 'stays');
    await scene.publish('', queue, 'late', { expiration: '1' });
    const marker = await mortal(scene);
    await scene.publish('', marker.queue, 'x', { expiration: '50' });
    await marker.graves.next();
    assert.equal(await scene.size(queue), 2);
    assert.deepEqual(await scene.texts(queue), ['stays']);
    assert.equal(textOf(await graves.next()), 'late');
  },
);

onBothBrokers('with a time to live of 0 a message goes to who waits for it, or nowhere', async (scene) => {
  const { queue, graves } = await mortal(scene);
  await scene.publish('', queue, 'nobody', { expiration: '0' });
  await graves.count(1);
  const inbox = await scene.inbox(queue, {}, await scene.open());
  await scene.publish('', queue, 'somebody', { expiration: '0' });
  await inbox.count(1);
  assert.deepEqual([graves.texts, inbox.texts], [['nobody'], ['somebody']]);
});

onBothBrokers('a message that is with a consumer does not expire, and does when it goes back', async (scene) => {
  const { queue, graves } = await mortal(scene);
  const raw = await scene.open();
  const inbox = await scene.inbox(queue, {}, raw);
  await scene.publish('', queue, '1', { expiration: '30' });
  const message = await inbox.next();
  const marker = await mortal(scene);
  await scene.publish('', marker.queue, 'x', { expiration: '60' });
  await marker.graves.next();
  assert.equal(graves.messages.length, 0);
  await raw.cancel(inbox.tag);
  raw.nack(message);
  assert.equal(textOf(await graves.next()), '1');
});

onBothBrokers('a queue that is not used expires', async (scene) => {
  const queue = await scene.queue({ expires: 40 });
  await scene.gone(queue);
});

onBothBrokers('a queue with a consumer does not expire; it does when that is gone', async (scene) => {
  const queue = await scene.queue({ expires: 60 });
  const raw = await scene.open();
  const { tag } = await scene.inbox(queue, {}, raw);
  const marker = await mortal(scene);
  await scene.publish('', marker.queue, 'x', { expiration: '150' });
  await marker.graves.next();
  assert.equal(await scene.size(queue), 0);
  await raw.cancel(tag);
  await scene.gone(queue);
});

onBothBrokers('beyond its length a queue drops from the head', async (scene) => {
  const { queue, graves } = await mortal(scene, { maxLength: 2 });
  await scene.send(queue, '1', '2', '3', '4');
  await graves.count(2);
  assert.deepEqual(
    [graves.texts, graves.messages.map(reasonOf)],
    [
      ['1', '2'],
      ['maxlen', 'maxlen'],
    ],
  );
  assert.deepEqual(await scene.texts(queue), ['3', '4']);
});

onBothBrokers('what is with consumers does not count for the length, and does when it goes back', async (scene) => {
  const queue = await scene.queue({ maxLength: 2 });
  const raw = await scene.open();
  const inbox = await scene.inbox(queue, {}, raw);
  await scene.send(queue, '1', '2');
  await inbox.count(2);
  await raw.cancel(inbox.tag);
  await scene.send(queue, '3', '4');
  assert.equal(await scene.size(queue), 2);
  raw.nackAll();
  await raw.checkQueue(queue);
  assert.deepEqual(await scene.texts(queue), ['3', '4']);
});

onBothBrokers('beyond its bytes a queue drops from the head', async (scene) => {
  const queue = await scene.queue({ arguments: { 'x-max-length-bytes': 10 } });
  await scene.send(queue, 'aaaa', 'bbbb', 'cccc');
  assert.deepEqual(await scene.texts(queue), ['bbbb', 'cccc']);
  await scene.send(queue, 'longer than ten bytes');
  assert.equal(await scene.size(queue), 0);
});

onBothBrokers('a queue of length 0 keeps nothing', async (scene) => {
  const queue = await scene.queue({ maxLength: 0 });
  await scene.send(queue, '1');
  assert.equal(await scene.size(queue), 0);
  const inbox = await scene.inbox(queue, {}, await scene.open());
  await scene.send(queue, '2');
  await inbox.count(1);
});

onBothBrokers('a full queue that refuses counts bytes too', async (scene) => {
  const queue = await scene.queue({ overflow: 'reject-publish', arguments: { 'x-max-length-bytes': 6 } });
  const raw = await scene.open();
  await publishOn(raw, '', queue, 'aaaa');
  await assert.rejects(publishOn(raw, '', queue, 'bbbb'), /nacked/);
  await publishOn(raw, '', queue, 'cc');
  assert.deepEqual(await scene.texts(queue), ['aaaa', 'cc']);
});

onBothBrokers('a full queue can refuse and dead-letter what it refuses', async (scene) => {
  const { queue, graves } = await mortal(scene, { maxLength: 1, overflow: 'reject-publish-dlx' });
  const raw = await scene.open();
  await publishOn(raw, '', queue, '1');
  await assert.rejects(publishOn(raw, '', queue, '2'), /nacked/);
  const letter = await graves.next();
  assert.deepEqual([textOf(letter), reasonOf(letter)], ['2', 'maxlen']);
  assert.deepEqual(await scene.texts(queue), ['1']);
});

onBothBrokers('a full queue refuses even what a consumer is waiting for', async (scene) => {
  const queue = await scene.queue({ maxLength: 0, overflow: 'reject-publish' });
  await scene.inbox(queue, {}, await scene.open());
  const raw = await scene.open();
  await assert.rejects(publishOn(raw, '', queue, '1'), /nacked/);
});

onBothBrokers('higher priorities come first, equal ones in order', async (scene) => {
  const queue = await scene.queue({ maxPriority: 5 });
  for (const [body, priority] of [
    ['a0', 0],
    ['b3', 3],
    ['c1', 1],
    ['d3', 3],
    ['e5', 5],
  ] as const) {
    await scene.publish('', queue, body, { priority });
  }
  await scene.publish('', queue, 'f-none');
  assert.deepEqual(await scene.texts(queue), ['e5', 'b3', 'd3', 'c1', 'a0', 'f-none']);
});

onBothBrokers('a priority above the highest counts as the highest', async (scene) => {
  const queue = await scene.queue({ maxPriority: 2 });
  await scene.publish('', queue, '2', { priority: 2 });
  await scene.publish('', queue, '9', { priority: 9 });
  const messages = await scene.drain(queue);
  assert.deepEqual(messages.map(textOf), ['2', '9']);
  assert.equal(messages[1]!.properties.priority, 9);
});

onBothBrokers('without x-max-priority priorities mean nothing', async (scene) => {
  const queue = await scene.queue();
  await scene.publish('', queue, '1', { priority: 1 });
  await scene.publish('', queue, '9', { priority: 9 });
  assert.deepEqual(await scene.texts(queue), ['1', '9']);
});

onBothBrokers('what is requeued keeps its priority and its place', async (scene) => {
  const queue = await scene.queue({ maxPriority: 5 });
  for (const [body, priority] of [
    ['low', 1],
    ['high', 4],
    ['high too', 4],
  ] as const) {
    await scene.publish('', queue, body, { priority });
  }
  const raw = await scene.open();
  const message = await raw.get(queue);
  await scene.publish('', queue, 'higher', { priority: 5 });
  raw.nack(message as never);
  await raw.checkQueue(queue);
  assert.deepEqual(await scene.texts(queue), ['higher', 'high', 'high too', 'low']);
});
