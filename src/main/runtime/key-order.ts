/**
 * Messages of one key one after another, without lanes or threads of their own: per key the chain of slots that are not yet
 * settled. Only the first of a chain is in the lane or with a worker; the others are HELD by main until it is their turn.
 *
 *   key a ▶ slot 7 (CLAIMED) ─ slot 9 (HELD) ─ slot 2 (HELD) ◀ last
 *   key b ▶ slot 4 (READY) ◀ last
 *
 * Scaling, deaths and retries need nothing here: the first stays the first, in whatever state it is. Keys are known by a hash:
 * two that share one wait for each other, which costs time and never order. Pure: knows slots by number alone.
 */
import { NONE } from '../../pool/lane.js';

/** No key: the message waits for none, and none for it. */
export const NO_KEY = -1;

export class KeyOrder {
  readonly #keys: Int32Array;
  /** The one behind, by slot. */
  readonly #behind: Int32Array;
  readonly #waiting: Uint8Array;
  readonly #last = new Map<number, number>();

  constructor(slots: number) {
    this.#keys = new Int32Array(slots).fill(NO_KEY);
    this.#behind = new Int32Array(slots).fill(NONE);
    this.#waiting = new Uint8Array(slots);
  }

  /** Keys that have unsettled messages. */
  get size(): number {
    return this.#last.size;
  }

  /** A new message. True: it may run now. False: it is chained behind others of its key. */
  join(slot: number, key: number): boolean {
    this.#keys[slot] = key;
    this.#behind[slot] = NONE;
    this.#waiting[slot] = 0;
    if (key === NO_KEY) return true;
    const before = this.#last.get(key);
    this.#last.set(key, slot);
    if (before === undefined) return true;
    this.#behind[before] = slot;
    this.#waiting[slot] = 1;
    return false;
  }

  /** The first of its chain is settled. Returns the one whose turn it is, or NONE. */
  leave(slot: number): number {
    const key = this.#keys[slot]!;
    if (key === NO_KEY) return NONE;
    const next = this.#behind[slot]!;
    this.#keys[slot] = NO_KEY;
    this.#behind[slot] = NONE;
    if (next === NONE) this.#last.delete(key);
    else this.#waiting[next] = 0;
    return next;
  }

  /** True if it has a key and is not the first of its chain: whoever is, is READY, claimed or in main's hands. */
  waits(slot: number): boolean {
    return this.#waiting[slot] === 1;
  }

  /** The first of its chain has moved to another slot. */
  moved(from: number, to: number): void {
    const key = this.#keys[from]!;
    this.#keys[to] = key;
    this.#behind[to] = this.#behind[from]!;
    if (key !== NO_KEY && this.#last.get(key) === from) this.#last.set(key, to);
    this.#keys[from] = NO_KEY;
    this.#behind[from] = NONE;
  }

  /**
   * What waits is withdrawn, all of it. The slots in `kept`, of each key one at most, keep their keys busy: what comes next of
   * such a key waits for them.
   */
  keepOnly(kept: ReadonlySet<number>): void {
    this.#last.clear();
    for (let slot = 0; slot < this.#keys.length; slot++) {
      const key = this.#keys[slot]!;
      if (key === NO_KEY) continue;
      this.#behind[slot] = NONE;
      this.#waiting[slot] = 0;
      if (kept.has(slot)) this.#last.set(key, slot);
      else this.#keys[slot] = NO_KEY;
    }
  }
}
