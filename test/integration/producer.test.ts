/** Publishing against a broker: confirms, order, returns, nacks, loss, and what Python's kombu makes of it. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import type { Socket } from 'node:net';
import { after, afterEach, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { ClosedError, ConnectionError, EncodeError, MessageNacked, MessageReturned, NotFound } from '#src/errors';
import { Connection } from '#src/main/connection';
import type { Channel } from '#src/main/entities/channel';
import { Exchange } from '#src/main/entities/exchange';
import { Queue } from '#src/main/entities/queue';
import { Producer, type PublishOptions } from '#src/main/producer';

const url = sharedBroker()?.url;
const skip = url === undefined ? 'NOT RUN: no broker; use npm test, or set MOZUKU_TEST_AMQP_URL' : false;
const run = promisify(execFile);

function cut(channel: Channel): void {
  (channel.raw.connection as unknown as { stream: Socket }).stream.destroy(new Error('the network is gone'));
}

describe('a producer', { skip }, () => {
  let connection: Connection;
  let queue: Queue;
  const made: (Queue | Exchange)[] = [];
  const unique = (what: string) => uniqueName(`mozuku-${what}`);
  function keep<T extends Queue | Exchange>(entity: T): T {
    made.push(entity);
    return entity;
  }

  before(async () => {
    connection = await new Connection(url!).connect();
    queue = keep(new Queue(unique('q')));
    await queue.declare(connection);
  });
  afterEach(async () => {
    await queue.purge(connection);
  });
  after(async () => {
    for (const entity of made) await entity.delete(connection);
    await connection.close();
  });

  it('writes the properties that kombu writes', async () => {
    await using producer = connection.Producer({ routingKey: queue.name });
    const channel = await connection.channel();
    const take = async () => {
      const found = await channel.raw.get(queue.name, { noAck: true });
      assert.ok(found !== false);
      const set = Object.entries(found.properties).filter(([, value]) => value !== undefined);
      return { ...Object.fromEntries(set), body: found.content.toString('latin1') };
    };
    const always = { headers: {}, deliveryMode: 2, priority: 0 };
    await producer.publish({ a: 1 });
    assert.deepEqual(await take(), {
      ...always,
      contentType: 'application/json',
      contentEncoding: 'utf-8',
      body: '{"a": 1}'.replace(' ', /* spaces are the serializer's business */ ''),
    });
    await producer.publish('text');
    assert.deepEqual(await take(), { ...always, contentType: 'text/plain', contentEncoding: 'utf-8', body: 'text' });
    await producer.publish(Buffer.from([0, 255]));
    assert.deepEqual(await take(), {
      ...always,
      contentType: 'application/data',
      contentEncoding: 'binary',
      body: '\0\xff',
    });
    const all: PublishOptions = {
      deliveryMode: 'transient',
      priority: 3,
      correlationId: 'c',
      replyTo: new Queue('answers'),
      expiration: 1500.4,
      messageId: 'm',
      timestamp: new Date(7900),
      type: 't',
      userId: connection.userid!,
      appId: 'a',
      headers: { n: 300, list: [1, null] },
      contentType: 'application/x-mine',
    };
    await producer.publish('own', all);
    assert.deepEqual(await take(), {
      contentType: 'application/x-mine',
      contentEncoding: 'utf-8',
      headers: { n: 300, list: [1, null] },
      deliveryMode: 1,
      priority: 3,
      correlationId: 'c',
      replyTo: 'answers',
      expiration: '1500',
      messageId: 'm',
      timestamp: 7,
      type: 't',
      userId: connection.userid,
      appId: 'a',
      body: 'own',
    });
    const headers = {};
    await producer.publish('x'.repeat(1000), { compression: 'zlib', headers });
    const compressed = await take();
    assert.deepEqual((compressed as unknown as { headers: object }).headers, { compression: 'application/x-gzip' });
    assert.ok(compressed.body.length < 100);
    assert.deepEqual(headers, {});
    await channel.close();
  });

  it('keeps the order of the calls with thousands under way, from before it is connected', async () => {
    await using fresh = new Connection(url!);
    const producer = fresh.Producer({ routingKey: queue.name });
    const count = 5000;
    const declare = [queue];
    const all = Array.from({ length: count }, (_, n) => producer.publish(n, n % 7 === 0 ? { declare } : {}));
    await Promise.all(all);
    const seen: unknown[] = [];
    const done = new Promise<void>((resolve) => {
      const consumer = fresh.Consumer(queue, {
        noAck: true,
        callbacks: [(body) => seen.push(body) === count && resolve()],
      });
      consumer.consume();
    });
    await done;
    assert.deepEqual(
      seen,
      Array.from({ length: count }, (_, n) => n),
    );
  });

  it('takes a body of many frames, and an empty one', async () => {
    await using producer = connection.Producer({ routingKey: queue.name });
    const big = Buffer.alloc(1_000_000, 'mozuku');
    await Promise.all([producer.publish(big), producer.publish(Buffer.alloc(0))]);
    assert.ok(big.equals((await queue.get(connection, { noAck: true }))!.body));
    assert.equal((await queue.get(connection, { noAck: true }))!.body.length, 0);
  });

  it('rejects mandatory messages that no queue takes, and those only', async () => {
    const told: string[] = [];
    await using producer = connection.Producer({
      onReturn: (error, _, routingKey) => told.push(`${error.code} ${routingKey}`),
    });
    const keys = Array.from({ length: 200 }, (_, n) => (n % 3 === 0 ? 'no-such-queue' : queue.name));
    const results = await Promise.allSettled(
      keys.map((routingKey, n) => producer.publish(n, { routingKey, mandatory: true, messageId: 'the same for all' })),
    );
    for (const [n, result] of results.entries()) {
      assert.equal(result.status, n % 3 === 0 ? 'rejected' : 'fulfilled', String(n));
      if (result.status === 'rejected') {
        assert.ok(result.reason instanceof MessageReturned);
        assert.deepEqual([result.reason.details.replyCode, result.reason.details.messageId], [312, 'the same for all']);
      }
    }
    assert.equal(told.length, 67);
    assert.equal(told[0], 'MESSAGE_RETURNED no-such-queue');
    await producer.publish('nobody asked', { routingKey: 'no-such-queue' });
  });

  it('rejects when the broker nacks, and tries that again if told to', async () => {
    const full = keep(
      new Queue(unique('full'), undefined, { maxLength: 1, queueArguments: { 'x-overflow': 'reject-publish' } }),
    );
    await full.declare(connection);
    await using producer = connection.Producer({ routingKey: full.name });
    await producer.publish(1);
    await assert.rejects(producer.publish(2), MessageNacked);
    const patient = producer.publish(3, { retry: true, retryPolicy: { intervalStart: 5 } });
    await full.purge(connection);
    await patient;
    await assert.rejects(
      producer.publish(4, { retry: true, retryPolicy: { maxRetries: 1, intervalStart: 1 } }),
      MessageNacked,
    );
  });

  it('declares its exchange and what it is told to, once in the life of a connection', async () => {
    await using own = new Connection(url!);
    const exchange = keep(new Exchange(unique('e'), { type: 'topic', deliveryMode: 'transient' }));
    const target = keep(new Queue(unique('q'), exchange, { routingKey: '#' }));
    await using producer = own.Producer({ exchange });
    await Promise.all([1, 2, 3].map((n) => producer.publish(n, { declare: [target], mandatory: true })));
    const message = (await target.get(own, { noAck: true }))!;
    assert.equal(message.properties.deliveryMode, 1);
    let declared = 0;
    const channel = await own.defaultChannel();
    const { assertQueue } = channel.raw;
    channel.raw.assertQueue = (...args) => {
      declared++;
      return assertQueue.apply(channel.raw, args);
    };
    await producer.publish(4, { declare: [target], mandatory: true });
    assert.equal(declared, 0);
    await target.delete(own);
    await producer.publish(5, { declare: [target], mandatory: true });
    assert.equal(declared, 1);
    await assert.rejects(producer.publish(6, { declare: [new Queue(target.name, undefined, { durable: false })] }), {
      name: 'PreconditionFailed',
    });
    await producer.publish(7, { mandatory: true });
  });

  it('rejects for an exchange that is not there, and goes on with a new channel', async () => {
    await using producer = connection.Producer({ routingKey: queue.name });
    await assert.rejects(producer.publish(1, { exchange: 'no-such-exchange' }), (error: NotFound) => {
      assert.ok(error instanceof NotFound);
      assert.match(error.message, /no exchange 'no-such-exchange'/);
      return true;
    });
    await producer.publish(2, { mandatory: true });
  });

  it('rejects what AMQP cannot carry, and harms no other message', async () => {
    await using producer = connection.Producer({ routingKey: queue.name });
    const results = await Promise.allSettled([
      producer.publish(1),
      producer.publish(2, { headers: { big: 'x'.repeat(70_000) } }),
      producer.publish(3, { routingKey: 'x'.repeat(300) }),
      producer.publish(4, { mandatory: true, messageId: 'x'.repeat(300) }),
      producer.publish(5),
    ]);
    assert.deepEqual(
      results.map((result) => (result.status === 'rejected' ? result.reason.constructor : null)),
      [null, EncodeError, EncodeError, EncodeError, null],
    );
  });

  it('rejects what is under way when the connection is lost, and publishes the next on a new one', async () => {
    await using own = new Connection(url!);
    const producer = own.Producer({ routingKey: queue.name });
    await producer.publish(1);
    const channel = await own.defaultChannel();
    const lost = assert.rejects(producer.publish(2), (error: ConnectionError) => {
      assert.ok(error instanceof ConnectionError);
      assert.match(error.message, /the network is gone/);
      return true;
    });
    cut(channel);
    await lost;
    await producer.publish(3, { mandatory: true });
  });

  it('sends again what is under way, with the same message id, if told to', async () => {
    await using own = new Connection(url!);
    const producer = own.Producer({ routingKey: queue.name });
    await producer.publish(1);
    await queue.purge(connection);
    const channel = await own.defaultChannel();
    const again = Promise.all(
      [2, 3].map((n) => producer.publish(n, { retry: true, retryPolicy: { intervalStart: 1 } })),
    );
    cut(channel);
    await again;
    const seen = new Map<unknown, Set<unknown>>();
    for (;;) {
      const message = await queue.get(connection, { noAck: true });
      if (message === null) break;
      const ids = seen.get(message.payload) ?? new Set();
      seen.set(message.payload, ids.add(message.properties.messageId));
    }
    assert.deepEqual([...seen.keys()].sort(), [2, 3]);
    for (const ids of seen.values()) assert.equal(ids.size, 1);
  });

  it('rejects on a channel that is closed, and on a connection that was closed on purpose', async () => {
    await using own = new Connection(url!);
    const channel = await own.channel();
    const bound = new Producer(channel, { routingKey: queue.name });
    await bound.publish(1);
    await channel.close();
    await assert.rejects(bound.publish(2), ClosedError);
    await assert.rejects(bound.publish(2, { retry: true }), ClosedError);
    const producer = own.Producer({ routingKey: queue.name });
    await producer.publish(3);
    await own.close();
    await assert.rejects(producer.publish(4), ClosedError);
    await assert.rejects(producer.publish(4, { retry: true, retryPolicy: { intervalStart: 1 } }), ClosedError);
  });

  it('waits for what is under way when it is closed', async () => {
    const producer = connection.Producer({ routingKey: queue.name });
    let confirmed = 0;
    for (let n = 0; n < 50; n++) producer.publish(n).then(() => confirmed++);
    await producer.close();
    assert.equal(confirmed, 50);
  });
});

const PYTHON = '/usr/bin/python3';

const RECEIVE = `
import sys, json, kombu
with kombu.Connection(sys.argv[1]) as connection:
    queue = kombu.Queue(sys.argv[2], channel=connection.default_channel)
    out = []
    for _ in range(int(sys.argv[3])):
        m = queue.get(no_ack=True, accept=['json', 'text/plain', 'application/data'])
        body = m.payload
        if isinstance(body, (bytes, memoryview)):
            body = {'bytes': list(bytes(body))}
        out.append({'body': body, 'headers': m.headers, 'type': m.content_type, 'properties': m.properties})
print(json.dumps(out))
`;

const SEND = `
import sys, kombu
with kombu.Connection(sys.argv[1]) as connection:
    producer = connection.Producer(routing_key=sys.argv[2])
    producer.publish({'a': [1, None, 'é']}, headers={'n': 300, 'big': 2**40, 'neg': -5, 'f': 0.5, 'l': [1, 'x'], 'd': {'k': True}})
    producer.publish('héllo', expiration=1.5, priority=3, correlation_id='c', reply_to='r', message_id='m')
    producer.publish(b'\\x00\\xff')
    producer.publish({'z': 'z' * 500}, compression='zlib')
    producer.publish({'b': 'b' * 500}, compression='bzip2', delivery_mode=1)
`;

import { sharedBroker, uniqueName } from '../support/rabbitmq.js';

const python = skip
  ? skip
  : await run(PYTHON, ['-c', 'import kombu']).then(
      () => false,
      () => `NOT RUN: ${PYTHON} has no kombu`,
    );

describe("with Python's kombu", { skip: python }, () => {
  let connection: Connection;
  let queue: Queue;

  before(async () => {
    connection = await new Connection(url!).connect();
    queue = new Queue(uniqueName('mozuku-python'), undefined, { channel: connection });
    await queue.declare();
  });
  after(async () => {
    await queue.delete();
    await connection.close();
  });

  it('what we publish is what it reads', async () => {
    await using producer = connection.Producer({ routingKey: queue.name });
    const headers = {
      n: 300,
      small: -3,
      big: 2 ** 40,
      neg: -(2 ** 40),
      f: 0.5,
      t: true,
      none: null,
      l: [1, 'x'],
      d: { k: 1 },
    };
    await producer.publish({ a: [1, null, 'é'] }, { headers, correlationId: 'c', expiration: 60_000 });
    await producer.publish('héllo');
    await producer.publish(Buffer.from([0, 255]));
    await producer.publish({ z: 'z'.repeat(500) }, { compression: 'zlib' });
    const { stdout } = await run(PYTHON, ['-c', RECEIVE, url!, queue.name, '4']);
    const received = JSON.parse(stdout) as {
      body: unknown;
      headers: unknown;
      type: string;
      properties: Record<string, unknown>;
    }[];
    assert.deepEqual(
      received.map(({ body }) => body),
      [{ a: [1, null, 'é'] }, 'héllo', { bytes: [0, 255] }, { z: 'z'.repeat(500) }],
    );
    assert.deepEqual(received[0]!.headers, headers);
    const { correlation_id, expiration, delivery_mode, priority } = received[0]!.properties;
    assert.deepEqual(
      { correlation_id, expiration, delivery_mode, priority },
      {
        correlation_id: 'c',
        expiration: '60000',
        delivery_mode: 2,
        priority: 0,
      },
    );
    assert.deepEqual(
      received.map(({ type }) => type),
      ['application/json', 'text/plain', 'application/data', 'application/json'],
    );
  });

  it('what it publishes is what we read', async () => {
    await run(PYTHON, ['-c', SEND, url!, queue.name]);
    const messages = [];
    for (let n = 0; n < 5; n++) messages.push((await queue.get({ noAck: true }))!);
    const [first, second, third, fourth, fifth] = messages;
    assert.deepEqual(first!.payload, { a: [1, null, 'é'] });
    assert.deepEqual(
      { ...first!.headers, d: { ...(first!.headers.d as object) } },
      {
        n: 300,
        big: 2 ** 40,
        neg: -5,
        f: 0.5,
        l: [1, 'x'],
        d: { k: true },
      },
    );
    assert.equal(second!.payload, 'héllo');
    const { expiration, priority, correlationId, replyTo, messageId, deliveryMode } = second!.properties;
    assert.deepEqual(
      [expiration, priority, correlationId, replyTo, messageId, deliveryMode],
      ['1500', 3, 'c', 'r', 'm', 2],
    );
    assert.deepEqual(third!.payload, Buffer.from([0, 255]));
    assert.deepEqual(fourth!.payload, { z: 'z'.repeat(500) });
    assert.equal(fourth!.headers.compression, 'application/x-gzip');
    assert.equal(fifth!.properties.deliveryMode, 1);
  });
});
