/** SimpleQueue and SimpleBuffer, on both brokers. */
import assert from 'node:assert/strict';
import { Connection, Exchange, errors, Queue, SimpleBuffer, SimpleQueue } from '#src/index';
import { onBothBrokers, type Scene } from '../support/both-brokers.js';

const { Empty, ClosedError, ContentDisallowed, OptionError, SerializerNotInstalled } = errors;

/** A simple queue of a name of its own, which goes at the end. */
async function withQueue(
  scene: Scene,
  run: (queue: SimpleQueue, name: string) => Promise<void>,
  options = {},
): Promise<void> {
  const name = scene.unique('simple');
  const queue = scene.connection.SimpleQueue(name, options);
  try {
    await run(queue, name);
  } finally {
    await queue.close();
    await new Queue(name).delete(scene.connection);
    await new Exchange(name).delete(scene.connection);
  }
}

onBothBrokers('SimpleQueue: what is put is got, with headers, type and encoding', async (scene) => {
  await withQueue(scene, async (queue, name) => {
    await queue.put({ name: 'George', n: 1 }, { headers: { k: 'v' } });
    await queue.put('text');
    await queue.put(Buffer.from([1, 2]), { compression: 'zlib' });
    assert.equal(await queue.qsize(), 3);
    const first = await queue.get({ timeout: 10_000 });
    assert.deepEqual(first.payload, { name: 'George', n: 1 });
    assert.equal(first.headers.k, 'v');
    assert.deepEqual(
      [first.properties.contentType, first.properties.contentEncoding, first.properties.deliveryMode],
      ['application/json', 'utf-8', 2],
    );
    assert.deepEqual([first.deliveryInfo.exchange, first.deliveryInfo.routingKey], [name, name]);
    first.ack();
    const second = await queue.get();
    const third = await queue.get();
    assert.deepEqual([second.payload, third.payload], ['text', Buffer.from([1, 2])]);
    assert.equal(third.headers.compression, 'application/x-gzip');
    second.ack();
    third.ack();
    assert.equal(await queue.qsize(), 0);
  });
});

onBothBrokers('SimpleQueue: get waits for a message, by turns', async (scene) => {
  await withQueue(scene, async (queue) => {
    const gets = [queue.get(), queue.get()];
    await queue.put(1);
    await queue.put(2);
    const messages = await Promise.all(gets);
    assert.deepEqual(
      messages.map(({ payload }) => payload),
      [1, 2],
    );
  });
});

onBothBrokers('SimpleQueue: Empty at once, after a time, and never before a message that is there', async (scene) => {
  await withQueue(scene, async (queue, name) => {
    await assert.rejects(queue.getNowait(), Empty);
    await assert.rejects(queue.get({ block: false }), SimpleQueue.Empty);
    await assert.rejects(queue.get({ timeout: 1 }), { name: 'Empty', code: 'EMPTY' });
    // It is consumed by now: whichever way the message comes, it is found.
    await queue.put('x');
    const found = await queue.getNowait();
    assert.equal(found.payload, 'x');
    found.ack();
    const signal = AbortSignal.abort(new Error('enough'));
    await assert.rejects(queue.get({ signal }), /enough/);
    const abort = new AbortController();
    const got = queue.get({ signal: abort.signal });
    abort.abort(new Error('later'));
    await assert.rejects(got, /later/);
    // On its way to the consumer, or at the broker: it is not missed.
    await using other = scene.connect().Producer({ exchange: name, routingKey: name });
    for (let n = 0; n < 30; n++) {
      await other.publish(n);
      const message = await queue.getNowait();
      assert.equal(message.payload, n);
      message.ack();
    }
    // Who has left takes nothing.
    await queue.put('y');
    assert.equal((await queue.get()).payload, 'y');
  });
});

onBothBrokers('SimpleQueue: clear drops what waits, here and at the broker', async (scene) => {
  await withQueue(scene, async (queue, name) => {
    await queue.put(1);
    (await queue.get()).ack();
    for (let n = 0; n < 5; n++) await queue.put(n);
    assert.equal(await queue.qsize(), 5);
    assert.equal(await queue.clear(), 5);
    assert.equal(await queue.qsize(), 0);
    await assert.rejects(queue.getNowait(), Empty);
    await queue.close();
    assert.equal(await scene.size(name), 0);
  });
});

onBothBrokers('SimpleQueue: what was not acked comes again after close, which ends all waits', async (scene) => {
  const name = scene.unique('simple');
  const queue = scene.connection.SimpleQueue(name);
  await queue.put(1);
  await queue.put(2);
  await queue.put(3);
  (await queue.get()).ack();
  const second = await queue.get();
  assert.equal(second.payload, 2);
  // The third, if it is here by now, is this one's; the wait after it is for nothing.
  const rest = [queue.get(), queue.get()];
  rest[1]!.catch(() => undefined);
  assert.equal((await rest[0]!).payload, 3);
  await queue.close();
  await assert.rejects(rest[1]!, ClosedError);
  await assert.rejects(queue.get(), ClosedError);
  await assert.rejects(queue.put(4), ClosedError);
  await scene.hasReady(name, 2);
  await using again = scene.connection.SimpleQueue(name);
  const redelivered = await again.get();
  assert.deepEqual([redelivered.payload, redelivered.deliveryInfo.redelivered], [2, true]);
  await again.close();
  await new Queue(name).delete(scene.connection);
  await new Exchange(name).delete(scene.connection);
});

onBothBrokers(
  'SimpleQueue: on a channel that was given, what nobody got goes back and the channel stays',
  async (scene) => {
    const name = await scene.queue();
    const channel = await scene.connection.channel();
    const queue = new SimpleQueue(channel, new Queue(name));
    for (const n of [1, 2, 3]) await queue.put(n);
    const first = await queue.get();
    const second = await queue.get();
    await queue.close();
    await scene.hasReady(name, 1);
    first.ack();
    second.requeue();
    await scene.hasReady(name, 2);
    assert.ok(!channel.closed);
  },
);

onBothBrokers('SimpleQueue: accept is asked when the body is read', async (scene) => {
  await withQueue(
    scene,
    async (queue) => {
      await queue.put({ a: 1 }, { serializer: 'msgpack' });
      await queue.put({ a: 2 });
      const [msgpack, json] = [await queue.get(), await queue.getNowait()];
      assert.deepEqual(msgpack.payload, { a: 1 });
      assert.throws(() => json.payload, ContentDisallowed);
    },
    { accept: ['msgpack'] },
  );
  assert.throws(() => scene.connection.SimpleQueue('q', { accept: ['pickles'] }), SerializerNotInstalled);
});

onBothBrokers('SimpleQueue: a Queue of one’s own, its exchange and its key', async (scene) => {
  const exchange = new Exchange(scene.unique('x'), { type: 'topic' });
  const own = new Queue(scene.unique('q'), exchange, { routingKey: 'a.b' });
  await using queue = new SimpleQueue(scene.connection, own, { serializer: 'json' });
  await queue.put('plain');
  const message = await queue.get();
  assert.deepEqual([message.payload, message.deliveryInfo.routingKey], ['plain', 'a.b']);
  assert.equal(message.properties.contentType, 'application/json');
  assert.throws(() => new SimpleQueue(scene.connection, own, { queueArgs: {} }), OptionError);
  message.ack();
  await queue.close();
  await own.delete(scene.connection);
  await exchange.delete(scene.connection);
});

onBothBrokers('SimpleQueue: options and arguments of its queue and exchange', async (scene) => {
  await withQueue(
    scene,
    async (queue) => {
      const { maxPriority, queueArguments, exchange } = queue.queue;
      assert.deepEqual([maxPriority, queueArguments, exchange?.type], [3, { 'x-max-length': 2 }, 'fanout']);
      for (const n of [1, 2, 3]) await queue.put(n);
      assert.equal(await queue.qsize(), 2);
    },
    { queueOpts: { maxPriority: 3 }, queueArgs: { 'x-max-length': 2 }, exchangeOpts: { type: 'fanout' } },
  );
  assert.throws(() => scene.connection.SimpleQueue('q', { noack: true } as object), { message: /'noAck'/ });
  assert.throws(() => scene.connection.SimpleQueue(''), OptionError);
  assert.throws(() => new SimpleQueue({} as Connection, 'q'), OptionError);
});

onBothBrokers('SimpleQueue: a limit of what is unsettled here', async (scene) => {
  await withQueue(
    scene,
    async (queue) => {
      await queue.put(1);
      await queue.put(2);
      const first = await queue.get();
      const second = queue.get();
      assert.equal(await queue.qsize(), 1);
      first.ack();
      assert.equal((await second).payload, 2);
    },
    { prefetchCount: 1 },
  );
});

onBothBrokers('SimpleQueue: a queue that was deleted is declared again by the next get', async (scene) => {
  await withQueue(scene, async (queue, name) => {
    const waiting = queue.get();
    waiting.catch(() => undefined);
    await queue.qsize();
    while ((await (await scene.raw()).checkQueue(name)).consumerCount === 0) await queue.qsize();
    await new Queue(name).delete(scene.connection);
    await assert.rejects(waiting, { name: 'ConsumerCancelled' });
    await queue.put('again');
    assert.equal((await queue.get()).payload, 'again');
  });
});

onBothBrokers('SimpleQueue: a closed connection ends the wait, and the next get opens it anew', async (scene) => {
  const name = await scene.queue();
  const connection = new Connection(scene.url);
  const queue = new SimpleQueue(connection, new Queue(name));
  try {
    await queue.put('first');
    await queue.put('second');
    const first = await queue.get();
    const [second, waiting] = [queue.get(), queue.get()];
    waiting.catch(() => undefined);
    await second;
    await connection.close();
    await assert.rejects(waiting, ClosedError);
    await connection.connect();
    // Several at once begin anew only once.
    const again = await Promise.all([queue.get(), queue.get()]);
    assert.deepEqual(
      again.map(({ payload, deliveryInfo }) => [payload, deliveryInfo.redelivered]),
      [
        ['first', true],
        ['second', true],
      ],
    );
    for (const message of again) message.ack();
    await assert.rejects(queue.getNowait(), Empty);
    assert.equal((await (await scene.raw()).checkQueue(name)).consumerCount, scene.kind === 'redis' ? 0 : 1);
    // Too late, which is not its fault.
    first.ack();
    await scene.hasReady(name, 0);
  } finally {
    await queue.close();
    await connection.close();
  }
});

onBothBrokers('SimpleQueue: what came and nobody got is the broker’s again when the channel is lost', async (scene) => {
  const name = await scene.queue();
  const connection = scene.connect();
  await using queue = connection.SimpleQueue(new Queue(name));
  for (const n of [1, 2, 3]) await queue.put(n);
  (await queue.get()).ack();
  // What is delivered is not ready.
  await scene.hasReady(name, 0);
  await connection.close();
  await connection.connect();
  await using elsewhere = scene.connection.SimpleQueue(new Queue(name));
  const messages = [await elsewhere.get(), await elsewhere.get()];
  assert.deepEqual(
    messages.map(({ payload }) => payload),
    [2, 3],
  );
  for (const message of messages) message.ack();
  await assert.rejects(queue.getNowait(), Empty);
});

onBothBrokers('SimpleBuffer: transient, for one connection, gone when it is closed; nothing to ack', async (scene) => {
  const name = scene.unique('buffer');
  const buffer = scene.connection.SimpleBuffer(name);
  assert.ok(buffer instanceof SimpleBuffer);
  const { durable, autoDelete, exclusive, exchange } = buffer.queue;
  assert.deepEqual([durable, autoDelete, exclusive, buffer.noAck], [false, true, true, true]);
  assert.deepEqual([exchange?.durable, exchange?.autoDelete, exchange?.deliveryMode], [false, true, 1]);
  await buffer.put({ n: 1 });
  await buffer.put({ n: 2 });
  await using second = scene.connect().SimpleBuffer(name);
  await assert.rejects(second.put('no'), { name: 'ResourceLocked' });
  const message = await buffer.get();
  assert.deepEqual([message.payload, message.properties.deliveryMode], [{ n: 1 }, 1]);
  assert.deepEqual((await buffer.get({ timeout: 10_000 })).payload, { n: 2 });
  await assert.rejects(buffer.get({ timeout: 1 }), Empty);
  await buffer.close();
  const channel = await scene.connection.channel();
  await assert.rejects(new Queue(name, { passive: true }).declare(channel), { name: 'NotFound' });
});

onBothBrokers('SimpleBuffer: what it begins with can be overridden', async (scene) => {
  const name = scene.unique('buffer');
  const options = { queueOpts: { exclusive: false }, noAck: false };
  const first = scene.connection.SimpleBuffer(name, options);
  const second = scene.connect().SimpleBuffer(name, options);
  await first.put('from one');
  const message = await second.get();
  assert.equal(message.payload, 'from one');
  message.ack();
  await second.close();
  await first.close();
});

onBothBrokers('SimpleQueue: a queue that the broker names gets what is put', async (scene) => {
  const connection = scene.connect();
  await using queue = connection.SimpleQueue(new Queue('', { exclusive: true }));
  await queue.put('x');
  const message = await queue.get();
  assert.equal(message.payload, 'x');
  message.ack();
});

onBothBrokers('SimpleQueue: options that it does not know are named, whatever the broker does', async (scene) => {
  const queue = new Connection('amqp://127.0.0.1:1').SimpleQueue(scene.unique('simple'));
  const named = (key: string) => ({ name: 'OptionError', details: { option: key } });
  await assert.rejects(queue.put('x', { serialiser: 'json' } as object), named('serialiser'));
  await assert.rejects(queue.put('x', { signal: 1 } as object), named('signal'));
  await assert.rejects(queue.put('x', { retry: true, retryPolicy: { maxRetrys: 1 } as object }), named('maxRetrys'));
  await assert.rejects(queue.get({ timout: 1 } as object), named('timout'));
  await assert.rejects(queue.getNowait({ timeout: 1 } as object), named('timeout'));
});
