/** Keeps what must arrive, and what has: by number, so that a message handled twice cannot stand in for one that was lost. */

export interface Verdict {
  readonly handled: number;
  readonly missing: number;
  readonly twice: number;
  readonly harmed: number;
}

export class Book {
  readonly #expected: Uint32Array;
  readonly #sound: Uint8Array;
  readonly #seen: Uint8Array;
  #harmed = 0;

  /** Messages are numbered from 0 to `count` - 1. */
  constructor(count: number) {
    this.#expected = new Uint32Array(count);
    this.#sound = new Uint8Array(count);
    this.#seen = new Uint8Array(count);
  }

  /** Message `id` is published and must be handled with this fingerprint. One that is not expected must never be. */
  expect(id: number, fingerprint: number): void {
    this.#expected[id] = fingerprint;
    this.#sound[id] = 1;
  }

  handled(id: number, fingerprint: number): void {
    this.#seen[id] = Math.min(255, this.#seen[id]! + 1);
    if (this.#sound[id] !== 1 || this.#expected[id] !== fingerprint) this.#harmed++;
  }

  verdict(): Verdict {
    const result = { handled: 0, missing: 0, twice: 0, harmed: this.#harmed };
    for (const [id, seen] of this.#seen.entries()) {
      if (seen > 0) result.handled++;
      if (seen > 1) result.twice++;
      if (seen === 0 && this.#sound[id] === 1) result.missing++;
    }
    return result;
  }
}
