/**
 * The shared memory that raw messages lie in, and which parts of it are in use. Only main decides; workers only read.
 *
 *   segment 0    1          2          3      …      n-1
 *   ┌─────────┬──────────┬──────────┬──────────┬───┬─────────┐
 *   │ reserve │ ■■ ■ ■■  │ ■■■■■■■■ │ ■■▶      │ … │ free    │      ■ messages   ▶ where the socket reads to
 *   └─────────┴──────────┴──────────┴──────────┴───┴─────────┘
 *
 * Segments of 1 MiB. Each counts the messages that touch it, plus one while the socket reads into it; at zero it is
 * free. The lowest free one is taken first, so that a light load stays in few pages. Counts are plain integers: nobody
 * but main looks. The first segment is the reserve: what is read there is scanned and forgotten, never handed out.
 */
import { SEGMENT_BYTES } from './layout.js';

export class Arena {
  readonly segments: number;
  /** Live messages (and the reader's hold) by segment. */
  readonly #counts: Int32Array;
  #freeSegments: number;
  #usedBytes = 0;

  constructor(readonly size: number) {
    this.segments = Math.floor(size / SEGMENT_BYTES);
    this.#counts = new Int32Array(this.segments);
    this.#counts[0] = 1;
    this.#freeSegments = this.segments - 1;
  }

  /** Bytes of messages that are held, without what the segments waste. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Bytes of segments that are taken, the reserve left out: what the ceiling is measured by. */
  get takenBytes(): number {
    return (this.segments - 1 - this.#freeSegments) * SEGMENT_BYTES;
  }

  /** What can be taken in all, the reserve left out. */
  get capacity(): number {
    return (this.segments - 1) * SEGMENT_BYTES;
  }

  /** The largest body that can ever lie here, beside the segment that is being read into. */
  get largestFitting(): number {
    return this.capacity - SEGMENT_BYTES - SEGMENT_BYTES / 4;
  }

  /** Where the reserve begins and ends. */
  get reserve(): { start: number; end: number } {
    return { start: 0, end: SEGMENT_BYTES };
  }

  /** Takes `count` adjacent free segments, lowest first, with one hold each; returns the first byte, or -1. */
  take(count: number): number {
    if (count > this.#freeSegments) return -1;
    let run = 0;
    for (let i = 1; i < this.segments; i++) {
      run = this.#counts[i] === 0 ? run + 1 : 0;
      if (run < count) continue;
      const first = i - count + 1;
      for (let j = first; j <= i; j++) this.#counts[j] = 1;
      this.#freeSegments -= count;
      return first * SEGMENT_BYTES;
    }
    return -1;
  }

  /** Gives back the reader's hold on a region made by `take`. */
  leave(start: number, end: number): void {
    for (let i = start / SEGMENT_BYTES; i < end / SEGMENT_BYTES; i++) this.#drop(i);
  }

  /** A message lies at [start, start + length): its segments stay until it is released. */
  hold(start: number, length: number): void {
    const last = Math.floor((start + length - 1) / SEGMENT_BYTES);
    for (let i = Math.floor(start / SEGMENT_BYTES); i <= last; i++) this.#counts[i]!++;
    this.#usedBytes += length;
  }

  release(start: number, length: number): void {
    const last = Math.floor((start + length - 1) / SEGMENT_BYTES);
    for (let i = Math.floor(start / SEGMENT_BYTES); i <= last; i++) this.#drop(i);
    this.#usedBytes -= length;
  }

  #drop(index: number): void {
    const count = this.#counts[index]! - 1;
    this.#counts[index] = count;
    if (count === 0) this.#freeSegments++;
  }
}
