/** Bindings: one copy a queue, whatever the way; exchanges bound to exchanges; undoing. */
import assert from 'node:assert/strict';
import { onBothBrokers, refused } from '../support/both-brokers.js';

onBothBrokers('a binding made twice is one', async (scene) => {
  const exchange = await scene.exchange('direct');
  const queue = await scene.bound(exchange, 'a');
  const raw = await scene.raw();
  await raw.bindQueue(queue, exchange, 'a');
  await scene.publish(exchange, 'a', '1');
  await raw.unbindQueue(queue, exchange, 'a');
  await scene.publish(exchange, 'a', '2');
  assert.deepEqual(await scene.texts(queue), ['1']);
});

onBothBrokers('two bindings that both match give a queue one copy', async (scene) => {
  const exchange = await scene.exchange('topic');
  const queue = await scene.bound(exchange, 'a.*');
  await (await scene.raw()).bindQueue(queue, exchange, '#.b');
  await scene.publish(exchange, 'a.b', '1');
  assert.deepEqual(await scene.texts(queue), ['1']);
});

onBothBrokers('an unbound queue gets nothing more, and keeps what it has', async (scene) => {
  const exchange = await scene.exchange('topic');
  const queue = await scene.bound(exchange, 'a.*');
  await scene.publish(exchange, 'a.b', '1');
  await (await scene.raw()).unbindQueue(queue, exchange, 'a.*');
  await scene.publish(exchange, 'a.b', '2');
  assert.deepEqual(await scene.texts(queue), ['1']);
});

onBothBrokers('bindings that differ in their arguments are two', async (scene) => {
  const exchange = await scene.exchange('headers');
  const queue = await scene.bound(exchange, '', { 'x-match': 'all', a: 1 });
  const raw = await scene.raw();
  await raw.bindQueue(queue, exchange, '', { a: 2, 'x-match': 'all' });
  await raw.unbindQueue(queue, exchange, '', { a: 1, 'x-match': 'all' });
  await scene.publish(exchange, '', '1', { headers: { a: 1 } });
  await scene.publish(exchange, '', '2', { headers: { a: 2 } });
  assert.deepEqual(await scene.texts(queue), ['2']);
});

onBothBrokers('undoing a binding that is not there is no error', async (scene) => {
  const exchange = await scene.exchange('direct');
  const queue = await scene.queue();
  const raw = await scene.raw();
  await raw.unbindQueue(queue, exchange, 'a');
  await raw.unbindQueue(queue, scene.unique('none'), 'a');
  await raw.unbindQueue(scene.unique('none'), exchange, 'a');
  await raw.unbindExchange(exchange, scene.unique('none'), 'a');
  assert.equal(await scene.size(queue), 0);
});

onBothBrokers('messages flow from exchange to exchange, by the type of each', async (scene) => {
  const [front, back] = [await scene.exchange('topic'), await scene.exchange('direct')];
  await (await scene.raw()).bindExchange(back, front, 'a.#');
  const queue = await scene.bound(back, 'a.b');
  for (const key of ['a.b', 'a.c', 'b']) await scene.publish(front, key, key);
  const [message, ...others] = await scene.drain(queue);
  assert.deepEqual([message!.fields.exchange, message!.fields.routingKey, others], [front, 'a.b', []]);
});

onBothBrokers('two ways through exchanges to a queue give one copy', async (scene) => {
  const [front, left, right] = [
    await scene.exchange('fanout'),
    await scene.exchange('fanout'),
    await scene.exchange('fanout'),
  ];
  const raw = await scene.raw();
  for (const exchange of [left, right]) await raw.bindExchange(exchange, front, '');
  const queue = await scene.bound(left, '');
  await raw.bindQueue(queue, right, '');
  await raw.bindQueue(queue, front, '');
  await scene.publish(front, '', '1');
  assert.deepEqual(await scene.texts(queue), ['1']);
});

onBothBrokers('exchanges bound in a circle, and to themselves, end', async (scene) => {
  const [a, b] = [await scene.exchange('fanout'), await scene.exchange('fanout')];
  const raw = await scene.raw();
  await raw.bindExchange(a, b, '');
  await raw.bindExchange(b, a, '');
  await raw.bindExchange(a, a, '');
  const queue = await scene.bound(b, '');
  await scene.publish(a, '', '1');
  assert.deepEqual(await scene.texts(queue), ['1']);
});

onBothBrokers('exchanges can be unbound', async (scene) => {
  const [front, back] = [await scene.exchange('fanout'), await scene.exchange('fanout')];
  const raw = await scene.raw();
  await raw.bindExchange(back, front, 'k');
  const queue = await scene.bound(back, '');
  await raw.unbindExchange(back, front, 'other');
  await scene.publish(front, '', '1');
  await raw.unbindExchange(back, front, 'k');
  await scene.publish(front, '', '2');
  assert.deepEqual(await scene.texts(queue), ['1']);
});

onBothBrokers('a queue that is deleted and declared again is not bound', async (scene) => {
  const exchange = await scene.exchange('fanout');
  const queue = await scene.bound(exchange, '');
  const raw = await scene.raw();
  await raw.deleteQueue(queue);
  await raw.assertQueue(queue);
  await scene.publish(exchange, '', '1');
  assert.equal(await scene.size(queue), 0);
});

onBothBrokers('CC adds keys, and stays in the headers', async (scene) => {
  const [to, copy] = [await scene.queue(), await scene.queue()];
  await scene.publish('', to, 'x', { CC: copy });
  const [first] = await scene.drain(to);
  const [second] = await scene.drain(copy);
  assert.deepEqual(first!.properties.headers, { CC: [copy] });
  assert.deepEqual([second!.fields.routingKey, second!.properties.headers], [to, { CC: [copy] }]);
});

onBothBrokers('BCC adds keys that nobody sees', async (scene) => {
  const [to, copy] = [await scene.queue(), await scene.queue()];
  await scene.publish('', to, 'x', { BCC: [copy], headers: { a: 1 } });
  for (const queue of [to, copy]) assert.deepEqual((await scene.drain(queue))[0]!.properties.headers, { a: 1 });
});

onBothBrokers('CC that is no list is refused', async (scene) => {
  const queue = await scene.queue();
  const channel = await scene.connection.channel();
  channel.raw.publish('', queue, Buffer.from('x'), { headers: { CC: queue } });
  const error = await channel.ended;
  assert.match(error!.message, /PRECONDITION_FAILED - invalid message: \{unacceptable_type_in_header,"CC",longstr\}/);
});

onBothBrokers('without names, the queue declared last is bound by its own name', async (scene) => {
  const exchange = await scene.exchange('direct');
  const raw = await scene.raw();
  const { queue } = await raw.assertQueue('', { exclusive: true });
  await raw.bindQueue('', exchange, '');
  await scene.publish(exchange, queue, 'x');
  assert.deepEqual(await scene.texts(queue), ['x']);
});

for (const [what, bind, told] of [
  [
    'a queue to the default exchange',
    ['queue', '', ''],
    [403, 'ACCESS_REFUSED - operation not permitted on the default exchange'],
  ],
  ['a queue to no exchange', ['queue', '', 'none-such'], [404, "NOT_FOUND - no exchange 'none-such' in vhost '/'"]],
  [
    'no queue to an exchange',
    ['queue', 'none-such', 'amq.direct'],
    [404, "NOT_FOUND - no queue 'none-such' in vhost '/'"],
  ],
  [
    'no exchange to an exchange',
    ['exchange', 'none-such', 'amq.direct'],
    [404, "NOT_FOUND - no exchange 'none-such' in vhost '/'"],
  ],
  [
    'an exchange to no exchange',
    ['exchange', 'amq.direct', 'none-such'],
    [404, "NOT_FOUND - no exchange 'none-such' in vhost '/'"],
  ],
  [
    'the default exchange to an exchange',
    ['exchange', '', 'amq.direct'],
    [403, 'ACCESS_REFUSED - operation not permitted on the default exchange'],
  ],
] as const) {
  onBothBrokers(`binding ${what} is refused`, async (scene) => {
    const raw = await scene.open();
    const [kind, to, from] = bind;
    const queue = await scene.queue();
    const asked = kind === 'queue' ? raw.bindQueue(to || queue, from, 'k') : raw.bindExchange(to, from, 'k');
    assert.deepEqual(await refused(asked), told);
  });
}

onBothBrokers('an x-match that is none is refused', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  assert.deepEqual(await refused(raw.bindQueue(queue, 'amq.headers', '', { 'x-match': 'most' })), [
    406,
    'PRECONDITION_FAILED - Invalid x-match field value <<"most">>; expected all, any, all-with-x, or any-with-x',
  ]);
});
