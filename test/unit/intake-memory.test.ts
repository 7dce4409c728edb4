/**
 * The intake's memory: what is held is never lent out to be written, what is released comes free, and when there is no
 * room deliveries are shed by their tags while everything else goes on.
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
  deliverMethod,
  delivery,
  heartbeat,
  pattern,
  returned,
} from '../support/amqp-bytes.js';

const OURS = 2;
const FRAME_MAX = 131_072;

interface Held {
  readonly start: number;
  readonly length: number;
  readonly bodySize: number;
  readonly tag: number;
  readonly redelivered: boolean;
  readonly bytes: Buffer;
}

/** An intake with a sink that remembers everything and checks that no byte it holds is ever lent out to be written. */
class Rig implements IntakeSink {
  readonly arena: Arena;
  readonly bytes: Buffer;
  readonly intake: Intake;
  held: Held[] = [];
  /** What came, in order: delivery tags, and what was passed on. */
  readonly kept: Held[] = [];
  readonly shedTags: number[] = [];
  readonly oversized: [tag: number, size: number][] = [];
  readonly passed: Buffer[] = [];
  closings = 0;
  limit = Number.POSITIVE_INFINITY;

  constructor(segments: number, frameMax = FRAME_MAX) {
    const memory = new SharedArrayBuffer(segments * SEGMENT_BYTES);
    this.bytes = Buffer.from(memory);
    this.arena = new Arena(memory.byteLength);
    this.intake = new Intake(memory, this.arena, this, frameMax);
    this.intake.capture(OURS);
  }

  delivery(start: number, length: number, bodySize: number, hi: number, lo: number, redelivered: boolean): void {
    assert.ok(start >= this.arena.reserve.end, 'the reserve is forgotten, never handed out');
    const bytes = Buffer.from(this.bytes.subarray(start, start + length));
    const held = { start, length, bodySize, tag: hi * 2 ** 32 + lo, redelivered, bytes };
    this.held.push(held);
    this.kept.push(held);
  }

  shed(hi: number, lo: number): void {
    this.shedTags.push(hi * 2 ** 32 + lo);
  }

  oversize(hi: number, lo: number, size: number): void {
    this.oversized.push([hi * 2 ** 32 + lo, size]);
  }

  closing(): void {
    this.closings++;
  }

  passOn(frames: Buffer): void {
    assert.ok(frames.buffer !== this.bytes.buffer, 'what is passed on must have memory of its own');
    this.passed.push(frames);
  }

  swallows(size: number): boolean {
    return size > this.limit;
  }

  /** Gives a message back and spoils its bytes: nobody may want them any more. */
  release(index: number): void {
    const [held] = this.held.splice(index, 1);
    const { start, length, bytes } = held!;
    assert.ok(this.bytes.subarray(start, start + length).equals(bytes), 'held bytes were written to');
    this.bytes.fill(0xdd, start, start + length);
    this.arena.release(start, length);
  }

  releaseAll(): void {
    while (this.held.length > 0) this.release(0);
  }

  /** Reads as a kernel would: into whatever room there is, at most `portion()` bytes at a time. */
  feed(stream: Buffer, portion: () => number = () => Number.POSITIVE_INFINITY): void {
    for (let at = 0; at < stream.length; ) {
      const room = this.intake.room();
      assert.ok(room.length > 0, 'reading must never stop');
      for (const { start, length } of this.held) {
        const apart = room.byteOffset + room.length <= start || start + length <= room.byteOffset;
        assert.ok(apart, 'the room overlaps a message that is held');
      }
      const count = Math.min(room.length, portion(), stream.length - at);
      room.set(stream.subarray(at, at + count));
      this.intake.received(count);
      at += count;
    }
  }
}

function portions(sizes: readonly number[]): () => number {
  let next = 0;
  return () => sizes[next++ % sizes.length]!;
}

const bodySize = fc.oneof(
  { weight: 3, arbitrary: fc.constant(0) },
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 3000 }) },
  { weight: 3, arbitrary: fc.integer({ min: 3000, max: 200_000 }) },
  { weight: 1, arbitrary: fc.integer({ min: SEGMENT_BYTES - 300, max: 3 * SEGMENT_BYTES }) },
);

const readSizes = fc.array(
  fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 70_000 }), fc.constant(400_000)),
  { minLength: 1, maxLength: 12 },
);

describe('the memory of the intake', () => {
  it('lends no byte that is held, and each held byte stays, over any order of arrivals and releases', () => {
    const step = fc.oneof(
      { weight: 3, arbitrary: fc.record({ size: bodySize }) },
      { weight: 2, arbitrary: fc.record({ release: fc.nat() }) },
    );
    fc.assert(
      fc.property(fc.array(step, { minLength: 5, maxLength: 60 }), readSizes, (steps, sizes) => {
        const rig = new Rig(6);
        const portion = portions(sizes);
        let tag = 0;
        for (const one of steps) {
          if ('release' in one) {
            if (rig.held.length > 0) rig.release(one.release % rig.held.length);
          } else {
            rig.feed(Buffer.concat(delivery(OURS, BigInt(++tag), pattern(tag, one.size))), portion);
          }
          const came = [...rig.kept.map((held) => held.tag), ...rig.shedTags].sort((a, b) => a - b);
          assert.deepEqual(
            came,
            Array.from({ length: tag }, (_, index) => index + 1),
          );
          for (const { start, length, bytes } of rig.held) {
            assert.ok(rig.bytes.subarray(start, start + length).equals(bytes), 'held bytes were written to');
          }
        }
        const used = rig.held.reduce((sum, { length }) => sum + length, 0);
        assert.equal(rig.arena.usedBytes, used);
        rig.releaseAll();
        rig.intake.leave();
        assert.equal(rig.arena.takenBytes, 0);
      }),
      { numRuns: 60 },
    );
  });

  it('sheds by tag when the arena is full, and keeps later deliveries once there is room', () => {
    const rig = new Rig(4);
    const body = pattern(3, 700_000);
    let tag = 0;
    const next = (): void => rig.feed(Buffer.concat(delivery(OURS, BigInt(++tag), body)));
    while (rig.shedTags.length < 5 && tag < 40) next();
    const before = rig.kept.length;
    assert.ok(before >= 2 && before <= 4, `${before} messages of 0.7 MB in 3 MiB`);
    assert.deepEqual(rig.shedTags, [before + 1, before + 2, before + 3, before + 4, before + 5]);
    rig.releaseAll();
    next();
    next();
    assert.deepEqual(
      rig.kept.slice(before).map((held) => held.tag),
      [before + 6, before + 7],
    );
    assert.ok(rig.kept.at(-1)!.bytes.equals(Buffer.concat(delivery(OURS, BigInt(tag), body))));
  });

  it('sheds a body too large for what is free, and keeps the small one after it', () => {
    const rig = new Rig(4);
    rig.feed(Buffer.concat([...delivery(OURS, 1n, pattern(1, 5_000_000)), ...delivery(OURS, 2n, pattern(2, 50))]));
    assert.deepEqual(rig.shedTags, [1]);
    assert.deepEqual(
      rig.kept.map(({ tag }) => tag),
      [2],
    );
  });

  it('sheds the small as well while the arena is full, those that come whole in one read too', () => {
    const rig = new Rig(2);
    rig.feed(Buffer.concat(delivery(OURS, 1n, pattern(1, 1_000_000))));
    const small = Array.from({ length: 400 }, (_, index) => delivery(OURS, BigInt(index + 2), pattern(index, 20)));
    for (const frames of small) rig.feed(Buffer.concat(frames));
    assert.deepEqual(
      rig.shedTags,
      small.map((_, index) => index + 2),
    );
    rig.releaseAll();
    rig.feed(Buffer.concat(delivery(OURS, 500n, pattern(1, 20))));
    assert.equal(rig.held[0]!.tag, 500);
  });

  it('still passes on what is not ours while the arena is full', () => {
    const rig = new Rig(2);
    rig.feed(Buffer.concat(delivery(OURS, 1n, pattern(1, 990_000))));
    const others = [
      heartbeat,
      returned(3),
      contentHeader(3, 100_000),
      ...bodyFrames(3, pattern(9, 100_000), FRAME_MAX),
    ];
    const stream: Buffer[] = [];
    for (let tag = 2n; tag < 30n; tag++) stream.push(...delivery(OURS, tag, pattern(Number(tag), 90_000)), ...others);
    rig.feed(Buffer.concat(stream), () => 60_000);
    assert.equal(rig.shedTags.length, 28);
    const expected = Buffer.concat(Array.from({ length: 28 }, () => Buffer.concat(others)));
    assert.ok(Buffer.concat(rig.passed).equals(expected));
  });

  it('swallows a body over the limit, says its tag and size, and frees its room', () => {
    const rig = new Rig(6);
    rig.limit = 1000;
    rig.feed(
      Buffer.concat([
        ...delivery(OURS, 1n, pattern(1, 3_000_000)),
        ...delivery(OURS, 2n, pattern(2, 1000)),
        ...delivery(OURS, 3n, pattern(3, 1001)),
      ]),
    );
    assert.deepEqual(rig.oversized, [
      [1, 3_000_000],
      [3, 1001],
    ]);
    assert.deepEqual(
      rig.kept.map(({ tag }) => tag),
      [2],
    );
    assert.equal(rig.arena.takenBytes, SEGMENT_BYTES);
  });

  it('holds a segment until its last message is released', () => {
    const rig = new Rig(8);
    for (let tag = 1n; tag <= 5n; tag++) rig.feed(Buffer.concat(delivery(OURS, tag, pattern(Number(tag), 500_000))));
    const full = rig.arena.takenBytes;
    assert.ok(full >= 3 * SEGMENT_BYTES);
    while (rig.held.length > 1) rig.release(0);
    rig.intake.leave();
    assert.equal(rig.arena.takenBytes, SEGMENT_BYTES, 'the last message still holds its own');
    rig.release(0);
    assert.equal(rig.arena.takenBytes, 0);
  });

  it('says and takes nothing after leave', () => {
    const rig = new Rig(3);
    const whole = Buffer.concat(delivery(OURS, 1n, pattern(1, 100)));
    rig.feed(whole.subarray(0, 60));
    rig.intake.leave();
    rig.intake.leave();
    assert.equal(rig.arena.takenBytes, 0);
    const room = rig.intake.room();
    assert.ok(room.length > 0 && room.buffer !== rig.bytes.buffer, 'a late read must go nowhere near the arena');
    rig.feed(Buffer.concat([whole.subarray(60), heartbeat, deliverMethod(OURS)]));
    assert.deepEqual([rig.kept.length, rig.passed.length, rig.shedTags.length], [0, 0, 0]);
  });

  it('reads frames as large as it was told they may be, or refuses that size', () => {
    const frameMax = 2 * SEGMENT_BYTES;
    let rig: Rig;
    try {
      rig = new Rig(8, frameMax);
    } catch (error) {
      assert.ok(error instanceof RangeError);
      return;
    }
    const content = [returned(3), contentHeader(3, 1_500_000), ...bodyFrames(3, pattern(4, 1_500_000), frameMax)];
    rig.feed(Buffer.concat([...content, ...delivery(OURS, 1n, pattern(1, 100))]));
    assert.ok(Buffer.concat(rig.passed).equals(Buffer.concat(content)));
    assert.equal(rig.kept.length, 1);
  });
});
