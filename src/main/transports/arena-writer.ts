/**
 * Puts messages into the arena, one behind the other, as the reader of a socket does; the reserve is left alone.
 *
 *   region (one or more adjacent segments)
 *   ┌──────────────────────────────────────────┐
 *   │ message │ message │ at ▶ room            │      a message that does not fit takes a new region
 *   └──────────────────────────────────────────┘
 *
 * `place` and `keep` belong together: nothing is held between them.
 */
import type { Arena } from '../../pool/arena.js';
import { SEGMENT_BYTES } from '../../pool/layout.js';

export class ArenaWriter {
  readonly #arena: Arena;
  #start = 0;
  #end = 0;
  #at = 0;

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  /**
   * Where `length` bytes can go, the byte `offset` of them at a place that is equal to `alignment` modulo 8; -1: nowhere now.
   */
  place(length: number, offset: number, alignment: number): number {
    const at = align(this.#at, offset, alignment);
    if (at + length <= this.#end) return at;
    const segments = Math.ceil((length + 8) / SEGMENT_BYTES);
    let start = this.#arena.take(segments);
    if (start >= 0) {
      this.leave();
    } else {
      // Our own region is of no use for this one, and may stand in its way.
      this.leave();
      start = this.#arena.take(segments);
      if (start < 0) return -1;
    }
    this.#start = start;
    this.#end = start + segments * SEGMENT_BYTES;
    this.#at = start;
    return align(start, offset, alignment);
  }

  /** What was written at the place last given stays until the arena is told to release it. */
  keep(start: number, length: number): void {
    this.#arena.hold(start, length);
    this.#at = start + length;
    // Behind a large one the region is many segments: those before us are the message's alone.
    const segment = this.#at - (this.#at % SEGMENT_BYTES);
    if (segment <= this.#start || segment >= this.#end) return;
    this.#arena.leave(this.#start, segment);
    this.#start = segment;
  }

  /** Gives the region back; what is kept stays. */
  leave(): void {
    this.#arena.leave(this.#start, this.#end);
    this.#start = 0;
    this.#end = 0;
    this.#at = 0;
  }
}

function align(at: number, offset: number, alignment: number): number {
  return at + ((alignment - at - offset) & 7);
}
