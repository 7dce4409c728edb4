/** What an inline consumer has been given and has not settled: to give all of it back, and to know what came too late. */
import type * as amqplib from 'amqplib';
import type { Settle } from '../message.js';
import { Chain, type Link } from '../pool/chain.js';
import type { Channel } from './entities/channel.js';
import { settleOn } from './entities/delivery.js';

export interface Held {
  readonly channel: Channel;
  readonly raw: amqplib.Message;
  /** Given back over its callback's head: a settlement changes nothing. */
  givenBack: boolean;
  /** Its place, until it is settled. */
  link?: Link<Held>;
}

export class Unsettled {
  /** In the order of their coming. */
  readonly #held = new Chain<Held>();
  /** Settlements that came too late. */
  stale = 0;

  add(channel: Channel, raw: amqplib.Message): Held {
    const held: Held = { channel, raw, givenBack: false };
    held.link = this.#held.push(held);
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
      held.link?.remove();
      if (multiple) this.#forget(held);
    };
  }

  /** Gives everything back to its queue, oldest first. */
  giveBack(): void {
    for (const held of [...this.#held]) {
      held.givenBack = true;
      held.link?.remove();
      if (!held.channel.closed) held.channel.raw.reject(held.raw, true);
    }
  }

  /** The channel is gone: the broker gives these to somebody else. */
  lost(channel: Channel): void {
    for (const held of [...this.#held]) if (held.channel === channel) held.link?.remove();
  }

  /** Those before it went with it. */
  #forget({ channel, raw }: Held): void {
    for (const held of [...this.#held]) {
      if (held.channel === channel && held.raw.fields.deliveryTag < raw.fields.deliveryTag) held.link?.remove();
    }
  }
}
