/**
 * Where everything lies in shared memory. This is the only file that knows a word's place; the classes beside it give
 * the words meaning. All words are 32-bit; a line is 16 words = 64 bytes, so that words written by different threads
 * never share a cache line.
 *
 * board (one per runtime)         slots (one line each)             lane (2 words a cell)
 * ┌──────────────────────────┐    ┌────────────────────────────┐    ┌──────────────┐
 * │ 0  LANE_HEAD   (workers) │    │ 0 STATE  gen│owner│state   │    │ slot, gen    │ ◀ head: next to claim
 * │16  LANE_TAIL   (main)    │    │ 1 OFFSET   2 LENGTH        │    │ slot, gen    │
 * │32  MAIN_BELL   (workers) │    │ 3 FLAGS                    │    │ …            │
 * │48  MAIN_SLEEPING (both)  │    │ 5 CHANNEL_GENERATION       │    │              │ ◀ tail: next to publish
 * └──────────────────────────┘    │ 6 TAG_HI   7 TAG_LO        │    └──────────────┘
 *                                 │ 8 ATTEMPTS 9 DEATHS        │
 *                                 │10 ARRIVAL_HI 11 ARRIVAL_LO │    STATE = generation (20 bits) << 12
 *                                 │13 STARTED  (worker)        │          | owner incarnation (8) << 4
 *                                 │14 VERDICT 15 DELAY (worker)│          | state (4)
 *                                 └────────────────────────────┘
 * block (one per incarnation of a worker)
 * ┌───────────────────────────────────────────────────────────────────────────┐
 * │  0 BELL (main)  16 SLEEPING (both)  32 STOP (main)  48 RING_TAIL (worker) │
 * │ 64 counters (worker): BEATS PROCESSED FAILED BUSY_HI BUSY_LO RUNNING …    │
 * │ 96 latency histogram (worker), HISTOGRAM_BUCKETS words                    │
 * │ .. running table (worker), 4 words a callback: slot + 1, since hi, lo, -  │
 * │ .. settlement ring (worker), one word a slot                              │
 * └───────────────────────────────────────────────────────────────────────────┘
 * notes: NOTE_BYTES a slot: why a message failed, written by its worker, read by main for its dead letter
 * arena: the raw bytes, see arena.ts
 */

export const LINE_WORDS = 16;
export const WORD = 4;

export const board = {
  LANE_HEAD: 0,
  LANE_TAIL: 16,
  MAIN_BELL: 32,
  MAIN_SLEEPING: 48,
  WORDS: 64,
} as const;

export const slot = {
  STATE: 0,
  OFFSET: 1,
  LENGTH: 2,
  FLAGS: 3,
  CHANNEL_GENERATION: 5,
  TAG_HI: 6,
  TAG_LO: 7,
  /** How often it was handed to a worker before this time. */
  ATTEMPTS: 8,
  /** How often it took its worker down while it ran alone. */
  DEATHS: 9,
  /** Microseconds of the shared clock, two words. */
  ARRIVAL_HI: 10,
  ARRIVAL_LO: 11,
  /** Set by the worker just before the callback runs: tells suspects from the merely claimed. */
  STARTED: 13,
  VERDICT: 14,
  /** Milliseconds until it is to run again, with the verdict RETRY. */
  DELAY: 15,
  WORDS: LINE_WORDS,
  SHIFT: 4,
} as const;

/** The state part of a slot's STATE word. Workers write only CLAIMED; every other state is main's. */
export const state = { FREE: 0, HELD: 1, READY: 2, CLAIMED: 3 } as const;

export const GENERATION_SHIFT = 12;
export const GENERATION_MASK = 0xfffff;
export const OWNER_SHIFT = 4;
export const OWNER_MASK = 0xff;
export const STATE_MASK = 0xf;
/** Incarnations are numbered 1 to 255; 0 owns nothing. */
export const MAX_INCARNATION = 255;

/** Builds a STATE word. The result is a signed 32-bit value, as an Int32Array holds it. */
export function stateWord(generation: number, owner: number, value: number): number {
  return ((generation & GENERATION_MASK) << GENERATION_SHIFT) | (owner << OWNER_SHIFT) | value;
}

/** Bits of a slot's FLAGS. */
export const flag = {
  REDELIVERED: 1,
  /** It may have taken a worker down together with others: its worker runs nothing beside it. */
  ALONE: 2,
} as const;

/** What a worker says of a message. 0 is none: a slot swept from a dead worker has none. */
export const verdict = {
  NONE: 0,
  ACK: 1,
  REJECT: 2,
  REQUEUE: 3,
  /** To the dead letters; the slot's note says why. */
  DEAD: 4,
  /** To be run again, once the slot's DELAY is over. */
  RETRY: 5,
} as const;

/** Sub-buckets of each power of two of microseconds: an error of at most 1/16. */
export const HISTOGRAM_SUB = 8;
/** Covers 1 µs to 2^38 µs (3 days). */
export const HISTOGRAM_BUCKETS = 38 * HISTOGRAM_SUB;

export const RUNNING_WORDS = 4;

const COUNTERS = 64;
const HISTOGRAM = 96;

export const block = {
  BELL: 0,
  SLEEPING: 16,
  STOP: 32,
  RING_TAIL: 48,
  /** Raised by an interval: shows that the worker's event loop turns. */
  BEATS: COUNTERS,
  PROCESSED: COUNTERS + 1,
  FAILED: COUNTERS + 2,
  /** Microseconds spent in callbacks, two words. */
  BUSY_HI: COUNTERS + 3,
  BUSY_LO: COUNTERS + 4,
  /** Callbacks that have not returned, those that were given up included. */
  RUNNING: COUNTERS + 5,
  /** Memory of the worker's heap, buffers included, KiB; written with each beat. */
  HEAP: COUNTERS + 6,
  HISTOGRAM,
  /** First word of the running table. */
  TABLE: HISTOGRAM + HISTOGRAM_BUCKETS,
} as const;

/** Values of a block's STOP word. */
export const stop = { RUN: 0, DRAIN: 1 } as const;

/** Bytes of a slot's note: u16 length, then UTF-8. */
export const NOTE_BYTES = 1024;

/** First word of the settlement ring in a block whose running table has `concurrency` rows. */
export function ringStart(concurrency: number): number {
  return Math.ceil((block.TABLE + concurrency * RUNNING_WORDS) / LINE_WORDS) * LINE_WORDS;
}

export function blockWords(concurrency: number, slots: number): number {
  return ringStart(concurrency) + slots;
}

/** A segment of the arena: small enough to come free soon, large enough that few messages straddle two. */
export const SEGMENT_BYTES = 1 << 20;
