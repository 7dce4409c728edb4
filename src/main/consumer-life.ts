/** How an inline consumer's life ends, and how its errors are told. */
import type { EventEmitter } from 'node:events';
import type { Message } from '../message.js';
import type { ConsumerEvents } from './consumer-options.js';
import { describeThrown, warn } from './entities/safely.js';

/** One life of an inline consumer: from `consume()`, or from its making, to what ends it. The next `consume()` begins another. */
export class ConsumerLife {
  /** What ended it, if that was no `close()`. */
  failure: Error | undefined;
  /** Somebody has asked for `end`, and hears of a failure by it. */
  observed = false;
  #over = false;
  #settle!: (error: Error | undefined) => void;
  readonly #end: Promise<void>;

  constructor() {
    this.#end = new Promise((resolve, reject) => {
      this.#settle = (error) => (error === undefined ? resolve() : reject(error));
    });
    // Whoever awaits it hears of it all the same.
    this.#end.catch(() => undefined);
  }

  get over(): boolean {
    return this.#over;
  }

  get end(): Promise<void> {
    this.observed = true;
    return this.#end;
  }

  /** Only the first end counts. */
  finish(error?: Error): void {
    if (this.#over) return;
    this.#over = true;
    this.failure = error;
    this.#settle(error);
  }
}

/** By 'error', or failing listeners by a warning of the process. What a listener throws it throws on its own. */
export function tellError(consumer: EventEmitter<ConsumerEvents>, error: unknown, message: Message | undefined): void {
  if (consumer.listenerCount('error') > 0) {
    try {
      consumer.emit('error', error, message);
    } catch (thrown) {
      // amqplib, which may have called us, would take it for a broken connection.
      process.nextTick(() => {
        throw thrown;
      });
    }
    return;
  }
  const { queue } = message?.deliveryInfo ?? {};
  const where = queue === undefined ? '' : ` (a message of queue '${queue}', which stays unsettled)`;
  warn(`a consumer without an 'error' listener failed: ${describeThrown(error)}${where}`);
}
