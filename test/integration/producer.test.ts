/** Publishing against a broker: confirms, order, returns, nacks and loss. Needs a broker. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { after, afterEach, before, describe, it } from 'node:test';
import {
  ClosedError,
  ConnectionError,
  EncodeError,
  MessageNacked,
  MessageReturned,
  NotFound,
  TimeoutError,
} from '#src/errors';
import { Connection } from '#src/main/connection';
import type { Channel } from '#src/main/entities/channel';
import { Exchange } from '#src/main/entities/exchange';
import { Queue } from '#src/main/entities/queue';
import { Producer } from '#src/main/producer';
import type { PublishOptions } from '#src/pool/publication';
import { sharedBroker, uniqueName } from '../support/rabbitmq.js';

const url = sharedBroker()?.url;
const skip = url === undefined ? 'NOT RUN: no broker; use npm test, or set MOZUKU_TEST_AMQP_URL' : false;

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

  it('lets no message overtake one that waits for a declaration', async () => {
    await using producer = connection.Producer({ routingKey: queue.name });
    await producer.publish('first');
    const slow = producer.publish('second', { declare: [keep(new Queue(unique('q')))] });
    await Promise.all([slow, producer.publish('third')]);
    for (const body of ['first', 'second', 'third']) {
      assert.equal((await queue.get(connection, { noAck: true }))?.payload, body);
    }
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

  it('sends again what was under way when the broker refused another message', async () => {
    const producer = connection.Producer({ routingKey: queue.name });
    const good = Array.from({ length: 99 }, (_, i) => producer.publish({ i }, { retry: true }));
    const bad = producer.publish('refused', { retry: true, userId: 'nobody' });
    const outcomes = await Promise.allSettled([...good, bad]);
    const reasons = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as Error] : []));
    assert.deepEqual(
      reasons.map(({ name }) => name),
      ['PreconditionFailed'],
    );
    assert.equal(outcomes.at(-1)!.status, 'rejected');
    await producer.close();
  });

  it('connects for all that wait, not for each, where nobody answers', async () => {
    let connects = 0;
    const server = createServer((socket) => {
      connects++;
      socket.destroy();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const lonely = new Connection(`amqp://127.0.0.1:${port}`);
    const producer = lonely.Producer({ routingKey: 'q' });
    const all = Array.from({ length: 300 }, () => producer.publish('x', { retry: true, timeout: 1500 }));
    const outcomes = await Promise.allSettled(all);
    for (const outcome of outcomes) {
      assert.ok(outcome.status === 'rejected' && outcome.reason instanceof TimeoutError);
      assert.ok(outcome.reason.cause instanceof ConnectionError);
    }
    // 100, 200, 400, 800 ms between attempts.
    assert.ok(connects <= 12, `${connects} connections`);
    await producer.close();
    await lonely.close();
    server.close();
  });

  it('refuses bodies that are no bytes before anything is written, and takes what amqplib takes', async () => {
    const channel = await connection.channel();
    await assert.rejects(channel.publish('', queue.name, 'text' as never, {}), EncodeError);
    const options = { persistent: true, CC: queue.name, expiration: 60_000 };
    await channel.publish('', uniqueName('nowhere'), Buffer.from('x'), options);
    const message = await queue.get(connection, { noAck: true });
    assert.deepEqual([message?.properties.deliveryMode, message?.properties.expiration], [2, '60000']);
    await channel.close();
  });

  it('declares by hand, and once', async () => {
    const exchange = new Exchange(uniqueName('by-hand'), { type: 'topic', durable: false });
    const queue = new Queue(uniqueName('by-hand'), exchange, { durable: false, routingKey: '#' });
    const producer = connection.Producer({ exchange, autoDeclare: false });
    await assert.rejects(producer.publish('too early'), NotFound);
    await producer.declare();
    assert.deepEqual([await producer.maybeDeclare(queue), await producer.maybeDeclare(queue)], [true, false]);
    await producer.publish('in time', { routingKey: 'k', mandatory: true });
    await queue.delete(connection);
    await exchange.delete(connection);
    await producer.close();
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

    // What was declared in the last life of the connection may be gone.
    const target = keep(new Queue(unique('q')));
    await producer.publish(4, { routingKey: target.name, declare: [target], mandatory: true });
    await target.delete(connection);
    cut(await own.defaultChannel());
    await new Promise((resolve) => own.once('disconnected', resolve));
    await producer.publish(5, { routingKey: target.name, declare: [target], mandatory: true });
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
    for (const ids of seen.values()) {
      assert.equal(ids.size, 1);
      assert.match(String([...ids][0]), /^[0-9a-f-]{36}$/);
    }
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
