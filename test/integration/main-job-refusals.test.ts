/** What newer brokers than the one of the tests answer with: a puppet says it, with their codes and words. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Connection, errors, Queue } from '#src/index';
import { delivery, method, shortString, uint } from '../support/amqp-bytes.js';
import { FakeBroker, type FakeConsumer } from '../support/fake-broker.js';
import { consumerOf, EffectsLog, next, until } from '../support/rig.js';

const close = (channel: number, code: number, text: string, [classId, methodId]: readonly [number, number]): Buffer =>
  method(
    channel,
    channel === 0 ? 10 : 20,
    channel === 0 ? 50 : 40,
    uint(code, 2),
    shortString(text),
    uint(classId, 2),
    uint(methodId, 2),
  );

const TRANSIENT = 'INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated.';
const TIMED_OUT =
  'PRECONDITION_FAILED - delivery acknowledgement on channel 2 timed out. Timeout value used: 60000 ms.';

/** A message that is held until the file `at` is there. */
function send({ connection, channel, tag }: FakeConsumer, deliveryTag: number, at: string, redelivered: boolean): void {
  const body = Buffer.from(JSON.stringify({ id: 'held', do: 'latch', at }));
  const fields = { consumerTag: tag, contentType: 'application/json', contentEncoding: 'utf-8', redelivered };
  connection.send(Buffer.concat(delivery(channel, BigInt(deliveryTag), body, fields)));
}

test('a queue that the broker refuses with 541 rejects consume() with its words', async () => {
  await using broker = await FakeBroker.listen({
    answer: (connection, name) => {
      if (name !== '50.10') return false;
      connection.send(close(0, 541, TRANSIENT, [50, 10]));
      return true;
    },
  });
  const consumer = consumerOf(broker.url, new Queue('q', { durable: false }));
  const refused = (error: Error) => error instanceof errors.InternalError && error.message.includes(TRANSIENT);
  await assert.rejects(consumer.consume(), refused);
  await assert.rejects(consumer.closed, refused);
  const connection = new Connection(broker.url);
  await assert.rejects(new Queue('q', { durable: false }).declare(connection), refused);
  await connection.close();
});

test('a queue that is refused with 541 on a reconnect is asked for again until it is taken', async () => {
  let refusals = 0;
  await using broker = await FakeBroker.listen({
    answer: (connection, name) => {
      if (name !== '50.10' || refusals === 0) return false;
      refusals--;
      connection.send(close(0, 541, TRANSIENT, [50, 10]));
      return true;
    },
  });
  const consumer = consumerOf(broker.url, new Queue('q', { durable: false }));
  try {
    await consumer.consume();
    refusals = 3;
    let attempts = 0;
    consumer.once('reconnected', (event) => {
      attempts = event.attempts;
    });
    (await broker.consumer(1)).connection.socket.destroy();
    await until('it is taken', () => attempts > 0, { timeoutMs: 20_000, state: () => broker.connections.length });
    assert.equal(attempts, 4);
    assert.equal(broker.connections.length, 5);
    assert.equal(consumer.stats().state, 'consuming');
  } finally {
    await consumer.close();
  }
});

test('a channel that is closed for a delivery that was held too long is opened anew; the late ack is not sent', async () => {
  await using broker = await FakeBroker.listen();
  using effects = new EffectsLog();
  const [first, second] = [join(effects.folder, 'first'), join(effects.folder, 'second')];
  const consumer = consumerOf(broker.url, new Queue('q'));
  try {
    const told = next<[Error]>(consumer as never, 'error');
    await consumer.consume();
    const before = await broker.consumer(1);
    send(before, 1, first, false);
    await until('it runs', () => consumer.stats().inFlight === 1);
    before.connection.send(close(before.channel, 406, TIMED_OUT, [0, 0]));
    const [error] = await told;
    assert.ok(error instanceof errors.PreconditionFailed, String(error));
    assert.ok(error.message.includes(TIMED_OUT), error.message);
    const after = await broker.consumer(2);
    assert.equal(after.connection, before.connection, 'on the same connection');
    send(after, 1, second, true);
    await until('both run', () => consumer.stats().inFlight === 2);
    writeFileSync(first, '');
    await until('the first has ended, too late', () => consumer.stats().stale === 1, { timeoutMs: 20_000 });
    assert.deepEqual(before.connection.settlements, []);
    writeFileSync(second, '');
    await broker.settled(after.connection, 1);
    assert.equal(effects.counts().get('held'), 2);
    assert.deepEqual(
      after.connection.settlements.map(({ kind, channel }) => [kind, channel]),
      [['ack', after.channel]],
    );
  } finally {
    await consumer.close();
  }
});

test('a consumer that is cancelled for a delivery that was held too long consumes again, beside what runs', async () => {
  await using broker = await FakeBroker.listen();
  using effects = new EffectsLog();
  const [first, second] = [join(effects.folder, 'first'), join(effects.folder, 'second')];
  const consumer = consumerOf(broker.url, new Queue('q'));
  try {
    const told = next<[Error]>(consumer as never, 'error');
    await consumer.consume();
    const before = await broker.consumer(1);
    send(before, 1, first, false);
    await until('it runs', () => consumer.stats().inFlight === 1);
    before.connection.send(method(before.channel, 60, 30, shortString(before.tag), uint(1, 1)));
    assert.ok((await told)[0] instanceof errors.ConsumerCancelled);
    const after = await broker.consumer(2);
    assert.deepEqual([after.connection, after.channel], [before.connection, before.channel]);
    assert.notEqual(after.tag, before.tag);
    send(after, 2, second, true);
    await until('both run', () => consumer.stats().inFlight === 2);
    writeFileSync(second, '');
    await broker.settled(after.connection, 2);
    writeFileSync(first, '');
    await broker.settled(after.connection, 1);
    assert.ok(after.connection.settlements.every(({ kind, multiple }) => kind === 'ack' && !multiple));
    assert.deepEqual([consumer.stats().stale, broker.connections.length], [0, 1]);
  } finally {
    await consumer.close();
  }
});

test('a prefetch is asked for by consumer, which a broker takes that has none for a whole channel', async () => {
  let asked = 0;
  await using broker = await FakeBroker.listen({
    answer: (connection, name, _, fields) => {
      if (name !== '60.10') return false;
      asked++;
      fields.long();
      fields.short();
      if (fields.octet() === 0) return false;
      connection.send(close(0, 540, 'NOT_IMPLEMENTED - Feature `global_qos` is deprecated.', [60, 10]));
      return true;
    },
  });
  const sharded = consumerOf(broker.url, new Queue('q'));
  await sharded.consume();
  await sharded.close();
  const connection = new Connection(broker.url);
  const inline = connection.Consumer(new Queue('q'), { onMessage: () => undefined, prefetchCount: 5 });
  await inline.consume();
  await inline.qos({ prefetchCount: 7 });
  await inline.close();
  await connection.close();
  assert.ok(asked >= 3, `asked ${asked} times`);
});
