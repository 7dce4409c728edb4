/**
 * Main's table of slots: which are free, and how a slot changes hands. Workers know slots only by number and claim them
 * through the lane; every state but CLAIMED is written here or there.
 */
import type { Arena } from './arena.js';
import { NONE } from './lane.js';
import {
  GENERATION_MASK,
  GENERATION_SHIFT,
  OWNER_MASK,
  OWNER_SHIFT,
  STATE_MASK,
  slot,
  state,
  stateWord,
} from './layout.js';
import type { Memory } from './memory.js';

export class SlotTable {
  readonly words: Int32Array;
  readonly count: number;
  readonly #arena: Arena;
  /** A stack that hands out the lowest slots first: a light load stays in few pages. */
  readonly #free: Int32Array;
  #freeCount: number;

  constructor(memory: Memory, arena: Arena) {
    this.words = memory.slotWords;
    this.count = memory.slotCount;
    this.#arena = arena;
    this.#freeCount = memory.slotCount;
    this.#free = new Int32Array(memory.slotCount);
    for (let i = 0; i < memory.slotCount; i++) this.#free[i] = memory.slotCount - 1 - i;
  }

  /** Slots in use, whatever for. */
  get used(): number {
    return this.count - this.#freeCount;
  }

  /** A free slot, still FREE, or NONE. */
  acquire(): number {
    return this.#freeCount === 0 ? NONE : this.#free[--this.#freeCount]!;
  }

  /** Into a new generation of the slot: whatever points to the old one is dead from now on. */
  raise(index: number, value: number): void {
    const at = (index << slot.SHIFT) + slot.STATE;
    const next = ((this.words[at]! >>> GENERATION_SHIFT) + 1) & GENERATION_MASK;
    Atomics.store(this.words, at, stateWord(next, 0, value));
  }

  /** Gives the message's bytes back to the arena; the slot stays what it is. */
  releaseBytes(index: number): void {
    const at = index << slot.SHIFT;
    const length = this.words[at + slot.LENGTH]!;
    if (length === 0) return;
    this.#arena.release(this.words[at + slot.OFFSET]!, length);
    this.words[at + slot.LENGTH] = 0;
  }

  release(index: number): void {
    this.releaseBytes(index);
    this.raise(index, state.FREE);
    this.#free[this.#freeCount++] = index;
  }

  /** Moves a message to a fresh slot, NONE if there is none; the old one stays claimed and loses its bytes. */
  move(old: number): number {
    const index = this.acquire();
    if (index === NONE) return NONE;
    const from = old << slot.SHIFT;
    const to = index << slot.SHIFT;
    for (let word = slot.OFFSET; word < slot.WORDS; word++) this.words[to + word] = this.words[from + word]!;
    this.words[from + slot.LENGTH] = 0;
    return index;
  }

  stateOf(index: number): number {
    return this.words[(index << slot.SHIFT) + slot.STATE]! & STATE_MASK;
  }

  /** Slots that this incarnation has claimed, lowest first. */
  claimedBy(owner: number): number[] {
    const found: number[] = [];
    for (let index = 0; index < this.count; index++) {
      const word = Atomics.load(this.words, (index << slot.SHIFT) + slot.STATE);
      if ((word & STATE_MASK) === state.CLAIMED && ((word >>> OWNER_SHIFT) & OWNER_MASK) === owner) found.push(index);
    }
    return found;
  }

  /** How many slots are in this state. */
  inState(wanted: number): number {
    let found = 0;
    for (let index = 0; index < this.count; index++) if (this.stateOf(index) === wanted) found++;
    return found;
  }
}
