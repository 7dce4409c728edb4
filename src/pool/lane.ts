/**
 * The ring of slots ready to run: main publishes, any worker claims.
 *
 *            head (any thread moves it)        tail (main)
 *              ▼                                 ▼
 *   … dead │ live │ dead │ live │ live │ live │ empty …
 *
 * A cell names a slot and the slot's generation. It is live while that slot is READY in that generation, else dead: the
 * truth is the slot's STATE word, the ring is only where to look. A claim is one compare-exchange on that word, which
 * names the claimer; head is moved afterwards by whoever passes, so a thread that dies between the two leaves nothing
 * undone. A stale reader may see a cell half overwritten: whatever slot and generation it then reads, the claim succeeds
 * only if that very pair is READY now, and then it is a legitimate claim.
 *
 * Positions are monotonic 32-bit counters, compared as (a - b) | 0; capacity is a power of two.
 */
import { board, GENERATION_MASK, GENERATION_SHIFT, STATE_MASK, slot, state, stateWord } from './layout.js';
import type { Memory } from './memory.js';

/** Nothing to claim. */
export const NONE = -1;

/** Claims the next message for `owner`; returns its slot or NONE. Any worker thread. */
export function claim(memory: Memory, owner: number): number {
  const { boardWords, slotWords, laneWords } = memory;
  const mask = memory.laneCapacity - 1;
  for (;;) {
    const head = Atomics.load(boardWords, board.LANE_HEAD);
    if (head === Atomics.load(boardWords, board.LANE_TAIL)) return NONE;
    const cell = (head & mask) << 1;
    const index = laneWords[cell]!;
    const generation = laneWords[cell + 1]!;
    const at = (index << slot.SHIFT) + slot.STATE;
    const ready = stateWord(generation, 0, state.READY);
    const won = Atomics.compareExchange(slotWords, at, ready, stateWord(generation, owner, state.CLAIMED)) === ready;
    // Lost or won, this cell is dead now. Whether we or another thread moves head past it does not matter.
    Atomics.compareExchange(boardWords, board.LANE_HEAD, head, (head + 1) | 0);
    if (won) return index;
  }
}

/** True if a claim may find something. A dead cell counts: a false alarm costs one look, a missed message a stall. */
export function laneHasWork(memory: Memory): boolean {
  return Atomics.load(memory.boardWords, board.LANE_HEAD) !== Atomics.load(memory.boardWords, board.LANE_TAIL);
}

/** Main's end of the lane. */
export class LanePublisher {
  readonly #memory: Memory;
  readonly #mask: number;
  /** What main has written; readers see it from `flush` on. */
  #tail: number;
  /** Up to here whoever sleeps has been thought of. */
  #flushed: number;

  constructor(memory: Memory) {
    this.#memory = memory;
    this.#mask = memory.laneCapacity - 1;
    this.#tail = Atomics.load(memory.boardWords, board.LANE_TAIL);
    this.#flushed = this.#tail;
  }

  /** Cells between head and tail, dead ones included. */
  get length(): number {
    return (this.#tail - Atomics.load(this.#memory.boardWords, board.LANE_HEAD)) | 0;
  }

  /** Makes a slot READY and appends its cell. The slot's other words are written already. Visible after `flush`. */
  push(index: number): void {
    if (this.length >= this.#memory.laneCapacity) this.#compact();
    const { slotWords, laneWords } = this.#memory;
    const at = (index << slot.SHIFT) + slot.STATE;
    const generation = (slotWords[at]! >>> GENERATION_SHIFT) & GENERATION_MASK;
    Atomics.store(slotWords, at, stateWord(generation, 0, state.READY));
    const cell = (this.#tail & this.#mask) << 1;
    laneWords[cell] = index;
    laneWords[cell + 1] = generation;
    this.#tail = (this.#tail + 1) | 0;
  }

  /** Shows what was pushed since the last flush to the workers; returns how many cells that are. */
  flush(): number {
    const count = (this.#tail - this.#flushed) | 0;
    if (count === 0) return 0;
    this.#flushed = this.#tail;
    Atomics.store(this.#memory.boardWords, board.LANE_TAIL, this.#tail);
    return count;
  }

  /**
   * Takes a READY slot back from the lane: true if it was still READY, then it is HELD by main in a new generation.
   * False: a worker claimed it first. Call `skipDead` after a batch.
   */
  withdraw(index: number): boolean {
    const { slotWords } = this.#memory;
    const at = (index << slot.SHIFT) + slot.STATE;
    const word = Atomics.load(slotWords, at);
    if ((word & STATE_MASK) !== state.READY) return false;
    const next = stateWord(((word >>> GENERATION_SHIFT) + 1) & GENERATION_MASK, 0, state.HELD);
    return Atomics.compareExchange(slotWords, at, word, next) === word;
  }

  /** Moves head over cells that are no longer READY, so that workers need not. */
  skipDead(): void {
    const { boardWords, slotWords, laneWords } = this.#memory;
    for (;;) {
      const head = Atomics.load(boardWords, board.LANE_HEAD);
      if (head === Atomics.load(boardWords, board.LANE_TAIL)) return;
      const cell = (head & this.#mask) << 1;
      const at = (laneWords[cell]! << slot.SHIFT) + slot.STATE;
      if (Atomics.load(slotWords, at) === stateWord(laneWords[cell + 1]!, 0, state.READY)) return;
      Atomics.compareExchange(boardWords, board.LANE_HEAD, head, (head + 1) | 0);
    }
  }

  /** The oldest cell that is still READY, or NONE: for handing back what waited too long. */
  oldest(): number {
    this.skipDead();
    const { boardWords, laneWords } = this.#memory;
    const head = Atomics.load(boardWords, board.LANE_HEAD);
    if (head === Atomics.load(boardWords, board.LANE_TAIL)) return NONE;
    return laneWords[(head & this.#mask) << 1]!;
  }

  /**
   * Dead cells can fill the ring only if slots behind a READY head are withdrawn and published again, over and over.
   * Then every live cell is withdrawn and published anew, in its order, which leaves capacity / 2 cells free.
   */
  #compact(): void {
    const { boardWords, laneWords } = this.#memory;
    // Shown early; the count of the next flush still has them.
    Atomics.store(boardWords, board.LANE_TAIL, this.#tail);
    const live: number[] = [];
    const head = Atomics.load(boardWords, board.LANE_HEAD);
    for (let position = head; position !== this.#tail; position = (position + 1) | 0) {
      const cell = (position & this.#mask) << 1;
      const index = laneWords[cell]!;
      const word = Atomics.load(this.#memory.slotWords, (index << slot.SHIFT) + slot.STATE);
      if (word === stateWord(laneWords[cell + 1]!, 0, state.READY) && this.withdraw(index)) live.push(index);
    }
    this.skipDead();
    for (const index of live) this.push(index);
    Atomics.store(boardWords, board.LANE_TAIL, this.#tail);
  }
}
