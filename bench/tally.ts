/**
 * Counts handled messages by their ids, so that a message handled twice cannot stand in for one that was lost: the
 * number, the sum, and the sum of squares all have to agree with what was delivered.
 */
import { FIRST_ID, type TallyCounts } from './protocol.js';

export class Tally {
  #count = 0;
  #sum = 0;
  #squares = 0;

  add(id: number): void {
    this.#count++;
    this.#sum += id;
    this.#squares = (this.#squares + Math.imul(id, id)) | 0;
  }

  /** Takes the counts of another thread. */
  merge(other: TallyCounts): void {
    this.#count += other.count;
    this.#sum += other.sum;
    this.#squares = (this.#squares + other.squares) | 0;
  }

  counts(): TallyCounts {
    return { count: this.#count, sum: this.#sum, squares: this.#squares };
  }
}

/** What a peer that handled each of `count` deliveries once must have counted. */
export function expected(count: number): TallyCounts {
  const tally = new Tally();
  for (let tag = 1; tag <= count; tag++) tally.add(FIRST_ID + tag);
  return tally.counts();
}

/** The id of a decoded body; a body that is none fails the run. */
export function idOf(body: unknown): number {
  if (typeof body === 'object' && body !== null && 'id' in body && typeof body.id === 'number') return body.id;
  throw new TypeError('a body without an id');
}
