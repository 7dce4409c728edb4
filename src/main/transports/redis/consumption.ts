/** Messages of one queue for one consumer of a channel: taken from its lists, or heard of its fanout exchange. */
import { randomUUID } from 'node:crypto';
import type { KombuError } from '../../../errors.js';
import { withDeadline } from '../../deadline.js';
import type { RedisConnection } from './connection.js';
import { errorOfReply } from './errors.js';
import { recordEnd } from './record.js';
import { TAKE_TIMEOUT, Taker } from './taker.js';

export interface Taken {
  /** Of the record; undefined: there is none. */
  readonly tag: string | undefined;
  /** Where it goes back to. */
  readonly list: string;
  readonly envelope: Buffer;
}

export interface ConsumptionOptions {
  readonly queue: string;
  readonly noAck: boolean;
  /** 0: no limit. */
  readonly prefetch: number;
  readonly onTaken: (taken: Taken) => void;
  readonly onTrouble: (error: KombuError) => void;
}

/** Of one take, where there is no prefetch: then the event loop has its turn. */
const UNLIMITED = 64;
const MOST_BYTES = 1024 * 1024;

export class Consumption {
  readonly #redis: RedisConnection;
  readonly #options: ConsumptionOptions;
  #taker: Taker | undefined;
  #unsubscribe: (() => Promise<void>) | undefined;
  #unsettled = 0;

  constructor(redis: RedisConnection, options: ConsumptionOptions) {
    this.#redis = redis;
    this.#options = options;
  }

  async start(): Promise<void> {
    const { client, keys, exchanges, parameters, canBlock, subscriptions } = this.#redis;
    const { queue, noAck, prefetch, onTaken, onTrouble } = this.#options;
    const fanout = exchanges.fanoutQueues.get(queue);
    const [first] = keys.lists(queue);
    if (fanout !== undefined) {
      const channel = keys.subscription(fanout.exchange, fanout.routingKey);
      this.#unsubscribe = await subscriptions.subscribe(channel, (envelope) => {
        onTaken({ tag: undefined, list: first!, envelope });
      });
      return;
    }
    const tagPrefix = `${randomUUID()}:`;
    const lists = keys.lists(queue);
    const options = { parameters, keys, queues: [queue], tagPrefix, firstTag: 1, noAck, rotate: false, canBlock };
    this.#taker = new Taker(client, options, {
      room: () => (noAck || prefetch === 0 ? UNLIMITED : prefetch - this.#unsettled),
      bytes: () => MOST_BYTES,
      deliver: (_queue, list, number, envelope) => {
        if (!noAck) this.#unsettled++;
        onTaken({ tag: noAck ? undefined : `${tagPrefix}${number}`, list: lists[list]!, envelope });
      },
      delivered: () => undefined,
      failed: onTrouble,
    });
    this.#taker.wake();
  }

  /** One of its messages was settled. */
  settled(): void {
    this.#unsettled--;
    this.#taker?.wake();
  }

  /** Of what may be recorded without our hearing of it; to ask for when the connection is lost. */
  get unsure(): string[] {
    return this.#taker?.unsure ?? [];
  }

  /** No more messages once this has resolved. */
  async stop(): Promise<void> {
    await Promise.all([this.#taker?.stop(), this.#unsubscribe?.()]);
  }

  /** One message of the queue, if it has any. */
  static async one(redis: RedisConnection, queue: string, noAck: boolean): Promise<Taken | undefined> {
    const { client, keys } = redis;
    const tagPrefix = `${randomUUID()}:`;
    const lists = keys.lists(queue);
    const args = [keys.unacked, keys.unackedIndex, ...lists, 1, 1, tagPrefix, 1, noAck ? '1' : '', 1, 1];
    let found: (number | Buffer)[];
    try {
      const asked = client.mozukuTakeBuffer(2 + lists.length, ...args, recordEnd(queue), ...lists.map(() => 1));
      found = await withDeadline(asked, `taking a message of the queue '${queue}'`, TAKE_TIMEOUT);
    } catch (error) {
      if (!noAck) redis.exchanges.leftovers.unsure([`${tagPrefix}1`]);
      throw error;
    }
    // Lists that cannot be read come with their error, and need not be the last.
    const at = found.findIndex((each) => typeof each === 'number' && each > 0);
    if (at >= 0) {
      const tag = noAck ? undefined : `${tagPrefix}1`;
      return { tag, list: lists[(found[at] as number) - 1]!, envelope: found[at + 1] as Buffer };
    }
    if (found.length > 0) throw errorOfReply(found[1] as Buffer, `taking a message of the queue '${queue}'`);
    return undefined;
  }
}
