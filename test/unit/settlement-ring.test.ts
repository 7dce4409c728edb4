/** The settlement ring on one thread against an array, with counters about to wrap. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { NONE } from '#src/pool/lane';
import { block, blockWords, ringStart, slot } from '#src/pool/layout';
import { allocateBlock } from '#src/pool/memory';
import { SettlementReader, SettlementWriter } from '#src/pool/settlement-ring';

function open(slots: number, concurrency: number, counter: number) {
  const words = new Int32Array(allocateBlock(concurrency, slots));
  const slotWords = new Int32Array(slots * slot.WORDS);
  words[block.RING_TAIL] = counter | 0;
  return {
    words,
    slotWords,
    reader: new SettlementReader(words, concurrency, slots),
    writer: new SettlementWriter(words, slotWords, concurrency, slots),
  };
}

/** Takes everything there is. */
function takeAll(reader: SettlementReader, seen: (index: number) => void): number {
  let count = 0;
  for (let index = reader.take(); index !== NONE; index = reader.take()) {
    seen(index);
    count++;
  }
  return count;
}

const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ push: fc.nat(), verdict: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 1, arbitrary: fc.constant({ drain: true }) },
);

describe('the settlement ring', () => {
  it('gives main each entry once and in order, with its verdict in the slot, while its counters wrap', () => {
    const counter = fc.constantFrom(0, 2 ** 31 - 3, 2 ** 32 - 3, 2 ** 31, 2 ** 32 - 1);
    const slots = fc.constantFrom(1, 2, 8, 64);
    fc.assert(
      fc.property(
        slots,
        fc.integer({ min: 1, max: 9 }),
        counter,
        fc.array(step, { maxLength: 200 }),
        (count, rows, at, steps) => {
          const { reader, writer, slotWords } = open(count, rows, at);
          let waiting: [index: number, verdict: number][] = [];
          const drain = (): void => {
            const taken: [number, number][] = [];
            assert.equal(reader.empty, waiting.length === 0);
            const number = takeAll(reader, (index) =>
              taken.push([index, slotWords[(index << slot.SHIFT) + slot.VERDICT]!]),
            );
            assert.equal(number, waiting.length);
            assert.deepEqual(taken, waiting);
            assert.ok(reader.empty);
            waiting = [];
          };
          for (const one of steps) {
            if ('drain' in one) {
              drain();
            } else {
              const free = Array.from({ length: count }, (_, index) => index).filter((index) =>
                waiting.every(([used]) => used !== index),
              );
              if (free.length === 0) continue;
              const index = free[one.push % free.length]!;
              writer.push(index, one.verdict);
              waiting.push([index, one.verdict]);
            }
          }
          drain();
        },
      ),
      { numRuns: 500 },
    );
  });

  it('holds a verdict for every slot at once', () => {
    const { reader, writer } = open(16, 3, 2 ** 32 - 8);
    for (let index = 15; index >= 0; index--) writer.push(index, 1);
    const taken: number[] = [];
    assert.equal(
      takeAll(reader, (index) => taken.push(index)),
      16,
    );
    assert.deepEqual(
      taken,
      Array.from({ length: 16 }, (_, index) => 15 - index),
    );
  });

  it('gives what is pushed while it is read too, after the rest', () => {
    const { reader, writer } = open(4, 1, 0);
    writer.push(0, 1);
    const taken: number[] = [];
    takeAll(reader, (index) => {
      taken.push(index);
      if (index === 0) writer.push(1, 1);
    });
    assert.deepEqual([taken, reader.empty], [[0, 1], true]);
  });

  it('lies behind the running table, inside the block, and on a cache line of its own', () => {
    for (const [rows, slots] of [
      [1, 1],
      [4, 64],
      [5, 64],
      [1000, 4096],
    ] as const) {
      const { words, writer } = open(slots, rows, 0);
      const before = Int32Array.from(words);
      for (let index = 0; index < slots; index++) writer.push(index, 1);
      assert.ok(ringStart(rows) >= block.TABLE + rows * 4);
      assert.equal(ringStart(rows) % 16, 0);
      assert.equal(words.length, blockWords(rows, slots));
      for (let at = 0; at < ringStart(rows); at++) if (at !== block.RING_TAIL) assert.equal(words[at], before[at]);
      assert.deepEqual(
        [...words.subarray(ringStart(rows))],
        Array.from({ length: slots }, (_, index) => index),
      );
    }
  });
});
