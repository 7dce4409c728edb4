/**
 * What a worker writes about itself into its block: counters, what it runs since when, and a histogram of the time from
 * a message's arrival to its settlement. Main reads it without asking. One writer; a reader may see a row half written,
 * which costs it one wrong figure, never a decision (see the supervisor, which looks twice).
 */
import { getHeapStatistics } from 'node:v8';
import { highWord, lowWord } from '../pool/clock.js';
import { bucketOf } from '../pool/histogram.js';
import { block, RUNNING_WORDS } from '../pool/layout.js';

/** Bits of a running row's last word. */
export const SETTLED_EARLY = 1;

export class Statistics {
  readonly #words: Int32Array;
  readonly #freeRows: number[] = [];
  #busy = 0;

  constructor(words: Int32Array, concurrency: number) {
    this.#words = words;
    for (let row = concurrency - 1; row >= 0; row--) this.#freeRows.push(row);
  }

  /** A callback starts; returns its row. */
  started(slot: number, now: number): number {
    const row = this.#freeRows.pop()!;
    const at = block.TABLE + row * RUNNING_WORDS;
    this.#words[at + 1] = highWord(now);
    this.#words[at + 2] = lowWord(now);
    this.#words[at + 3] = 0;
    this.#words[at] = slot + 1;
    this.#words[block.RUNNING]!++;
    return row;
  }

  /** The message of this row is settled though its callback goes on: its slot may soon be another message's. */
  settledEarly(row: number): void {
    this.#words[block.TABLE + row * RUNNING_WORDS + 3] = SETTLED_EARLY;
  }

  ended(row: number, startedAt: number, now: number): void {
    this.#words[block.TABLE + row * RUNNING_WORDS] = 0;
    this.#words[block.PROCESSED]!++;
    this.#freeRows.push(row);
    this.#busy += now - startedAt;
    this.#words[block.BUSY_HI] = highWord(this.#busy);
    this.#words[block.BUSY_LO] = lowWord(this.#busy);
  }

  /** A callback returned, also one that was given up before. */
  returned(): void {
    this.#words[block.RUNNING]!--;
  }

  failed(): void {
    this.#words[block.FAILED]!++;
  }

  settled(microsecondsSinceArrival: number): void {
    this.#words[block.HISTOGRAM + bucketOf(microsecondsSinceArrival)]!++;
  }

  /** By an interval: shows main that the loop turns. */
  beat(): void {
    this.#words[block.BEATS] = (this.#words[block.BEATS]! + 1) | 0;
    const { used_heap_size: heap, external_memory: external } = getHeapStatistics();
    this.#words[block.HEAP] = Math.round((heap + external) / 1024);
  }
}
