/** Messages of one queue for one consumer of a channel: taken from its lists, or heard of its fanout exchanges. */
import { randomUUID } from 'node:crypto';
import type { KombuError } from '../../../errors.js';
import { withDeadline } from '../../deadline.js';
import { Backlog } from './backlog.js';
import type { RedisConnection } from './connection.js';
import { errorOfReply } from './errors.js';
import { Listener } from './listener.js';
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
  /** What it gives, if anything, settles when the message is handled. */
  readonly onTaken: (taken: Taken) => PromiseLike<unknown> | undefined;
  readonly onTrouble: (error: KombuError) => void;
}

/** Of one take, where there is no prefetch: then the event loop has its turn. */
const UNLIMITED = 64;
const MOST_BYTES = 1024 * 1024;
/** Without a prefetch: what is handed over and not handled yet. */
export const MOST_RUNNING = 1024;
export const MOST_RUNNING_BYTES = 16 * 1024 * 1024;

export class Consumption {
  readonly #redis: RedisConnection;
  readonly #options: ConsumptionOptions;
  #taker: Taker | undefined;
  #listener: Listener | undefined;
  #backlog: Backlog | undefined;
  #unsettled = 0;
  #running = 0;
  #runningBytes = 0;

  constructor(redis: RedisConnection, options: ConsumptionOptions) {
    this.#redis = redis;
    this.#options = options;
  }

  async start(): Promise<void> {
    const { client, keys, exchanges, parameters, canBlock } = this.#redis;
    const { queue, noAck, onTrouble } = this.#options;
    const lists = keys.lists(queue);
    if (exchanges.fanout.has(queue)) {
      this.#backlog = new Backlog({
        room: () => this.#room,
        bytes: () => this.#bytes,
        deliver: (envelope) => this.#deliver({ tag: undefined, list: lists[0]!, envelope }),
        delivered: () => undefined,
      });
      this.#listener = new Listener(this.#redis, queue, this.#backlog, {
        lost: (error) => this.#redis.useless(error),
        failed: onTrouble,
      });
      await this.#listener.start();
      return;
    }
    const tagPrefix = `${randomUUID()}:`;
    const options = { parameters, keys, queues: [queue], tagPrefix, firstTag: 1, noAck, rotate: false, canBlock };
    this.#taker = new Taker(client, options, {
      room: () => this.#room,
      bytes: () => this.#bytes,
      deliver: (_queue, list, number, envelope) =>
        this.#deliver({ tag: noAck ? undefined : `${tagPrefix}${number}`, list: lists[list]!, envelope }),
      delivered: () => undefined,
      failed: onTrouble,
    });
    this.#taker.wake();
  }

  /** One of its messages was settled. */
  settled(): void {
    this.#unsettled--;
    this.#wake();
  }

  get #isLimited(): boolean {
    return !this.#options.noAck && this.#options.prefetch > 0;
  }

  get #room(): number {
    if (this.#isLimited) return this.#options.prefetch - this.#unsettled;
    return Math.min(UNLIMITED, MOST_RUNNING - this.#running);
  }

  get #bytes(): number {
    return this.#isLimited ? MOST_BYTES : Math.min(MOST_BYTES, MOST_RUNNING_BYTES - this.#runningBytes);
  }

  #deliver(taken: Taken): void {
    if (!this.#options.noAck) this.#unsettled++;
    const handling = this.#options.onTaken(taken);
    if (handling === undefined) return;
    const { length } = taken.envelope;
    this.#running++;
    this.#runningBytes += length;
    // Whatever it fails with is its maker's.
    void Promise.resolve(handling).finally(() => {
      this.#running--;
      this.#runningBytes -= length;
      this.#wake();
    });
  }

  #wake(): void {
    this.#taker?.wake();
    this.#backlog?.wake();
  }

  /** Of what may be recorded without our hearing of it; to ask for when the connection is lost. */
  get unsure(): string[] {
    return this.#taker?.unsure ?? [];
  }

  /** No more messages once this has resolved. */
  async stop(): Promise<void> {
    this.#backlog?.close();
    await Promise.all([this.#taker?.stop(), this.#listener?.stop()]);
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
