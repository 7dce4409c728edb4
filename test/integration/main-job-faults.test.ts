/** Moments that a real broker has only by chance: what comes in one read, what comes late, what fails while it is mended. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { Connection, errors, Queue } from '#src/index';
import { basicConsumeOk, delivery, frame, heartbeat, method, shortString, uint } from '../support/amqp-bytes.js';
import { FakeBroker, type FakeConnection } from '../support/fake-broker.js';
import { consumerOf, EffectsLog, next, until } from '../support/rig.js';

const json = { contentType: 'application/json', contentEncoding: 'utf-8' };
const message = (channel: number, consumerTag: string, tag: number, id: string, more: object = {}): Buffer =>
  Buffer.concat(delivery(channel, BigInt(tag), Buffer.from(JSON.stringify({ id, ...more })), { consumerTag, ...json }));
const closeChannel = (channel: number, code: number, text: string): Buffer =>
  method(channel, 20, 40, uint(code, 2), shortString(text), uint(60, 2), uint(20, 2));
const closeConnection = (code: number): Buffer =>
  method(0, 10, 50, uint(code, 2), shortString('CONNECTION_FORCED'), uint(0, 2), uint(0, 2));
const openOk = method(0, 10, 41, shortString(''));

test('deliveries that come with the answer to basic.consume are handled and acked', async () => {
  await using broker = await FakeBroker.listen({
    answer: (connection, name, channel, fields) => {
      if (name !== '60.20') return false;
      fields.short();
      fields.shortString();
      const tag = fields.shortString();
      connection.send(
        Buffer.concat([
          basicConsumeOk(channel, tag),
          ...Array.from({ length: 50 }, (_, i) => message(channel, tag, i + 1, `n${i}`)),
        ]),
      );
      return true;
    },
  });
  using effects = new EffectsLog();
  const consumer = consumerOf(broker.url, new Queue('q'));
  await consumer.consume();
  await until('all are handled', () => effects.counts().size === 50);
  await until('nothing is outstanding', () => consumer.stats().unsettled === 0, { state: () => consumer.stats() });
  await consumer.close();
});

for (const code of [320, 541]) {
  test(`a broker that closes with ${code} in the breath in which it opens ends an attempt, not the process`, async () => {
    let refusals = 2;
    await using broker = await FakeBroker.listen({
      answer: (connection, name) => {
        if (name !== '10.40' || refusals === 0) return false;
        refusals--;
        connection.send(Buffer.concat([openOk, closeConnection(code)]));
        return true;
      },
    });
    const connection = new Connection(broker.url);
    await assert.rejects(
      connection.connect().then(() => connection.channel()),
      errors.KombuError,
    );
    await connection.close();
    const consumer = consumerOf(broker.url, new Queue('q'));
    await assert.rejects(consumer.consume(), errors.KombuError);
    await assert.rejects(consumer.closed, errors.KombuError);
    const again = consumerOf(broker.url, new Queue('q'));
    await again.consume();
    await again.close();
    assert.equal(refusals, 0);
  });
}

test('a reconnect goes on past a broker that closes as it opens', async () => {
  let refusals = 3;
  await using broker = await FakeBroker.listen({
    answer: (connection, name) => {
      if (name !== '10.40' || broker.connections.length === 1 || refusals === 0) return false;
      refusals--;
      connection.send(Buffer.concat([openOk, closeConnection(320)]));
      return true;
    },
  });
  const consumer = consumerOf(broker.url, new Queue('q'));
  await consumer.consume();
  const back = next(consumer, 'reconnected');
  (await broker.consumer(1)).connection.socket.destroy();
  await back;
  assert.equal(refusals, 0);
  await consumer.close();
});

test('late bytes of a connection that was given up land in nobody’s message', async () => {
  await using broker = await FakeBroker.listen({ heartbeat: 1, lingers: true });
  using effects = new EffectsLog();
  const consumer = consumerOf(broker.url, new Queue('q'), { workers: 1 });
  try {
    const lost = next(consumer, 'disconnected');
    await consumer.consume();
    const first = await broker.consumer(1);
    // It falls silent, and the client gives it up; the socket lingers, half open.
    await lost;
    const second = await broker.consumer(2);
    const beat = setInterval(() => second.connection.send(heartbeat), 300);
    const ids = Array.from({ length: 40 }, (_, i) => `right-${i}`);
    const padding = 'p'.repeat(2000);
    second.connection.send(
      Buffer.concat(
        ids.map((id, i) => message(second.channel, second.tag, i + 1, id, { do: 'sleep', ms: 10, padding })),
      ),
    );
    const wrong = { do: 'sleep', ms: 1, padding };
    first.connection.send(
      Buffer.concat(ids.map((_, i) => message(first.channel, first.tag, i + 1, `wrong-${i}`, wrong))),
    );
    first.connection.send(Buffer.alloc(100_000, 0x2a));
    await broker.settled(second.connection, 40);
    clearInterval(beat);
    assert.deepEqual([...effects.counts().keys()], ids);
    for (const { id, hash } of effects.read()) {
      const body = JSON.stringify({ id, do: 'sleep', ms: 10, padding });
      assert.equal(hash, createHash('sha256').update(body).digest('hex'));
    }
    assert.ok(consumer.stats().workers.every(({ restarts }) => restarts === 0));
    await until('the old memory is given back', () => consumer.stats().arena.used === 0);
  } finally {
    await consumer.close();
  }
});

test('a cancelled consumer whose queue stays away for a while is consumed again when it is back', async () => {
  let away = 0;
  await using broker = await FakeBroker.listen({
    answer: (connection, name, channel) => {
      if (name !== '60.20' || away === 0) return false;
      away--;
      connection.send(closeChannel(channel, 404, "NOT_FOUND - no queue 'q' in vhost '/'"));
      return true;
    },
  });
  using effects = new EffectsLog();
  const consumer = consumerOf(broker.url, new Queue('q'), { autoDeclare: false });
  const told: string[] = [];
  consumer.on('error', (error) => told.push(error.name));
  consumer.on('disconnected', (error) => told.push(`down: ${error.name}`));
  consumer.on('reconnected', () => told.push('up'));
  try {
    await consumer.consume();
    const first = await broker.consumer(1);
    away = 3;
    const back = next(consumer, 'reconnected');
    first.connection.send(method(first.channel, 60, 30, shortString(first.tag), uint(1, 1)));
    await back;
    const second = await broker.consumer(2);
    assert.equal(second.connection, first.connection, 'on the same connection');
    second.connection.send(message(second.channel, second.tag, 1, 'again'));
    await until('it is handled', () => effects.counts().has('again'));
    assert.deepEqual(
      told.filter((text) => text !== 'NotFound'),
      ['ConsumerCancelled', 'down: ConsumerCancelled', 'up'],
    );
    assert.ok(told.includes('NotFound'));
    assert.equal(consumer.stats().state, 'consuming');
  } finally {
    await consumer.close();
  }
});

test('a consumer that is cancelled while another is being set up is consumed again', async () => {
  let held: (() => void) | undefined;
  let once = true;
  await using broker = await FakeBroker.listen({
    answer: (connection, name, channel, fields) => {
      if (name !== '60.20' || broker.consumers.length !== 1 || !once) return false;
      once = false;
      fields.short();
      fields.shortString();
      const tag = fields.shortString();
      const [first] = broker.consumers;
      connection.send(method(first!.channel, 60, 30, shortString(first!.tag), uint(1, 1)));
      held = () => connection.send(basicConsumeOk(channel, tag));
      return true;
    },
  });
  const consumer = consumerOf(broker.url, [new Queue('q1'), new Queue('q2')]);
  try {
    const back = next(consumer, 'reconnected');
    const consuming = consumer.consume();
    await until('the second is being consumed', () => held !== undefined);
    held!();
    await consuming;
    await back;
    assert.equal((await broker.consumer(2)).queue, 'q1', 'the first one, again');
  } finally {
    await consumer.close();
  }
});

test('close() while it reconnects leaves no connection behind, and makes none', async () => {
  const silent: FakeConnection[] = [];
  await using broker = await FakeBroker.listen({
    answer: (connection, name) => {
      // From the second connection on the broker never answers a declaration.
      if (name !== '50.10' || broker.connections.length === 1) return false;
      silent.push(connection);
      return true;
    },
  });
  const consumer = consumerOf(broker.url, new Queue('q'));
  await consumer.consume();
  (await broker.consumer(1)).connection.socket.destroy();
  await until('it declares', () => silent.length === 1);
  await consumer.close();
  await silent[0]!.closed;
  assert.equal(broker.connections.length, 2);
  assert.equal(broker.consumers.length, 1);
});

test('headers nested without end cost an inline consumer its connection and not its process', async () => {
  // One field, whose arrays have nothing in them but the next array.
  const levels = 10_000;
  const arrays = Array.from({ length: levels }, (_, i) =>
    Buffer.concat([Buffer.from('A'), uint(5 * (levels - 1 - i), 4)]),
  );
  const field = Buffer.concat([shortString('deep'), ...arrays]);
  const nested = Buffer.concat([uint(field.length, 4), field]);
  await using broker = await FakeBroker.listen();
  const connection = new Connection(broker.url);
  const lost = next<[Error | undefined]>(connection as never, 'disconnected');
  const consumer = connection.Consumer(new Queue('q'), { callbacks: [() => undefined] });
  consumer.on('error', () => undefined);
  await consumer.consume();
  const { connection: server, channel, tag } = await broker.consumer(1);
  const [deliver] = delivery(channel, 1n, Buffer.alloc(0), { consumerTag: tag });
  const header = Buffer.concat([uint(60, 2), uint(0, 2), uint(0, 8), uint(1 << 13, 2), nested]);
  server.send(Buffer.concat([deliver!, frame(2, channel, header)]));
  const [reason] = await lost;
  assert.match(String(reason?.message), /nested deeper than 64/);
  await consumer.close();
  await connection.close();
});

test('a connection that is lost while it resumes is replaced once', async () => {
  let paused = false;
  let cut = 0;
  await using broker = await FakeBroker.listen({
    answer: (connection, name) => {
      if (name !== '50.10' || !paused || cut > 0) return false;
      cut++;
      connection.socket.destroy();
      return true;
    },
  });
  using effects = new EffectsLog();
  const consumer = consumerOf(broker.url, new Queue('q'));
  try {
    await consumer.consume();
    await consumer.pause();
    paused = true;
    await consumer.resume();
    assert.equal(cut, 1);
    const second = await broker.consumer(2);
    second.connection.send(message(second.channel, second.tag, 1, 'after'));
    await broker.settled(second.connection, 1);
    assert.equal(consumer.stats().state, 'consuming');
    assert.deepEqual([broker.connections.length, broker.consumers.length], [2, 2]);
    assert.equal(effects.counts().size, 1);
  } finally {
    await consumer.close();
  }
});

test('a broker that does not answer a cancel loses its connection, and the pause goes on', async () => {
  await using broker = await FakeBroker.listen({ answer: (_, name) => name === '60.30' });
  const consumer = consumerOf(broker.url, new Queue('q'));
  try {
    await consumer.consume();
    const first = await broker.consumer(1);
    await consumer.pause();
    await first.connection.closed;
    assert.equal(consumer.stats().state, 'paused');
    await consumer.resume();
    await broker.consumer(2);
    assert.equal(consumer.stats().state, 'consuming');
  } finally {
    await consumer.close();
  }
});
