/** amqplib's connection, spoken to Redis: opens channels, and tells of the end. */
import { EventEmitter } from 'node:events';
import type * as amqplib from 'amqplib';
import { IllegalOperationError } from 'amqplib';
import type { KombuError } from '../../../errors.js';
import { RedisChannel } from './channel.js';
import type { RedisConnection } from './connection.js';

export class RedisModel extends EventEmitter {
  readonly connection: amqplib.Connection;
  readonly #redis: RedisConnection;
  readonly #channels = new Set<RedisChannel>();
  #lastChannel = 0;
  #gone = false;

  constructor(redis: RedisConnection) {
    super();
    this.#redis = redis;
    const { hostname } = redis.parameters;
    this.connection = {
      serverProperties: { host: hostname, product: 'Redis', version: '', platform: '', information: '' },
    };
  }

  async createChannel(): Promise<RedisChannel> {
    if (!this.#redis.open) throw new IllegalOperationError('Connection closed');
    this.#lastChannel++;
    const channel = new RedisChannel(this.connection, this.#redis, this.#lastChannel);
    this.#channels.add(channel);
    channel.once('close', () => this.#channels.delete(channel));
    return channel;
  }

  createConfirmChannel(): Promise<RedisChannel> {
    return this.createChannel();
  }

  /** Channels first: what they hold goes back to its queues. */
  async close(): Promise<void> {
    for (const channel of [...this.#channels]) await channel.close();
    await this.#redis.close();
  }

  /** The socket is gone. */
  toClosed(reason: KombuError | undefined): void {
    if (this.#gone) return;
    this.#gone = true;
    // Consumers hear of it by `ended`: an 'error' that nobody listens to would end the process.
    if (reason !== undefined && this.listenerCount('error') > 0) this.emit('error', reason);
    for (const channel of [...this.#channels]) channel.toClosed();
    this.emit('close', reason);
  }

  async closeChannels(): Promise<void> {
    await Promise.allSettled([...this.#channels].map((channel) => channel.close()));
  }
}
