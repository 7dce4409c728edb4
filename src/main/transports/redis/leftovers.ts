/**
 * What channels of this process held, or had not told, when their connection was lost: put back over the next connection to the same
 * place, as a broker does that notices the loss. Without one it comes back when its lease is over. And queues whose names nobody
 * knows any more: they would gather messages for ever.
 */
import type { RedisConnection } from './connection.js';
import type { Leases } from './leases.js';
import { Restoring } from './restoring.js';

export class Leftovers {
  readonly #leases = new Set<Leases>();
  readonly #tags = new Set<string>();
  /** Queues that were declared without a name: declared again they have another one, and these are to be deleted. */
  readonly queues = new Set<string>();

  /** They are told, and closed then. */
  add(leases: Leases): void {
    this.#leases.add(leases);
  }

  /** Takes whose answer was lost: nobody knows of what they have recorded. */
  unsure(tags: Iterable<string>): void {
    for (const tag of tags) this.#tags.add(tag);
  }

  /** Rejects if the connection does not last; what is left then waits for the next one. */
  async giveBack({ client, keys, exchanges }: RedisConnection): Promise<void> {
    const tags = [...this.#tags];
    this.#tags.clear();
    const all = [...this.#leases];
    this.#leases.clear();
    try {
      await new Restoring(client, keys, exchanges).reclaim(tags);
    } catch (error) {
      this.unsure(tags);
      throw error;
    } finally {
      for (const leases of all) {
        leases.attach(client);
        await leases.told();
        leases.detach();
        if (leases.untold > 0) this.#leases.add(leases);
        else leases.close();
      }
    }
  }
}
