/** A prefetch count that several parts of a program raise and lower, and that is told to the broker when it suits. */
import { OptionError } from '../../errors.js';
import { kinds, type OptionTable, readOptions } from '../../options.js';

/** AMQP's field has 16 bits. */
const PREFETCH_COUNT_MAX = 0xffff;

export interface QoSOptions {
  readonly maxPrefetch?: number;
}

export const QOS_OPTIONS: OptionTable<QoSOptions> = {
  maxPrefetch: {
    kind: kinds.integer(1, Number.MAX_SAFE_INTEGER),
    defaultWords: 'none',
    doc: '`incrementEventually` does not go beyond.',
  },
};

export class QoS {
  /** The count as it should be; 0: no limit, which stays so. */
  value: number;
  /** The count that was told last. */
  prev: number | undefined;
  readonly maxPrefetch: number | undefined;
  readonly #callback: (qos: { prefetchCount: number }) => unknown;
  #telling: Promise<void> = Promise.resolve();

  /** `callback` tells the broker, as `consumer.qos` does; its promise is waited for. Throws `OptionError`. */
  constructor(callback: (qos: { prefetchCount: number }) => unknown, initialValue = 0, options: QoSOptions = {}) {
    if (typeof callback !== 'function') throw new OptionError('QoS: the first argument must be a function');
    mustBeCount('the initial value', initialValue);
    this.#callback = callback;
    this.value = initialValue;
    this.maxPrefetch = readOptions('QoS', QOS_OPTIONS, options).maxPrefetch;
  }

  /** Raises the value, and tells nobody: `update()` does. A negative `n` counts as 0. */
  incrementEventually(n = 1): number {
    mustBeWhole('what is added', n);
    if (this.value > 0) this.value = Math.min(this.value + Math.max(n, 0), this.maxPrefetch ?? Number.MAX_SAFE_INTEGER);
    return this.value;
  }

  /** Lowers the value, to 1 at least, and tells nobody. */
  decrementEventually(n = 1): number {
    mustBeWhole('what is taken off', n);
    if (this.value > 0) this.value = Math.max(this.value - n, 1);
    return this.value;
  }

  /**
   * Tells `count`, unless it is what was told last; resolves with it. Over 65535 the broker is told 0, no limit, with a warning
   * of the process. Calls are carried out one after another. Rejects with what the callback throws; then it counts as not told.
   */
  async set(count: number): Promise<number> {
    mustBeCount('the count', count);
    const telling = this.#telling.then(() => this.#tell(count));
    this.#telling = telling.catch(() => undefined);
    await telling;
    return count;
  }

  /** Tells the value. */
  update(): Promise<number> {
    return this.set(this.value);
  }

  async #tell(count: number): Promise<void> {
    if (count === this.prev) return;
    const over = count > PREFETCH_COUNT_MAX;
    if (over) {
      const text = `QoS: no limit is set, since a prefetch count of ${count} exceeds ${PREFETCH_COUNT_MAX}`;
      process.emitWarning(text, { type: 'MozukuWarning' });
    }
    await this.#callback({ prefetchCount: over ? 0 : count });
    this.prev = count;
  }
}

function mustBeWhole(what: string, n: unknown): void {
  if (!Number.isSafeInteger(n)) throw new OptionError(`QoS: ${what} must be a whole number`);
}

function mustBeCount(what: string, count: unknown): void {
  if (!kinds.integer(0, Number.MAX_SAFE_INTEGER).test(count)) {
    throw new OptionError(`QoS: ${what} must be a whole number from 0`);
  }
}
