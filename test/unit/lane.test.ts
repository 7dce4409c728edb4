/** The lane on one thread against an array: what is claimed, in which order, and what a withdrawn slot can no longer do. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { claim, LanePublisher, laneHasWork, NONE } from '#src/pool/lane';
import {
  board,
  GENERATION_MASK,
  GENERATION_SHIFT,
  OWNER_MASK,
  OWNER_SHIFT,
  STATE_MASK,
  slot,
  state,
  stateWord,
} from '#src/pool/layout';
import { allocateMemory, type Memory } from '#src/pool/memory';

const SLOTS = 8;

/** A lane whose counters stand at `counter`, and whose slots are in generation `generation`. */
function open(counter = 0, generation = 0, slots = SLOTS): { memory: Memory; lane: LanePublisher } {
  const memory = allocateMemory(slots, 1 << 20);
  memory.boardWords[board.LANE_HEAD] = counter | 0;
  memory.boardWords[board.LANE_TAIL] = counter | 0;
  for (let i = 0; i < slots; i++) memory.slotWords[i << slot.SHIFT] = stateWord(generation, 0, state.FREE);
  return { memory, lane: new LanePublisher(memory) };
}

function look(memory: Memory, index: number): { generation: number; owner: number; state: number } {
  const word = memory.slotWords[(index << slot.SHIFT) + slot.STATE]!;
  return {
    generation: (word >>> GENERATION_SHIFT) & GENERATION_MASK,
    owner: (word >>> OWNER_SHIFT) & OWNER_MASK,
    state: word & STATE_MASK,
  };
}

/** As main does when a slot is free again: a new generation. */
function free(memory: Memory, index: number): void {
  const { generation } = look(memory, index);
  memory.slotWords[(index << slot.SHIFT) + slot.STATE] = stateWord(generation + 1, 0, state.FREE);
}

const counters = fc.constantFrom(0, 2 ** 31 - 5, 2 ** 31 - 1, 2 ** 32 - 5, 2 ** 32 - 1);
const generations = fc.constantFrom(0, 1, GENERATION_MASK - 2, GENERATION_MASK);
const step = fc.oneof(
  { weight: 5, arbitrary: fc.constant({ push: true }) },
  { weight: 3, arbitrary: fc.constant({ flush: true }) },
  { weight: 4, arbitrary: fc.record({ claim: fc.integer({ min: 1, max: 255 }) }) },
  { weight: 3, arbitrary: fc.record({ withdraw: fc.nat() }) },
  { weight: 1, arbitrary: fc.constant({ skipDead: true }) },
  { weight: 1, arbitrary: fc.constant({ oldest: true }) },
);

describe('the lane', () => {
  it('hands out what was flushed, each once, oldest first, through withdrawals, wrapping counters and generations', () => {
    fc.assert(
      fc.property(counters, generations, fc.array(step, { maxLength: 400 }), (counter, generation, steps) => {
        const { memory, lane } = open(counter, generation);
        const idle = Array.from({ length: SLOTS }, (_, index) => index);
        let pushed: number[] = [];
        let live: number[] = [];
        let unflushed = 0;
        for (const one of steps) {
          if ('push' in one) {
            const index = idle.shift();
            if (index === undefined) continue;
            const cells = lane.length;
            lane.push(index);
            assert.ok(lane.length <= memory.laneCapacity, 'the ring overflows');
            pushed.push(index);
            unflushed++;
            // A full ring is compacted, which shows everything at once.
            if (cells >= memory.laneCapacity) {
              live = [...live, ...pushed.slice(0, -1)];
              pushed = [index];
              unflushed = 1;
            }
          } else if ('flush' in one) {
            assert.equal(lane.flush(), unflushed);
            unflushed = 0;
            live = [...live, ...pushed];
            pushed = [];
          } else if ('claim' in one) {
            const index = claim(memory, one.claim);
            assert.equal(index, live.shift() ?? NONE);
            if (index === NONE) continue;
            assert.deepEqual([look(memory, index).owner, look(memory, index).state], [one.claim, state.CLAIMED]);
            assert.equal(lane.withdraw(index), false, 'what is claimed cannot be withdrawn');
            free(memory, index);
            idle.push(index);
          } else if ('withdraw' in one) {
            const index = one.withdraw % SLOTS;
            const ready = live.includes(index) || pushed.includes(index);
            const before = look(memory, index).generation;
            assert.equal(lane.withdraw(index), ready);
            if (!ready) continue;
            assert.deepEqual(look(memory, index), {
              generation: (before + 1) & GENERATION_MASK,
              owner: 0,
              state: state.HELD,
            });
            live = live.filter((other) => other !== index);
            pushed = pushed.filter((other) => other !== index);
            // Published again at once by the next push: the old cell must stay dead.
            idle.unshift(index);
          } else if ('skipDead' in one) {
            lane.skipDead();
            assert.equal(laneHasWork(memory), live.length > 0);
          } else {
            assert.equal(lane.oldest(), live[0] ?? NONE);
          }
          if (live.length > 0) assert.ok(laneHasWork(memory), 'work is never hidden');
        }
        lane.flush();
        const left: number[] = [];
        for (let index = claim(memory, 1); index !== NONE; index = claim(memory, 1)) left.push(index);
        assert.deepEqual(left, [...live, ...pushed]);
        assert.equal(laneHasWork(memory), false);
      }),
      { numRuns: 1000 },
    );
  });

  it('shows nothing before flush', () => {
    const { memory, lane } = open();
    lane.push(3);
    assert.deepEqual([laneHasWork(memory), claim(memory, 1)], [false, NONE]);
    assert.equal(lane.flush(), 1);
    assert.equal(lane.flush(), 0);
    assert.equal(claim(memory, 1), 3);
  });

  it('full of dead cells behind one that nobody claims is compacted, in order, and loses nothing', () => {
    for (const counter of [0, 2 ** 31 - 3, 2 ** 32 - 3]) {
      const { memory, lane } = open(counter);
      for (const index of [0, 1, 2]) lane.push(index);
      lane.flush();
      for (let round = 0; round < 10 * memory.laneCapacity; round++) {
        const index = 3 + (round % 5);
        lane.push(index);
        lane.flush();
        assert.ok(lane.length <= memory.laneCapacity);
        assert.equal(lane.withdraw(index), true);
      }
      lane.push(7);
      lane.flush();
      assert.deepEqual(
        [1, 2, 3, 4, 5].map((owner) => claim(memory, owner)),
        [0, 1, 2, 7, NONE],
      );
    }
  });

  it('takes a slot once for each time that it was published, through all of its generations', () => {
    const { memory, lane } = open(0, GENERATION_MASK - 50, 2);
    for (let round = 0; round < 100; round++) {
      lane.push(0);
      lane.flush();
      const { generation } = look(memory, 0);
      assert.equal(generation, (GENERATION_MASK - 50 + round) & GENERATION_MASK);
      assert.equal(claim(memory, 200), 0);
      assert.deepEqual(look(memory, 0), { generation, owner: 200, state: state.CLAIMED });
      assert.equal(claim(memory, 201), NONE);
      free(memory, 0);
    }
  });

  it('does not give a cell of an older generation a claim on the slot as it is now', () => {
    const { memory, lane } = open();
    lane.push(4);
    lane.push(5);
    lane.flush();
    lane.withdraw(4);
    lane.push(4);
    lane.flush();
    assert.deepEqual(
      [1, 1, 1].map((owner) => claim(memory, owner)),
      [5, 4, NONE],
    );
  });

  it('goes past cells that lost, however many, in one claim', () => {
    const { memory, lane } = open(2 ** 32 - 4, 0, 64);
    for (let index = 0; index < 64; index++) lane.push(index);
    lane.flush();
    for (let index = 0; index < 63; index++) lane.withdraw(index);
    assert.equal(claim(memory, 9), 63);
    assert.equal(laneHasWork(memory), false);
  });

  it('has 20-bit generations, 8-bit owners and states that do not mix', () => {
    fc.assert(
      fc.property(fc.nat(GENERATION_MASK), fc.nat(255), fc.nat(3), (generation, owner, value) => {
        const word = stateWord(generation, owner, value);
        assert.equal(word, Int32Array.of(word)[0]);
        assert.deepEqual(
          [(word >>> GENERATION_SHIFT) & GENERATION_MASK, (word >>> OWNER_SHIFT) & OWNER_MASK, word & STATE_MASK],
          [generation, owner, value],
        );
      }),
    );
  });
});
