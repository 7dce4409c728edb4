/** The inline consumer: its queues, callbacks, limits, and what becomes of messages when something about it changes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Connection, Consumer, Exchange, errors, type Message, Queue } from '#src/index';
import { onBothBrokers, type Scene } from '../support/both-brokers.js';

/** Messages as they come, and waiting for so many. */
class Seen {
  readonly messages: Message[] = [];
  #waiting: (() => void)[] = [];

  readonly take = (message: Message): void => {
    this.messages.push(message);
    for (const wake of this.#waiting.splice(0)) wake();
  };

  get texts(): string[] {
    return this.messages.map((message) => message.body.toString());
  }

  async count(count: number): Promise<Message[]> {
    while (this.messages.length < count) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return this.messages;
  }
}

function newQueue(scene: Scene, options = {}): Queue {
  return scene.keep(new Queue(scene.unique('q'), options));
}

/** Ready messages and consumers, asked on the scene's own channel. */
async function counts(scene: Scene, queue: Queue): Promise<[messages: number, consumers: number]> {
  const { messages, consumers } = await queue.queueDeclare(scene.connection, { passive: true });
  return [messages, consumers];
}

/** What the broker says where so many consume: Redis knows of none. */
const told = (scene: Scene, consumers: number): number => (scene.kind === 'redis' ? 0 : consumers);

onBothBrokers('consume() twice is once, and starts on what was added since', async (scene) => {
  const [one, two] = [newQueue(scene), newQueue(scene)];
  const seen = new Seen();
  const consumer = new Consumer(scene.connection, one, { onMessage: seen.take });
  await consumer.consume();
  await Promise.all([consumer.consume(), consumer.consume()]);
  assert.deepEqual(await counts(scene, one), [0, told(scene, 1)]);
  const added = await consumer.addQueue(two);
  assert.equal(added.isBound, true);
  assert.deepEqual(
    consumer.queues.map(({ name }) => name),
    [one.name, two.name],
  );
  assert.deepEqual([consumer.consumingFrom(one), consumer.consumingFrom(two.name)], [true, false]);
  assert.deepEqual(await counts(scene, two), [0, 0], 'declared, not consumed');
  await consumer.consume();
  assert.deepEqual(
    [await counts(scene, one), await counts(scene, two)],
    [
      [0, told(scene, 1)],
      [0, told(scene, 1)],
    ],
  );
  await scene.send(two.name, 'x');
  (await seen.count(1))[0]!.ack();
  await consumer.close();
});

onBothBrokers('a consumer without queues consumes nothing until it has one', async (scene) => {
  const seen = new Seen();
  await using consumer = new Consumer(scene.connection, undefined, { onMessage: seen.take });
  await consumer.consume();
  assert.deepEqual([consumer.consuming, consumer.queues], [false, []]);
  const name = scene.unique('q');
  const exchange = scene.keep(new Exchange(scene.unique('x'), { type: 'topic' }));
  scene.keep(new Queue(name));
  await consumer.addQueueFromDict(name, { exchange: exchange.name, exchangeType: 'topic', bindingKey: 'a.#' });
  await consumer.consume();
  await exchange.publish('x', { routingKey: 'a.b', mandatory: true }, scene.connection);
  (await seen.count(1))[0]!.ack();
});

onBothBrokers('consumer tags begin with tagPrefix, and no two are the same', async (scene) => {
  const queues = [newQueue(scene), newQueue(scene)];
  const seen = new Seen();
  await using consumer = new Consumer(scene.connection, queues, { onMessage: seen.take, tagPrefix: 'mine-' });
  await consumer.consume();
  for (const { name } of queues) await scene.send(name, 'x');
  const tags = (await seen.count(2)).map((message) => message.deliveryInfo.consumerTag);
  assert.equal(new Set(tags).size, 2);
  for (const tag of tags) assert.match(tag, /^mine-/);
  for (const message of seen.messages) message.ack();
});

onBothBrokers('several queues are declared, consumed and cancelled, each once', async (scene) => {
  const exchange = scene.keep(new Exchange(scene.unique('x'), { type: 'fanout' }));
  const queues = ['one', 'two', 'three'].map((name) => scene.keep(new Queue(scene.unique(name), exchange)));
  const seen = new Seen();
  const consumer = new Consumer(scene.connection, queues, { onMessage: seen.take });
  const consumersOf = async () => Promise.all(queues.map(async (queue) => (await counts(scene, queue))[1]));
  await assert.rejects(new Queue(queues[0]!.name, { passive: true }).declare(scene.connect()), errors.NotFound);
  await consumer.consume();
  assert.deepEqual(await consumersOf(), [told(scene, 1), told(scene, 1), told(scene, 1)]);
  await exchange.publish('x', { mandatory: true }, scene.connection);
  const messages = await seen.count(3);
  assert.deepEqual(
    messages.map(({ deliveryInfo }) => deliveryInfo.queue).sort(),
    queues.map(({ name }) => name).sort(),
  );
  for (const message of messages) message.ack();
  await consumer.cancel();
  await consumer.cancel();
  assert.deepEqual(await consumersOf(), [0, 0, 0]);
  await consumer.consume();
  assert.deepEqual(await consumersOf(), [told(scene, 1), told(scene, 1), told(scene, 1)]);
  await consumer.close();
});

onBothBrokers('every way to settle a message makes room for one more', async (scene) => {
  const queue = newQueue(scene);
  const seen = new Seen();
  await using consumer = new Consumer(scene.connection, queue, { onMessage: seen.take, prefetchCount: 2 });
  await consumer.consume();
  await scene.send(queue.name, '1', '2', '3', '4');
  const [first, second] = await seen.count(2);
  assert.deepEqual(await counts(scene, queue), [2, told(scene, 1)]);
  first!.ack();
  await seen.count(3);
  assert.deepEqual(await counts(scene, queue), [1, told(scene, 1)]);
  second!.reject();
  await seen.count(4);
  assert.deepEqual(await counts(scene, queue), [0, told(scene, 1)]);
  // What is given back takes the room that it makes.
  seen.messages[2]!.requeue();
  await seen.count(5);
  assert.deepEqual(seen.texts, ['1', '2', '3', '4', '3']);
  seen.messages[3]!.ack({ multiple: true });
  seen.messages[4]!.ack();
  await consumer.close();
  assert.deepEqual(await counts(scene, queue), [0, 0]);
});

onBothBrokers('a queue that is named twice is one queue', async (scene) => {
  const queue = newQueue(scene);
  await using consumer = new Consumer(scene.connection, [queue, new Queue(queue.name, { noAck: true })], {
    onMessage: () => undefined,
  });
  await consumer.consume();
  assert.equal(consumer.queues.length, 1);
  assert.equal(consumer.queues[0]!.noAck, true);
  assert.deepEqual(await counts(scene, queue), [0, told(scene, 1)]);
});

onBothBrokers('several consumers of one queue on one channel each get their share', async (scene) => {
  const queue = newQueue(scene);
  const channel = await scene.connection.channel();
  const seen = [new Seen(), new Seen()];
  const consumers = seen.map(({ take }) => new Consumer(channel, queue, { onMessage: take, prefetchCount: 1 }));
  for (const each of consumers) await each.consume();
  assert.deepEqual(await counts(scene, queue), [0, told(scene, 2)]);
  await scene.send(queue.name, '1', '2');
  await Promise.all(seen.map((each) => each.count(1)));
  assert.deepEqual(seen.flatMap(({ texts }) => texts).sort(), ['1', '2']);
  await consumers[0]!.close();
  assert.equal(channel.closed, false, "a channel of the caller's stays open");
  assert.deepEqual(await counts(scene, queue), [0, told(scene, 1)]);
  await channel.close();
});

onBothBrokers('cancelByQueue ends one queue, as often as it is called', async (scene) => {
  const [one, two] = [newQueue(scene), newQueue(scene)];
  await using consumer = new Consumer(scene.connection, [one, two], { onMessage: () => undefined });
  await consumer.consume();
  for (const given of [one, one.name, one, 'no-such']) await consumer.cancelByQueue(given);
  assert.deepEqual([consumer.consumingFrom(one), consumer.consumingFrom(two)], [false, true]);
  assert.deepEqual(
    consumer.queues.map(({ name }) => name),
    [two.name],
  );
  assert.deepEqual(
    [await counts(scene, one), await counts(scene, two)],
    [
      [0, 0],
      [0, told(scene, 1)],
    ],
  );
});

onBothBrokers('a queue that cannot be declared is not added, and the others go on', async (scene) => {
  const queue = newQueue(scene);
  const seen = new Seen();
  await using consumer = new Consumer(scene.connection, queue, { onMessage: seen.take });
  await consumer.consume();
  await assert.rejects(consumer.addQueue(new Queue('no-such', { passive: true })), errors.NotFound);
  assert.equal(consumer.queues.length, 1);
  await scene.send(queue.name, 'x');
  (await seen.count(1))[0]!.ack();
});

onBothBrokers(
  'callbacks can be registered, listed and replaced; without any, receive and consume refuse',
  async (scene) => {
    const queue = newQueue(scene);
    const calls: unknown[] = [];
    const seen = new Seen();
    await using consumer = new Consumer(scene.connection, queue, {
      callbacks: [(body) => calls.push(['first', body])],
    });
    consumer.registerCallback((body, message) => {
      calls.push(['second', body]);
      message.ack();
      seen.take(message);
    });
    assert.equal(consumer.callbacks.length, 2);
    assert.throws(() => consumer.registerCallback('f' as never), errors.OptionError);
    assert.throws(() => {
      consumer.onMessage = () => undefined;
    }, /exclude each other/);
    await consumer.consume();
    await scene.send(queue.name, 'x');
    const [message] = await seen.count(1);
    assert.deepEqual(
      calls.map((call) => (call as unknown[])[0]),
      ['first', 'second'],
    );
    consumer.callbacks = [];
    await assert.rejects(consumer.receive('x', message!), { name: 'OptionError', message: /no callbacks/ });
    await consumer.cancel();
    await assert.rejects(consumer.consume(), errors.OptionError);
    consumer.onMessage = seen.take;
    assert.throws(() => consumer.registerCallback(() => undefined), /exclude each other/);
    await consumer.consume();
  },
);

onBothBrokers('receive may be overridden', async (scene) => {
  const queue = newQueue(scene);
  const seen = new Seen();
  class Own extends Consumer {
    override async receive(_: unknown, message: Message): Promise<void> {
      message.ack();
      seen.take(message);
    }
  }
  await using consumer = new Own(scene.connection, queue);
  await consumer.consume();
  await scene.send(queue.name, 'x');
  await seen.count(1);
});

onBothBrokers('content that accept does not name reaches no callback; onDecodeError gets it', async (scene) => {
  const queue = newQueue(scene);
  await using producer = scene.connection.Producer({ routingKey: queue.name });
  const [wrong, seen] = [new Seen(), new Seen()];
  const told: unknown[] = [];
  await using consumer = new Consumer(scene.connection, queue, {
    accept: ['json'],
    callbacks: [(_, message) => seen.take(message)],
  });
  assert.deepEqual([...consumer.accept], ['application/json']);
  consumer.onDecodeError = (message, error) => {
    told.push(error);
    message.reject();
    wrong.take(message);
  };
  await consumer.consume();
  await producer.publish('text');
  await producer.publish({ n: 1 });
  await producer.publish('{', { contentType: 'application/json' });
  await Promise.all([wrong.count(2), seen.count(1)]);
  assert.ok(told[0] instanceof errors.ContentDisallowed);
  assert.ok(told[1] instanceof errors.DecodeError);
  assert.deepEqual(
    wrong.messages.map((each) => each.errors),
    told.map((each) => [each]),
  );
  assert.deepEqual(seen.messages[0]!.payload, { n: 1 });
  seen.messages[0]!.ack();
});

onBothBrokers('flow(false) stops the messages, flow(true) lets them come again', async (scene) => {
  const queue = newQueue(scene);
  const seen = new Seen();
  await using consumer = new Consumer(scene.connection, queue, { onMessage: seen.take });
  await consumer.consume();
  await consumer.flow(false);
  await scene.send(queue.name, 'x');
  assert.deepEqual([consumer.consuming, await counts(scene, queue)], [false, [1, 0]]);
  await consumer.flow(true);
  (await seen.count(1))[0]!.ack();
  await assert.rejects(consumer.flow(undefined as never), errors.OptionError);
});

onBothBrokers('qos() takes effect at once, also for a queue that would go with its consumer', async (scene) => {
  const queue = new Queue(scene.unique('q'), { autoDelete: true });
  const seen = new Seen();
  await using consumer = new Consumer(scene.connection, queue, { onMessage: seen.take, prefetchCount: 1 });
  await consumer.consume();
  await scene.send(queue.name, '1', '2', '3', '4', '5');
  await seen.count(1);
  await consumer.qos({ prefetchCount: 3 });
  assert.equal(consumer.prefetchCount, 3);
  await seen.count(4);
  assert.deepEqual(await counts(scene, queue), [1, told(scene, 1)]);
  for (const message of seen.messages) message.ack();
  (await seen.count(5))[4]!.ack();
  await assert.rejects(consumer.qos({ prefetchSize: 1 }), { name: 'OptionError', message: /no limit in bytes/ });
  await assert.rejects(consumer.qos({ applyGlobal: true }), errors.OptionError);
  await consumer.qos({});
  assert.equal(consumer.prefetchCount, 0);
});

onBothBrokers('recover() gives back what is at hand; what its callbacks settle after that is stale', async (scene) => {
  const queue = newQueue(scene);
  const seen = new Seen();
  await using consumer = new Consumer(scene.connection, queue, { onMessage: seen.take });
  await consumer.consume();
  await scene.send(queue.name, '1', '2', '3');
  const [first, second, third] = await seen.count(3);
  first!.ack();
  await consumer.recover();
  await seen.count(5);
  assert.deepEqual(
    seen.messages.slice(3).map((each) => [each.body.toString(), each.deliveryInfo.redelivered]),
    [
      ['2', true],
      ['3', true],
    ],
  );
  second!.ack();
  third!.ack({ multiple: true });
  assert.equal(consumer.stale, 2);
  seen.messages[4]!.ack({ multiple: true });
  await assert.rejects(consumer.recover({ requeue: false }), errors.OptionError);
  await consumer.close();
  assert.deepEqual(await counts(scene, queue), [0, 0]);
});

onBothBrokers('purge() empties all queues and tells how much there was', async (scene) => {
  const [one, two] = [newQueue(scene), newQueue(scene)];
  await using consumer = new Consumer(scene.connection, [one, two], { onMessage: () => undefined });
  await consumer.declare();
  await scene.send(one.name, '1', '2');
  await scene.send(two.name, '3');
  assert.equal(await consumer.purge(), 3);
  assert.equal(await consumer.purge(), 0);
});

onBothBrokers('consume({ noAck }) wins over the consumer and the queues', async (scene) => {
  const queue = newQueue(scene);
  const seen = new Seen();
  await using consumer = new Consumer(scene.connection, queue, { onMessage: seen.take, noAck: false });
  await consumer.consume({ noAck: true });
  await scene.send(queue.name, 'x');
  const [message] = await seen.count(1);
  message!.ack();
  message!.ack();
  assert.throws(() => message!.requeue(), errors.MessageStateError);
  await consumer.close();
  assert.deepEqual(await counts(scene, queue), [0, 0]);
});

onBothBrokers('revive() moves queues, exchanges and prefetch to another connection', async (scene) => {
  const exchange = scene.keep(new Exchange(scene.unique('x'), { type: 'fanout' }));
  const queue = scene.keep(new Queue(scene.unique('q'), exchange));
  const seen = new Seen();
  const other = scene.connect();
  await using consumer = new Consumer(scene.connection, queue, { onMessage: seen.take, prefetchCount: 1 });
  await consumer.consume();
  await scene.send(queue.name, '1', '2');
  await seen.count(1);
  await consumer.revive(other);
  assert.deepEqual([consumer.target, consumer.consuming], [other, false]);
  assert.deepEqual([consumer.queues[0]!.channel, consumer.queues[0]!.exchange!.channel], [other, other]);
  await scene.hasReady(queue.name, 2);
  seen.messages[0]!.ack();
  assert.equal(consumer.stale, 1);
  await consumer.consume();
  const messages = await seen.count(2);
  assert.deepEqual(await counts(scene, queue), [1, told(scene, 1)], 'the prefetch came along');
  assert.equal(messages[1]!.body.toString(), '1');
  messages[1]!.ack();
  (await seen.count(3))[2]!.ack();
  await assert.rejects(consumer.revive({} as never), errors.OptionError);
});

onBothBrokers(
  'a queue without a name has the name of the broker, and a new one when it is consumed anew',
  async (scene) => {
    const seen = new Seen();
    const given = new Queue('', 'amq.topic', { routingKey: scene.unique('k'), exclusive: true });
    await using consumer = new Consumer(scene.connection, given, { onMessage: seen.take });
    await consumer.consume();
    const [first] = consumer.queues;
    assert.match(first!.name, /^amq\.gen-/);
    assert.ok(consumer.consumingFrom(first!) && consumer.consumingFrom(given));
    await consumer.cancel();
    await consumer.consume();
    assert.match(consumer.queues[0]!.name, /^amq\.gen-/);
    assert.notEqual(consumer.queues[0]!.name, first!.name);
    await given.exchange!.publish('x', { routingKey: given.routingKey, mandatory: true }, scene.connection);
    const [message] = await seen.count(1);
    assert.equal(message!.deliveryInfo.queue, consumer.queues[0]!.name);
    message!.ack();
  },
);

onBothBrokers('what fails while it starts is told by consume() alone, and it can start again', async (scene) => {
  const [good, bad] = [newQueue(scene), new Queue(scene.unique('bad'))];
  await good.declare(scene.connection);
  const consumer = new Consumer(scene.connection, [good, bad], { onMessage: () => undefined, autoDeclare: false });
  consumer.on('error', (error) => assert.fail(String(error)));
  await assert.rejects(consumer.consume(), errors.NotFound);
  assert.equal(consumer.consuming, false);
  assert.equal((await counts(scene, good))[1], 0);
  await scene.keep(bad).declare(scene.connection);
  await consumer.consume();
  await consumer.close();
  await consumer.closed;
});

onBothBrokers('leaving a block closes it; that its connection is gone does not matter', async (scene) => {
  const queue = newQueue(scene);
  const connection = new Connection(scene.url);
  {
    await using consumer = connection.Consumer(queue, { onMessage: () => undefined });
    await consumer.consume();
    await connection.close();
  }
  assert.deepEqual(await counts(scene, queue), [0, 0]);
});

onBothBrokers('each life has a `closed` of its own: a second loss is told as the first was', async (scene) => {
  const queue = newQueue(scene);
  const connection = scene.connect();
  await using consumer = new Consumer(connection, queue, { onMessage: () => undefined });
  const lives: Promise<void>[] = [];
  for (let life = 0; life < 2; life++) {
    await consumer.consume();
    lives.push(consumer.closed);
    connection.collect();
    await assert.rejects(consumer.closed, errors.ConnectionError);
  }
  assert.notEqual(lives[0], lives[1]);
  await consumer.consume();
  await consumer.close();
  await consumer.closed;
});

onBothBrokers('consume() right after a loss, before anybody is told of it, connects anew', async (scene) => {
  const queue = newQueue(scene);
  const seen = new Seen();
  const connection = scene.connect();
  await using consumer = new Consumer(connection, queue, { onMessage: seen.take });
  await consumer.consume();
  const before = consumer.closed;
  connection.collect();
  await consumer.consume();
  await assert.rejects(before, errors.ConnectionError);
  assert.equal(consumer.consuming, true);
  await scene.send(queue.name, 'x');
  (await seen.count(1))[0]!.ack();
});

onBothBrokers('close() that is called twice waits twice', async (scene) => {
  const queue = newQueue(scene);
  const seen = new Seen();
  let release: () => void = () => undefined;
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  const connection = scene.connect();
  const consumer = new Consumer(connection, queue, {
    onMessage: async (message) => {
      seen.take(message);
      await released;
    },
  });
  await consumer.consume();
  await scene.send(queue.name, 'x');
  await seen.count(1);
  connection.collect();
  await assert.rejects(consumer.closed, errors.ConnectionError);
  const closings = [consumer.close(), consumer.close()];
  let early = false;
  void closings[1]!.then(() => {
    early = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(early, false);
  release();
  await Promise.all(closings);
});

onBothBrokers('qos() and flow() keep to acks, or to none, as it was told to consume', async (scene) => {
  const [acked, unacked] = [newQueue(scene), newQueue(scene, { noAck: true })];
  const seen = new Seen();
  await using consumer = new Consumer(scene.connection, acked, { onMessage: seen.take });
  const tellsOfAcks = async (queue: Queue): Promise<boolean> => {
    const next = seen.messages.length + 1;
    await scene.send(queue.name, 'x');
    const message = (await seen.count(next)).at(-1)!;
    // Without acks an ack does nothing, and settles nothing.
    message.ack();
    return message.acknowledged;
  };
  await consumer.consume({ noAck: true });
  await consumer.addQueue(unacked);
  await consumer.consume({ noAck: false });
  for (const change of [
    () => consumer.qos({ prefetchCount: 5 }),
    () => consumer.flow(false).then(() => consumer.flow(true)),
  ]) {
    await change();
    assert.deepEqual([await tellsOfAcks(acked), await tellsOfAcks(unacked)], [false, true]);
  }
  await consumer.cancel();
  await consumer.consume();
  assert.deepEqual([await tellsOfAcks(acked), await tellsOfAcks(unacked)], [true, false], 'as the queues, from now on');
});

onBothBrokers('the limit of a loop ends with it', async (scene) => {
  const queue = newQueue(scene);
  const seen = new Seen();
  await queue.declare(scene.connection);
  await scene.send(queue.name, ...Array.from({ length: 66 }, String));
  await using consumer = new Consumer(scene.connection, queue);
  for await (const message of consumer) {
    message.ack();
    break;
  }
  consumer.onMessage = seen.take;
  await consumer.consume();
  await seen.count(65);
});

onBothBrokers('revive() ends a loop: what it has not taken goes back, and comes once', async (scene) => {
  const queue = newQueue(scene);
  await queue.declare(scene.connection);
  await scene.send(queue.name, '1', '2', '3');
  await using consumer = new Consumer(scene.connection, queue);
  const texts: string[] = [];
  for await (const message of consumer) {
    texts.push(message.body.toString());
    message.ack();
    // All three are at hand.
    while ((await counts(scene, queue))[0] > 0);
    await consumer.revive(scene.connect());
  }
  assert.deepEqual([texts, consumer.stale], [['1'], 0]);
  await scene.hasReady(queue.name, 2);
  for await (const message of consumer) {
    texts.push(message.body.toString());
    message.ack();
    if (texts.length === 3) break;
  }
  assert.deepEqual([texts, consumer.stale], [['1', '2', '3'], 0]);
});

onBothBrokers("what a listener of 'error' throws is nobody else's: the connection lives", async (scene) => {
  const queue = new Queue(scene.unique('q'));
  await using consumer = new Consumer(scene.connection, queue, { onMessage: () => undefined });
  consumer.on('error', () => {
    throw new RangeError("the listener's");
  });
  await consumer.consume();
  const uncaught = new Promise<Error>((resolve) => process.setUncaughtExceptionCaptureCallback(resolve));
  try {
    await queue.delete(scene.connection);
    assert.equal((await uncaught).message, "the listener's");
  } finally {
    process.setUncaughtExceptionCaptureCallback(null);
  }
  assert.deepEqual([scene.connection.connected, consumer.channel!.closed], [true, false]);
});

onBothBrokers('promises of other libraries are waited for, and their failures are told', async (scene) => {
  const queue = newQueue(scene);
  const seen = new Seen();
  const failed = new RangeError('of another library');
  // biome-ignore lint/suspicious/noThenProperty: that is what such a promise is.
  const thenable = { then: (_: unknown, reject: (error: Error) => void) => queueMicrotask(() => reject(failed)) };
  await using consumer = new Consumer(scene.connection, queue, {
    callbacks: [() => thenable, () => assert.fail('the one before it failed')],
  });
  const told = new Promise((resolve) => {
    consumer.on('error', (error, message) => {
      seen.take(message!);
      resolve(error);
    });
  });
  await consumer.consume();
  await scene.send(queue.name, 'x');
  assert.equal(await told, failed);
  seen.messages[0]!.ack();
});

onBothBrokers('declare() and consume() at a time name a queue once', async (scene) => {
  const names = new Set<string>();
  const queue = new Queue('', { exclusive: true, onDeclared: (name) => names.add(name) });
  await using consumer = new Consumer(scene.connection, queue, { onMessage: () => undefined });
  await Promise.all([consumer.declare(), consumer.purge(), consumer.consume()]);
  assert.deepEqual([...names], [consumer.queues[0]!.name]);
});

test('an inline consumer refuses what cannot be a tag, a queue or its name', async () => {
  const connection = new Connection();
  assert.throws(() => new Consumer(connection, [], { tagPrefix: 'x'.repeat(201) }), {
    name: 'OptionError',
    message: /'tagPrefix'/,
  });
  const consumer = new Consumer(connection, []);
  assert.throws(() => consumer.consumingFrom(undefined as never), errors.OptionError);
  await assert.rejects(consumer.cancelByQueue(5 as never), errors.OptionError);
});
