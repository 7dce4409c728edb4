/** Consuming: order, prefetch, acks and their opposites, who of several consumers gets what. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type Channel, errors, Queue } from '#src/index';
import { closure, Inbox, onBothBrokers, refused, textOf } from '../support/both-brokers.js';

onBothBrokers('messages come in order, with consecutive tags', async (scene) => {
  const queue = await scene.queue();
  await scene.send(queue, '1', '2', '3');
  const inbox = await scene.inbox(queue, {}, await scene.open());
  const messages = await inbox.count(3);
  assert.deepEqual(inbox.texts, ['1', '2', '3']);
  assert.deepEqual(
    messages.map(({ fields }) => fields.deliveryTag),
    [1, 2, 3],
  );
  assert.deepEqual(messages[0]!.fields, {
    consumerTag: inbox.tag,
    deliveryTag: 1,
    redelivered: false,
    exchange: '',
    routingKey: queue,
  });
});

onBothBrokers('no more come than the prefetch allows, one for each ack', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  await raw.prefetch(2);
  const inbox = await scene.inbox(queue, {}, raw);
  await scene.send(queue, '1', '2', '3', '4');
  await inbox.count(2);
  assert.equal(await scene.size(queue), 2);
  raw.ack(inbox.messages[1]!);
  await inbox.count(3);
  assert.equal(await scene.size(queue), 1);
  assert.deepEqual(inbox.texts, ['1', '2', '3']);
});

onBothBrokers('a prefetch is for the consumers that start after it', async (scene) => {
  const [one, two] = [await scene.queue(), await scene.queue()];
  const raw = await scene.open();
  const free = await scene.inbox(one, {}, raw);
  await raw.prefetch(1);
  const bounded = await scene.inbox(two, {}, raw);
  await scene.send(one, '1', '2', '3');
  await scene.send(two, '1', '2', '3');
  await Promise.all([free.count(3), bounded.count(1)]);
  assert.deepEqual([await scene.size(one), await scene.size(two)], [0, 2]);
});

onBothBrokers('each consumer of a channel has the prefetch for itself', async (scene) => {
  const [one, two] = [await scene.queue(), await scene.queue()];
  const raw = await scene.open();
  await raw.prefetch(2);
  const [a, b] = [await scene.inbox(one, {}, raw), await scene.inbox(two, {}, raw)];
  await scene.send(one, '1', '2', '3');
  await scene.send(two, '1', '2', '3');
  await Promise.all([a.count(2), b.count(2)]);
  assert.deepEqual([await scene.size(one), await scene.size(two)], [1, 1]);
});

onBothBrokers('a global prefetch is shared by the consumers of a channel', async (scene) => {
  const [one, two] = [await scene.queue(), await scene.queue()];
  const raw = await scene.open();
  await raw.prefetch(3, true);
  const [a, b] = [await scene.inbox(one, {}, raw), await scene.inbox(two, {}, raw)];
  await scene.send(one, '1', '2');
  await scene.send(two, '1', '2', '3');
  await Promise.all([a.count(2), b.count(1)]);
  assert.equal(await scene.size(two), 2);
  raw.ack(a.messages[0]!);
  await b.count(2);
});

onBothBrokers('a prefetch of 0 is no limit', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  await raw.prefetch(0);
  const inbox = await scene.inbox(queue, {}, raw);
  await scene.send(queue, ...Array.from({ length: 100 }, (_, i) => String(i)));
  await inbox.count(100);
});

onBothBrokers('without acks nothing is kept, and the prefetch does not count', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  await raw.prefetch(1);
  const inbox = await scene.inbox(queue, { noAck: true }, raw);
  await scene.send(queue, '1', '2', '3');
  await inbox.count(3);
  await raw.close();
  assert.equal(await scene.size(queue), 0);
});

onBothBrokers('an ack of a message that needs none is an unknown tag', async (scene) => {
  const queue = await scene.queue();
  await scene.send(queue, 'x');
  const channel = await scene.connection.channel();
  const message = await channel.raw.get(queue, { noAck: true });
  channel.raw.ack(message as never);
  assert.match((await closure(channel)).message, /PRECONDITION_FAILED - unknown delivery tag 1$/);
});

onBothBrokers('ack with allUpTo settles everything before', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  const inbox = await scene.inbox(queue, {}, raw);
  await scene.send(queue, '1', '2', '3');
  const messages = await inbox.count(3);
  raw.ack(messages[1]!, true);
  await raw.close();
  assert.deepEqual(await scene.texts(queue), ['3']);
});

onBothBrokers('ackAll settles everything, also nothing', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  raw.ackAll();
  const inbox = await scene.inbox(queue, {}, raw);
  await scene.send(queue, '1', '2');
  await inbox.count(2);
  raw.ackAll();
  await raw.close();
  assert.equal(await scene.size(queue), 0);
});

onBothBrokers('what is requeued comes again, marked, in its old place', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  await raw.prefetch(3);
  const inbox = await scene.inbox(queue, {}, raw);
  await scene.send(queue, '1', '2', '3', '4', '5');
  const [first, second, third] = await inbox.count(3);
  await raw.cancel(inbox.tag);
  raw.nack(second!);
  raw.reject(first!, true);
  raw.ack(third!);
  await raw.checkQueue(queue);
  const messages = await scene.drain(queue);
  assert.deepEqual(messages.map(textOf), ['1', '2', '4', '5']);
  assert.deepEqual(
    messages.map(({ fields }) => fields.redelivered),
    [true, true, false, false],
  );
});

onBothBrokers('nack with allUpTo requeues everything before, in order', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  const inbox = await scene.inbox(queue, {}, raw);
  await scene.send(queue, '1', '2', '3', '4');
  const messages = await inbox.count(4);
  await raw.cancel(inbox.tag);
  raw.nack(messages[2]!, true);
  raw.ack(messages[3]!);
  await raw.checkQueue(queue);
  assert.deepEqual(await scene.texts(queue), ['1', '2', '3']);
});

onBothBrokers('nackAll without requeue drops everything', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  const inbox = await scene.inbox(queue, {}, raw);
  await scene.send(queue, '1', '2');
  await inbox.count(2);
  raw.nackAll(false);
  await raw.close();
  assert.equal(await scene.size(queue), 0);
});

onBothBrokers('what a lone consumer requeues comes to it again', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  const inbox = await scene.inbox(queue, {}, raw);
  await scene.send(queue, '1');
  raw.nack(await inbox.next());
  const again = await inbox.next();
  assert.deepEqual([again.fields.redelivered, again.fields.deliveryTag, textOf(again)], [true, 2, '1']);
  raw.ack(again);
});

onBothBrokers('reject without requeue drops one message', async (scene) => {
  const queue = await scene.queue();
  await scene.send(queue, '1', '2');
  const raw = await scene.open();
  raw.reject((await raw.get(queue)) as never, false);
  await raw.close();
  assert.deepEqual(await scene.texts(queue), ['2']);
});

for (const what of ['channel', 'connection'] as const) {
  onBothBrokers(`what is unsettled when its ${what} closes goes back in order, marked`, async (scene) => {
    const queue = await scene.queue();
    const connection = scene.connect();
    const channel: Channel = await connection.channel();
    const inbox = await scene.inbox(queue, {}, channel.raw);
    await scene.send(queue, '1', '2', '3');
    await inbox.count(3);
    channel.raw.ack(inbox.messages[1]!);
    // The end of a connection may overtake what its channels have to say.
    await channel.raw.checkQueue(queue);
    const taker = new Inbox();
    await (what === 'channel' ? channel : connection).close();
    await (await scene.raw()).consume(queue, taker.take, { noAck: true });
    const messages = await taker.count(2);
    assert.deepEqual(messages.map(textOf), ['1', '3']);
    assert.ok(messages.every(({ fields }) => fields.redelivered));
  });
}

onBothBrokers('recover gives out again what is unsettled', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  const inbox = await scene.inbox(queue, {}, raw);
  await scene.send(queue, '1', '2');
  await inbox.count(2);
  await raw.recover();
  const messages = await inbox.count(4);
  assert.deepEqual(messages.slice(2).map(textOf), ['1', '2']);
  assert.ok(messages[2]!.fields.redelivered);
  raw.ackAll();
  await raw.close();
  assert.equal(await scene.size(queue), 0);
});

onBothBrokers('a consumer has the tag that it asks for, or is given one', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  assert.equal((await scene.inbox(queue, { consumerTag: 'mine' }, raw)).tag, 'mine');
  assert.match((await scene.inbox(queue, {}, raw)).tag, /^amq\.ctag-[\w-]{22}$/);
});

onBothBrokers('a tag used twice on one channel ends the connection', async (scene) => {
  const queue = await scene.queue();
  const connection = scene.connect();
  const lost = new Promise<errors.KombuError | undefined>((resolve) => connection.on('disconnected', resolve));
  const raw = await scene.open(connection);
  await raw.consume(queue, () => undefined, { consumerTag: 'same' });
  await assert.rejects(
    raw.consume(queue, () => undefined, { consumerTag: 'same' }),
    /Channel ended/,
  );
  const error = await lost;
  assert.match(String(error?.message), /NOT_ALLOWED - attempt to reuse consumer tag 'same'/);
  assert.equal(error?.details.replyCode, 530);
});

onBothBrokers('after a cancel nothing more comes, and what came can be settled', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  const inbox = await scene.inbox(queue, {}, raw);
  await scene.send(queue, '1');
  const message = await inbox.next();
  assert.deepEqual(await raw.cancel(inbox.tag), { consumerTag: inbox.tag });
  await scene.send(queue, '2');
  raw.ack(message);
  await raw.close();
  assert.deepEqual(inbox.texts, ['1']);
  assert.deepEqual(await scene.texts(queue), ['2']);
});

onBothBrokers('cancelling a consumer that is not there is no error', async (scene) => {
  assert.deepEqual(await (await scene.raw()).cancel('nobody'), { consumerTag: 'nobody' });
});

for (const [what, tag] of [
  ['ack', 99],
  ['nack', 99],
  ['reject', 99],
  ['ack of what was acked', 1],
] as const) {
  onBothBrokers(`an unknown tag closes the channel: ${what}`, async (scene) => {
    const queue = await scene.queue();
    await scene.send(queue, '1', '2');
    const channel = await scene.connection.channel();
    const { raw } = channel;
    const message = await raw.get(queue);
    if (tag === 1) raw.ack(message as never);
    const wrong = { fields: { deliveryTag: tag } } as never;
    if (what === 'nack') raw.nack(wrong);
    else if (what === 'reject') raw.reject(wrong);
    else raw.ack(wrong);
    const error = await closure(channel);
    assert.ok(error instanceof errors.PreconditionFailed);
    assert.equal(error.message, `the broker closed the channel: PRECONDITION_FAILED - unknown delivery tag ${tag}`);
    const left = tag === 1 ? ['2'] : ['1', '2'];
    await scene.hasReady(queue, left.length);
    assert.deepEqual(await scene.texts(queue), left);
  });
}

onBothBrokers('a tag of another channel is unknown', async (scene) => {
  const queue = await scene.queue();
  await scene.send(queue, '1');
  const [one, two] = [await scene.connection.channel(), await scene.connection.channel()];
  const message = await one.raw.get(queue);
  two.raw.ack(message as never);
  assert.equal((await closure(two)).details.replyCode, 406);
  assert.equal(one.closed, false);
});

onBothBrokers('consumers of equal rank take turns', async (scene) => {
  const queue = await scene.queue();
  const [a, b] = [await scene.inbox(queue, {}, await scene.open()), await scene.inbox(queue, {}, await scene.open())];
  await scene.send(queue, '1', '2', '3', '4', '5', '6');
  await Promise.all([a.count(3), b.count(3)]);
  assert.deepEqual(
    [a.texts, b.texts],
    [
      ['1', '3', '5'],
      ['2', '4', '6'],
    ],
  );
});

onBothBrokers('a consumer without room is passed over', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  await raw.prefetch(1);
  const small = await scene.inbox(queue, {}, raw);
  const large = await scene.inbox(queue, {}, await scene.open());
  await scene.send(queue, '1', '2', '3', '4');
  await Promise.all([small.count(1), large.count(3)]);
  assert.deepEqual([small.texts, large.texts], [['1'], ['2', '3', '4']]);
});

onBothBrokers('the highest priority is served first, the others when it has no room', async (scene) => {
  const queue = await scene.queue();
  const low = await scene.inbox(queue, {}, await scene.open());
  const raw = await scene.open();
  await raw.prefetch(2);
  const high = await scene.inbox(queue, { priority: 5 }, raw);
  const lowest = await scene.inbox(queue, { priority: -1 }, await scene.open());
  await scene.send(queue, '1', '2', '3', '4');
  await Promise.all([high.count(2), low.count(2)]);
  assert.deepEqual([high.texts, low.texts, lowest.texts], [['1', '2'], ['3', '4'], []]);
});

onBothBrokers('a priority that is no integer is refused', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  const options = { arguments: { 'x-priority': 'high' } };
  assert.deepEqual(await refused(raw.consume(queue, () => undefined, options)), [
    406,
    `PRECONDITION_FAILED - invalid arg 'x-priority' for queue '${queue}' in vhost '/': "expected integer, got longstr"`,
  ]);
});

for (const [what, first, second] of [
  ['beside an exclusive one', true, false],
  ['exclusively beside another', false, true],
] as const) {
  onBothBrokers(`consuming ${what} is refused`, async (scene) => {
    const queue = await scene.queue();
    await scene.inbox(queue, { exclusive: first }, await scene.open());
    const raw = await scene.open();
    assert.deepEqual(await refused(raw.consume(queue, () => undefined, { exclusive: second })), [
      403,
      `ACCESS_REFUSED - queue '${queue}' in vhost '/' in exclusive use`,
    ]);
  });
}

onBothBrokers('an exclusive consumer that is cancelled makes room for another', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  const { tag } = await scene.inbox(queue, { exclusive: true }, raw);
  await raw.cancel(tag);
  const inbox = await scene.inbox(queue, { exclusive: true }, await scene.open());
  await scene.send(queue, 'x');
  await inbox.count(1);
});

onBothBrokers('with a single active consumer the second waits until the first goes', async (scene) => {
  const queue = await scene.queue({ arguments: { 'x-single-active-consumer': true } });
  const first = await scene.open();
  const [a, b] = [await scene.inbox(queue, {}, first), await scene.inbox(queue, {}, await scene.open())];
  await scene.send(queue, '1', '2');
  await a.count(2);
  first.ackAll();
  await first.cancel(a.tag);
  await scene.send(queue, '3');
  await b.count(1);
  assert.deepEqual([a.texts, b.texts], [['1', '2'], ['3']]);
});

onBothBrokers('a single active consumer cannot be exclusive', async (scene) => {
  const queue = await scene.queue({ arguments: { 'x-single-active-consumer': true } });
  const raw = await scene.open();
  const consuming = raw.consume(queue, () => undefined, { exclusive: true });
  assert.deepEqual(await refused(consuming), [403, `ACCESS_REFUSED - queue '${queue}' in vhost '/' in exclusive use`]);
});

onBothBrokers('a consumer whose queue is deleted gets null, once', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  const inbox = await scene.inbox(queue, {}, raw);
  const heard = once(raw, 'cancel');
  await scene.send(queue, '1');
  await inbox.count(1);
  await (await scene.raw()).deleteQueue(queue);
  await inbox.until(() => inbox.nulls > 0);
  assert.deepEqual(await heard, [{ consumerTag: inbox.tag, nowait: true }]);
  // Its tags are known still, though nobody wants them.
  raw.ack(inbox.messages[0]!);
  await raw.assertQueue(queue);
  assert.equal(inbox.nulls, 1);
});

onBothBrokers('our consumer says so when its queue is deleted', async (scene) => {
  const queue = new Queue(await scene.queue());
  const consumer = scene.connection.Consumer(queue, { onMessage: () => undefined });
  await consumer.consume();
  await queue.delete(scene.connection);
  await assert.rejects(consumer.closed, errors.ConsumerCancelled);
  await consumer.close();
});

onBothBrokers('a callback that throws closes its channel, and its message goes back', async (scene) => {
  const queue = await scene.queue();
  const channel = await scene.connection.channel();
  const heard = once(channel.raw, 'error');
  await channel.raw.consume(queue, () => {
    throw new RangeError('by the callback');
  });
  await scene.send(queue, 'x');
  const [error] = await heard;
  assert.deepEqual([error.name, error.message, error.code], ['RangeError', 'by the callback', 541]);
  await channel.ended;
  const inbox = await scene.inbox(queue, { noAck: true });
  await inbox.count(1);
  assert.ok(inbox.messages[0]!.fields.redelivered);
});

onBothBrokers('consuming from no queue is refused', async (scene) => {
  const name = scene.unique('none');
  const raw = await scene.open();
  const told: [number, string] = [404, `NOT_FOUND - no queue '${name}' in vhost '/'`];
  assert.deepEqual(await refused(raw.consume(name, () => undefined)), told);
});

onBothBrokers('a loop over the messages takes all of them, and gives back what it leaves', async (scene) => {
  const queue = new Queue(await scene.queue());
  await scene.send(queue.name, '1', '2', '3', '4');
  const consumer = scene.connection.Consumer(queue, { accept: ['text', 'raw'] });
  const taken: string[] = [];
  for await (const message of consumer) {
    taken.push(message.body.toString());
    message.ack();
    if (taken.length === 2) break;
  }
  await consumer.close();
  const rest = await scene.inbox(queue.name, { noAck: true });
  await rest.count(2);
  assert.deepEqual(
    [taken, rest.texts],
    [
      ['1', '2'],
      ['3', '4'],
    ],
  );
});
