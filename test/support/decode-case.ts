// Damage to bodies, the same for the same seed: what transports, broken writers and attackers make of them.

export class DecodeCase {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** A whole number below `limit` (mulberry32). */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return Math.floor((((value ^ (value >>> 14)) >>> 0) / 2 ** 32) * limit);
  }

  /** One to four edits: a bit, a byte, a cut, a piece left out, a piece twice. Every second time near the start. */
  mutate(good: Buffer): Buffer {
    let bytes = Buffer.from(good);
    for (let edits = 1 + this.below(4); edits > 0 && bytes.length > 0; edits--) {
      const at = this.below(this.below(2) === 0 ? Math.min(bytes.length, 40) : bytes.length);
      switch (this.below(6)) {
        case 0:
          bytes[at]! ^= 1 << this.below(8);
          break;
        case 1:
        case 2:
          bytes[at] = this.below(256);
          break;
        case 3:
          bytes = bytes.subarray(0, at);
          break;
        case 4:
          bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + this.below(20))]);
          break;
        default:
          bytes = Buffer.concat([bytes.subarray(0, at + this.below(20)), bytes.subarray(at)]);
      }
    }
    return bytes;
  }
}
