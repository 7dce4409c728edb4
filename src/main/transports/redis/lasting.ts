/**
 * Queues that are gone some time after nobody has used them (`expires`): known to whoever declared them, as in kombu, and kept by
 * the TTL of their lists. For a publish to an exchange, those that it may reach by bindings of this process.
 */
export class Lasting {
  readonly #milliseconds = new Map<string, number>();
  /** By exchange and routing key: queues that this process bound, whether they last or not. */
  readonly #bound = new Map<string, Map<string, Set<string>>>();

  /** Queues that are known here. */
  get size(): number {
    return this.#milliseconds.size;
  }

  get(queue: string): number | undefined {
    return this.#milliseconds.get(queue);
  }

  set(queue: string, milliseconds: number): void {
    this.#milliseconds.set(queue, milliseconds);
  }

  delete(queue: string): void {
    this.#milliseconds.delete(queue);
  }

  bound(exchange: string, routingKey: string, queue: string): void {
    const keys = this.#bound.get(exchange) ?? new Map<string, Set<string>>();
    this.#bound.set(exchange, keys);
    keys.set(routingKey, (keys.get(routingKey) ?? new Set()).add(queue));
  }

  unbound(exchange: string, routingKey: string, queue: string): void {
    const keys = this.#bound.get(exchange);
    const queues = keys?.get(routingKey);
    if (queues?.delete(queue) !== true || queues.size > 0) return;
    keys!.delete(routingKey);
    if (keys!.size === 0) this.#bound.delete(exchange);
  }

  exchangeDeleted(exchange: string): void {
    this.#bound.delete(exchange);
  }

  /** Name and milliseconds of each that is bound to the exchange: for this routing key, or, of a topic exchange, for any. */
  of(exchange: string, routingKey: string, isTopic: boolean): (string | number)[] {
    const keys = this.#bound.get(exchange);
    if (keys === undefined || this.size === 0) return [];
    const found = new Map<string, number>();
    for (const queues of isTopic ? keys.values() : [keys.get(routingKey) ?? []]) {
      for (const queue of queues) {
        const milliseconds = this.get(queue);
        if (milliseconds !== undefined) found.set(queue, milliseconds);
      }
    }
    return [...found].flat();
  }
}
