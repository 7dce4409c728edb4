/** Publishing: what arrives, what comes back, what is confirmed. */
import assert from 'node:assert/strict';
import { Exchange, errors, Queue } from '#src/index';
import { closure, onBothBrokers, publishOn, textOf } from '../support/both-brokers.js';

onBothBrokers('all properties arrive as they were sent', async (scene) => {
  const queue = await scene.queue();
  const properties = {
    contentType: 'text/plain',
    contentEncoding: 'utf-8',
    headers: { a: 'ä' },
    deliveryMode: 2,
    priority: 7,
    correlationId: 'c',
    replyTo: 'r',
    expiration: '60000',
    messageId: 'm',
    timestamp: 1_700_000_000,
    type: 't',
    userId: 'guest',
    appId: 'app',
  };
  await scene.publish('', queue, 'x', properties);
  const [message] = await scene.drain(queue);
  const { headers, clusterId, ...others } = message!.properties;
  assert.equal(clusterId, undefined);
  assert.deepEqual({ ...others, headers: { ...headers } }, properties);
});

onBothBrokers('a message without properties has an empty table of headers and nothing else', async (scene) => {
  const queue = await scene.queue();
  await scene.publish('', queue, 'x');
  const { properties, fields } = (await scene.drain(queue))[0]!;
  assert.deepEqual(
    Object.entries(properties).filter(([, value]) => value !== undefined),
    [['headers', {}]],
  );
  assert.equal(Object.keys(properties).length, 14);
  assert.deepEqual(fields, { deliveryTag: 1, redelivered: false, exchange: '', routingKey: queue, messageCount: 0 });
});

onBothBrokers('headers of every type arrive', async (scene) => {
  const queue = await scene.queue();
  const headers = {
    text: 'ü',
    no: false,
    yes: true,
    nothing: null,
    small: -5,
    middle: 3000,
    int: 70_000,
    long: 5_000_000_000,
    double: 0.25,
    bytes: Buffer.from([1, 2]),
    time: { '!': 'timestamp', value: 1_700_000_000 },
    decimal: { '!': 'decimal', value: { places: 2, digits: 314 } },
    list: [1, 'two', null, [3]],
    table: { inner: { most: 1 } },
    float: { '!': 'float', value: 0.5 },
  };
  await scene.publish('', queue, 'x', { headers });
  const [message] = await scene.drain(queue);
  assert.deepEqual(message!.properties.headers, { ...headers, float: 0.5 });
});

onBothBrokers('what our producer sends our queue gets', async (scene) => {
  const queue = new Queue(await scene.queue());
  const producer = scene.connection.Producer({ routingKey: queue.name });
  await producer.publish({ a: [1, 'ä', null] }, { headers: { n: 5, big: 2n ** 60n }, compression: 'zlib' });
  const message = await queue.get(scene.connection);
  assert.deepEqual(message?.payload, { a: [1, 'ä', null] });
  assert.equal(message?.headers.n, 5);
  message?.ack();
});

onBothBrokers('an empty body and one of a mebibyte arrive', async (scene) => {
  const queue = await scene.queue();
  const large = Buffer.alloc(1024 * 1024 + 7, 'mozuku');
  await scene.publish('', queue, '');
  await scene.publish('', queue, large);
  const [empty, full] = await scene.drain(queue);
  assert.equal(empty!.content.length, 0);
  assert.ok(full!.content.equals(large));
});

onBothBrokers('the caller may use its buffer again at once', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.raw();
  const body = Buffer.from('before');
  const published = new Promise((resolve) => raw.publish('', queue, body, {}, resolve));
  body.fill('x');
  await published;
  assert.deepEqual(await scene.texts(queue), ['before']);
});

onBothBrokers('what one receiver does to a body changes nobody else’s', async (scene) => {
  const exchange = await scene.exchange('fanout');
  const [a, b] = [await scene.bound(exchange, ''), await scene.bound(exchange, '')];
  await scene.publish(exchange, '', 'body');
  const [first] = await scene.drain(a);
  first!.content.fill('x');
  assert.deepEqual(await scene.texts(b), ['body']);
});

onBothBrokers('messages of one channel keep their order, and are confirmed in it', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  const order: number[] = [];
  const all = Array.from({ length: 500 }, (_, i) => publishOn(raw, '', queue, String(i)).then(() => order.push(i)));
  await Promise.all(all);
  const numbers = Array.from({ length: 500 }, (_, i) => i);
  assert.deepEqual(order, numbers);
  assert.deepEqual((await scene.texts(queue)).map(Number), numbers);
});

onBothBrokers('waitForConfirms waits for all', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  for (let i = 0; i < 50; i++) raw.sendToQueue(queue, Buffer.from('x'));
  await raw.waitForConfirms();
  await raw.waitForConfirms();
  assert.equal(await scene.size(queue), 50);
});

onBothBrokers('what cannot be routed is confirmed and gone', async (scene) => {
  await scene.publish('', scene.unique('none'), 'x');
  await scene.publish('amq.direct', scene.unique('none'), 'x');
  await scene.raw();
});

onBothBrokers('a mandatory message that no queue takes comes back whole, before its confirm', async (scene) => {
  const raw = await scene.open();
  const heard: unknown[] = [];
  raw.on('return', (message) => heard.push(message));
  const key = scene.unique('none');
  await publishOn(raw, 'amq.direct', key, 'back', { mandatory: true, headers: { a: 1 }, messageId: 'm' });
  const [message] = heard as [{ fields: object; properties: { headers: object; messageId: string }; content: Buffer }];
  assert.deepEqual(message.fields, { replyCode: 312, replyText: 'NO_ROUTE', exchange: 'amq.direct', routingKey: key });
  assert.deepEqual([message.properties.headers, message.properties.messageId], [{ a: 1 }, 'm']);
  assert.equal(message.content.toString(), 'back');
});

onBothBrokers('a mandatory message that a queue takes does not come back', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  raw.on('return', () => assert.fail('it came back'));
  await publishOn(raw, '', queue, 'x', { mandatory: true });
  assert.equal(await scene.size(queue), 1);
});

onBothBrokers('a producer rejects with what came back', async (scene) => {
  const producer = scene.connection.Producer();
  const publishing = producer.publish('x', { routingKey: scene.unique('none'), mandatory: true });
  await assert.rejects(publishing, (error: Error) => {
    assert.ok(error instanceof errors.MessageReturned);
    assert.deepEqual([error.details.replyCode, error.details.replyText], [312, 'NO_ROUTE']);
    return true;
  });
});

onBothBrokers('publishing to no exchange closes the channel; what was under way on it fails', async (scene) => {
  const queue = await scene.queue();
  const channel = await scene.connection.channel();
  const exchange = scene.unique('none');
  const lost = new Promise((resolve) => channel.raw.publish(exchange, 'k', Buffer.from('x'), {}, resolve));
  const after = new Promise((resolve) => channel.raw.publish('', queue, Buffer.from('x'), {}, resolve));
  const error = await closure(channel);
  assert.ok(error instanceof errors.NotFound);
  assert.equal(error.message, `the broker closed the channel: NOT_FOUND - no exchange '${exchange}' in vhost '/'`);
  assert.match(String(await lost), /channel closed/);
  assert.match(String(await after), /channel closed/);
  await assert.rejects(channel.raw.waitForConfirms(), /channel closed/);
  assert.equal(await scene.size(queue), 0);
});

onBothBrokers('a question asked behind a refused publish is told why there is no answer', async (scene) => {
  const queue = await scene.queue();
  const channel = await scene.connection.channel();
  channel.raw.publish(scene.unique('none'), 'k', Buffer.from('x'));
  const [first, second] = await Promise.allSettled([channel.raw.checkQueue(queue), channel.raw.checkQueue(queue)]);
  assert.match(
    String((first as PromiseRejectedResult).reason),
    /Channel closed by server: 404 \(NOT-FOUND\) with message/,
  );
  assert.match(String((second as PromiseRejectedResult).reason), /Channel ended, no reply will be forthcoming/);
});

onBothBrokers('a user id must be that of the connection', async (scene) => {
  const queue = await scene.queue();
  await scene.publish('', queue, 'x', { userId: 'guest' });
  const channel = await scene.connection.channel();
  channel.raw.publish('', queue, Buffer.from('x'), { userId: 'bob' });
  const error = await closure(channel);
  assert.ok(error instanceof errors.PreconditionFailed);
  assert.match(error.message, /user_id property set to 'bob' but authenticated user was 'guest'/);
});

for (const [expiration, told] of [
  ['soon', 'no_integer'],
  ['', 'no_integer'],
  ['-1', '{value_negative,-1}'],
  ['1.5', '{leftover_string,".5"}'],
  ['315360000001', '{value_too_large,315360000001}'],
] as const) {
  onBothBrokers(`the expiration '${expiration}' is refused`, async (scene) => {
    const queue = await scene.queue();
    const channel = await scene.connection.channel();
    channel.raw.publish('', queue, Buffer.from('x'), { expiration });
    const error = await closure(channel);
    assert.equal(error.details.replyCode, 406);
    assert.ok(
      error.message.endsWith(`PRECONDITION_FAILED - invalid expiration '${expiration}': ${told}`),
      error.message,
    );
    assert.equal(await scene.size(queue), 0);
  });
}

onBothBrokers('names that are too long and bodies that are none are the caller’s mistake', async (scene) => {
  const raw = await scene.open();
  assert.throws(() => raw.publish('', 'k'.repeat(256), Buffer.from('x')), TypeError);
  assert.throws(() => raw.publish('', 'k', 'text' as never), /content is not a buffer/);
  const queue = await scene.queue();
  await publishOn(raw, '', queue, 'x');
  assert.equal(await scene.size(queue), 1);
});

onBothBrokers('a full queue that refuses makes a publish fail, and the channel live', async (scene) => {
  const queue = await scene.queue({ maxLength: 1, overflow: 'reject-publish' });
  const producer = scene.connection.Producer({ routingKey: queue });
  await producer.publish('1');
  await assert.rejects(producer.publish('2'), errors.MessageNacked);
  assert.deepEqual((await scene.drain(queue)).map(textOf), ['1']);
  await producer.publish('3');
  assert.equal(await scene.size(queue), 1);
});

onBothBrokers('one queue that refuses makes the whole publish fail; the others have it', async (scene) => {
  const exchange = await scene.exchange('fanout');
  const full = await scene.queue({ maxLength: 0, overflow: 'reject-publish' });
  await (await scene.raw()).bindQueue(full, exchange, '');
  const other = await scene.bound(exchange, '');
  const raw = await scene.open();
  await assert.rejects(publishOn(raw, exchange, '', 'x'), /message nacked/);
  assert.deepEqual([await scene.size(full), await scene.size(other)], [0, 1]);
});

onBothBrokers('a producer that published to no exchange opens another channel for the next message', async (scene) => {
  const queue = await scene.queue();
  const producer = scene.connection.Producer();
  await assert.rejects(producer.publish('x', { exchange: scene.unique('none') }), errors.NotFound);
  await producer.publish('y', { routingKey: queue });
  assert.deepEqual(await scene.texts(queue), ['y']);
});

onBothBrokers('headers of more than 64 KiB cannot be sent', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  assert.throws(
    () => raw.publish('', queue, Buffer.from('x'), { headers: { text: 'y'.repeat(64 * 1024) } }),
    RangeError,
  );
});

onBothBrokers('a producer declares its exchange at its first publish, not before and not again', async (scene) => {
  const connection = scene.connect();
  const exchange = scene.keep(new Exchange(scene.unique('x'), { type: 'topic' }));
  const isThere = () => new Exchange(exchange.name, { passive: true }).declare(scene.connect());
  const producer = connection.Producer({ exchange });
  await connection.connect();
  await assert.rejects(isThere(), errors.NotFound);
  await producer.publish('first');
  await isThere();
  assert.equal(exchange.isBound, false, 'what was given stays as it is');
  // Behind its back: it does not ask again in the life of a connection.
  await exchange.delete(scene.connection);
  await assert.rejects(producer.publish('second'), errors.NotFound);
  await assert.rejects(isThere(), errors.NotFound);
  await producer.close();
});
