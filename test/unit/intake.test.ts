/**
 * The intake against byte streams in any portions: what it hands out must be what was sent, in one piece, in memory that
 * nothing else is written to while it is held. The streams are built by test/support/amqp-bytes.ts.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Intake, type IntakeSink } from '#src/main/transports/amqp/intake';
import { Arena } from '#src/pool/arena';
import { SEGMENT_BYTES } from '#src/pool/layout';
import {
  bodyFrames,
  contentHeader,
  delivery,
  getOkMethod,
  heartbeat,
  method,
  pattern,
  returned,
} from '../support/amqp-bytes.js';

const OURS = 2;
const FRAME_MAX = 131_072;

interface Kept {
  readonly tag: number;
  readonly bodySize: number;
  readonly redelivered: boolean;
  readonly bytes: Buffer;
}

/** An intake with room for everything, whose sink keeps all it is told. */
function open() {
  const memory = new SharedArrayBuffer(96 * SEGMENT_BYTES);
  const arena = new Arena(memory.byteLength);
  const kept: Kept[] = [];
  const passed: Buffer[] = [];
  const pieces: [start: number, length: number][] = [];
  const sink: IntakeSink = {
    delivery: (start, length, bodySize, hi, lo, redelivered) => {
      const bytes = Buffer.from(Buffer.from(memory, start, length));
      kept.push({ tag: hi * 2 ** 32 + lo, bodySize, redelivered, bytes });
      pieces.push([start, length]);
    },
    shed: () => assert.fail('there is room'),
    oversize: () => assert.fail('there is no limit'),
    closing: () => assert.fail('nothing is closed'),
    passOn: (frames) => {
      assert.ok(frames.buffer !== memory, 'what is passed on must have memory of its own');
      // Whatever becomes of the arena now, these bytes are its reader's.
      passed.push(frames);
    },
    swallows: () => false,
  };
  const intake = new Intake(memory, arena, sink, FRAME_MAX);
  intake.capture(OURS);
  /** Reads as a kernel would: into whatever room there is, at most `portion()` bytes at a time. */
  const feed = (stream: Buffer, portion: () => number): void => {
    for (let at = 0; at < stream.length; ) {
      const room = intake.room();
      const count = Math.min(room.length, portion(), stream.length - at);
      assert.ok(count > 0, 'reading must never stop');
      room.set(stream.subarray(at, at + count));
      intake.received(count);
      at += count;
    }
  };
  const leave = (): void => {
    for (const [start, length] of pieces) arena.release(start, length);
    intake.leave();
    assert.deepEqual([arena.takenBytes, arena.usedBytes], [0, 0]);
  };
  return { intake, kept, passed, feed, leave };
}

function portions(sizes: readonly number[]): () => number {
  let next = 0;
  return () => sizes[next++ % sizes.length]!;
}

interface Sent {
  readonly tag: number;
  readonly bodySize: number;
  readonly redelivered: boolean;
  /** From its basic.deliver to its last octet, with what other channels sent between. */
  readonly bytes: Buffer;
}

const bodySize = fc.oneof(
  { weight: 3, arbitrary: fc.constant(0) },
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 3000 }) },
  { weight: 3, arbitrary: fc.integer({ min: 3000, max: 200_000 }) },
  { weight: 1, arbitrary: fc.integer({ min: SEGMENT_BYTES - 300, max: 3 * SEGMENT_BYTES }) },
);

/** Frames that are not ours. The last two are content of other methods, one of them on our own channel. */
const foreignFrames = fc
  .integer({ min: 1, max: 9000 })
  .chain((size) =>
    fc.constantFrom(
      [heartbeat],
      [method(1, 50, 11, pattern(size, 12))],
      [returned(3), contentHeader(3, size, { messageId: 'r' }), ...bodyFrames(3, pattern(size, size), 4096)],
    ),
  );
const betweenDeliveries = fc.oneof(
  foreignFrames,
  fc
    .integer({ min: 0, max: 5000 })
    .map((size) => [getOkMethod(OURS, 7n), contentHeader(OURS, size), ...bodyFrames(OURS, pattern(size, size), 4096)]),
);

const item = fc.oneof(
  { weight: 1, arbitrary: fc.record({ foreign: betweenDeliveries }) },
  {
    weight: 3,
    arbitrary: fc.record({
      size: bodySize,
      frameMax: fc.constantFrom(4096, 8192, FRAME_MAX),
      redelivered: fc.boolean(),
      between: fc.array(fc.tuple(fc.nat(40), foreignFrames), { maxLength: 3 }),
    }),
  },
);

/** The stream of a list of items, and what an honest reader must find in it. */
function build(items: readonly (typeof item extends fc.Arbitrary<infer T> ? T : never)[]): {
  stream: Buffer;
  sent: Sent[];
  foreign: Buffer;
} {
  const all: Buffer[] = [];
  const foreign: Buffer[] = [];
  const sent: Sent[] = [];
  for (const [index, one] of items.entries()) {
    if ('foreign' in one) {
      all.push(...one.foreign);
      foreign.push(...one.foreign);
      continue;
    }
    const tag = 2 ** 32 - 3 + index;
    const frames = delivery(OURS, BigInt(tag), pattern(index, one.size), {
      frameMax: one.frameMax,
      redelivered: one.redelivered,
      messageId: `m${index}`,
    });
    for (const [place, others] of one.between) {
      // Never before the first frame nor after the last: what lies there belongs to nobody's piece.
      const at = 1 + (place % Math.max(1, frames.length - 1));
      frames.splice(at, 0, ...others);
    }
    // A stable order of what is passed on: as it lies in the stream.
    for (const bytes of frames) if (bytes.readUInt16BE(1) !== OURS) foreign.push(bytes);
    all.push(...frames);
    sent.push({ tag, bodySize: one.size, redelivered: one.redelivered, bytes: Buffer.concat(frames) });
  }
  return { stream: Buffer.concat(all), sent, foreign: Buffer.concat(foreign) };
}

const readSizes = fc.array(
  fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 70_000 }), fc.constant(400_000)),
  { minLength: 1, maxLength: 12 },
);

describe('the intake', () => {
  it('finds the same deliveries however the stream is cut into reads', () => {
    fc.assert(
      fc.property(fc.array(item, { minLength: 1, maxLength: 12 }), readSizes, (items, sizes) => {
        const { stream, sent, foreign } = build(items);
        const rig = open();
        rig.feed(stream, portions(sizes));
        assert.deepEqual(
          rig.kept.map(({ tag, bodySize, redelivered }) => ({ tag, bodySize, redelivered })),
          sent.map(({ tag, bodySize, redelivered }) => ({ tag, bodySize, redelivered })),
        );
        for (const [index, { bytes }] of rig.kept.entries()) {
          assert.ok(bytes.equals(sent[index]!.bytes), `delivery ${index} is not what was sent`);
        }
        assert.ok(Buffer.concat(rig.passed).equals(foreign), 'what is passed on is not what was sent');
        rig.leave();
      }),
      { numRuns: 120 },
    );
  });

  it('reads a stream octet by octet', () => {
    const frames = [heartbeat, ...delivery(OURS, 5n, pattern(1, 300)), heartbeat, ...delivery(OURS, 6n, pattern(2, 0))];
    const rig = open();
    rig.feed(Buffer.concat(frames), () => 1);
    assert.deepEqual(
      rig.kept.map(({ tag }) => tag),
      [5, 6],
    );
    assert.equal(Buffer.concat(rig.passed).toString('hex'), Buffer.concat([heartbeat, heartbeat]).toString('hex'));
  });

  it('moves a large body once, when its size is known, and no more', () => {
    const { intake, kept, leave } = open();
    const stream = Buffer.concat(delivery(OURS, 1n, pattern(1, 10_000_000)));
    let moves = -1;
    let expected = -1;
    for (let at = 0; at < stream.length; ) {
      const room = intake.room();
      if (room.byteOffset !== expected) moves++;
      const part = stream.subarray(at, at + Math.min(room.length, 65_536));
      room.set(part);
      intake.received(part.length);
      expected = room.byteOffset + part.length;
      at += part.length;
    }
    assert.equal(moves, 1);
    assert.ok(kept[0]!.bytes.equals(stream));
    leave();
  });
});
