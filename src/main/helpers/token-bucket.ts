/** How often something may be done. */
import { OptionError } from '../../errors.js';

/** A bucket that holds `capacity` tokens, full at first, and gets `fillRate` of them a second. */
export class TokenBucket {
  readonly fillRate: number;
  readonly capacity: number;
  readonly #now: () => number;
  #tokens: number;
  #at: number;

  /** `now`: a clock in milliseconds. Throws `OptionError`. */
  constructor(fillRate: number, capacity = 1, now: () => number = () => performance.now()) {
    if (!(Number.isFinite(fillRate) && fillRate > 0) || !(Number.isFinite(capacity) && capacity > 0)) {
      throw new OptionError('TokenBucket: the fill rate and the capacity must be numbers over 0');
    }
    this.fillRate = fillRate;
    this.capacity = capacity;
    this.#now = now;
    this.#tokens = capacity;
    this.#at = now();
  }

  /** Takes so many tokens if they are there, else none. */
  canConsume(tokens = 1): boolean {
    this.#fill();
    if (tokens > this.#tokens) return false;
    this.#tokens -= tokens;
    return true;
  }

  /** Milliseconds until so many tokens are there. */
  expectedTime(tokens = 1): number {
    this.#fill();
    return (Math.max(0, tokens - this.#tokens) / this.fillRate) * 1000;
  }

  #fill(): void {
    const now = this.#now();
    this.#tokens = Math.min(this.capacity, this.#tokens + ((now - this.#at) / 1000) * this.fillRate);
    this.#at = now;
  }
}
