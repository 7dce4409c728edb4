/**
 * One queue: what waits, who gets it, and what is dropped. Calls are complete when they return: a message that a consumer has
 * room for is with the consumer then. `host.deadLetter` may publish to this very queue at once: the loop that runs goes on with
 * what came.
 */
import type { Alarm, Clock } from './clock.js';
import { Consumers, type QueueConsumer } from './consumers.js';
import type { Binding } from './exchange.js';
import { parseExpiration, type StoredMessage } from './message.js';
import type { Fields, QueueSettings } from './queue-settings.js';
import { ReadyList } from './ready-list.js';

/** A message in one queue. */
export interface Entry {
  readonly message: StoredMessage;
  readonly queue: BrokerQueue;
  readonly sequence: number;
  readonly level: number;
  /** Of the clock; Infinity: never. */
  readonly expiresAt: number;
  redelivered: boolean;
}

export type DeathReason = 'rejected' | 'expired' | 'maxlen';

export interface QueueHost {
  readonly clock: Clock;
  deadLetter(queue: BrokerQueue, message: StoredMessage, reason: DeathReason): void;
  /** It has not been used for as long as `x-expires` says. */
  expired(queue: BrokerQueue): void;
}

export interface QueueProperties {
  readonly name: string;
  readonly durable: boolean;
  readonly autoDelete: boolean;
  /** The connection it belongs to. */
  readonly owner: object | undefined;
  readonly args: Fields;
  readonly settings: QueueSettings;
}

export class BrokerQueue {
  readonly kind = 'queue';
  readonly properties: QueueProperties;
  /** The bindings that lead here. */
  readonly incoming = new Set<Binding>();
  readonly consumers: Consumers<Entry>;
  readonly #host: QueueHost;
  readonly #ready: ReadyList<Entry>;
  #bytes = 0;
  /** How many of those that wait can expire. */
  #mortal = 0;
  #sequence = 0;
  #running = false;
  #deleted = false;
  #usedAt = 0;
  #alarm: Alarm | undefined;
  #alarmAt = Number.POSITIVE_INFINITY;
  #expiry: Alarm | undefined;

  constructor(properties: QueueProperties, host: QueueHost) {
    this.properties = properties;
    this.#host = host;
    this.#ready = new ReadyList(properties.settings.maxPriority);
    this.consumers = new Consumers(properties.settings.singleActiveConsumer);
    this.used();
  }

  get name(): string {
    return this.properties.name;
  }

  get deleted(): boolean {
    return this.#deleted;
  }

  /** Messages that wait. */
  get size(): number {
    return this.#ready.size;
  }

  /** False: it is full, and refuses what it cannot hold. */
  publish(message: StoredMessage): boolean {
    const { settings } = this.properties;
    if (settings.overflow !== 'drop-head' && this.#wouldOverflow(message)) {
      if (settings.overflow === 'reject-publish-dlx') this.#host.deadLetter(this, message, 'maxlen');
      return false;
    }
    const entry: Entry = {
      message,
      queue: this,
      sequence: this.#sequence++,
      level: Math.min(message.priority, settings.maxPriority),
      expiresAt: this.#expiresAt(message),
      redelivered: false,
    };
    // Where some wait already nobody has room.
    if (this.#ready.size === 0 && !this.#running && this.consumers.offer(entry)) return true;
    this.#add(entry);
    this.#ready.push(entry);
    this.#dropHead();
    if (this.#mortal > 0 && !this.#running) this.#expireAndArm();
    return true;
  }

  /** Gives out what somebody has room for. */
  run(): void {
    if (this.#running || this.#deleted) return;
    this.#running = true;
    try {
      for (;;) {
        if (this.#mortal > 0) this.#dropExpired();
        const { first } = this.#ready;
        if (first === undefined || !this.consumers.offer(first)) break;
        this.#remove(first);
      }
    } finally {
      this.#running = false;
    }
    if (this.#mortal > 0) this.#arm();
  }

  /** For basic.get. */
  take(): Entry | undefined {
    this.used();
    if (this.#mortal > 0) this.#dropExpired();
    const { first } = this.#ready;
    if (first !== undefined) this.#remove(first);
    // What stood behind it may expire from now on.
    if (this.#mortal > 0) this.#expireAndArm();
    return first;
  }

  /** These were delivered, not settled, and go back to where they were. */
  requeue(entries: readonly Entry[]): void {
    if (this.#deleted) return;
    // The youngest first: each then goes to the very front.
    for (const entry of [...entries].sort((a, b) => b.sequence - a.sequence)) {
      entry.redelivered = true;
      this.#add(entry);
      this.#ready.insert(entry);
    }
    this.#dropHead();
    this.run();
  }

  reject(entry: Entry): void {
    if (!this.#deleted) this.#host.deadLetter(this, entry.message, 'rejected');
  }

  purge(): number {
    const { size } = this.#ready;
    this.#ready.clear();
    this.#bytes = 0;
    this.#mortal = 0;
    this.#disarm();
    return size;
  }

  addConsumer(consumer: QueueConsumer<Entry>): void {
    this.consumers.add(consumer);
    this.#expiry?.cancel();
  }

  removeConsumer(consumer: QueueConsumer<Entry>): void {
    this.consumers.remove(consumer);
    this.used();
    this.run();
  }

  /** It was declared (or asked about), got from, or lost its last consumer: `x-expires` counts from now. */
  used(): void {
    const { expires } = this.properties.settings;
    if (expires === undefined) return;
    this.#usedAt = this.#host.clock.now();
    this.#expiry?.cancel();
    this.#expiry = this.#host.clock.at(this.#usedAt + expires, () => {
      if (this.consumers.size === 0 && !this.#deleted) this.#host.expired(this);
    });
  }

  /** No more a queue: its consumers are told, its messages are gone. */
  delete(): void {
    this.#deleted = true;
    this.#expiry?.cancel();
    this.purge();
    const consumers = this.consumers.all;
    this.consumers.clear();
    for (const consumer of consumers) consumer.cancelled();
  }

  #expiresAt(message: StoredMessage): number {
    const own = message.expiration === undefined ? undefined : parseExpiration(message.expiration);
    const { messageTtl } = this.properties.settings;
    if (own === undefined && messageTtl === undefined) return Number.POSITIVE_INFINITY;
    const ttl = Math.min(own ?? Number.POSITIVE_INFINITY, messageTtl ?? Number.POSITIVE_INFINITY);
    return this.#host.clock.now() + ttl;
  }

  #add(entry: Entry): void {
    this.#bytes += entry.message.bodySize;
    if (entry.expiresAt !== Number.POSITIVE_INFINITY) this.#mortal++;
  }

  /** Takes the first of its level out. */
  #remove(entry: Entry): void {
    this.#ready.shiftLevel(entry.level);
    this.#bytes -= entry.message.bodySize;
    if (entry.expiresAt !== Number.POSITIVE_INFINITY) this.#mortal--;
  }

  #wouldOverflow(message: StoredMessage): boolean {
    const { maxLength, maxLengthBytes } = this.properties.settings;
    return this.#ready.size + 1 > maxLength || this.#bytes + message.bodySize > maxLengthBytes;
  }

  /** Makes room, from the head on. */
  #dropHead(): void {
    const { maxLength, maxLengthBytes, overflow } = this.properties.settings;
    if (overflow !== 'drop-head') return;
    while (this.#ready.size > maxLength || this.#bytes > maxLengthBytes) {
      const first = this.#ready.first!;
      this.#remove(first);
      this.#host.deadLetter(this, first.message, 'maxlen');
    }
  }

  /** Only at the head: what stands behind a message that may stay longer waits for it, as in RabbitMQ, whatever its priority. */
  #dropExpired(): void {
    const now = this.#host.clock.now();
    for (let { first } = this.#ready; first !== undefined && first.expiresAt <= now; { first } = this.#ready) {
      this.#remove(first);
      this.#host.deadLetter(this, first.message, 'expired');
    }
  }

  #expireAndArm(): void {
    this.#dropExpired();
    this.#arm();
  }

  /** Rings when the head expires. */
  #arm(): void {
    const next = this.#ready.first?.expiresAt ?? Number.POSITIVE_INFINITY;
    if (next === this.#alarmAt) return;
    this.#disarm();
    if (next === Number.POSITIVE_INFINITY) return;
    this.#alarmAt = next;
    this.#alarm = this.#host.clock.at(next, () => {
      this.#alarmAt = Number.POSITIVE_INFINITY;
      this.#expireAndArm();
    });
  }

  #disarm(): void {
    this.#alarm?.cancel();
    this.#alarm = undefined;
    this.#alarmAt = Number.POSITIVE_INFINITY;
  }
}
