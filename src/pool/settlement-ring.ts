/**
 * One worker's verdicts on their way to main: single producer, single consumer, as long as there are slots, so it never
 * overflows (a worker can have claimed no more than all of them, and main frees a slot only after taking its entry).
 *
 *   worker: verdict into the slot → slot's number into the ring → tail        main: tail → entries → check the owner
 *
 * In that order a death anywhere leaves either a whole entry or none. Main keeps the reading position to itself.
 */
import { NONE } from './lane.js';
import { block, ringStart, slot } from './layout.js';

/** The worker's end. */
export class SettlementWriter {
  readonly #block: Int32Array;
  readonly #slots: Int32Array;
  readonly #start: number;
  readonly #mask: number;
  #tail: number;

  constructor(blockWords: Int32Array, slotWords: Int32Array, concurrency: number, slotCount: number) {
    this.#block = blockWords;
    this.#slots = slotWords;
    this.#start = ringStart(concurrency);
    this.#mask = slotCount - 1;
    this.#tail = Atomics.load(blockWords, block.RING_TAIL);
  }

  push(index: number, verdict: number): void {
    this.#slots[(index << slot.SHIFT) + slot.VERDICT] = verdict;
    this.#block[this.#start + (this.#tail & this.#mask)] = index;
    this.#tail = (this.#tail + 1) | 0;
    Atomics.store(this.#block, block.RING_TAIL, this.#tail);
  }
}

/** Main's end. */
export class SettlementReader {
  readonly #block: Int32Array;
  readonly #start: number;
  readonly #mask: number;
  #head: number;
  /** The tail as last looked at: entries before it are whole. */
  #seen: number;

  constructor(blockWords: Int32Array, concurrency: number, slotCount: number) {
    this.#block = blockWords;
    this.#start = ringStart(concurrency);
    this.#mask = slotCount - 1;
    this.#head = Atomics.load(blockWords, block.RING_TAIL);
    this.#seen = this.#head;
  }

  get empty(): boolean {
    return Atomics.load(this.#block, block.RING_TAIL) === this.#head;
  }

  /** The next settled slot, or NONE. */
  take(): number {
    if (this.#head === this.#seen) {
      this.#seen = Atomics.load(this.#block, block.RING_TAIL);
      if (this.#head === this.#seen) return NONE;
    }
    const index = this.#block[this.#start + (this.#head & this.#mask)]!;
    this.#head = (this.#head + 1) | 0;
    return index;
  }
}
