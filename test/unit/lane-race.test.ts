/**
 * Threads that do nothing but claim, all from the same lane at once: the shortest distance there is between two claims.
 * This file is the test and, on other threads, the claimers.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
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
import { allocateMemory, type MemoryHandles, memoryHandles, openMemory } from '#src/pool/memory';

const SLOTS = 2048;
const ROUNDS = 100;
const CLAIMERS = 3;
/** Words that main and the claimers meet at. */
const ROUND = 0;
const DONE = 16;

interface Task {
  readonly owner: number;
  readonly memory: MemoryHandles;
  readonly meeting: SharedArrayBuffer;
  readonly claims: SharedArrayBuffer;
}

function race({ owner, memory: handles, meeting, claims: shared }: Task): void {
  const memory = openMemory(handles);
  const words = new Int32Array(meeting);
  const claims = new Int32Array(shared);
  for (let round = 1; round <= ROUNDS; round++) {
    // Spinning, so that all begin in the same moment.
    while (Atomics.load(words, ROUND) !== round);
    for (let index = claim(memory, owner); index !== NONE; index = claim(memory, owner)) Atomics.add(claims, index, 1);
    Atomics.add(words, DONE, 1);
    Atomics.notify(words, DONE);
  }
}

if (!isMainThread) {
  race(workerData as Task);
} else {
  describe('claims that race', () => {
    it('are won by one thread each, and leave nothing behind', { timeout: 60_000 }, async (context) => {
      const memory = allocateMemory(SLOTS, 1 << 20);
      memory.boardWords[board.LANE_HEAD] = 2 ** 31 - SLOTS;
      memory.boardWords[board.LANE_TAIL] = 2 ** 31 - SLOTS;
      const lane = new LanePublisher(memory);
      const words = new Int32Array(new SharedArrayBuffer(128));
      const claims = new Int32Array(new SharedArrayBuffer(SLOTS * 4));
      for (let owner = 1; owner <= CLAIMERS; owner++) {
        const task: Task = {
          owner,
          memory: memoryHandles(memory),
          meeting: words.buffer as SharedArrayBuffer,
          claims: claims.buffer as SharedArrayBuffer,
        };
        const thread = new Worker(new URL(import.meta.url), { workerData: task });
        context.after(() => thread.terminate());
      }
      for (let round = 1; round <= ROUNDS; round++) {
        claims.fill(0);
        for (let index = 0; index < SLOTS; index++) lane.push(index);
        lane.flush();
        Atomics.store(words, DONE, 0);
        Atomics.store(words, ROUND, round);
        for (let done = Atomics.load(words, DONE); done < CLAIMERS; done = Atomics.load(words, DONE)) {
          await Atomics.waitAsync(words, DONE, done).value;
        }
        assert.equal(laneHasWork(memory), false);
        for (let index = 0; index < SLOTS; index++) {
          assert.equal(claims[index], 1, `slot ${index} was claimed ${claims[index]} times in round ${round}`);
          const word = memory.slotWords[index << slot.SHIFT]!;
          assert.equal(word & STATE_MASK, state.CLAIMED);
          const owner = (word >>> OWNER_SHIFT) & OWNER_MASK;
          assert.ok(owner >= 1 && owner <= CLAIMERS);
          const generation = (word >>> GENERATION_SHIFT) & GENERATION_MASK;
          memory.slotWords[index << slot.SHIFT] = stateWord(generation + 1, 0, state.FREE);
        }
      }
    });
  });
}
