/**
 * The broker's side of an inline consumer: its queues, their consumers' tags, the channel that messages come through. What
 * asks the broker is done in the order of the calls.
 */
import { randomBytes } from 'node:crypto';
import type * as amqplib from 'amqplib';
import { toTable } from '../codec/amqp/plain-table.js';
import { ClosedError } from '../errors.js';
import { withDeadline } from './deadline.js';
import { CALL_TIMEOUT, type CallOptions, Channel } from './entities/channel.js';
import { Queue } from './entities/queue.js';
import type { Target } from './entities/target.js';

/** Process-wide, so that tags are unique on every connection, of other processes too. */
const processId = randomBytes(4).toString('hex');
let lastTag = 0;

interface Entry {
  readonly given: Queue;
  /** Bound, and named by the broker if it had no name. */
  queue: Queue;
  /** Of its consumer, while there is one. */
  tag: string | undefined;
  /** Of its last consumer. */
  noAck: boolean | undefined;
}

export interface Start {
  readonly noAck: boolean | undefined;
  /** Called when it is its turn; gives the prefetch, undefined: no limit. */
  readonly begin: () => number | undefined;
  /** Queues that were consumed from before are so again in the same way. */
  readonly resume: boolean;
}

export interface ConsumingEvents {
  /** What it gives, if anything, settles when the message is handled: a transport may bring no more meanwhile. */
  deliver(channel: Channel, raw: amqplib.ConsumeMessage, queue: string, noAck: boolean): Promise<void> | undefined;
  /** The broker has cancelled the consumer of a queue. */
  cancelled(queue: string, consumerTag: string): void;
  /** The channel is gone. `consumed`: messages came through it, and nobody is told of its end otherwise. */
  lost(channel: Channel, reason: Error | undefined, consumed: boolean): void;
}

export interface ConsumingSettings {
  readonly autoDeclare: boolean;
  readonly noAck: boolean | undefined;
  readonly tagPrefix: string;
}

export class Consuming {
  readonly #settings: ConsumingSettings;
  readonly #events: ConsumingEvents;
  #target: Target;
  #entries: Entry[] = [];
  #channel: Channel | undefined;
  /** Ends with the last question to the broker; never rejects. */
  #turn: Promise<unknown> = Promise.resolve();
  /** The channel whose prefetch was set here. */
  #limited: Channel | undefined;
  /** Where a start is under way: what it has started, whose failure its caller hears of. */
  #starting: Entry[] | undefined;

  constructor(target: Target, queues: readonly Queue[], settings: ConsumingSettings, events: ConsumingEvents) {
    this.#target = target;
    this.#settings = settings;
    this.#events = events;
    for (const queue of queues) this.#put(queue, queue.bind(target));
  }

  get target(): Target {
    return this.#target;
  }

  get channel(): Channel | undefined {
    return this.#channel;
  }

  get queues(): Queue[] {
    return this.#entries.map(({ queue }) => queue);
  }

  /** True while the broker sends messages. */
  get active(): boolean {
    return this.#entries.some(({ tag }) => tag !== undefined);
  }

  consumesFrom(queue: Queue | string): boolean {
    return this.#find(queue)?.tag !== undefined;
  }

  declare(call: CallOptions): Promise<void> {
    return this.#inTurn(() => this.#declare(call));
  }

  purge(call: CallOptions): Promise<number> {
    return this.#inTurn(async () => {
      let sum = 0;
      for (const { queue } of this.#entries) sum += await queue.purge(undefined, call);
      return sum;
    });
  }

  add(queue: Queue, call: CallOptions): Promise<Queue> {
    return this.#inTurn(async () => {
      const bound = queue.bind(this.#target);
      if (this.#settings.autoDeclare) await bound.declare(call);
      this.#put(queue, bound);
      return bound;
    });
  }

  /** Consumes from the queues that it does not consume from. */
  start({ noAck, begin, resume }: Start, call: CallOptions): Promise<void> {
    return this.#inTurn(async () => {
      await this.#goneIfClosed(call);
      const prefetch = begin();
      const fresh = this.#entries.filter(({ tag }) => tag === undefined);
      if (fresh.length === 0) return;
      const first = !this.active;
      this.#starting = [];
      try {
        const channel = await this.#open(call);
        // A limit stays with its channel, and may be that of a loop over the messages.
        const limit = prefetch ?? (this.#limited === channel ? 0 : undefined);
        if (limit !== undefined) await this.#setPrefetch(channel, limit, call);
        for (const entry of fresh) {
          await this.#consumeFrom(channel, entry, (resume ? entry.noAck : undefined) ?? noAck, call);
        }
        // Its end may have come in one read with the broker's yes, while whoever starts was to hear of it.
        if (channel.closed) throw channel.reason ?? new ClosedError('consuming: the channel was closed');
      } catch (error) {
        await this.#undo(this.#starting, first);
        throw error;
      } finally {
        this.#starting = undefined;
      }
    });
  }

  cancel(call: CallOptions): Promise<void> {
    return this.#inTurn(() => this.#cancelAll(call));
  }

  remove(queue: Queue | string, call: CallOptions): Promise<void> {
    return this.#inTurn(async () => {
      const entry = this.#find(queue);
      if (entry === undefined) return;
      await this.#cancelOne(entry, call);
      this.#entries = this.#entries.filter((each) => each !== entry);
    });
  }

  /** Another limit for what is consumed now: by new consumers, since RabbitMQ leaves running ones as they are. */
  limit(count: number, call: CallOptions): Promise<void> {
    return this.#inTurn(async () => {
      const channel = this.#channel;
      if (channel === undefined || channel.closed || !this.active) return;
      await this.#setPrefetch(channel, count, call);
      for (const entry of this.#entries) {
        const { tag } = entry;
        if (tag === undefined) continue;
        // The new one first: with its last consumer an autoDelete queue would go.
        await this.#consume(channel, entry, entry.queue.name, entry.noAck ?? entry.queue.noAck, call);
        try {
          await channel.call(`cancelling '${tag}'`, (raw) => raw.cancel(tag), call);
        } catch (error) {
          // Whoever stops waiting may do so before it was asked for, and nobody else knows of the old one.
          if (!channel.closed) void this.#stop(channel, tag);
          throw error;
        }
      }
    });
  }

  /** Leaves the old target. */
  move(target: Target, call: CallOptions): Promise<void> {
    return this.#inTurn(async () => {
      await this.#cancelAll(call);
      await this.close();
      this.#channel = undefined;
      this.#target = target;
      for (const entry of this.#entries) entry.queue = this.#rebound(entry);
      if (this.#settings.autoDeclare) await this.#declare(call);
    });
  }

  /** Closes the channel if it is its own. */
  async close(): Promise<void> {
    const channel = this.#channel;
    if (channel === undefined || this.#target instanceof Channel) return;
    // Now, not when the broker has answered: from here on nothing that came through it can be settled.
    this.#events.lost(channel, undefined, false);
    await channel.close();
  }

  async #declare(call: CallOptions): Promise<void> {
    for (const { queue } of this.#entries) await queue.declare(call);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  #put(given: Queue, queue: Queue): void {
    const same = queue.name === '' ? undefined : this.#find(queue.name);
    if (same === undefined) this.#entries.push({ given, queue, tag: undefined, noAck: undefined });
    else this.#entries[this.#entries.indexOf(same)] = Object.assign(same, { given, queue });
  }

  #find(queue: Queue | string): Entry | undefined {
    const is = (each: Entry) => each.given === queue || each.queue === queue;
    const name = queue instanceof Queue ? queue.name : queue;
    return this.#entries.find(is) ?? this.#entries.find((each) => name !== '' && each.queue.name === name);
  }

  async #open(call: CallOptions): Promise<Channel> {
    if (this.#channel?.closed === false) return this.#channel;
    const channel = this.#target instanceof Channel ? this.#target : await this.#target.channel(call);
    this.#channel = channel;
    channel.ended.then((reason) => this.#lost(channel, reason));
    return channel;
  }

  /** A channel may be closed before its end is told: until then its queues look consumed. */
  async #goneIfClosed({ timeout = CALL_TIMEOUT, signal }: CallOptions): Promise<void> {
    if (this.active && this.#channel?.closed === true) {
      await withDeadline(this.#channel.ended, "waiting for the end of a consumer's channel", timeout, signal);
    }
  }

  async #setPrefetch(channel: Channel, count: number, call: CallOptions): Promise<void> {
    await channel.call('setting the prefetch', (raw) => raw.prefetch(count), call);
    this.#limited = channel;
  }

  /** Declares through the connection, not the channel that messages come through: a refused declaration closes its channel. */
  async #consumeFrom(channel: Channel, entry: Entry, noAck: boolean | undefined, call: CallOptions): Promise<void> {
    const { queue } = entry;
    const name = this.#settings.autoDeclare ? await queue.declare(call) : queue.name;
    this.#starting?.push(entry);
    await this.#consume(channel, entry, name, noAck ?? queue.noAck, call);
  }

  async #consume(channel: Channel, entry: Entry, name: string, noAck: boolean, call: CallOptions): Promise<void> {
    const { queue } = entry;
    const consumerTag = `${this.#settings.tagPrefix}${processId}.${++lastTag}`;
    const deliver = (raw: amqplib.ConsumeMessage | null): Promise<void> | undefined => {
      if (raw !== null) return this.#events.deliver(channel, raw, name, noAck);
      if (entry.tag === consumerTag) {
        this.#ended(entry);
        this.#events.cancelled(name, consumerTag);
      }
      return undefined;
    };
    const settings = { consumerTag, noAck, arguments: toTable(queue.consumerArguments ?? {}, 'consumerArguments') };
    const before = entry.tag;
    // Known before the answer: the first messages come with it.
    entry.tag = consumerTag;
    entry.noAck = noAck;
    try {
      await channel.call(`consuming from ${queue}`, (raw) => raw.consume(name, deliver, settings), call);
    } catch (error) {
      if (!channel.closed) {
        entry.tag = before;
        // Whoever gave up waiting may have been too early: the broker's yes is still to come.
        void this.#stop(channel, consumerTag);
      }
      throw error;
    }
  }

  /** What was started is stopped: with the channel, if it is of no use for anything else. */
  async #undo(started: readonly Entry[], first: boolean): Promise<void> {
    const channel = this.#channel;
    if (first && !(this.#target instanceof Channel)) await channel?.close();
    for (const entry of started) {
      const { tag } = entry;
      if (tag !== undefined && channel?.closed === false) await this.#stop(channel, tag);
      this.#ended(entry);
    }
  }

  /** What cannot be cancelled was not consumed, or its channel is gone. */
  async #stop(channel: Channel, tag: string): Promise<void> {
    await channel.call(`cancelling '${tag}'`, (raw) => raw.cancel(tag)).catch(() => undefined);
  }

  async #cancelAll(call: CallOptions): Promise<void> {
    for (const entry of this.#entries) await this.#cancelOne(entry, call);
  }

  async #cancelOne(entry: Entry, call: CallOptions): Promise<void> {
    const { tag, queue } = entry;
    const channel = this.#channel;
    if (tag === undefined) return;
    if (channel?.closed === false) {
      try {
        await channel.call(`cancelling the consumer of ${queue}`, (raw) => raw.cancel(tag), call);
      } catch (error) {
        // A channel that ended meanwhile consumes nothing, and its end is told where all ends are.
        if (!channel.closed) throw error;
      }
    }
    this.#ended(entry);
  }

  /** A queue that the broker named and that goes with its last consumer gets a new name the next time. */
  #ended(entry: Entry): void {
    entry.tag = undefined;
    if (entry.queue.isServerNamed && entry.queue.autoDelete) entry.queue = this.#rebound(entry);
  }

  #rebound({ given, queue }: Entry): Queue {
    return (queue.isServerNamed && queue.autoDelete ? given : queue).bind(this.#target);
  }

  #lost(channel: Channel, reason: Error | undefined): void {
    const running = channel === this.#channel ? this.#entries.filter(({ tag }) => tag !== undefined) : [];
    const consumed = running.some((each) => this.#starting?.includes(each) !== true);
    for (const entry of running) this.#ended(entry);
    // Of one that it has left too: messages of it may be at hand.
    this.#events.lost(channel, reason, consumed);
  }
}
