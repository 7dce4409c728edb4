/** The other end of parse.ts: puts together what its threads have counted. */
import { BroadcastChannel } from 'node:worker_threads';
import type { TallyCounts } from '../protocol.js';
import { Tally } from '../tally.js';
import { TALLY_CHANNEL } from './tally-channel.js';

/** How long the threads may take to hand in their counts once the consumer is closed. */
const COUNTS_MS = 2000;

export class ThreadTallies {
  readonly #tally = new Tally();
  readonly #channel = new BroadcastChannel(TALLY_CHANNEL);
  #threads = 0;

  constructor() {
    this.#channel.onmessage = (event) => {
      this.#threads++;
      this.#tally.merge((event as unknown as { data: TallyCounts }).data);
    };
  }

  /** Resolves with the counts of so many threads, or of those that have handed theirs in in time. */
  async collect(threads: number): Promise<TallyCounts> {
    const deadline = performance.now() + COUNTS_MS;
    while (this.#threads < threads && performance.now() < deadline) await new Promise((next) => setTimeout(next, 5));
    this.#channel.close();
    return this.#tally.counts();
  }
}
