/**
 * The messages of a queue that wait for a consumer, in order: by priority, then by when they came. What is requeued goes back to
 * where it was.
 *
 *   priority 2   ▶ 14 ─ 15
 *   priority 1   ▶ 3 ─ 9 ─ 12           the head is the first of the highest priority that has any: 14
 *   priority 0   ▶ 1 ─ 2 ─ 5 ─ …
 *
 * Pure. Each priority is an array with a head that moves; behind the head is room for what is requeued, which is nearly always
 * older than everything that waits.
 */

export interface Ordered {
  /** The number of its arrival in this queue. */
  readonly sequence: number;
  /** 0 up to the queue's highest priority. */
  readonly level: number;
}

const SLACK = 1024;

class Level<T extends Ordered> {
  #items: (T | undefined)[] = [];
  #head = 0;

  get size(): number {
    return this.#items.length - this.#head;
  }

  get first(): T | undefined {
    return this.#items[this.#head];
  }

  push(item: T): void {
    this.#items.push(item);
  }

  shift(): T | undefined {
    if (this.size === 0) return undefined;
    const item = this.#items[this.#head];
    this.#items[this.#head++] = undefined;
    if (this.#head === this.#items.length) {
      this.#items = [];
      this.#head = 0;
    } else if (this.#head > SLACK && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }

  /** Into its place by sequence. */
  insert(item: T): void {
    let low = this.#head;
    let high = this.#items.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#items[middle]!.sequence < item.sequence) low = middle + 1;
      else high = middle;
    }
    if (this.#head === 0 && low < SLACK && this.#items.length > SLACK) {
      // Nothing before the first yet: make room for all that may come back after this one.
      this.#items = [...new Array<undefined>(SLACK), ...this.#items];
      this.#head = SLACK;
      low += SLACK;
    }
    if (this.#head > 0 && low - this.#head <= this.#items.length - low) {
      for (let i = this.#head; i < low; i++) this.#items[i - 1] = this.#items[i];
      this.#head--;
      this.#items[low - 1] = item;
    } else {
      this.#items.splice(low, 0, item);
    }
  }

  clear(): void {
    this.#items = [];
    this.#head = 0;
  }
}

export class ReadyList<T extends Ordered> {
  readonly #levels: Level<T>[];
  #size = 0;

  /** `highest`: the highest priority. */
  constructor(highest: number) {
    this.#levels = Array.from({ length: highest + 1 }, () => new Level<T>());
  }

  get size(): number {
    return this.#size;
  }

  get first(): T | undefined {
    for (let level = this.#levels.length - 1; level >= 0; level--) {
      const { first } = this.#levels[level]!;
      if (first !== undefined) return first;
    }
    return undefined;
  }

  push(item: T): void {
    this.#levels[item.level]!.push(item);
    this.#size++;
  }

  insert(item: T): void {
    this.#levels[item.level]!.insert(item);
    this.#size++;
  }

  /** Takes the first one of a priority. */
  shiftLevel(level: number): T | undefined {
    const item = this.#levels[level]!.shift();
    if (item !== undefined) this.#size--;
    return item;
  }

  clear(): void {
    for (const level of this.#levels) level.clear();
    this.#size = 0;
  }
}
