/**
 * Which fanout exchanges each queue is bound to: known to this process only, as all of exchanges is. Whoever listens for a queue
 * follows its bindings as they come and go.
 */
export interface FanoutBinding {
  readonly exchange: string;
  readonly routingKey: string;
}

/** Must not reject: whoever binds a queue has nothing to do with those who listen for it. */
type Follower = () => Promise<void>;

export class FanoutBindings {
  readonly #ofQueue = new Map<string, FanoutBinding[]>();
  readonly #followers = new Map<string, Set<Follower>>();

  has(queue: string): boolean {
    return this.#ofQueue.has(queue);
  }

  /** Somebody in this process listens for it. */
  isHeard(queue: string): boolean {
    return this.#followers.has(queue);
  }

  of(queue: string): readonly FanoutBinding[] {
    return this.#ofQueue.get(queue) ?? [];
  }

  /** Resolves when those who listen hear the exchange, or cannot now. */
  async add(queue: string, exchange: string, routingKey: string): Promise<void> {
    const before = this.of(queue);
    if (before.some((each) => each.exchange === exchange && each.routingKey === routingKey)) return;
    await this.#change(queue, [...before, { exchange, routingKey }]);
  }

  async remove(queue: string, exchange: string, routingKey: string): Promise<void> {
    await this.#keep(queue, (each) => each.exchange !== exchange || each.routingKey !== routingKey);
  }

  async removeQueue(queue: string): Promise<void> {
    await this.#keep(queue, () => false);
  }

  async removeExchange(exchange: string): Promise<void> {
    for (const queue of [...this.#ofQueue.keys()]) await this.#keep(queue, (each) => each.exchange !== exchange);
  }

  /** Calls `follower` after each change of the queue's bindings. Gives what ends that. */
  follow(queue: string, follower: Follower): () => void {
    const followers = this.#followers.get(queue) ?? new Set();
    this.#followers.set(queue, followers.add(follower));
    return () => {
      if (followers.delete(follower) && followers.size === 0) this.#followers.delete(queue);
    };
  }

  async #keep(queue: string, isKept: (binding: FanoutBinding) => boolean): Promise<void> {
    const before = this.of(queue);
    const after = before.filter(isKept);
    if (after.length < before.length) await this.#change(queue, after);
  }

  async #change(queue: string, bindings: FanoutBinding[]): Promise<void> {
    if (bindings.length > 0) this.#ofQueue.set(queue, bindings);
    else this.#ofQueue.delete(queue);
    await Promise.all([...(this.#followers.get(queue) ?? [])].map((follower) => follower()));
  }
}
