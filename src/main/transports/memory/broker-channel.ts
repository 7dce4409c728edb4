/**
 * The broker's side of a channel: what it consumes, what it has not settled, its prefetch and confirms. Every call is complete
 * when it returns. A refusal closes the channel, or the connection, and whatever the client still asks is not heard.
 */
import { randomBytes } from 'node:crypto';
import type { Link } from './broker.js';
import type { QueueConsumer } from './consumers.js';
import { keysOf, parseExpiration, type StoredMessage } from './message.js';
import type { BrokerQueue, Entry } from './queue.js';
import { type Fields, integerArgument } from './queue-settings.js';
import { accessRefused, type Method, method, notFound, preconditionFailed, Refusal } from './refusal.js';
import { type Published, REFUSED, UNROUTABLE } from './virtual-host.js';

/** What the broker tells a channel's client. It must not call back before it has returned. */
export interface ChannelClient {
  /** False: it cannot take this message now; true: `deliver` follows at once. The broker asks again after `wake`. */
  hasRoom(consumerTag: string, message: StoredMessage): boolean;
  deliver(consumerTag: string, tag: number, entry: Entry): void;
  /** The broker cancelled a consumer. */
  cancelled(consumerTag: string): void;
  returned(message: StoredMessage): void;
  confirmed(tag: number, taken: boolean): void;
  /** The broker closed the channel, for this reason; `ended` came before. */
  closed(refusal: Refusal): void;
  /** From now on nothing is delivered and nothing can be settled, whoever closed the channel or its connection. */
  ended(): void;
}

export interface ConsumeOptions {
  readonly consumerTag: string;
  readonly noAck: boolean;
  readonly exclusive: boolean;
  readonly args: Fields;
}

class ChannelConsumer implements QueueConsumer<Entry> {
  unsettled = 0;

  constructor(
    readonly channel: BrokerChannel,
    readonly tag: string,
    readonly queue: BrokerQueue,
    readonly noAck: boolean,
    readonly exclusive: boolean,
    readonly priority: number,
    /** 0: no limit. */
    readonly prefetch: number,
  ) {}

  offer(entry: Entry): boolean {
    return this.channel.offer(this, entry);
  }

  cancelled(): void {
    this.channel.consumerLost(this);
  }
}

interface Unsettled {
  readonly tag: number;
  readonly entry: Entry;
  /** Undefined: it came by basic.get. */
  readonly consumer: ChannelConsumer | undefined;
}

export class BrokerChannel {
  readonly #link: Link;
  readonly #client: ChannelClient;
  readonly #consumers = new Map<string, ChannelConsumer>();
  /** By tag, in the order of tags. */
  readonly #unsettled = new Map<number, Unsettled>();
  /** Those of them that consumers have: what a prefetch of the whole channel counts, as RabbitMQ does. */
  #delivered = 0;
  #lastTag = 0;
  #lastPublish = 0;
  #confirms = false;
  #prefetch = 0;
  #channelPrefetch = 0;
  #lastQueue = '';
  #open = true;

  constructor(link: Link, client: ChannelClient) {
    this.#link = link;
    this.#client = client;
    link.channels.add(this);
  }

  get open(): boolean {
    return this.#open;
  }

  /** Deliveries that are not settled. */
  get unsettled(): number {
    return this.#unsettled.size;
  }

  /** Does what a method asks for. Undefined: the channel is closed, by this or before. */
  call<T>(what: Method, run: () => T): { readonly reply: T } | undefined {
    if (!this.#open) return undefined;
    try {
      return { reply: run() };
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      error.method = what;
      this.#fail(error);
      return undefined;
    }
  }

  /** All that is not settled goes back to its queues. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#link.channels.delete(this);
    this.#client.ended();
    this.cancelAll();
    this.#requeue([...this.#unsettled.values()]);
    this.#unsettled.clear();
    this.#delivered = 0;
  }

  cancelAll(): void {
    for (const consumer of [...this.#consumers.values()]) this.#cancel(consumer);
  }

  // declarations that a channel has a part in: a name of nothing is the queue it declared last

  queueNamed(name: string): BrokerQueue {
    if (name === '' && this.#lastQueue === '') throw new Refusal(404, 'no previously declared queue');
    return this.#link.vhost.queue(name === '' ? this.#lastQueue : name, this.#link);
  }

  /** Unlike the others, a check of no name is one of no queue. */
  checkQueue(name: string): BrokerQueue {
    const { vhost } = this.#link;
    if (name === '') throw notFound('queue', '', vhost.name);
    const queue = vhost.queue(name, this.#link);
    queue.used();
    this.#lastQueue = queue.name;
    return queue;
  }

  declareQueue(name: string, durable: boolean, exclusive: boolean, autoDelete: boolean, args: Fields): BrokerQueue {
    const queue = this.#link.vhost.declareQueue({ name, durable, exclusive, autoDelete, args }, this.#link);
    this.#lastQueue = queue.name;
    return queue;
  }

  // publishing

  selectConfirms(): void {
    this.#confirms = true;
  }

  publish(make: () => StoredMessage, mandatory: boolean): void {
    const tag = this.#confirms ? ++this.#lastPublish : 0;
    this.call(method.BASIC_PUBLISH, () => {
      const message = make();
      const published = this.#publish(message);
      if (published === UNROUTABLE && mandatory) this.#client.returned(message);
      if (this.#confirms) this.#client.confirmed(tag, published !== REFUSED);
    });
  }

  #publish(message: StoredMessage): Published {
    const { user, vhost } = this.#link;
    if (message.userId !== undefined && message.userId !== user) {
      throw preconditionFailed(`user_id property set to '${message.userId}' but authenticated user was '${user}'`);
    }
    if (message.expiration !== undefined) parseExpiration(message.expiration);
    return vhost.publish(message);
  }

  // consuming

  prefetch(count: number, wholeChannel: boolean): void {
    if (wholeChannel) this.#channelPrefetch = count;
    else this.#prefetch = count;
    if (wholeChannel) this.wake();
  }

  /** Returns the consumer's tag. Messages come before it has returned. */
  consume(queueName: string, options: ConsumeOptions, known: (tag: string) => void): string {
    const { vhost } = this.#link;
    const queue = this.queueNamed(queueName);
    const consumerTag = options.consumerTag || `amq.ctag-${randomBytes(16).toString('base64url')}`;
    if (this.#consumers.has(consumerTag)) throw new Refusal(530, `attempt to reuse consumer tag '${consumerTag}'`);
    const where = `for queue '${queue.name}' in vhost '${vhost.name}'`;
    const priority = integerArgument(options.args, 'x-priority', where) ?? 0;
    const { consumers, properties } = queue;
    const inUse = consumers.exclusive || (options.exclusive && consumers.size > 0);
    if (inUse || (options.exclusive && properties.settings.singleActiveConsumer)) {
      throw accessRefused(`queue '${queue.name}' in vhost '${vhost.name}' in exclusive use`);
    }
    const { noAck, exclusive } = options;
    const consumer = new ChannelConsumer(this, consumerTag, queue, noAck, exclusive, priority, this.#prefetch);
    this.#consumers.set(consumerTag, consumer);
    known(consumerTag);
    queue.addConsumer(consumer);
    queue.run();
    return consumerTag;
  }

  cancel(consumerTag: string): void {
    const consumer = this.#consumers.get(consumerTag);
    if (consumer !== undefined) this.#cancel(consumer);
  }

  #cancel(consumer: ChannelConsumer): void {
    this.#consumers.delete(consumer.tag);
    const { queue } = consumer;
    queue.removeConsumer(consumer);
    if (queue.properties.autoDelete && queue.consumers.size === 0 && !queue.deleted) {
      this.#link.vhost.removeQueue(queue);
    }
  }

  /** Called by the queue. */
  offer(consumer: ChannelConsumer, entry: Entry): boolean {
    if (!consumer.noAck) {
      if (consumer.prefetch > 0 && consumer.unsettled >= consumer.prefetch) return false;
      if (this.#channelPrefetch > 0 && this.#delivered >= this.#channelPrefetch) return false;
    }
    if (!this.#client.hasRoom(consumer.tag, entry.message)) return false;
    const tag = ++this.#lastTag;
    if (!consumer.noAck) {
      consumer.unsettled++;
      this.#delivered++;
      this.#unsettled.set(tag, { tag, entry, consumer });
    }
    this.#client.deliver(consumer.tag, tag, entry);
    return true;
  }

  /** Called by the queue, which is gone. */
  consumerLost(consumer: ChannelConsumer): void {
    this.#consumers.delete(consumer.tag);
    if (this.#open && this.#link.open) this.#client.cancelled(consumer.tag);
  }

  /** The client has room again. */
  wake(): void {
    for (const { queue } of [...this.#consumers.values()]) queue.run();
  }

  get(queueName: string, noAck: boolean): { entry: Entry; tag: number; left: number } | undefined {
    const queue = this.queueNamed(queueName);
    const entry = queue.take();
    if (entry === undefined) return undefined;
    const tag = ++this.#lastTag;
    if (!noAck) this.#unsettled.set(tag, { tag, entry, consumer: undefined });
    return { entry, tag, left: queue.size };
  }

  // settling

  ack(tag: number, multiple: boolean): void {
    this.#settled(this.#take(tag, multiple));
  }

  reject(tag: number, multiple: boolean, requeue: boolean): void {
    const taken = this.#take(tag, multiple);
    if (requeue) this.#requeue(taken);
    else for (const { entry } of taken) entry.queue.reject(entry);
    this.#settled(taken);
  }

  /** Several verdicts at once: queues give out what that makes room for only after the last. Unknown tags are refused. */
  settleAll(acked: readonly number[], rejected: readonly number[], requeued: readonly number[]): void {
    const taken: Unsettled[] = [];
    const takeEach = (tags: readonly number[]): Unsettled[] => tags.map((tag) => this.#takeOne(tag));
    for (const tag of acked) taken.push(this.#takeOne(tag));
    const rejects = takeEach(rejected);
    const back = takeEach(requeued);
    for (const { entry } of rejects) entry.queue.reject(entry);
    this.#requeue(back);
    this.#settled([...taken, ...rejects, ...back]);
  }

  /** basic.recover: everything that is not settled goes back to its queue. */
  recover(): void {
    const all = this.#take(0, true);
    this.#requeue(all);
    this.#settled(all);
  }

  #takeOne(tag: number): Unsettled {
    const found = this.#unsettled.get(tag);
    if (found === undefined) throw preconditionFailed(`unknown delivery tag ${tag}`);
    this.#unsettled.delete(tag);
    if (found.consumer !== undefined) {
      found.consumer.unsettled--;
      this.#delivered--;
    }
    return found;
  }

  /** Tag 0 with `multiple` means all. */
  #take(tag: number, multiple: boolean): Unsettled[] {
    if (!multiple) return [this.#takeOne(tag)];
    if (tag !== 0 && !this.#unsettled.has(tag)) throw preconditionFailed(`unknown delivery tag ${tag}`);
    const tags: number[] = [];
    for (const each of this.#unsettled.keys()) {
      if (tag !== 0 && each > tag) break;
      tags.push(each);
    }
    return tags.map((each) => this.#takeOne(each));
  }

  /** What was settled leaves room: for its consumer, or where the whole channel has a limit, for all. */
  #settled(taken: readonly Unsettled[]): void {
    if (this.#channelPrefetch > 0) {
      this.wake();
      return;
    }
    const queues = new Set<BrokerQueue>();
    for (const { consumer } of taken) if (consumer !== undefined) queues.add(consumer.queue);
    for (const queue of queues) queue.run();
  }

  #requeue(taken: readonly Unsettled[]): void {
    const byQueue = new Map<BrokerQueue, Entry[]>();
    for (const { entry } of taken) {
      const entries = byQueue.get(entry.queue);
      if (entries === undefined) byQueue.set(entry.queue, [entry]);
      else entries.push(entry);
    }
    for (const [queue, entries] of byQueue) queue.requeue(entries);
  }

  #fail(refusal: Refusal): void {
    if (refusal.endsConnection) {
      this.#link.fail(refusal);
      return;
    }
    this.close();
    this.#client.closed(refusal);
  }
}

/** The keys of CC and BCC, for the message's constructor. */
export function moreKeysOf(headers: Fields): readonly string[] {
  return [...keysOf(headers, 'CC'), ...keysOf(headers, 'BCC')];
}
