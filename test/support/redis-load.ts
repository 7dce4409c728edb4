/** A publisher for the soaks of Redis that never stops. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection, type ConnectionOptions } from '#src/index';

/** Publishes so many a second until it is stopped; what is not confirmed, again under the same id. */
export class LoadPublisher implements AsyncDisposable {
  /** By id: when its confirm came, by `performance.now()`. */
  readonly confirmed = new Map<string, number>();
  /** Sent more than once, since no confirm came. */
  readonly unsure = new Set<string>();
  readonly #connection: Connection;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;

  constructor(url: string, queue: string, perSecond: number, options: ConnectionOptions = {}) {
    this.#connection = new Connection(url, options);
    this.#running = this.#run(queue, perSecond);
    // told by stop()
    this.#running.catch(() => undefined);
  }

  /** All that was begun is confirmed when this resolves. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
    await this.#connection.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    await this.#connection.close();
  }

  async #run(queue: string, perSecond: number): Promise<void> {
    const producer = this.#connection.Producer({ routingKey: queue });
    const begun: Promise<void>[] = [];
    const started = performance.now();
    const send = async (id: string): Promise<void> => {
      for (const until = performance.now() + 120_000; ; ) {
        try {
          await producer.publish({ id, do: 'sleep', ms: 20 }, { messageId: id, timeout: 5_000 });
          this.confirmed.set(id, performance.now());
          return;
        } catch (error) {
          // whatever the server's state is just now: the next attempt says the same or works
          this.unsure.add(id);
          if (performance.now() > until) throw error;
          await sleep(20);
        }
      }
    };
    for (let i = 0; !this.#stopping.signal.aborted; ) {
      const due = ((performance.now() - started) * perSecond) / 1000;
      // not more at a time than a server takes that was away
      for (; i < due && i - this.confirmed.size < 2000; i++) begun.push(send(`m-${i}`));
      await sleep(10);
    }
    await Promise.all(begun);
  }
}
