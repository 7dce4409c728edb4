/**
 * One worker's verdicts on their way to main: single producer, single consumer, as long as there are slots, so it never
 * overflows (a worker can have claimed no more than all of them, and main frees a slot only after taking its entry).
 *
 *   worker: verdict into the slot → slot's number into the ring → tail        main: tail → entries → check the owner
 *
 * In that order a death anywhere leaves either a whole entry or none. Main keeps the reading position to itself.
 */
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

  constructor(blockWords: Int32Array, concurrency: number, slotCount: number) {
    this.#block = blockWords;
    this.#start = ringStart(concurrency);
    this.#mask = slotCount - 1;
    this.#head = Atomics.load(blockWords, block.RING_TAIL);
  }

  get empty(): boolean {
    return Atomics.load(this.#block, block.RING_TAIL) === this.#head;
  }

  /** Hands every entry there is to `take`; returns how many. */
  drain(take: (index: number) => void): number {
    const tail = Atomics.load(this.#block, block.RING_TAIL);
    const count = (tail - this.#head) | 0;
    while (this.#head !== tail) {
      const index = this.#block[this.#start + (this.#head & this.#mask)]!;
      this.#head = (this.#head + 1) | 0;
      take(index);
    }
    return count;
  }
}
