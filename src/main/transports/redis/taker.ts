/**
 * Takes messages from the lists of some queues, as many as there is room for, and waits where there are none.
 *
 *   room ──▶ take (one at a time, all lists in one step) ──some──▶ delivered ──▶ room …
 *              ▲            │ none
 *              │            ▼
 *              └── found ── waiters, one a list ── every 250 ms for lists on which nobody waits
 *
 * A waiter may bring the message with it, by a take of one that the server runs when its wait is over. As long as that is not
 * answered its list is taken from by nobody else: two answers on two sockets know no order.
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
import { GIVE_UP, Waiter } from './waiter.js';

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
  /** Puts back what is recorded under these tags: nobody has heard of it. Must not reject. Without it no wait takes by itself. */
  reclaim?(tags: readonly string[]): Promise<void>;
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
  /** Of takes before whose answers were lost, that the server may still run: to reclaim when this time is over. */
  readonly orphans?: readonly Orphan[];
}

/** A tag under which something may be recorded of which nobody hears. `until`: of `performance.now()`. */
export interface Orphan {
  readonly tag: string;
  readonly until: number;
}

/** `queue`, `step`: places among the queues, and among a queue's lists. */
interface List {
  readonly queue: number;
  readonly step: number;
  readonly key: string;
}

/** A take that a waiter has sent behind its look. */
interface Armed {
  readonly list: List;
  readonly tag: number;
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
  /** While it is not answered. */
  #armed: Armed | undefined;
  /** The list from which waiters take: none comes before it at any time, so that the order of the lists stays what it is. */
  readonly #foremost: string | undefined;
  #orphans: Orphan[];
  #nextTag: number;
  /** Of the take that is under way, or whose answer did not come: its tags. */
  #asked: { readonly first: number; readonly most: number } | undefined;
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
  /** By list, '' for the records, '*' for all: why it cannot be read. Told once, for as long as it stays so. */
  readonly #failures = new Map<string, string>();

  constructor(client: Client, options: TakerOptions, events: TakerEvents) {
    this.#client = client;
    this.#options = options;
    this.#events = events;
    this.#nextTag = options.firstTag;
    this.#orphans = [...(options.orphans ?? [])];
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
    const [first] = this.#orders[0]!;
    this.#foremost = this.#orders.every(([other]) => other === first || other?.key === first?.key)
      ? first?.key
      : undefined;
    const step = keys.steps.indexOf(keys.stepOf(0));
    for (const [queue, lists] of names.entries()) this.#waitOn({ queue, step, key: lists[step]! });
  }

  #waitOn(list: List): void {
    const { canBlock, parameters } = this.#options;
    const { key, queue } = list;
    if (!canBlock || this.#waiters.has(key)) return;
    const waiter = new Waiter(parameters, key, {
      found: () => this.#onFound(),
      take: (client) => this.#takeOne(client, list),
      lost: () => this.#onLost(key),
    });
    this.#waiters.set(key, { queue, waiter });
  }

  /** The next one that will be given. */
  get nextTag(): number {
    return this.#nextTag;
  }

  /** Of what takes may have recorded without our hearing of it. */
  get unsure(): string[] {
    const { tagPrefix, noAck } = this.#options;
    if (noAck) return [];
    const { first = 0, most = 0 } = this.#asked ?? {};
    const tags = Array.from({ length: most }, (_, i) => first + i);
    if (this.#armed !== undefined) tags.push(this.#armed.tag);
    return tags.map((tag) => `${tagPrefix}${tag}`);
  }

  /** Those of them that the server may still record for a while, if it has not noticed that nobody waits. */
  get orphans(): Orphan[] {
    return this.#armed === undefined ? this.#orphans : [...this.#orphans, this.#orphanOf(this.#armed)];
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

  /** Nothing more is taken once this has resolved; what waiters may have taken is `unsure`. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await Promise.all([this.#taking, ...[...this.#waiters.values()].map(({ waiter }) => waiter.close())]);
  }

  #isWorthwhile(): boolean {
    const { queues } = this.#options;
    return queues.some((_, queue) => this.#room(queue) >= 64);
  }

  /** Without what is kept for a waiter's take. */
  #room(queue: number): number {
    return Math.max(0, this.#events.room(queue) - (this.#armed?.list.queue === queue ? 1 : 0));
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
    const room = queues.map((_, queue) => Math.min(MOST_MESSAGES, this.#room(queue)));
    const bytes = this.#events.bytes();
    // `wake` says when there is room again.
    if (bytes <= 0 || room.every((each) => each === 0)) return;
    clearTimeout(this.#timer);
    this.#again = false;
    this.#taking = this.#ask(room, bytes).finally(() => {
      this.#taking = undefined;
      if (this.#stopped) return;
      this.#reclaimOrphans();
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
    const order = this.#orders[this.#turn++ % this.#orders.length]!;
    const armed = this.#armed?.list.key;
    const lists = armed === undefined ? order : order.filter(({ key }) => key !== armed);
    const first = this.#nextTag;
    const most = Math.min(
      MOST_MESSAGES,
      room.reduce((sum, each) => sum + each, 0),
    );
    this.#nextTag += most;
    this.#asked = { first, most };
    try {
      const asked = this.#send(this.#client, lists, room, most, bytes, first);
      const found = await withDeadline(asked, 'taking messages', TAKE_TIMEOUT);
      this.#asked = undefined;
      this.#failures.delete('*');
      const count = this.#receive(found, lists, first);
      if (this.#nextTag === first + most) this.#nextTag = first + count;
      this.#isFlowing = count > 0;
    } catch (error) {
      this.#isFlowing = false;
      this.#isRefused = true;
      if (this.#stopped) return;
      const failure = errorFromRedis(error, 'taking messages');
      if (this.#failures.get('*') !== failure.message) this.#events.failed(failure);
      this.#failures.set('*', failure.message);
    }
  }

  /** `room`: of each queue. */
  #send(client: Client, lists: readonly List[], room: readonly number[], most: number, bytes: number, first: number) {
    const { keys, queues, tagPrefix, noAck } = this.#options;
    return client.mozukuTakeBuffer(
      2 + lists.length,
      keys.unacked,
      keys.unackedIndex,
      ...lists.map(({ key }) => key),
      most,
      bytes,
      tagPrefix,
      first,
      noAck ? '1' : '',
      queues.length,
      ...this.#ends.flatMap((end, i) => [room[i]!, end]),
      ...lists.map(({ queue }) => queue + 1),
    );
  }

  /** Gives how many messages there were. */
  #receive(found: readonly (number | Buffer)[], lists: readonly List[], first: number): number {
    let count = 0;
    const failing = new Set<string>();
    this.#isRefused = false;
    for (let i = 0; i < found.length; i += 2) {
      const place = found[i] as number;
      const bytes = found[i + 1] as Buffer;
      if (place <= 0) {
        const list = lists[-place - 1]?.key;
        const error = this.#whyNot(list, bytes);
        failing.add(list ?? '');
        if (list === undefined) this.#isRefused = true;
        if (this.#failures.get(list ?? '') !== error.message) this.#events.failed(error);
        this.#failures.set(list ?? '', error.message);
        continue;
      }
      const list = lists[place - 1]!;
      this.#waitOn(list);
      this.#events.deliver(list.queue, list.step, first + count++, bytes);
    }
    if (this.#failures.size > 0)
      for (const key of ['', ...lists.map((list) => list.key)]) if (!failing.has(key)) this.#failures.delete(key);
    if (count > 0) {
      this.#looks = FIRST_LOOK;
      this.#events.delivered();
    }
    return count;
  }

  /** For a waiter. Room of one is left to other lists: while nothing comes from this one, something may from those. */
  #takeOne(client: Client, list: List): Promise<boolean> | undefined {
    const { reclaim } = this.#events;
    const bytes = this.#events.bytes();
    if (this.#stopped || reclaim === undefined || list.key !== this.#foremost) return undefined;
    // It may be taking from this very list.
    if (this.#taking !== undefined) return undefined;
    if (bytes <= 0 || this.#room(list.queue) < 2) return undefined;
    const armed = { list, tag: this.#nextTag++ };
    this.#armed = armed;
    const room = this.#options.queues.map((_, queue) => (queue === list.queue ? 1 : 0));
    return this.#send(client, [list], room, 1, bytes, armed.tag).then((found) => {
      // Given up already: what it brings is put back.
      if (this.#stopped || this.#armed !== armed) return false;
      this.#armed = undefined;
      // Where it is refused the taker looks into it: to wait again would be to spin.
      return this.#receive(found, [list], armed.tag) > 0 || this.#isRefused;
    });
  }

  #onLost(key: string): void {
    if (this.#armed?.list.key !== key || this.#stopped) return;
    this.#orphans.push(this.#orphanOf(this.#armed));
    this.#armed = undefined;
  }

  #orphanOf({ tag }: Armed): Orphan {
    return { tag: `${this.#options.tagPrefix}${tag}`, until: performance.now() + GIVE_UP };
  }

  #reclaimOrphans(): void {
    if (this.#orphans.length === 0) return;
    const time = performance.now();
    const due = this.#orphans.filter(({ until }) => until <= time);
    if (due.length === 0) return;
    this.#orphans = this.#orphans.filter(({ until }) => until > time);
    void this.#events.reclaim?.(due.map(({ tag }) => tag));
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
