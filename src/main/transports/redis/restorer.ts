/**
 * Gives the messages of dead consumers to others: what was taken and neither settled nor renewed within the visibility timeout
 * goes back to the front of its queue. Every consuming connection looks, ours and Python's; whoever comes first moves it.
 */
import { type KombuError, OperationalError } from '../../../errors.js';
import type { RedisOptions } from '../../../redis-options.js';
import type { Client } from './client.js';
import { errorFromRedis } from './errors.js';
import type { Exchanges } from './exchanges.js';
import type { Keys } from './keys.js';
import { isOfOne, Restoring } from './restoring.js';

export class Restorer {
  readonly #client: Client;
  readonly #keys: Keys;
  readonly #restoring: Restoring;
  readonly #options: RedisOptions;
  readonly #onError: (error: KombuError) => void;
  readonly #timer: NodeJS.Timeout;
  #looking = false;
  /** Messages put back so far. */
  restored = 0;

  constructor(
    client: Client,
    keys: Keys,
    exchanges: Exchanges,
    options: RedisOptions,
    onError: (error: KombuError) => void,
  ) {
    this.#client = client;
    this.#keys = keys;
    this.#restoring = new Restoring(client, keys, exchanges);
    this.#options = options;
    this.#onError = onError;
    const every = Math.min(options.unackedRestoreInterval, options.visibilityTimeout / 4);
    this.#timer = setInterval(() => void this.look(), Math.max(10, every));
    this.#timer.unref();
    void this.look();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** Never rejects. */
  async look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    try {
      while ((await this.#some()) === this.#options.unackedRestoreLimit);
    } catch (error) {
      const { unacked, unackedIndex } = this.#keys;
      if (this.#client.status === 'ready')
        this.#onError(
          errorFromRedis(error, `looking for messages of dead consumers in '${unacked}' and '${unackedIndex}'`),
        );
    } finally {
      this.#looking = false;
    }
  }

  async #some(): Promise<number> {
    const { unacked, unackedIndex } = this.#keys;
    const { visibilityTimeout, unackedRestoreLimit } = this.#options;
    const found = await this.#client.mozukuOverdueBuffer(
      2,
      unacked,
      unackedIndex,
      visibilityTimeout / 1000,
      unackedRestoreLimit,
    );
    const latest = found[0]!.toString();
    // Newest first, since each goes in front of those before it.
    for (let i = found.length - 2; i > 0; i -= 2) await this.#restore(latest, found[i]!.toString(), found[i + 1]!);
    return (found.length - 1) / 2;
  }

  async #restore(latest: string, tag: string, record: Buffer): Promise<void> {
    try {
      this.restored += await this.#restoring.restore(latest, tag, record);
    } catch (error) {
      // What would befall the others as well ends the look; all are looked at again.
      if (!isOfOne(error)) throw error;
      await this.#leave(tag, error);
    }
  }

  /** It cannot be put back, and must not be lost, nor stand in the way of the others. */
  async #leave(tag: string, cause: KombuError): Promise<void> {
    await this.#client.mozukuRenew(1, this.#keys.unackedIndex, tag);
    const where = `the delivery '${tag}' in '${this.#keys.unacked}'`;
    this.#onError(new OperationalError(`${where} cannot be given to another consumer: ${cause.message}`, { cause }));
  }
}
