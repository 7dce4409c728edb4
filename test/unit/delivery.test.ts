/** A delivery read where it lies in shared memory, and from its own copy after that memory was written over. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { readTable } from '#src/codec/amqp/table';
import { DecodeError, KombuError } from '#src/errors';
import type { Delivery } from '#src/pool/delivery';
import { openDelivery } from '#src/pool/open-delivery';
import {
  bodyFrames,
  contentHeader,
  type DeliverFields,
  deliverMethod,
  delivery,
  frame,
  type HeaderFields,
  heartbeat,
  pattern,
  rawHeader,
  returned,
  table,
} from '../support/amqp-bytes.js';

const OURS = 0x0102;
const QUEUES = new Map([['ctag', 'the queue']]);
const LIMITS = { accept: new Set(['application/json', 'text/plain', 'application/data']), maxDecodedBytes: 1 << 26 };
const memory = Buffer.from(new SharedArrayBuffer(1 << 20));

/** Lays frames into shared memory that is full of something else, in front of its end or anywhere. */
function place(frames: readonly Buffer[], start: number | 'end' = 64): Delivery {
  const bytes = Buffer.concat(frames);
  const at = start === 'end' ? memory.length - bytes.length : start;
  memory.fill(0xce);
  bytes.copy(memory, at);
  return openDelivery(memory, at, bytes.length, QUEUES, LIMITS);
}

/** Content of another channel, whose number differs from ours in one octet only. */
const foreign = fc.constantFrom(
  [heartbeat],
  [returned(0x0202), contentHeader(0x0202, 9), frame(3, 0x0202, pattern(1, 9))],
  [returned(0x0103), contentHeader(0x0103, 2), frame(3, 0x0103, Buffer.from([1, 2]))],
);
const short = fc.string({ unit: 'grapheme', maxLength: 20 });
const shape = fc.record({
  size: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 20_000 })),
  frameMax: fc.constantFrom(9, 512, 4096, 131_072),
  between: fc.array(fc.tuple(fc.nat(30), foreign), { maxLength: 4 }),
  emptyFrames: fc.boolean(),
  info: fc.record({ exchange: short, routingKey: short, redelivered: fc.boolean(), tag: fc.nat(2 ** 31 - 1) }),
  messageId: short,
  withHeaders: fc.boolean(),
  start: fc.oneof(fc.constant<'end'>('end'), fc.nat(500)),
});

interface Parts {
  readonly properties: unknown;
  readonly headers: unknown;
  readonly info: unknown;
  readonly body: Buffer;
  readonly payload: unknown;
}

function partsOf(read: Delivery): Parts {
  return {
    properties: read.readProperties(),
    headers: read.readHeaders(),
    info: read.readDeliveryInfo(),
    body: read.readBody(),
    payload: read.decode(),
  };
}

describe('a delivery', () => {
  it('is read alike in one frame or many, with frames of others between, in the arena or in its own copy', () => {
    fc.assert(
      fc.property(shape, ({ size, frameMax, between, emptyFrames, info, messageId, withHeaders, start }) => {
        const body = pattern(size, size);
        const written: HeaderFields & DeliverFields = {
          ...info,
          tag: BigInt(info.tag),
          messageId,
          contentType: 'application/data',
          contentEncoding: 'binary',
          ...(withHeaders ? { headers: [['n', ['I', 7]]] as const } : {}),
        };
        const frames = [
          deliverMethod(OURS, written),
          contentHeader(OURS, size, written),
          ...(emptyFrames && size > 0 ? [frame(3, OURS, Buffer.alloc(0))] : []),
          ...bodyFrames(OURS, body, size > 5000 ? Math.max(frameMax, 512) : frameMax),
        ];
        for (const [at, others] of between) {
          if (frames.length > 1) frames.splice(1 + (at % (frames.length - 1)), 0, ...others);
        }
        const read = place(frames, start);
        const expected: Parts = {
          properties: { messageId, contentType: 'application/data', contentEncoding: 'binary' },
          headers: Object.assign(Object.create(null), withHeaders ? { n: 7 } : {}),
          info: {
            exchange: info.exchange,
            routingKey: info.routingKey,
            redelivered: info.redelivered,
            deliveryTag: info.tag,
            consumerTag: 'ctag',
            queue: 'the queue',
          },
          body,
          payload: body,
        };
        assert.deepEqual(partsOf(read), expected);
        read.own();
        memory.fill(0x5a);
        assert.deepEqual(partsOf(read), expected);
        read.own();
        assert.deepEqual(partsOf(read), expected);
      }),
      { numRuns: 150 },
    );
  });

  it('gives a body and a payload that outlive its memory', () => {
    for (const size of [10, 5000]) {
      const body = pattern(1, size);
      const read = place(
        delivery(OURS, 1n, body, { contentType: 'application/data', contentEncoding: 'binary', frameMax: 4096 }),
      );
      const given = [read.readBody(), read.decode()];
      memory.fill(0);
      assert.deepEqual(given, [body, body]);
    }
  });

  it('finds the compression among the headers', () => {
    const headers = [
      ['first', ['F', [['compression', ['S', 'no']]]]],
      ['compression', ['S', 'application/x-nobody-has-this']],
    ] as const;
    const read = place(delivery(OURS, 1n, Buffer.from('{}'), { contentType: 'application/json', headers }));
    assert.throws(
      () => read.decode(),
      (error: unknown) => error instanceof KombuError && error.message.includes('nobody-has-this'),
    );
  });

  it('names no queue for a consumer tag that it does not know', () => {
    const read = place(delivery(OURS, 2n ** 32n + 5n, Buffer.alloc(0), { consumerTag: 'stranger' }));
    const { queue, deliveryTag } = read.readDeliveryInfo();
    assert.deepEqual([queue, deliveryTag], ['', 2 ** 32 + 5]);
  });

  it('whose basic.deliver is cut behind its tag is a DecodeError', () => {
    const whole = deliverMethod(OURS, { exchange: 'an exchange', routingKey: 'a key' }).subarray(7, -1);
    const least = 4 + 5 + 9;
    for (let octets = least; octets < whole.length; octets++) {
      const read = place([frame(1, OURS, whole.subarray(0, octets)), contentHeader(OURS, 0)], 'end');
      assert.throws(() => read.readDeliveryInfo(), DecodeError, `${octets} octets`);
    }
  });
});

describe('a broken content header', () => {
  const noise = fc.tuple(fc.constantFrom(0x2000, 0x8000, 0xa000, 0xe000, 0xffff, 0), fc.uint8Array({ maxLength: 24 }));
  const readers = ['readProperties', 'readHeaders', 'decode'] as const;

  it('is read or refused with an error of ours, in the arena or in an own copy', () => {
    fc.assert(
      fc.property(noise, fc.boolean(), fc.boolean(), ([flags, rest], owned, empty) => {
        const block = Buffer.concat([Buffer.from([flags >>> 8, flags & 0xff]), rest]);
        const frames = [deliverMethod(OURS), rawHeader(OURS, empty ? 0n : 2n, block)];
        if (!empty) frames.push(frame(3, OURS, Buffer.from('{}')));
        const read = place(frames, 'end');
        if (owned) read.own();
        for (const name of readers) {
          try {
            read[name]();
          } catch (error) {
            assert.ok(error instanceof KombuError, `${name}: ${String(error)}`);
          }
        }
      }),
      { numRuns: 3000 },
    );
  });

  it('that continues its flags is refused by every reader of it', () => {
    const frames = [
      deliverMethod(OURS),
      rawHeader(OURS, 2n, Buffer.from([0x20, 1, 0, 0, 0, 0])),
      frame(3, OURS, Buffer.from('{}')),
    ];
    const read = place(frames);
    for (const name of readers) assert.throws(() => read[name](), DecodeError, name);
  });

  it('whose header table is longer than the header is a DecodeError', () => {
    const headers = table([['k', ['S', 'value']]]);
    headers.writeUInt32BE(headers.length);
    const read = place([deliverMethod(OURS), rawHeader(OURS, 0n, Buffer.concat([Buffer.from([0x20, 0]), headers]))]);
    assert.throws(() => read.readHeaders(), DecodeError);
    assert.throws(() => read.decode(), DecodeError);
    assert.throws(() => readTable(headers, 0, headers.length), DecodeError);
  });
});
