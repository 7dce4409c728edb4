/**
 * Takes messages from the lists of some queues, as many as there is room for, and waits where there are none.
 *
 *   room ──▶ take (one at a time, all lists in one step) ──some──▶ delivered ──▶ room …
 *              ▲            │ none
 *              │            ▼
 *              └── found ── waiters, one a list ── every 250 ms for lists on which nobody waits
 *
 * Whatever is asked is asked again after an error: a script has taken and recorded, or it has not.
 */
import type { KombuError } from '../../../errors.js';
import { withDeadline } from '../../deadline.js';
import type { ConnectionParameters } from '../../url.js';
import type { Client } from './client.js';
import { errorFromRedis, errorOfReply } from './errors.js';
import type { Keys } from './keys.js';
import { recordEnd } from './record.js';
import { Waiter } from './waiter.js';

/** How often lists on which nobody waits are looked at, ms. */
const LOOK_EVERY = 250;
/** Where the server cannot block: from here, doubled up to the above. */
const FIRST_LOOK = 5;
/** After a full take: how long room may stay unused, ms, before a small one is worth its while. */
const SMALL_TAKE_AFTER = 2;
/** Of one take. */
const MOST_MESSAGES = 512;
export const TAKE_TIMEOUT = 30_000;

export interface TakerEvents {
  /** Messages of this queue for which there is room. */
  room(queue: number): number;
  /** Bytes for which there is room. */
  bytes(): number;
  /** `queue`, `list`: places among those given. Must not throw. */
  deliver(queue: number, list: number, tag: number, envelope: Buffer): void;
  /** All of one take. */
  delivered(): void;
  /** A queue, or the connection, cannot be read. It is tried again. */
  failed(error: KombuError): void;
}

export interface TakerOptions {
  readonly parameters: ConnectionParameters;
  readonly keys: Keys;
  readonly queues: readonly string[];
  /** Before the numbers of tags: unique, of this consumer. */
  readonly tagPrefix: string;
  /** Of the first tag; those of one prefix are never used again. */
  readonly firstTag: number;
  /** Nothing is recorded: what is taken is gone. */
  readonly noAck: boolean;
  /** In turn which queue comes first. */
  readonly rotate: boolean;
  /** The server can move and block (Redis 6.2). */
  readonly canBlock: boolean;
}

/** `queue`, `step`: places among the queues, and among a queue's lists. */
interface List {
  readonly queue: number;
  readonly step: number;
  readonly key: string;
}

export class Taker {
  readonly #client: Client;
  readonly #options: TakerOptions;
  readonly #events: TakerEvents;
  /**
   * By list: those of messages without a priority, and those that have had a message, since a waiter costs a socket. None where
   * the server cannot block.
   */
  readonly #waiters = new Map<string, { readonly queue: number; readonly waiter: Waiter }>();
  #nextTag: number;
  /** A take was asked for, and what it brought is not known. */
  #isUnsure = false;
  /** All lists in the order in which they are taken from; one for each turn of the queues. */
  readonly #orders: readonly (readonly List[])[];
  #turn = 0;
  /** Of the records of each queue. */
  readonly #ends: readonly string[];
  #stopped = false;
  #taking: Promise<void> | undefined;
  /** Something has changed while a take was under way. */
  #again = false;
  #timer: NodeJS.Timeout | undefined;
  #looks = FIRST_LOOK;
  /** The last take brought all that was asked for: there is more. */
  #isFlowing = true;
  /** The last take brought nothing because it may not, whatever lies in the lists: to wait for that would be to spin. */
  #isRefused = false;
  /** What could not be read by the last take: told once, for as long as it stays so. */
  #failures = new Set<string>();

  constructor(client: Client, options: TakerOptions, events: TakerEvents) {
    this.#client = client;
    this.#options = options;
    this.#events = events;
    this.#nextTag = options.firstTag;
    const { keys, queues, rotate } = options;
    this.#ends = queues.map(recordEnd);
    const names = queues.map((queue) => keys.lists(queue));
    const inTurn = (first: number): List[] =>
      keys.steps.flatMap((_, step) =>
        queues.map((_, i) => {
          const queue = (i + first) % queues.length;
          return { queue, step, key: names[queue]![step]! };
        }),
      );
    this.#orders = rotate ? queues.map((_, first) => inTurn(first)) : [inTurn(0)];
    for (const [index, queue] of options.queues.entries()) this.#waitOn(options.keys.list(queue, 0), index);
  }

  #waitOn(list: string, queue: number): void {
    const { canBlock, parameters } = this.#options;
    if (!canBlock || this.#waiters.has(list)) return;
    this.#waiters.set(list, { queue, waiter: new Waiter(parameters, list, () => this.#onFound()) });
  }

  /** The next one that will be given. */
  get nextTag(): number {
    return this.#nextTag;
  }

  /** Of what the last take may have recorded without our hearing of it. */
  get unsure(): string[] {
    if (!this.#isUnsure || this.#options.noAck) return [];
    return Array.from({ length: MOST_MESSAGES }, (_, i) => `${this.#options.tagPrefix}${this.#nextTag + i}`);
  }

  /** There is more room than before. */
  wake(): void {
    if (this.#stopped) return;
    if (this.#taking !== undefined) {
      this.#again = true;
      return;
    }
    // While there is more, many at a time cost least; one for which somebody idle waits comes soon all the same.
    if (this.#isFlowing && !this.#isWorthwhile()) this.#lookIn(SMALL_TAKE_AFTER);
    else this.#take();
  }

  /** Nothing more is taken once this has resolved. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await Promise.all([this.#taking, ...[...this.#waiters.values()].map(({ waiter }) => waiter.close())]);
  }

  #isWorthwhile(): boolean {
    const { queues } = this.#options;
    return queues.some((_, queue) => this.#events.room(queue) >= 64);
  }

  #onFound(): void {
    this.#looks = FIRST_LOOK;
    if (this.#taking === undefined && !this.#stopped) this.#take();
    else this.#again = true;
  }

  #lookIn(milliseconds: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (this.#taking === undefined && !this.#stopped) this.#take();
    }, milliseconds);
  }

  #take(): void {
    const { queues } = this.#options;
    const room = queues.map((_, queue) => Math.min(MOST_MESSAGES, Math.max(0, this.#events.room(queue))));
    const bytes = this.#events.bytes();
    // `wake` says when there is room again.
    if (bytes <= 0 || room.every((each) => each === 0)) return;
    clearTimeout(this.#timer);
    this.#again = false;
    this.#taking = this.#ask(room, bytes).finally(() => {
      this.#taking = undefined;
      if (this.#stopped) return;
      if (this.#isRefused) {
        this.#lookIn(LOOK_EVERY);
      } else if (this.#again || this.#isFlowing) {
        this.#again = false;
        this.wake();
      } else {
        this.#wait();
      }
    });
  }

  /** Never rejects. */
  async #ask(room: readonly number[], bytes: number): Promise<void> {
    const { keys, queues, tagPrefix, noAck } = this.#options;
    const lists = this.#orders[this.#turn++ % this.#orders.length]!;
    const args = [
      keys.unacked,
      keys.unackedIndex,
      ...lists.map(({ key }) => key),
      MOST_MESSAGES,
      bytes,
      tagPrefix,
      this.#nextTag,
      noAck ? '1' : '',
      queues.length,
      ...this.#ends.flatMap((end, i) => [room[i]!, end]),
      ...lists.map(({ queue }) => queue + 1),
    ];
    try {
      this.#isUnsure = true;
      const asked = this.#client.mozukuTakeBuffer(2 + lists.length, ...args);
      const found = await withDeadline(asked, 'taking messages', TAKE_TIMEOUT);
      this.#isUnsure = false;
      let count = 0;
      this.#isRefused = false;
      const failures = new Set<string>();
      for (let i = 0; i < found.length; i += 2) {
        const place = found[i] as number;
        const bytesOf = found[i + 1] as Buffer;
        if (place <= 0) {
          const list = lists[-place - 1];
          const error = this.#whyNot(list?.key, bytesOf);
          if (list === undefined) this.#isRefused = true;
          failures.add(error.message);
          if (!this.#failures.has(error.message)) this.#events.failed(error);
          continue;
        }
        const { queue, step, key } = lists[place - 1]!;
        this.#waitOn(key, queue);
        this.#events.deliver(queue, step, this.#nextTag++, bytesOf);
        count++;
      }
      this.#failures = failures;
      this.#isFlowing = count > 0;
      if (count > 0) {
        this.#looks = FIRST_LOOK;
        this.#events.delivered();
      }
    } catch (error) {
      this.#isFlowing = false;
      this.#isRefused = true;
      if (this.#stopped) return;
      const failure = errorFromRedis(error, 'taking messages');
      if (!this.#failures.has(failure.message)) this.#events.failed(failure);
      this.#failures = new Set([failure.message]);
    }
  }

  #whyNot(list: string | undefined, text: Buffer): KombuError {
    const { unacked, unackedIndex } = this.#options.keys;
    const where = `recording deliveries in '${unacked}' and '${unackedIndex}'`;
    return errorOfReply(text, list === undefined ? where : `taking messages from the list '${list}'`);
  }

  #wait(): void {
    // Found at once, and of no use, is what lies in a queue whose messages may not come now.
    for (const { queue, waiter } of this.#waiters.values()) {
      if (this.#events.room(queue) > 0) waiter.wait();
      else waiter.rest();
    }
    const isSlow = this.#waiters.size > 0;
    this.#lookIn(isSlow ? LOOK_EVERY : this.#looks);
    this.#looks = Math.min(LOOK_EVERY, this.#looks * 2);
  }
}
