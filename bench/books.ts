/**
 * The replay broker's books: which delivery tags are settled, exactly and by the rules RabbitMQ applies. A settlement
 * of an unknown tag is an error there (406, the channel closes), so it is one here.
 */

export type Verdict = 'acked' | 'rejected' | 'requeued';

export class Books {
  readonly counts: Record<Verdict, number> = { acked: 0, rejected: 0, requeued: 0 };
  settled = 0;
  frames = 0;
  readonly #flags: Uint8Array;
  /** Every tag below this one is settled. */
  #floor = 1;

  constructor(count: number) {
    this.#flags = new Uint8Array(count + 2);
  }

  /** Returns what is wrong with the settlement, or nothing. `delivered` is the highest tag sent so far. */
  settle(tag: number, multiple: boolean, verdict: Verdict, delivered: number): string | undefined {
    this.frames++;
    if (multiple && tag === 0) {
      if (this.#floor > delivered) return undefined;
      this.#settleThrough(delivered, verdict);
      return undefined;
    }
    if (tag < 1 || tag > delivered) return `unknown delivery tag ${tag}, ${delivered} delivered`;
    if (this.#flags[tag] === 1) return `delivery tag ${tag} was settled before`;
    if (multiple) {
      this.#settleThrough(tag, verdict);
    } else {
      this.#flags[tag] = 1;
      this.settled++;
      this.counts[verdict]++;
    }
    while (this.#flags[this.#floor] === 1) this.#floor++;
    return undefined;
  }

  #settleThrough(tag: number, verdict: Verdict): void {
    let fresh = 0;
    for (let at = this.#floor; at <= tag; at++) {
      if (this.#flags[at] === 0) fresh++;
      this.#flags[at] = 1;
    }
    this.settled += fresh;
    this.counts[verdict] += fresh;
    this.#floor = Math.max(this.#floor, tag + 1);
  }
}
