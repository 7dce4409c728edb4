/**
 * Which deliveries of one channel generation the broker still waits for, and how to settle them in the fewest frames.
 *
 * A list in the order of delivery tags, of everything delivered whose settlement is not written yet:
 *
 *   head ▶ 17 acked ─ 18 acked ─ 19 requeue ─ 20 acked ─ 21 open ─ 22 acked ─ 23 open ◀ tail
 *          └────────── prefix ──────────────┘
 *
 * The prefix goes out as: nack 19, then ack 20 `multiple`. The tag named must itself be unsettled at the broker and all
 * below it settled, or RabbitMQ closes the channel (406); hence rejects and nacks of the batch come first. What lies
 * behind a hole (22) waits for it, until `around` writes it singly. The length of the list is bounded by the prefetch.
 *
 * Pure: writes into a buffer it is given, knows no socket and no clock.
 */

import { BASIC_ACK, BASIC_NACK, BASIC_REJECT, SETTLE_FRAME_SIZE, writeSettle } from '../../../codec/amqp/frames.js';
import { verdict } from '../../../pool/layout.js';

const NIL = -1;

const OPEN = verdict.NONE;
export const { ACK, REJECT, REQUEUE } = verdict;
export type LedgerVerdict = typeof ACK | typeof REJECT | typeof REQUEUE;

export class Ledger {
  #next: Int32Array;
  #previous: Int32Array;
  #tagHi: Uint32Array;
  #tagLo: Uint32Array;
  #verdict: Uint8Array;
  #free = NIL;
  #head = NIL;
  #tail = NIL;
  #size = 0;
  #unsent = 0;

  /** `capacity`: how many deliveries to expect at once; it grows if there are more. */
  constructor(capacity: number) {
    this.#next = new Int32Array(capacity);
    this.#previous = new Int32Array(capacity);
    this.#tagHi = new Uint32Array(capacity);
    this.#tagLo = new Uint32Array(capacity);
    this.#verdict = new Uint8Array(capacity);
    this.#chain(0, capacity);
  }

  /** Deliveries whose settlement is not written: what the broker counts as unacknowledged. */
  get size(): number {
    return this.#size;
  }

  /** Of these, the ones that are settled and only wait to be written. */
  get unsent(): number {
    return this.#unsent;
  }

  /** A delivery came: its tag is above all before it. Returns the entry to settle it by. */
  add(tagHi: number, tagLo: number): number {
    if (this.#free === NIL) this.#grow();
    const entry = this.#free;
    this.#free = this.#next[entry]!;
    this.#tagHi[entry] = tagHi;
    this.#tagLo[entry] = tagLo;
    this.#verdict[entry] = OPEN;
    this.#next[entry] = NIL;
    this.#previous[entry] = this.#tail;
    if (this.#tail === NIL) this.#head = entry;
    else this.#next[this.#tail] = entry;
    this.#tail = entry;
    this.#size++;
    return entry;
  }

  /** Settles an entry; `write` will tell the broker. An entry is settled once: its number is used again afterwards. */
  settle(entry: number, outcome: LedgerVerdict): void {
    if (this.#verdict[entry] !== OPEN) throw new RangeError(`ledger entry ${entry} is settled twice`);
    this.#verdict[entry] = outcome;
    this.#unsent++;
  }

  /** The oldest entry: what everything settled behind it waits for. -1 if there is none. */
  get oldest(): number {
    return this.#head;
  }

  /** True if `write(…, false)` would write something. */
  get ready(): boolean {
    return this.#head !== NIL && this.#verdict[this.#head] !== OPEN;
  }

  /**
   * The frames that settle the prefix and, with `around`, also all that lies behind holes. Undefined if there are none.
   * What is returned counts as sent.
   */
  write(channel: number, around: boolean): Buffer | undefined {
    if (this.#unsent === 0 || (!around && !this.ready)) return undefined;
    // One frame for the acks of the prefix, and at most one for each other entry.
    let frames = 1;
    let entry = this.#head;
    let last = NIL;
    let acks = 0;
    for (; entry !== NIL && this.#verdict[entry] !== OPEN; entry = this.#next[entry]!) {
      if (this.#verdict[entry] === ACK) {
        last = entry;
        acks++;
      } else {
        frames++;
      }
    }
    const rest = entry;
    if (around) frames += this.#unsent;
    const out = Buffer.allocUnsafe(frames * SETTLE_FRAME_SIZE);
    let at = 0;
    for (entry = this.#head; entry !== rest; entry = this.#next[entry]!) {
      if (this.#verdict[entry] !== ACK) at = this.#writeOne(out, at, channel, entry);
    }
    if (acks > 0) {
      at = writeSettle(out, at, channel, BASIC_ACK, this.#tagHi[last]!, this.#tagLo[last]!, acks > 1 ? 1 : 0);
    }
    while (this.#head !== rest) this.#remove(this.#head);
    if (around) {
      for (entry = rest; entry !== NIL && this.#unsent > 0; ) {
        const next = this.#next[entry]!;
        if (this.#verdict[entry] !== OPEN) {
          at = this.#writeOne(out, at, channel, entry);
          this.#remove(entry);
        }
        entry = next;
      }
    }
    return out.subarray(0, at);
  }

  #writeOne(out: Buffer, at: number, channel: number, entry: number): number {
    const hi = this.#tagHi[entry]!;
    const lo = this.#tagLo[entry]!;
    switch (this.#verdict[entry]) {
      case ACK:
        return writeSettle(out, at, channel, BASIC_ACK, hi, lo, 0);
      case REJECT:
        return writeSettle(out, at, channel, BASIC_REJECT, hi, lo, 0);
      default:
        return writeSettle(out, at, channel, BASIC_NACK, hi, lo, 2);
    }
  }

  #remove(entry: number): void {
    const next = this.#next[entry]!;
    const previous = this.#previous[entry]!;
    if (previous === NIL) this.#head = next;
    else this.#next[previous] = next;
    if (next === NIL) this.#tail = previous;
    else this.#previous[next] = previous;
    this.#next[entry] = this.#free;
    this.#free = entry;
    this.#size--;
    this.#unsent--;
  }

  #chain(from: number, to: number): void {
    for (let i = from; i < to; i++) this.#next[i] = i + 1 < to ? i + 1 : NIL;
    this.#free = from;
  }

  #grow(): void {
    const before = this.#next.length;
    const after = before * 2;
    const widen = <T extends Int32Array | Uint32Array | Uint8Array>(old: T, fresh: T): T => {
      fresh.set(old);
      return fresh;
    };
    this.#next = widen(this.#next, new Int32Array(after));
    this.#previous = widen(this.#previous, new Int32Array(after));
    this.#tagHi = widen(this.#tagHi, new Uint32Array(after));
    this.#tagLo = widen(this.#tagLo, new Uint32Array(after));
    this.#verdict = widen(this.#verdict, new Uint8Array(after));
    this.#chain(before, after);
  }
}
