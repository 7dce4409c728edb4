/**
 * Who of a queue's consumers gets the next message: the highest priority that has room, in turn among equals; with a single
 * active consumer nobody but the oldest.
 */

/** One basic.consume. */
export interface QueueConsumer<Item> {
  readonly priority: number;
  readonly exclusive: boolean;
  /** Takes the message, or has no room for it (false). Must not come back to the queue before it has returned. */
  offer(item: Item): boolean;
  /** The queue is gone. */
  cancelled(): void;
}

export class Consumers<Item> {
  /** Highest priority first; among equals the one that waits longest. */
  #list: QueueConsumer<Item>[] = [];
  readonly #single: boolean;

  constructor(singleActive: boolean) {
    this.#single = singleActive;
  }

  get size(): number {
    return this.#list.length;
  }

  get exclusive(): boolean {
    return this.#list[0]?.exclusive ?? false;
  }

  get all(): readonly QueueConsumer<Item>[] {
    return [...this.#list];
  }

  add(consumer: QueueConsumer<Item>): void {
    if (this.#single) this.#list.push(consumer);
    else this.#insert(consumer);
  }

  remove(consumer: QueueConsumer<Item>): void {
    this.#list = this.#list.filter((each) => each !== consumer);
  }

  clear(): void {
    this.#list = [];
  }

  /** True if somebody took it. */
  offer(item: Item): boolean {
    const list = this.#list;
    const count = this.#single ? Math.min(1, list.length) : list.length;
    for (let i = 0; i < count; i++) {
      const consumer = list[i]!;
      if (!consumer.offer(item)) continue;
      if (count > 1) {
        list.splice(i, 1);
        this.#insert(consumer);
      }
      return true;
    }
    return false;
  }

  /** Behind all that have its priority or a higher one. */
  #insert(consumer: QueueConsumer<Item>): void {
    let at = this.#list.length;
    while (at > 0 && this.#list[at - 1]!.priority < consumer.priority) at--;
    this.#list.splice(at, 0, consumer);
  }
}
