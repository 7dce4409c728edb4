/** The sharded consumer on either broker: what becomes of messages, whatever their callbacks do. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  Exchange,
  errors,
  type FailedMessage,
  Queue,
  type ShardedConsumer,
  type ShardedConsumerOptions,
} from '#src/index';
import { onBothBrokers, type Scene, textOf } from '../support/both-brokers.js';
import { consumerOf, EffectsLog, next, sha256, until } from '../support/rig.js';

interface Stage {
  readonly scene: Scene;
  readonly effects: EffectsLog;
  readonly queue: Queue;
  /** A consumer of the queue, or of others; closed at the end. */
  consumer(options?: Partial<ShardedConsumerOptions>, queues?: Queue | readonly Queue[]): ShardedConsumer;
  publish(...orders: object[]): Promise<void>;
}

function onStage(name: string, run: (stage: Stage) => Promise<void>, queueOptions: object = {}): void {
  onBothBrokers(
    `sharded: ${name}`,
    async (scene) => {
      using effects = new EffectsLog();
      const queue = new Queue(await scene.queue(queueOptions));
      await scene.queue({}, `${queue.name}.dead`);
      const consumers: ShardedConsumer[] = [];
      const consumer: Stage['consumer'] = (
        options = {},
        queues = new Queue(queue.name, queueOptionsOf(queueOptions)),
      ) => {
        const made = consumerOf(scene.url, queues, options);
        consumers.push(made);
        return made;
      };
      const publish = async (...orders: object[]): Promise<void> => {
        const producer = scene.connection.Producer({ routingKey: queue.name });
        await Promise.all(orders.map((order) => producer.publish(order)));
        await producer.close();
      };
      try {
        await run({ scene, effects, queue, consumer, publish });
      } finally {
        await Promise.all(consumers.map((each) => each.close()));
      }
    },
    { timeout: 60_000 },
  );
}

/** The same declaration, in our words. */
function queueOptionsOf(options: { maxPriority?: number }): object {
  return options.maxPriority === undefined ? {} : { maxPriority: options.maxPriority };
}

const orders = (count: number, order: object = {}) => Array.from({ length: count }, (_, i) => ({ id: i, ...order }));

onStage('every message is handled once, and acked', async ({ scene, effects, queue, consumer, publish }) => {
  await publish(...orders(500));
  const working = consumer();
  await working.consume();
  await until('all are acked', () => working.stats().acked === 500);
  await publish(...orders(50, { again: true }));
  await until('all are acked', () => working.stats().acked === 550);
  await until('nothing is unsettled', () => working.stats().unsettled === 0);
  await working.close();
  assert.equal(await scene.size(queue.name), 0);
  assert.ok([...effects.counts().values()].every((count) => count <= 2));
  const { received, redelivered, stale, shed } = working.stats();
  assert.deepEqual({ received, redelivered, stale, shed }, { received: 550, redelivered: 0, stale: 0, shed: 0 });
});

onStage('one worker runs messages in their order', async ({ effects, consumer, publish }) => {
  await publish(...orders(200));
  const working = consumer({ workers: 1 });
  await working.consume();
  await until('all are handled', () => effects.read().length === 200);
  assert.deepEqual(
    effects.read().map(({ id }) => Number(id)),
    Array.from({ length: 200 }, (_, i) => i),
  );
});

onStage('bodies of every length arrive as they are', async ({ scene, effects, queue, consumer }) => {
  const sizes = [
    ...Array.from({ length: 40 }, (_, i) => i),
    4095,
    4096,
    65_535,
    131_064,
    131_065,
    1_048_576,
    3_000_001,
  ];
  const bodies = sizes.map((size) => Buffer.alloc(size, `${size}-`));
  for (const [i, body] of bodies.entries()) {
    await scene.publish('', queue.name, body, { contentType: 'application/data', messageId: String(i) });
  }
  const working = consumer({ accept: ['raw'] });
  await working.consume();
  await until('all are handled', () => effects.read().length === sizes.length, { state: () => working.stats() });
  for (const { id, hash } of effects.read()) assert.equal(hash, sha256(bodies[Number(id)]!), `body ${id}`);
  await until('the arena is empty', () => working.stats().arena.used === 0);
});

onStage('a callback settles its message itself, once', async ({ scene, effects, queue, consumer, publish }) => {
  const working = consumer({ workers: 1 });
  await publish(...['ack', 'reject', 'requeue', 'twice'].map((what) => ({ id: what, do: what })));
  const failed: FailedMessage[] = [];
  working.on('failed', (failure) => failed.push(failure));
  await working.consume();
  await until('all are done', () => effects.read().length === 4 && failed.length === 1);
  assert.deepEqual(Object.fromEntries(effects.counts()), { ack: 1, reject: 1, requeue: 2 });
  await until('all are settled', () => working.stats().unsettled === 0);
  const { acked, rejected, requeued, redelivered } = working.stats();
  assert.deepEqual(
    { acked, rejected, requeued, redelivered },
    {
      ...{ acked: 3, rejected: 1, requeued: 1 },
      // Redis says it in the envelope, which the main thread does not read.
      redelivered: scene.kind === 'redis' ? 0 : 1,
    },
  );
  await working.close();
  assert.equal(await scene.size(queue.name), 0);
});

onStage('what fails goes to the dead letter queue, with the reason', async ({ scene, queue, consumer, publish }) => {
  const working = consumer();
  await working.consume();
  await publish({ id: 'bad', do: 'throw' });
  await until('it is dead-lettered', () => working.stats().deadLettered === 1);
  const letter = await new Queue(`${queue.name}.dead`).get(scene.connection);
  assert.deepEqual(letter?.payload, { id: 'bad', do: 'throw' });
  assert.equal(letter?.headers['x-mozuku-reason'], 'failed');
  assert.equal(letter?.headers['x-mozuku-queue'], queue.name);
  assert.match(String(letter?.headers['x-mozuku-error']), /RangeError: asked to fail: bad/);
  letter?.ack();
});

onStage("with deadLetter 'broker' the queue's own exchange decides", async ({ scene, consumer }) => {
  const graves = await scene.queue();
  const args = { 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': graves };
  const mortal = new Queue(scene.unique('mortal'), { queueArguments: args, expires: 60_000 });
  const working = consumer({ deadLetter: 'broker' }, mortal);
  await working.consume();
  await scene.connection.Producer({ routingKey: mortal.name }).publish({ id: 1, do: 'throw' });
  const letter = await (await scene.inbox(graves, { noAck: true })).next();
  assert.equal(letter.properties.headers?.['x-death']?.[0]?.reason, 'rejected');
  assert.equal(letter.properties.headers?.['x-death']?.[0]?.queue, mortal.name);
});

onStage("with deadLetter 'drop' it is gone", async ({ scene, queue, consumer, publish }) => {
  const working = consumer({ deadLetter: 'drop' });
  await working.consume();
  await publish({ id: 1, do: 'throw' });
  await until('it is dropped', () => working.stats().acked === 1);
  await working.close();
  assert.deepEqual([await scene.size(queue.name), await scene.size(`${queue.name}.dead`)], [0, 0]);
});

onStage('what cannot be decoded goes to the dead letter queue as it is', async ({ scene, queue, consumer }) => {
  const working = consumer();
  await working.consume();
  await scene.publish('', queue.name, '{"broken', { contentType: 'application/json', headers: { a: 1 } });
  await scene.publish('', queue.name, 'x', { contentType: 'application/x-python-serialize' });
  await until('both are dead-lettered', () => working.stats().deadLettered === 2);
  const letters = await scene.drain(`${queue.name}.dead`);
  assert.deepEqual(letters.map(textOf).sort(), ['x', '{"broken']);
  assert.ok(letters.every(({ properties }) => properties.headers?.['x-mozuku-reason'] === 'decode'));
});

for (const [onDecodeError, outcome] of [
  ['ack', 'acked'],
  ['reject', 'rejected'],
] as const) {
  onStage(`what cannot be decoded is settled by onDecodeError '${onDecodeError}'`, async (stage) => {
    const { scene, queue, consumer } = stage;
    const working = consumer({ onDecodeError });
    await working.consume();
    await scene.publish('', queue.name, '{"broken', { contentType: 'application/json' });
    await until('it is settled', () => working.stats()[outcome] === 1);
    await working.close();
    assert.equal(await scene.size(queue.name), 0);
  });
}

onStage('a body over maxMessageBytes goes to the dead letters, or where onDecodeError says', async (stage) => {
  const { scene, queue, consumer, publish } = stage;
  const large = { id: 'large', pad: 'x'.repeat(2000) };
  await publish(large);
  const keeping = consumer({ maxMessageBytes: 1000 });
  await keeping.consume();
  await until('it is dead-lettered', () => keeping.stats().deadLettered === 1);
  const [letter] = await scene.drain(`${queue.name}.dead`);
  assert.equal(letter?.properties.headers?.['x-mozuku-reason'], 'tooLarge');
  assert.deepEqual(JSON.parse(textOf(letter!)), large);
  await keeping.close();
  const rejecting = consumer({ maxMessageBytes: 1000, onDecodeError: 'reject' });
  const told = next<[Error]>(rejecting as never, 'error');
  await rejecting.consume();
  await publish(large);
  assert.ok((await told)[0] instanceof errors.MessageTooLarge);
  await until('it is rejected', () => rejecting.stats().rejected === 1);
  await until('nothing is unsettled', () => rejecting.stats().unsettled === 0);
});

onStage('a body that fits nowhere in maxMemory stays unsettled, and goes back at the end', async (stage) => {
  const { scene, queue, consumer } = stage;
  const working = consumer({ maxMemory: 8 * 1024 * 1024 });
  const told = next<[Error]>(working as never, 'error');
  await working.consume();
  await scene.publish('', queue.name, Buffer.alloc(7 * 1024 * 1024), { contentType: 'application/data' });
  assert.ok((await told)[0] instanceof errors.MessageTooLarge);
  assert.equal(working.stats().unsettled, 1);
  await working.close();
  await until('it is on the queue', async () => (await scene.size(queue.name)) === 1);
});

onStage('more than fits in memory is handled all the same', async ({ scene, effects, queue, consumer, publish }) => {
  const pad = 'x'.repeat(1024 * 1024);
  await publish(...orders(30, { do: 'busy', ms: 10, pad }));
  const working = consumer({ maxMemory: 8 * 1024 * 1024 });
  await working.consume();
  await until('all are acked', () => working.stats().acked === 30, { state: () => working.stats() });
  assert.equal(effects.counts().size, 30);
  assert.ok([...effects.counts().values()].every((count) => count === 1));
  await until('the arena is empty', () => working.stats().arena.used === 0);
  await working.close();
  assert.equal(await scene.size(queue.name), 0);
});

onStage('no more is taken than the prefetch allows', async ({ scene, effects, queue, consumer, publish }) => {
  const latch = join(effects.folder, 'latch');
  await publish(...orders(20, { do: 'latch', at: latch }));
  const working = consumer({ prefetchCount: 6 });
  await working.consume();
  await until('the prefetch is used up', () => working.stats().unsettled === 6);
  assert.equal(await scene.size(queue.name), 14);
  writeFileSync(latch, '');
  await until('all are acked', () => working.stats().acked === 20);
});

onStage('one slow message holds up no other', async ({ effects, consumer, publish }) => {
  const latch = join(effects.folder, 'latch');
  await publish({ id: 'slow', do: 'latch', at: latch }, ...orders(100));
  const working = consumer();
  await working.consume();
  await until('the others are handled', () => effects.counts().size === 100, { state: () => working.stats() });
  await until('the others are acked', () => working.stats().unsettled === 1);
  writeFileSync(latch, '');
  await until('all are acked', () => working.stats().acked === 101);
});

onStage('what waits unstarted for maxWait goes to another consumer', async ({ effects, consumer, publish }) => {
  const latch = join(effects.folder, 'latch');
  await publish({ id: 'slow', do: 'latch', at: latch }, ...orders(9));
  const busy = consumer({ workers: 1, prefetchCount: 10, maxWait: 200 });
  const free = consumer({ workers: 1 });
  await busy.consume();
  await until('all are with the busy one', () => busy.stats().inFlight === 1 && busy.stats().received >= 10);
  await free.consume();
  await until('the free one has handled the others', () => effects.counts().size === 9);
  assert.ok(busy.stats().requeued >= 9);
  assert.equal(busy.stats().acked, 0);
  writeFileSync(latch, '');
  await until('all are acked', () => busy.stats().acked + free.stats().acked === 10);
  assert.ok([...effects.counts().values()].every((count) => count === 1));
});

onStage(
  'a worker that dies loses nothing; what killed it is kept',
  async ({ scene, effects, queue, consumer, publish }) => {
    await publish(
      ...orders(50, { do: 'sleep', ms: 1 }),
      { id: 'culprit', do: 'exit' },
      ...orders(50, { do: 'sleep', ms: 1 }),
    );
    const working = consumer({ maxDeliveries: 2 });
    await working.consume();
    await until('the others are handled', () => working.stats().acked === 100, { state: () => working.stats() });
    await until('the culprit is kept', () => working.stats().deadLettered === 1);
    assert.equal(
      [...effects.counts().values()].reduce((sum, count) => sum + count),
      100,
    );
    const [letter] = await scene.drain(`${queue.name}.dead`);
    assert.equal(letter?.properties.headers?.['x-mozuku-reason'], 'deaths');
  },
);

onStage('close() in mid-flight: what was published is handled once or ready again', async (stage) => {
  const { scene, effects, queue, consumer, publish } = stage;
  await publish(...orders(300, { do: 'sleep', ms: 15 }));
  const working = consumer({ concurrency: 4 });
  await working.consume();
  await until('some are handled', () => effects.read().length >= 50);
  await working.close();
  const handled = effects.counts();
  await until('the rest is back', async () => (await scene.size(queue.name)) === 300 - handled.size);
  assert.ok([...handled.values()].every((count) => count === 1));
  assert.ok(handled.size < 300, 'it was closed in mid-flight');
});

onStage(
  'a callback that never ends is cut off, and its message goes back',
  async ({ scene, queue, consumer, publish }) => {
    await publish({ id: 'never', do: 'never' });
    const working = consumer({ drainTimeout: 100 });
    await working.consume();
    await until('it runs', () => working.stats().inFlight === 1);
    await working.close();
    await until('it is back', async () => (await scene.size(queue.name)) === 1);
    assert.equal((await scene.drain(queue.name))[0]!.fields.redelivered, true);
  },
);

onStage('a queue that is deleted under its consumer is declared and consumed again', async (stage) => {
  const { scene, effects, queue, consumer, publish } = stage;
  const working = consumer();
  const heard: string[] = [];
  working.on('disconnected', () => heard.push('disconnected'));
  working.on('reconnected', () => heard.push('reconnected'));
  const cancelled = next<[Error]>(working as never, 'error');
  await working.consume();
  const back = next(working as never, 'reconnected');
  await queue.delete(scene.connection);
  const [error] = await cancelled;
  assert.ok(error instanceof errors.ConsumerCancelled && error.message.includes(queue.name));
  await back;
  assert.deepEqual(heard, ['disconnected', 'reconnected']);
  await publish({ id: 'again' });
  await until('it is handled', () => effects.counts().has('again'));
});

onStage('messages of several queues, one of them without a name', async ({ scene, effects, consumer }) => {
  const named = new Queue(await scene.queue());
  const exchange = new Exchange(await scene.exchange('fanout'), { type: 'fanout' });
  const working = consumer({ deadLetter: 'drop' }, [named, new Queue('', exchange, { exclusive: true })]);
  await working.consume();
  const producer = scene.connection.Producer();
  await producer.publish({ id: 'a' }, { routingKey: named.name });
  await producer.publish({ id: 'b' }, { exchange, mandatory: true });
  await until('both are handled', () => effects.counts().size === 2);
  await until('both are acked', () => working.stats().acked === 2);
});

onStage("with ack 'manual' a message stays the callback's after it has returned", async (stage) => {
  const { scene, effects, queue, consumer, publish } = stage;
  const latch = join(effects.folder, 'latch');
  await publish(...orders(10, { do: 'later', at: latch }));
  const working = consumer({ ack: 'manual', prefetchCount: 6 });
  await working.consume();
  await until('as many as the prefetch allows have returned', () => effects.counts().size === 6);
  assert.equal(working.stats().acked, 0);
  assert.equal(await scene.size(queue.name), 4);
  writeFileSync(latch, '');
  await until('all are acked', () => working.stats().acked === 10);
});

onStage('consuming a queue that is not there, and is not to be declared, is refused', async ({ scene, consumer }) => {
  const working = consumer({ autoDeclare: false }, new Queue(scene.unique('none')));
  await assert.rejects(working.consume(), errors.NotFound);
  assert.equal(working.stats().state, 'closed');
});

onStage('a queue that is there but otherwise is refused', async ({ queue, consumer }) => {
  const working = consumer({}, new Queue(queue.name, { maxLength: 5 }));
  await assert.rejects(working.consume(), errors.PreconditionFailed);
});

onStage(
  'priorities decide what is taken first',
  async ({ scene, effects, queue, consumer }) => {
    for (const [id, priority] of [
      ['low', 0],
      ['high', 5],
    ] as const) {
      await scene.publish('', queue.name, JSON.stringify({ id }), { contentType: 'application/json', priority });
    }
    await consumer({ workers: 1, prefetchCount: 1 }).consume();
    await until('both are handled', () => effects.read().length === 2);
    assert.deepEqual(
      effects.read().map(({ id }) => id),
      ['high', 'low'],
    );
  },
  { maxPriority: 5 },
);
