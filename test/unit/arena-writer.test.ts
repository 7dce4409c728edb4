/** Where the embedded broker puts messages: aligned, in nobody's way, and given back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ArenaWriter } from '#src/main/transports/arena-writer';
import { Arena } from '#src/pool/arena';
import { SEGMENT_BYTES } from '#src/pool/layout';

const step = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      length: fc.oneof(fc.integer({ min: 16, max: 5000 }), fc.integer({ min: 16, max: 3 * SEGMENT_BYTES })),
      offset: fc.nat(15),
      alignment: fc.nat(7),
    }),
  },
  { weight: 2, arbitrary: fc.record({ release: fc.nat() }) },
);

test('arena writer: messages are aligned, do not overlap, stay out of the reserve, and leave nothing behind', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200, size: 'max' }), (steps) => {
      const arena = new Arena(8 * SEGMENT_BYTES);
      const writer = new ArenaWriter(arena);
      const held: { start: number; length: number }[] = [];
      for (const each of steps) {
        if ('release' in each) {
          const [message] = held.splice(each.release % Math.max(1, held.length), 1);
          if (message !== undefined) arena.release(message.start, message.length);
          continue;
        }
        const start = writer.place(each.length, each.offset, each.alignment);
        if (start < 0) continue;
        assert.equal((start + each.offset) & 7, each.alignment);
        assert.ok(start >= SEGMENT_BYTES && start + each.length <= 8 * SEGMENT_BYTES);
        for (const { start: from, length } of held) assert.ok(start + each.length <= from || from + length <= start);
        writer.keep(start, each.length);
        held.push({ start, length: each.length });
      }
      for (const { start, length } of held) arena.release(start, length);
      writer.leave();
      assert.equal(arena.usedBytes, 0);
      assert.equal(arena.takenBytes, 0);
    }),
    { numRuns: 300 },
  );
});

test('arena writer: its own region does not stand in the way of a large message', () => {
  const arena = new Arena(8 * SEGMENT_BYTES);
  const writer = new ArenaWriter(arena);
  const small = writer.place(100, 0, 0);
  writer.keep(small, 100);
  const others = [0, 1, 2].map(() => arena.take(1));
  // The region is in the middle now: the third segment of seven.
  const start = writer.place(SEGMENT_BYTES, 0, 0);
  writer.keep(start, SEGMENT_BYTES);
  for (const other of others) arena.leave(other, other + SEGMENT_BYTES);
  arena.release(small, 100);
  arena.release(start, SEGMENT_BYTES);
  assert.equal(arena.usedBytes, 0);
  assert.ok(writer.place(arena.largestFitting + 1000, 0, 0) >= 0);
});
