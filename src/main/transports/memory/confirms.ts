/**
 * The publisher confirms of one channel, as its client sees them: callbacks in the order of the publishes, and whoever waits for
 * all of them. What is told late is told once.
 */
import type * as amqplib from 'amqplib';

export type OnConfirm = (error: unknown, ok: amqplib.Replies.Empty) => void;

interface Waiter {
  left: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class Confirms {
  /** Callbacks of what is not confirmed, the oldest first; undefined where there is none. */
  #callbacks: (OnConfirm | undefined)[] = [];
  /** Where the oldest is: taking them out one by one would move all the others. */
  #head = 0;
  #waiters: Waiter[] = [];
  #confirmed = 0;
  #areLost = false;

  published(callback: OnConfirm | undefined): void {
    this.#callbacks.push(callback);
  }

  /** The broker has answered everything up to this tag. */
  settle(upTo: number, error: Error | null): void {
    while (this.#confirmed < upTo) {
      this.#confirmed++;
      this.#takeOldest()?.(error, {});
      for (const waiter of this.#waiters) {
        waiter.left--;
        if (error !== null) waiter.reject(error);
        else if (waiter.left === 0) waiter.resolve();
      }
      if (this.#waiters.length > 0) this.#waiters = this.#waiters.filter(({ left }) => left > 0);
    }
  }

  #takeOldest(): OnConfirm | undefined {
    const oldest = this.#callbacks[this.#head];
    this.#callbacks[this.#head++] = undefined;
    if (this.#head * 2 > this.#callbacks.length) {
      this.#callbacks = this.#callbacks.slice(this.#head);
      this.#head = 0;
    }
    return oldest;
  }

  /** The channel is closed: what is not confirmed will never be. */
  lose(): void {
    const error = new Error('channel closed');
    const lost = this.#callbacks.slice(this.#head);
    this.#callbacks = [];
    this.#head = 0;
    this.#areLost = lost.length > 0;
    for (const callback of lost) callback?.(error, {});
    for (const waiter of this.#waiters) waiter.reject(error);
    this.#waiters = [];
  }

  /** Resolves when all that is published now is confirmed; rejects at the first nack, and if the channel closes before. */
  all(): Promise<void> {
    if (this.#areLost) return Promise.reject(new Error('channel closed'));
    const left = this.#callbacks.length - this.#head;
    if (left === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiters.push({ left, resolve, reject });
    });
  }
}
