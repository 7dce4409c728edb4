/**
 * What is published in a campaign: ids `key:sequence`, one key's messages one after another, each until it is confirmed. Some are
 * poison: their callbacks throw, end their thread, or never let it go; they belong into the dead letters, and nothing else does.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection, type ConnectionOptions } from '#src/index';
import type { Random } from '../support/random.js';

export const KEYS = 40;

/** One of so many messages is poison of a kind; those that cost a thread are rarer. */
const POISON = [
  { order: 'throw', one: 150 },
  { order: 'exit', one: 1500 },
  { order: 'loop', one: 3000 },
] as const;

export class Load implements AsyncDisposable {
  /** By id: when its confirm came, microseconds of `process.hrtime`. */
  readonly confirmed = new Map<string, number>();
  /** Sent more than once, since no confirm came: they may be there twice. */
  readonly unsure = new Set<string>();
  /** Ids that are to be dead letters. */
  readonly poison = new Set<string>();
  readonly #connection: Connection;
  readonly #stopping = new AbortController();
  readonly #running: Promise<unknown>;
  readonly #random: Random;
  #budget = 0;

  /** `perSecond`: of all keys together; `room`: whether more may be published now. */
  constructor(url: string, queue: string, { perSecond, random, room, options = {} }: LoadOptions) {
    this.#random = random;
    this.#connection = new Connection(url, options);
    const keys = Array.from({ length: KEYS }, (_, key) => this.#runKey(queue, key, room));
    this.#running = Promise.all([...keys, this.#pace(perSecond)]);
    // Told by stop().
    this.#running.catch(() => undefined);
  }

  /** All that was begun is confirmed when this has resolved. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
    await this.#connection.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    await this.#connection.close();
  }

  async #pace(perSecond: number): Promise<void> {
    let at = performance.now();
    while (!this.#stopping.signal.aborted) {
      await sleep(10);
      const time = performance.now();
      this.#budget = Math.min(perSecond, this.#budget + ((time - at) * perSecond) / 1000);
      at = time;
    }
  }

  async #runKey(queue: string, key: number, room: () => boolean): Promise<void> {
    const producer = this.#connection.Producer({ routingKey: queue });
    for (let sequence = 0; !this.#stopping.signal.aborted; sequence++) {
      while (!this.#stopping.signal.aborted && (this.#budget < 1 || !room())) await sleep(20);
      if (this.#stopping.signal.aborted) return;
      this.#budget--;
      const id = `${key}:${sequence}`;
      const order = POISON.find(({ one }) => this.#random.between(1, one) === 1)?.order;
      if (order !== undefined) this.poison.add(id);
      const body = order === undefined ? { id, do: 'busy', ms: 0.2 } : { id, do: order };
      for (let attempt = 1; ; attempt++) {
        try {
          await producer.publish(body, { messageId: id, headers: { key }, timeout: 5000 });
          this.confirmed.set(id, Number(process.hrtime.bigint() / 1000n));
          break;
        } catch (error) {
          // Whatever the broker's state is just now: the next attempt says the same or works.
          this.unsure.add(id);
          if (attempt > 200) throw error;
          await sleep(100);
        }
      }
    }
  }
}

interface LoadOptions {
  readonly perSecond: number;
  readonly random: Random;
  readonly room: () => boolean;
  readonly options?: ConnectionOptions;
}
