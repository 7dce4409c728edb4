/** Bytes that no honest broker sends: the connection is given up with an error that says what came; the next one serves. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { errors, Queue } from '#src/index';
import {
  bodyFrames,
  brokenFrame,
  contentHeader,
  deliverMethod,
  delivery,
  frame,
  method,
  rawHeader,
} from '../support/amqp-bytes.js';
import { FakeBroker } from '../support/fake-broker.js';
import { consumerOf, EffectsLog, next, until } from '../support/rig.js';

const json = { contentType: 'application/json', contentEncoding: 'utf-8' };
const body = (id: string): Buffer => Buffer.from(JSON.stringify({ id }));
const message = (channel: number, consumerTag: string, tag: number, id: string): Buffer =>
  Buffer.concat(delivery(channel, BigInt(tag), body(id), { consumerTag, ...json }));

type Broken = (channel: number) => Buffer;
const content = body('bad');

const broken: Record<string, { readonly bytes: Broken; readonly error: RegExp }> = {
  'a frame without its end octet': {
    bytes: (channel) => brokenFrame(1, channel, Buffer.alloc(4), 4, 0),
    error: /does not end with 0xCE/,
  },
  'a frame larger than agreed': {
    bytes: (channel) => brokenFrame(3, channel, Buffer.alloc(8), 200_000),
    error: /a frame of 200000 bytes came; at most 131064/,
  },
  'a frame of an unknown type': { bytes: (channel) => frame(7, channel, Buffer.alloc(4)), error: /type 7/ },
  'a body longer than its header says': {
    bytes: (channel) =>
      Buffer.concat([deliverMethod(channel, { tag: 2n }), contentHeader(channel, 3), frame(3, channel, content)]),
    error: /longer than its header says \(3 bytes\)/,
  },
  'a delivery in the middle of a body': {
    bytes: (channel) =>
      Buffer.concat([
        deliverMethod(channel, { tag: 2n }),
        contentHeader(channel, 100),
        ...bodyFrames(channel, content, 4096),
        deliverMethod(channel, { tag: 3n }),
      ]),
    error: /a body frame had to come; a frame of type 1/,
  },
  'a body without a header': {
    bytes: (channel) => Buffer.concat([deliverMethod(channel, { tag: 2n }), frame(3, channel, content)]),
    error: /a content header had to come; a frame of type 3/,
  },
  'a header of another class': {
    bytes: (channel) =>
      Buffer.concat([deliverMethod(channel, { tag: 2n }), rawHeader(channel, 5n, Buffer.alloc(2), 10)]),
    error: /not one of class basic/,
  },
  'a header with an absurd body size': {
    bytes: (channel) =>
      Buffer.concat([deliverMethod(channel, { tag: 2n }), rawHeader(channel, 2n ** 63n, Buffer.alloc(2))]),
    error: /over 2\^53 bytes/,
  },
  'a basic.deliver that is cut short': {
    bytes: (channel) => method(channel, 60, 60, Buffer.from([200, 1, 2])),
    error: /too short/,
  },
};

for (const [what, { bytes, error }] of Object.entries(broken)) {
  test(`${what} ends the connection by name; what came before it and after the reconnect is handled`, async () => {
    await using broker = await FakeBroker.listen();
    using effects = new EffectsLog();
    const consumer = consumerOf(broker.url, new Queue('q'));
    try {
      const lost = next<[Error]>(consumer as never, 'disconnected');
      await consumer.consume();
      const first = await broker.consumer(1);
      first.connection.send(message(first.channel, first.tag, 1, 'before'));
      await broker.settled(first.connection, 1);
      first.connection.send(bytes(first.channel));
      const [reason] = await lost;
      assert.ok(reason instanceof errors.FrameError, String(reason));
      assert.match(reason.message, error);
      await first.connection.closed;
      const second = await broker.consumer(2);
      second.connection.send(message(second.channel, second.tag, 1, 'after'));
      await broker.settled(second.connection, 1);
      assert.deepEqual(
        [...effects.counts()],
        [
          ['before', 1],
          ['after', 1],
        ],
      );
      assert.deepEqual(
        first.connection.settlements.map(({ tag }) => tag),
        [1],
        'nothing that was broken is settled',
      );
    } finally {
      await consumer.close();
    }
  });
}

test('properties that cannot be read fail their message alone', async () => {
  await using broker = await FakeBroker.listen();
  using effects = new EffectsLog();
  const consumer = consumerOf(broker.url, new Queue('q'), { onDecodeError: 'reject' });
  const failed: Error[] = [];
  consumer.on('failed', ({ error }) => failed.push(error));
  try {
    await consumer.consume();
    const { connection, channel, tag } = await broker.consumer(1);
    // The flags promise a content type that is longer than the header.
    const lying = Buffer.concat([Buffer.from([0x80, 0]), Buffer.from([250, 0x61])]);
    connection.send(
      Buffer.concat([
        deliverMethod(channel, { tag: 1n, consumerTag: tag }),
        rawHeader(channel, BigInt(content.length), lying),
        frame(3, channel, content),
        message(channel, tag, 2, 'after'),
      ]),
    );
    await broker.settled(connection, 1);
    await broker.settled(connection, 2);
    assert.deepEqual(connection.settlements.map(({ kind, tag }) => [kind, tag]).sort(), [
      ['ack', 2],
      ['reject', 1],
    ]);
    assert.equal(failed[0]?.name, 'DecodeError');
    assert.deepEqual([...effects.counts()], [['after', 1]]);
    assert.equal(broker.connections.length, 1);
  } finally {
    await consumer.close();
  }
});

test('more deliveries than slots end the connection instead of overwriting any', async () => {
  await using broker = await FakeBroker.listen();
  using effects = new EffectsLog();
  const consumer = consumerOf(broker.url, new Queue('q'), { workers: 1, prefetchCount: 1 });
  try {
    const lost = next<[Error]>(consumer as never, 'disconnected');
    await consumer.consume();
    const { connection, channel, tag } = await broker.consumer(1);
    const latch = join(effects.folder, 'go');
    const slow = delivery(channel, 1n, Buffer.from(JSON.stringify({ id: 'slow', do: 'latch', at: latch })), {
      consumerTag: tag,
      ...json,
    });
    connection.send(Buffer.concat(slow));
    await until('the slow one runs', () => consumer.stats().inFlight === 1);
    connection.send(Buffer.concat(Array.from({ length: 400 }, (_, i) => message(channel, tag, i + 2, `n${i}`))));
    const [reason] = await lost;
    assert.match(reason.message, /more messages than the prefetch allows/);
    await broker.consumer(2);
    writeFileSync(latch, '');
    await until('the slow one has ended, too late', () => effects.counts().has('slow'));
    await until('it counts as stale', () => consumer.stats().stale === 1);
    assert.deepEqual(connection.settlements, []);
  } finally {
    await consumer.close();
  }
});
