/** The arena's counts against a plain model: for each segment the list of those that hold it. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Arena } from '#src/pool/arena';
import { SEGMENT_BYTES } from '#src/pool/layout';

interface Piece {
  readonly start: number;
  readonly end: number;
}

/** Who holds each segment, by name; the reserve is held for ever. */
class Model {
  readonly holders: Set<string>[];

  constructor(segments: number) {
    this.holders = Array.from({ length: segments }, (_, index) => new Set(index === 0 ? ['reserve'] : []));
  }

  touch({ start, end }: Piece, name: string, holds: boolean): void {
    for (const [index, names] of this.holders.entries()) {
      if (start >= (index + 1) * SEGMENT_BYTES || end <= index * SEGMENT_BYTES) continue;
      if (holds) names.add(name);
      else names.delete(name);
    }
  }

  get free(): number[] {
    return this.holders.flatMap((names, index) => (names.size === 0 ? [index] : []));
  }

  /** The lowest place with so many adjacent free segments. */
  lowest(count: number): number {
    const free = new Set(this.free);
    for (let first = 1; first + count <= this.holders.length; first++) {
      let run = 0;
      while (run < count && free.has(first + run)) run++;
      if (run === count) return first * SEGMENT_BYTES;
    }
    return -1;
  }
}

const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ take: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 2, arbitrary: fc.record({ leave: fc.nat() }) },
  {
    weight: 4,
    arbitrary: fc.record({
      hold: fc.nat(),
      from: fc.double({ min: 0, max: 1, noNaN: true }),
      bytes: fc.nat(3_000_000),
    }),
  },
  { weight: 4, arbitrary: fc.record({ release: fc.nat() }) },
);

describe('the arena', () => {
  it('keeps a segment exactly as long as a reader or a message touches it', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 12 }), fc.array(step, { maxLength: 120 }), (segments, steps) => {
        const arena = new Arena(segments * SEGMENT_BYTES);
        const model = new Model(segments);
        const regions: (Piece & { name: string })[] = [];
        const messages: (Piece & { name: string })[] = [];
        let names = 0;
        for (const one of steps) {
          if ('take' in one) {
            const start = arena.take(one.take);
            assert.equal(start, model.lowest(one.take));
            if (start < 0) continue;
            assert.ok(start >= SEGMENT_BYTES, 'the reserve is never handed out');
            const region = { start, end: start + one.take * SEGMENT_BYTES, name: `r${names++}` };
            model.touch(region, region.name, true);
            regions.push(region);
          } else if ('leave' in one) {
            const [region] = regions.splice(one.leave % Math.max(1, regions.length), 1);
            if (region === undefined) continue;
            arena.leave(region.start, region.end);
            model.touch(region, region.name, false);
          } else if ('hold' in one) {
            const region = regions[one.hold % Math.max(1, regions.length)];
            if (region === undefined) continue;
            const start = region.start + Math.floor(one.from * (region.end - region.start - 1));
            const end = Math.min(region.end, start + 1 + one.bytes);
            const message = { start, end, name: `m${names++}` };
            arena.hold(start, end - start);
            model.touch(message, message.name, true);
            messages.push(message);
          } else {
            const [message] = messages.splice(one.release % Math.max(1, messages.length), 1);
            if (message === undefined) continue;
            arena.release(message.start, message.end - message.start);
            model.touch(message, message.name, false);
          }
          assert.equal(
            arena.usedBytes,
            messages.reduce((sum, { start, end }) => sum + end - start, 0),
          );
          assert.equal(arena.takenBytes, (segments - 1 - model.free.length) * SEGMENT_BYTES);
        }
        for (const { start, end } of messages) arena.release(start, end - start);
        for (const { start, end } of regions) arena.leave(start, end);
        assert.deepEqual([arena.usedBytes, arena.takenBytes], [0, 0]);
        assert.equal(arena.take(segments - 1), SEGMENT_BYTES, 'all but the reserve is free again, in one piece');
      }),
      { numRuns: 500 },
    );
  });

  it('takes only adjacent segments', () => {
    const arena = new Arena(6 * SEGMENT_BYTES);
    const starts = [1, 2, 3, 4, 5].map(() => arena.take(1));
    for (const place of [0, 2, 4]) arena.leave(starts[place]!, starts[place]! + SEGMENT_BYTES);
    assert.equal(arena.take(2), -1);
    assert.equal(arena.take(1), starts[0]);
    arena.leave(starts[3]!, starts[3]! + SEGMENT_BYTES);
    assert.equal(arena.take(3), starts[2]);
    assert.equal(arena.take(1), -1);
  });

  it('counts a message that ends at a border for its own segment only', () => {
    const arena = new Arena(4 * SEGMENT_BYTES);
    const start = arena.take(2);
    arena.hold(start, SEGMENT_BYTES);
    arena.leave(start, start + 2 * SEGMENT_BYTES);
    assert.equal(arena.takenBytes, SEGMENT_BYTES);
    arena.release(start, SEGMENT_BYTES);
    arena.take(1);
    arena.hold(start + SEGMENT_BYTES - 1, 1);
    arena.leave(start, start + SEGMENT_BYTES);
    assert.equal(arena.takenBytes, SEGMENT_BYTES);
  });

  it('has room for nothing when it is the reserve alone', () => {
    const arena = new Arena(SEGMENT_BYTES);
    assert.deepEqual([arena.capacity, arena.takenBytes, arena.take(1)], [0, 0, -1]);
    assert.deepEqual(arena.reserve, { start: 0, end: SEGMENT_BYTES });
  });
});
