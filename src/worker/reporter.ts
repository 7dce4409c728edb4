/**
 * Failures on their way to main's `failed` event: in full up to 100 a second, beyond that as counts by the error's name.
 * A handler that fails on every message must not drown the main thread.
 */
import type { FromWorker } from '../pool/worker-protocol.js';

const FULL_PER_SECOND = 100;
const SECOND = 1_000_000;

export class FailureReporter {
  readonly #post: (message: FromWorker) => void;
  #windowStart = 0;
  #inWindow = 0;
  #counts: Record<string, number> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(post: (message: FromWorker) => void) {
    this.#post = post;
  }

  /** `now`: microseconds. `detail` makes the full report, only if there is room for it. */
  report(now: number, name: string, detail: () => FromWorker): void {
    if (now - this.#windowStart >= SECOND) {
      this.#windowStart = now;
      this.#inWindow = 0;
    }
    if (this.#inWindow < FULL_PER_SECOND) {
      this.#inWindow++;
      this.#post(detail());
      return;
    }
    this.#counts ??= Object.create(null) as Record<string, number>;
    this.#counts[name] = (this.#counts[name] ?? 0) + 1;
    this.#timer ??= setTimeout(() => this.flush(), 1000);
  }

  /** Sends the counts that are waiting. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#counts === undefined) return;
    const counts = this.#counts;
    this.#counts = undefined;
    this.#post({ type: 'failures', counts: { ...counts } });
  }
}
