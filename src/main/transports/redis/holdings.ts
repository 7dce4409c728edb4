/**
 * What one channel has delivered and not settled: gives delivery tags, tells the server of acks in batches, and puts back what is
 * requeued, or held at the channel's end, in the order of the deliveries.
 */
import type { KombuError } from '../../../errors.js';
import type { RedisConnection } from './connection.js';
import type { Consumption, Taken } from './consumption.js';
import { Leases } from './leases.js';

interface Held {
  readonly taken: Taken;
  readonly consumption: Consumption | undefined;
}

export class Holdings {
  readonly #redis: RedisConnection;
  readonly #onTrouble: (error: KombuError) => void;
  /** By delivery tag, in the order of the deliveries. */
  readonly #held = new Map<number, Held>();
  /** Made with the first delivery. */
  #leases: Leases | undefined;
  #lastTag = 0;
  /** Requeued in this turn: together they go back in the order of their deliveries, whatever order they were requeued in. */
  #returning: { readonly deliveryTag: number; readonly taken: Taken }[] = [];
  /** The server may not have heard yet what was requeued. */
  #requeued = false;
  #scheduled = false;

  constructor(redis: RedisConnection, onTrouble: (error: KombuError) => void) {
    this.#redis = redis;
    this.#onTrouble = onTrouble;
  }

  /** Of the last delivery. */
  get lastTag(): number {
    return this.#lastTag;
  }

  /** Gives the delivery tag. `consumption`: of whose prefetch it is a part. */
  hold(consumption: Consumption | undefined, taken: Taken, noAck: boolean): number {
    this.#lastTag++;
    if (noAck) return this.#lastTag;
    if (taken.tag !== undefined) {
      this.#leases ??= this.#makeLeases();
      this.#leases.taken(taken.tag);
    }
    this.#held.set(this.#lastTag, { taken, consumption });
    return this.#lastTag;
  }

  /** Told at the end of this turn of the event loop. */
  settle(deliveryTag: number, allUpTo: boolean, requeue: boolean): void {
    if (allUpTo) {
      for (const tag of [...this.#held.keys()]) if (tag <= deliveryTag) this.#settleOne(tag, requeue);
    } else {
      this.#settleOne(deliveryTag, requeue);
    }
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#putBack();
      this.#leases?.flush();
    });
  }

  /** Resolves when the server has heard of what was requeued until now, or cannot hear it; undefined if it has. */
  requeued(): Promise<void> | undefined {
    this.#putBack();
    if (!this.#requeued) return undefined;
    this.#requeued = false;
    return this.#leases?.told();
  }

  /** All that is held. Resolves when the server has heard it, or cannot. */
  async giveBack(): Promise<void> {
    for (const tag of [...this.#held.keys()]) this.#settleOne(tag, true);
    this.#putBack();
    await this.#leases?.told();
  }

  /** The channel is gone: what is held, or was not heard, is told over the next connection. */
  leave(): void {
    const { leftovers } = this.#redis.exchanges;
    for (const [deliveryTag, { taken }] of this.#held) {
      if (taken.tag !== undefined) this.#returning.push({ deliveryTag, taken });
    }
    this.#held.clear();
    this.#putBack();
    this.#leases?.detach();
    if (this.#leases !== undefined && this.#leases.untold > 0) leftovers.add(this.#leases);
    else this.#leases?.close();
  }

  #makeLeases(): Leases {
    const { client, keys, exchanges, options } = this.#redis;
    const leases = new Leases(keys, exchanges.lasting, options.visibilityTimeout, this.#onTrouble);
    leases.attach(client);
    return leases;
  }

  #settleOne(deliveryTag: number, requeue: boolean): void {
    const held = this.#held.get(deliveryTag);
    if (held === undefined) return;
    this.#held.delete(deliveryTag);
    const { taken, consumption } = held;
    // What was heard of a fanout exchange is recorded nowhere: its end makes room for the next, and no more.
    if (taken.tag !== undefined) {
      if (requeue) this.#returning.push({ deliveryTag, taken });
      else this.#leases!.ack(taken.tag);
    }
    consumption?.settled();
  }

  #putBack(): void {
    if (this.#returning.length === 0) return;
    const returning = this.#returning.sort((a, b) => a.deliveryTag - b.deliveryTag);
    this.#returning = [];
    this.#requeued = true;
    for (const { taken } of returning) this.#leases!.putBack(taken.tag!, taken.list, taken.envelope);
  }
}
