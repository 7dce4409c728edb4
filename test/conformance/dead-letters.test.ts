/** What a queue gives up: where it goes, and what its headers tell. */
import assert from 'node:assert/strict';
import type * as amqplib from 'amqplib';
import { Inbox, onBothBrokers, type Scene, textOf } from '../support/both-brokers.js';

async function rejectOne(scene: Scene, queue: string): Promise<void> {
  const raw = await scene.open();
  const message = await raw.get(queue);
  raw.reject(message as never, false);
  await raw.close();
}

const deathsOf = (message: amqplib.Message) => message.properties.headers?.['x-death'] as amqplib.XDeath[];
const counts = (message: amqplib.Message) =>
  deathsOf(message).map(({ queue, reason, count }) => [queue, reason, count]);

onBothBrokers('a rejected message goes to the dead letter exchange, with the story of its death', async (scene) => {
  const exchange = await scene.exchange('fanout');
  const graves = await scene.bound(exchange, '');
  const source = await scene.exchange('direct');
  const queue = await scene.queue({ deadLetterExchange: exchange });
  await (await scene.raw()).bindQueue(queue, source, 'k');
  const before = Math.floor(Date.now() / 1000) - 1;
  await scene.publish(source, 'k', 'x', { headers: { mine: 5 }, messageId: 'm', persistent: true });
  await rejectOne(scene, queue);
  const letter = await (await scene.inbox(graves)).next();
  const [death] = deathsOf(letter);
  const { time, ...rest } = death!;
  assert.deepEqual(rest, { count: 1, reason: 'rejected', queue, exchange: source, 'routing-keys': ['k'] });
  assert.ok(time['!'] === 'timestamp' && time.value >= before && time.value <= before + 60);
  const { 'x-death': _, ...headers } = letter.properties.headers!;
  assert.deepEqual(headers, {
    mine: 5,
    'x-first-death-exchange': source,
    'x-first-death-queue': queue,
    'x-first-death-reason': 'rejected',
  });
  assert.deepEqual([letter.properties.messageId, letter.properties.deliveryMode], ['m', 2]);
  assert.deepEqual(
    [letter.fields.exchange, letter.fields.routingKey, letter.fields.redelivered],
    [exchange, 'k', false],
  );
});

onBothBrokers('a routing key of the queue replaces the message’s own', async (scene) => {
  const graves = await scene.queue();
  const queue = await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: graves });
  await scene.send(queue, 'x');
  await rejectOne(scene, queue);
  const letter = await (await scene.inbox(graves)).next();
  assert.deepEqual([letter.fields.exchange, letter.fields.routingKey], ['', graves]);
  assert.deepEqual(deathsOf(letter)[0]!['routing-keys'], [queue]);
});

onBothBrokers('nack of several without requeue dead-letters them in order', async (scene) => {
  const graves = await scene.queue();
  const queue = await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: graves });
  const raw = await scene.open();
  const inbox = await scene.inbox(queue, {}, raw);
  await scene.send(queue, '1', '2', '3');
  await inbox.count(3);
  raw.nackAll(false);
  const letters = await scene.inbox(graves);
  await letters.count(3);
  assert.deepEqual(letters.texts, ['1', '2', '3']);
});

onBothBrokers('an expired message loses its expiration and remembers it', async (scene) => {
  const graves = await scene.queue();
  const queue = await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: graves });
  await scene.publish('', queue, 'x', { expiration: '5' });
  const letter = await (await scene.inbox(graves)).next();
  assert.equal(letter.properties.expiration, undefined);
  assert.equal(deathsOf(letter)[0]!['original-expiration'], '5');
  assert.equal(letter.properties.headers!['x-first-death-reason'], 'expired');
});

onBothBrokers('deaths in two queues are two entries, the latest first', async (scene) => {
  const graves = await scene.queue();
  const second = await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: graves });
  const first = await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: second });
  await scene.publish('', first, 'x', { expiration: '5' });
  const raw = await scene.open();
  const inbox = await scene.inbox(second, {}, raw);
  raw.reject(await inbox.next(), false);
  const letter = await (await scene.inbox(graves)).next();
  assert.deepEqual(counts(letter), [
    [second, 'rejected', 1],
    [first, 'expired', 1],
  ]);
  assert.deepEqual(
    [letter.properties.headers!['x-first-death-queue'], letter.properties.headers!['x-first-death-reason']],
    [first, 'expired'],
  );
});

onBothBrokers('a message that is rejected round and round counts its deaths', async (scene) => {
  const wait = scene.unique('q');
  const work = await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: wait });
  await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: work, messageTtl: 5 }, wait);
  const raw = await scene.open();
  const inbox = await scene.inbox(work, {}, raw);
  await scene.send(work, 'x');
  for (let i = 0; i < 3; i++) raw.reject(await inbox.next(), false);
  const last = await inbox.next();
  assert.deepEqual(counts(last), [
    [wait, 'expired', 3],
    [work, 'rejected', 3],
  ]);
  raw.ack(last);
});

onBothBrokers('a message that would go round by itself is dropped', async (scene) => {
  const other = scene.unique('q');
  const queue = await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: other, messageTtl: 5 });
  await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: queue, messageTtl: 5 }, other);
  const graves = await scene.queue();
  const marker = await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: graves });
  await scene.send(queue, 'x');
  await scene.publish('', marker, 'marker', { expiration: '100' });
  await (await scene.inbox(graves)).next();
  assert.deepEqual([await scene.size(queue), await scene.size(other)], [0, 0]);
});

onBothBrokers('a queue that is its own dead letter queue gives rejected messages back', async (scene) => {
  const queue = scene.unique('q');
  await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: queue }, queue);
  const raw = await scene.open();
  const inbox = await scene.inbox(queue, {}, raw);
  await scene.send(queue, 'x');
  raw.reject(await inbox.next(), false);
  const again = await inbox.next();
  assert.deepEqual(counts(again), [[queue, 'rejected', 1]]);
  raw.ack(again);
});

onBothBrokers('CC counts as routing keys, and stays if the key does', async (scene) => {
  const exchange = await scene.exchange('direct');
  const copy = scene.unique('cc');
  const [a, b] = [await scene.bound(exchange, copy), await scene.queue()];
  const queue = await scene.queue({ deadLetterExchange: exchange });
  await (await scene.raw()).bindQueue(b, exchange, queue);
  await scene.publish('', queue, 'x', { CC: [copy] });
  await rejectOne(scene, queue);
  for (const graves of [a, b]) {
    const letter = await (await scene.inbox(graves)).next();
    assert.deepEqual(letter.properties.headers!.CC, [copy]);
    assert.deepEqual(deathsOf(letter)[0]!['routing-keys'], [queue, copy]);
  }
});

onBothBrokers('CC goes if the queue gives another key', async (scene) => {
  const graves = await scene.queue();
  const queue = await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: graves });
  await scene.publish('', queue, 'x', { CC: [scene.unique('cc')] });
  await rejectOne(scene, queue);
  const letter = await (await scene.inbox(graves)).next();
  assert.equal(letter.properties.headers!.CC, undefined);
});

onBothBrokers('a dead letter exchange that is not there, or routes nowhere, takes nothing', async (scene) => {
  const one = await scene.queue({ deadLetterExchange: scene.unique('none') });
  const two = await scene.queue({ deadLetterExchange: 'amq.direct' });
  for (const queue of [one, two]) {
    await scene.send(queue, 'x');
    await rejectOne(scene, queue);
    assert.equal(await scene.size(queue), 0);
  }
});

onBothBrokers('the exchange may be made after the queue', async (scene) => {
  const graves = await scene.queue();
  const exchange = scene.unique('x');
  const queue = await scene.queue({ deadLetterExchange: exchange });
  const raw = await scene.raw();
  await raw.assertExchange(exchange, 'fanout', { autoDelete: true });
  await raw.bindQueue(graves, exchange, '');
  await scene.send(queue, 'x');
  await rejectOne(scene, queue);
  await (await scene.inbox(graves)).count(1);
});

onBothBrokers('purging and deleting bury nobody', async (scene) => {
  const graves = await scene.queue();
  const queue = await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: graves });
  const raw = await scene.raw();
  await scene.send(queue, '1', '2');
  await raw.purgeQueue(queue);
  await scene.send(queue, '3');
  await raw.deleteQueue(queue);
  await scene.send(graves, 'marker');
  const inbox = await scene.inbox(graves);
  await inbox.count(1);
  assert.deepEqual(inbox.texts, ['marker']);
});

onBothBrokers('without a dead letter exchange a rejected message is gone', async (scene) => {
  const queue = await scene.queue();
  await scene.send(queue, 'x');
  await rejectOne(scene, queue);
  assert.equal(await scene.size(queue), 0);
});

onBothBrokers('a message that is rejected after its queue was deleted is buried nowhere', async (scene) => {
  const graves = await scene.queue();
  const queue = await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: graves });
  await scene.send(queue, 'x');
  const raw = await scene.open();
  const message = await raw.get(queue);
  await (await scene.raw()).deleteQueue(queue);
  raw.reject(message as never, false);
  await raw.close();
  await scene.send(graves, 'marker');
  const inbox = new Inbox();
  await (await scene.raw()).consume(graves, inbox.take);
  assert.equal(textOf(await inbox.next()), 'marker');
});

onBothBrokers('what waits behind one of a higher priority does not expire', async (scene) => {
  const graves = await scene.queue();
  const queue = await scene.queue({ maxPriority: 5, deadLetterExchange: '', deadLetterRoutingKey: graves });
  await scene.publish('', queue, 'high', { priority: 5 });
  await scene.publish('', queue, 'low', { expiration: '30' });
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.deepEqual([await scene.size(queue), await scene.size(graves)], [2, 0]);
  await (await scene.raw()).get(queue, { noAck: true });
  assert.equal(textOf(await (await scene.inbox(graves)).next()), 'low');
});

onBothBrokers('headers as large as they may be have room for the story of a death', async (scene) => {
  const graves = await scene.queue();
  const queue = await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: graves });
  const text = 'y'.repeat(64 * 1024 - 64);
  await scene.publish('', queue, 'x', { headers: { text }, expiration: '1' });
  const letter = await (await scene.inbox(graves)).next();
  assert.equal(letter.properties.headers!.text, text);
  assert.deepEqual(counts(letter), [[queue, 'expired', 1]]);
});

onBothBrokers('a story of deaths that is none is no first death either', async (scene) => {
  const graves = await scene.queue();
  const queue = await scene.queue({ deadLetterExchange: '', deadLetterRoutingKey: graves });
  await scene.publish('', queue, 'x', { headers: { 'x-death': 'forged' } });
  await rejectOne(scene, queue);
  const letter = await (await scene.inbox(graves)).next();
  assert.deepEqual(counts(letter), [[queue, 'rejected', 1]]);
  assert.equal(letter.properties.headers!['x-first-death-queue'], undefined);
});
