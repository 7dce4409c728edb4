/** What an inline consumer has been given and has not settled: to give all of it back, and to know what came too late. */
import type * as amqplib from 'amqplib';
import type { Settle } from '../message.js';
import type { Channel } from './entities/channel.js';
import { settleOn } from './entities/delivery.js';

export interface Held {
  readonly channel: Channel;
  readonly raw: amqplib.Message;
  /** Given back over its callback's head: a settlement changes nothing. */
  givenBack: boolean;
}

export class Unsettled {
  /** In the order of their coming. */
  readonly #held = new Set<Held>();
  /** Settlements that came too late. */
  stale = 0;

  add(channel: Channel, raw: amqplib.Message): Held {
    const held = { channel, raw, givenBack: false };
    this.#held.add(held);
    return held;
  }

  settle(held: Held): Settle {
    const late = (): void => {
      this.stale++;
    };
    const tell = settleOn(held.channel, held.raw, false, late);
    return (outcome, multiple) => {
      if (held.givenBack) {
        late();
        return;
      }
      tell(outcome, multiple);
      this.#held.delete(held);
      if (multiple) this.#forget(held);
    };
  }

  /** Gives everything back to its queue, oldest first. */
  giveBack(): void {
    for (const held of this.#held) {
      held.givenBack = true;
      if (!held.channel.closed) held.channel.raw.reject(held.raw, true);
    }
    this.#held.clear();
  }

  /** The channel is gone: the broker gives these to somebody else. */
  lost(channel: Channel): void {
    for (const held of this.#held) if (held.channel === channel) this.#held.delete(held);
  }

  /** Those before it went with it. */
  #forget({ channel, raw }: Held): void {
    for (const held of this.#held) {
      if (held.channel === channel && held.raw.fields.deliveryTag < raw.fields.deliveryTag) this.#held.delete(held);
    }
  }
}
