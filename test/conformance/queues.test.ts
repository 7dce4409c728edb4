/** Declaring queues: names, flags, arguments, and whose they are. */
import assert from 'node:assert/strict';
import { errors, Queue } from '#src/index';
import { onBothBrokers, refused } from '../support/both-brokers.js';

onBothBrokers('a queue without a name is given one', async (scene) => {
  const raw = await scene.raw();
  const [a, b] = [await raw.assertQueue('', { exclusive: true }), await raw.assertQueue('', { exclusive: true })];
  assert.match(a.queue, /^amq\.gen-[\w-]{22}$/);
  assert.notEqual(a.queue, b.queue);
  assert.deepEqual([a.messageCount, a.consumerCount], [0, 0]);
});

onBothBrokers('declaring a queue again tells its messages and consumers', async (scene) => {
  const queue = await scene.queue();
  await scene.send(queue, '1', '2', '3');
  const raw = await scene.open();
  await raw.prefetch(1);
  await scene.inbox(queue, {}, raw);
  const again = await (await scene.raw()).assertQueue(queue);
  assert.deepEqual(again, { queue, messageCount: 2, consumerCount: 1 });
  assert.deepEqual(await (await scene.raw()).checkQueue(queue), again);
});

onBothBrokers('without a name, purging means the queue declared last, and checking means none', async (scene) => {
  const queue = await scene.queue();
  await scene.send(queue, 'x');
  const raw = await scene.open();
  await raw.assertQueue(queue);
  assert.equal((await raw.purgeQueue('')).messageCount, 1);
  assert.deepEqual(await refused(raw.checkQueue('')), [404, "NOT_FOUND - no queue '' in vhost '/'"]);
});

for (const [what, first, second, told] of [
  [
    'durability',
    {},
    { durable: false },
    "'durable' for queue 'NAME' in vhost '/': received 'false' but current is 'true'",
  ],
  [
    'autoDelete',
    {},
    { autoDelete: true },
    "'auto_delete' for queue 'NAME' in vhost '/': received 'true' but current is 'false'",
  ],
  [
    'length',
    { maxLength: 10 },
    { maxLength: 11 },
    "'x-max-length' for queue 'NAME' in vhost '/': received '11' but current is '10'",
  ],
  [
    'dead letter exchange',
    { deadLetterExchange: 'a' },
    { deadLetterExchange: 'b' },
    "'x-dead-letter-exchange' for queue 'NAME' in vhost '/': received 'b' but current is 'a'",
  ],
  [
    'TTL than none',
    {},
    { messageTtl: 1000 },
    "'x-message-ttl' for queue 'NAME' in vhost '/': received the value '1000' of type 'short' but current is none",
  ],
  [
    'priority, none',
    { maxPriority: 5 },
    {},
    "'x-max-priority' for queue 'NAME' in vhost '/': received none but current is the value '5' of type 'byte'",
  ],
  [
    'overflow',
    { arguments: { 'x-overflow': 'drop-head' } },
    { overflow: 'reject-publish' },
    "'x-overflow' for queue 'NAME' in vhost '/': received 'reject-publish' but current is 'drop-head'",
  ],
] as const) {
  onBothBrokers(`declaring a queue with another ${what} is refused`, async (scene) => {
    const queue = await scene.queue(first);
    const raw = await scene.open();
    const text = `PRECONDITION_FAILED - inequivalent arg ${told.replace('NAME', queue)}`;
    assert.deepEqual(await refused(raw.assertQueue(queue, second)), [406, text]);
  });
}

onBothBrokers(
  'the same number in another type, and arguments that the broker does not know, are no difference',
  async (scene) => {
    const queue = await scene.queue({ maxLength: 10 });
    const raw = await scene.raw();
    const args = { 'x-max-length': { '!': 'long', value: 10 }, 'x-mine': 5 };
    assert.equal((await raw.assertQueue(queue, { arguments: args })).queue, queue);
  },
);

for (const [key, value, told] of [
  ['x-message-ttl', -1, '{value_negative,-1}'],
  ['x-message-ttl', 'soon', '"expected integer, got longstr"'],
  ['x-expires', 0, '{value_zero,0}'],
  ['x-expires', 315_360_000_001, '{value_too_large,315360000001}'],
  ['x-message-ttl', 315_360_000_001, '{value_too_large,315360000001}'],
  ['x-max-length', -1, '{value_negative,-1}'],
  ['x-max-length', 1.5, '"expected integer, got double"'],
  ['x-max-length-bytes', -5, '{value_negative,-5}'],
  ['x-max-priority', 256, '{max_value_exceeded,256}'],
  ['x-overflow', 'drop-tail', 'invalid_overflow'],
  ['x-dead-letter-routing-key', 'k', 'routing_key_but_no_dlx_defined'],
  ['x-queue-type', 'heap', `"unsupported queue type 'heap'"`],
  ['x-single-active-consumer', 'yes', '{unacceptable_type,longstr}'],
] as const) {
  onBothBrokers(`${key} ${value} is refused`, async (scene) => {
    const raw = await scene.open();
    const queue = scene.unique('q');
    assert.deepEqual(await refused(raw.assertQueue(queue, { arguments: { [key]: value } })), [
      406,
      `PRECONDITION_FAILED - invalid arg '${key}' for queue '${queue}' in vhost '/': ${told}`,
    ]);
  });
}

onBothBrokers('a dead letter exchange that is no text is refused', async (scene) => {
  const raw = await scene.open();
  const queue = scene.unique('q');
  assert.deepEqual(await refused(raw.assertQueue(queue, { arguments: { 'x-dead-letter-exchange': 5 } })), [
    406,
    `PRECONDITION_FAILED - invalid type 'byte' for arg 'x-dead-letter-exchange' in queue '${queue}' in vhost '/'`,
  ]);
});

onBothBrokers('a name that begins with amq. is reserved for queues too', async (scene) => {
  const raw = await scene.open();
  const told = "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'";
  assert.deepEqual(await refused(raw.assertQueue('amq.mine')), [403, told]);
});

const locked = (queue: string): [number, string] => [
  405,
  `RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '${queue}' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration.`,
];

for (const what of ['declare', 'check', 'consume', 'get', 'bind', 'purge', 'delete'] as const) {
  onBothBrokers(`another connection may not ${what} an exclusive queue`, async (scene) => {
    const queue = scene.unique('exclusive');
    const owner = await scene.open(scene.connect());
    await owner.assertQueue(queue, { exclusive: true });
    const raw = await scene.open();
    const ask = {
      declare: () => raw.assertQueue(queue, { exclusive: true }),
      check: () => raw.checkQueue(queue),
      consume: () => raw.consume(queue, () => undefined),
      get: () => raw.get(queue),
      bind: () => raw.bindQueue(queue, 'amq.direct', 'x'),
      purge: () => raw.purgeQueue(queue),
      delete: () => raw.deleteQueue(queue),
    };
    assert.deepEqual(await refused(ask[what]() as Promise<unknown>), locked(queue));
  });
}

onBothBrokers('a queue that is not exclusive does not become so', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  assert.deepEqual(await refused(raw.assertQueue(queue, { exclusive: true })), locked(queue));
});

onBothBrokers('anybody may publish to an exclusive queue', async (scene) => {
  const queue = new Queue(scene.unique('exclusive'), undefined, { exclusive: true });
  const owner = scene.connect();
  await queue.declare(owner);
  await scene.send(queue.name, 'x');
  assert.equal((await queue.get(owner))?.body.toString(), 'x');
});

onBothBrokers('an exclusive queue goes with its connection', async (scene) => {
  const queue = scene.unique('exclusive');
  const owner = scene.connect();
  await (await scene.open(owner)).assertQueue(queue, { exclusive: true });
  await owner.close();
  await scene.gone(queue);
});

onBothBrokers('an exclusive queue stays when the channel that declared it closes', async (scene) => {
  const queue = scene.unique('exclusive');
  const raw = await scene.open();
  await raw.assertQueue(queue, { exclusive: true });
  await raw.close();
  assert.equal(await scene.size(queue), 0);
});

onBothBrokers('a queue with autoDelete goes with its last consumer', async (scene) => {
  const queue = await scene.queue({ autoDelete: true });
  const [a, b] = [await scene.open(), await scene.open()];
  const { tag } = await scene.inbox(queue, {}, a);
  await scene.inbox(queue, {}, b);
  await a.cancel(tag);
  assert.equal(await scene.size(queue), 0);
  await b.close();
  await scene.gone(queue);
});

onBothBrokers('a queue with autoDelete that nobody has consumed stays', async (scene) => {
  const queue = await scene.queue({ autoDelete: true });
  await scene.send(queue, 'x');
  assert.deepEqual(await scene.texts(queue), ['x']);
});

onBothBrokers('a passive declaration of what is not there is refused with NotFound', async (scene) => {
  const name = scene.unique('none');
  const passive = new Queue(name, undefined, { passive: true });
  await assert.rejects(passive.declare(scene.connection), (error: Error) => {
    assert.ok(error instanceof errors.NotFound);
    assert.equal(error.message, `declaring queue '${name}': NOT_FOUND - no queue '${name}' in vhost '/'`);
    return true;
  });
});

onBothBrokers('a queue of no type is a classic one when it is declared again', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  await raw.assertQueue(queue, { arguments: { 'x-queue-type': 'classic' } });
});

onBothBrokers('a name that the broker has given is as reserved as others', async (scene) => {
  const raw = await scene.open();
  const { queue } = await raw.assertQueue('', { exclusive: true });
  const [code] = await refused(raw.assertQueue(queue, { exclusive: true }));
  assert.equal(code, 403);
});
