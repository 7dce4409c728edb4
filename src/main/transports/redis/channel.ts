/**
 * amqplib's channel, spoken to Redis. What a broker refuses rejects its own promise and closes nothing. `Consumption` takes
 * messages for consumers; `Holdings` keeps what is not settled, and gives it back at the end.
 */
import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import type * as amqplib from 'amqplib';
import { IllegalOperationError } from 'amqplib';
import { ClosedError, type KombuError, ResourceError } from '../../../errors.js';
import { isThenable } from '../../entities/safely.js';
import { isRecoverable } from '../reconnect.js';
import type { OnSettled, Outgoing } from '../transport.js';
import { Catalog } from './catalog.js';
import { Confirms } from './confirms.js';
import type { RedisConnection } from './connection.js';
import { Consumption, type Taken } from './consumption.js';
import { errorFromRedis } from './errors.js';
import { Holdings } from './holdings.js';
import { received } from './received.js';
import { refuse } from './refusal.js';
import { Restorer } from './restorer.js';

/** A promise that it gives settles when the message is handled. */
type OnMessage = (message: amqplib.ConsumeMessage | null) => unknown;

export class RedisChannel extends EventEmitter {
  readonly connection: amqplib.Connection;
  readonly ch: number;
  readonly #redis: RedisConnection;
  readonly #catalog: Catalog;
  readonly #consumptions = new Map<string, Consumption>();
  readonly #holdings: Holdings;
  /** Messages that were asked for one by one and are not here yet. */
  readonly #getting = new Set<Promise<unknown>>();
  #restorer: Restorer | undefined;
  #prefetch = 0;
  /** Of this channel's publishes. */
  readonly #confirms = new Confirms();
  #illegal: string | undefined;
  #gone = false;

  constructor(connection: amqplib.Connection, redis: RedisConnection, ch: number) {
    super();
    this.connection = connection;
    this.ch = ch;
    this.#redis = redis;
    this.#catalog = new Catalog(redis);
    this.#holdings = new Holdings(redis, this.#onTrouble);
  }

  // queues, exchanges

  assertQueue(name = '', options: amqplib.Options.AssertQueue = {}): Promise<amqplib.Replies.AssertQueue> {
    return this.#ask(`declaring the queue '${name}'`, () => this.#catalog.assertQueue(name, options));
  }

  checkQueue(name: string): Promise<amqplib.Replies.AssertQueue> {
    return this.#ask(`looking for the queue '${name}'`, () => this.#catalog.checkQueue(name));
  }

  deleteQueue(name: string, options: amqplib.Options.DeleteQueue = {}): Promise<amqplib.Replies.DeleteQueue> {
    return this.#ask(`deleting the queue '${name}'`, async () => ({
      messageCount: await this.#catalog.deleteQueue(name, options.ifEmpty === true),
    }));
  }

  purgeQueue(name: string): Promise<amqplib.Replies.PurgeQueue> {
    return this.#ask(`purging the queue '${name}'`, async () => ({ messageCount: await this.#catalog.purge(name) }));
  }

  bindQueue(queue: string, exchange: string, routingKey: string): Promise<amqplib.Replies.Empty> {
    return this.#ask(`binding the queue '${queue}' to '${exchange}'`, async () => {
      await this.#catalog.bind(queue, exchange, routingKey);
      return {};
    });
  }

  unbindQueue(queue: string, exchange: string, routingKey: string): Promise<amqplib.Replies.Empty> {
    return this.#ask(`unbinding the queue '${queue}' from '${exchange}'`, async () => {
      await this.#catalog.unbind(queue, exchange, routingKey);
      return {};
    });
  }

  assertExchange(
    exchange: string,
    type: string,
    options: amqplib.Options.AssertExchange = {},
  ): Promise<amqplib.Replies.AssertExchange> {
    return this.#ask(`declaring the exchange '${exchange}'`, async () => {
      this.#catalog.assertExchange(exchange, type, options);
      return { exchange };
    });
  }

  checkExchange(exchange: string): Promise<amqplib.Replies.Empty> {
    return this.#ask(`looking for the exchange '${exchange}'`, async () => {
      await this.#catalog.checkExchange(exchange);
      return {};
    });
  }

  deleteExchange(exchange: string): Promise<amqplib.Replies.Empty> {
    return this.#ask(`deleting the exchange '${exchange}'`, async () => {
      await this.#catalog.deleteExchange(exchange);
      return {};
    });
  }

  bindExchange(): Promise<amqplib.Replies.Empty> {
    return this.#ask('binding an exchange', () =>
      Promise.reject(refuse(540, 'NOT_IMPLEMENTED - Redis binds no exchange to another')),
    );
  }

  unbindExchange(): Promise<amqplib.Replies.Empty> {
    return this.bindExchange();
  }

  // publishing

  /** As `Publish` of a transport. */
  send(message: Outgoing, onSettled: OnSettled): boolean {
    this.#mustBeOpen();
    const { exchange, routingKey, properties, body } = message;
    let age = 0;
    const settle = (error: unknown, queues: number): void => {
      this.#confirms.settled(age, error);
      if (this.#gone) {
        onSettled(error ?? new ClosedError('the channel is closed'));
        return;
      }
      if (error === null && queues === 0 && properties.mandatory === true) {
        const fields = { exchange, routingKey, replyCode: 312, replyText: 'NO_ROUTE' };
        this.emit('return', { fields, properties, content: body });
      }
      onSettled(error);
    };
    const hasRoom = this.#redis.publisher.publish(message, settle, this.#onDrain);
    age = this.#confirms.sent();
    return hasRoom;
  }

  publish(
    exchange: string,
    routingKey: string,
    body: Buffer,
    properties: amqplib.Options.Publish = {},
    onSettled: OnSettled = () => undefined,
  ): boolean {
    return this.send({ exchange, routingKey, body, properties }, onSettled);
  }

  sendToQueue(queue: string, body: Buffer, properties?: amqplib.Options.Publish, onSettled?: OnSettled): boolean {
    return this.publish('', queue, body, properties, onSettled);
  }

  /** Resolves when all that was published is confirmed; rejects with the first that was not. */
  waitForConfirms(): Promise<void> {
    return this.#confirms.all();
  }

  // consuming

  consume(
    queue: string,
    onMessage: OnMessage,
    options: amqplib.Options.Consume = {},
  ): Promise<amqplib.Replies.Consume> {
    return this.#ask(`consuming from '${queue}'`, async () => {
      const consumerTag = options.consumerTag || `amq.ctag-${randomBytes(16).toString('base64url')}`;
      if (this.#consumptions.has(consumerTag)) {
        throw refuse(406, `PRECONDITION_FAILED - the consumer tag '${consumerTag}' is used on this channel already`);
      }
      this.#restorer ??= new Restorer(
        this.#redis.client,
        this.#redis.keys,
        this.#redis.exchanges,
        this.#redis.options,
        (error) => this.#onRestoreTrouble(error),
      );
      const noAck = options.noAck === true;
      const consumption: Consumption = new Consumption(this.#redis, {
        queue,
        noAck,
        prefetch: this.#prefetch,
        onTaken: (taken) => this.#deliver(consumption, { consumerTag, noAck, onMessage }, taken),
        onTrouble: this.#onTrouble,
      });
      this.#consumptions.set(consumerTag, consumption);
      try {
        await consumption.start();
      } catch (error) {
        this.#consumptions.delete(consumerTag);
        throw error;
      }
      return { consumerTag };
    });
  }

  cancel(consumerTag: string): Promise<amqplib.Replies.Cancel> {
    return this.#ask(`cancelling '${consumerTag}'`, async () => {
      const consumption = this.#consumptions.get(consumerTag);
      await consumption?.stop();
      this.#consumptions.delete(consumerTag);
      return { consumerTag };
    });
  }

  get(queue: string, options: amqplib.Options.Get = {}): Promise<amqplib.GetMessage | false> {
    return this.#ask(`getting a message of '${queue}'`, async () => {
      const noAck = options.noAck === true;
      const taking = this.#takeOne(queue, noAck);
      this.#getting.add(taking);
      const got = await taking.finally(() => this.#getting.delete(taking));
      if (got === undefined) {
        await this.#catalog.renew(queue);
        return false;
      }
      const { deliveryTag, envelope } = got;
      try {
        // What goes back with the channel is nobody's; what is recorded nowhere is the caller's all the same.
        if (!noAck && this.#illegal !== undefined) throw new ClosedError('the channel was closed');
        await this.#catalog.renew(queue);
        const messageCount = await this.#catalog.size(queue);
        const message = received(envelope, deliveryTag);
        return { ...message, fields: { ...message.fields, messageCount } } as unknown as amqplib.GetMessage;
      } catch (error) {
        this.#holdings.settle(deliveryTag, false, true);
        throw error;
      }
    });
  }

  async #takeOne(queue: string, noAck: boolean): Promise<{ deliveryTag: number; envelope: Buffer } | undefined> {
    const taken = await Consumption.one(this.#redis, queue, noAck);
    if (taken === undefined) return undefined;
    // The line was lost right behind the answer: close() would have waited.
    if (this.#gone && taken.tag !== undefined) {
      this.#redis.exchanges.leftovers.unsure([taken.tag]);
      throw new ClosedError('the channel was closed');
    }
    return { deliveryTag: this.#holdings.hold(undefined, taken, noAck), envelope: taken.envelope };
  }

  prefetch(count: number, global = false): Promise<amqplib.Replies.Empty> {
    return this.#ask('setting the prefetch count', async () => {
      if (global) throw refuse(540, 'NOT_IMPLEMENTED - on Redis each consumer has a prefetch count of its own');
      this.#prefetch = count;
      return {};
    });
  }

  recover(): Promise<amqplib.Replies.Empty> {
    return this.#ask('giving back what is not settled', async () => {
      await this.#holdings.giveBack();
      return {};
    });
  }

  ack({ fields }: amqplib.Message, allUpTo = false): void {
    this.#settle(fields.deliveryTag, allUpTo, false);
  }

  ackAll(): void {
    this.#settle(this.#holdings.lastTag, true, false);
  }

  nack({ fields }: amqplib.Message, allUpTo = false, requeue = true): void {
    this.#settle(fields.deliveryTag, allUpTo, requeue);
  }

  nackAll(requeue = true): void {
    this.#settle(this.#holdings.lastTag, true, requeue);
  }

  reject({ fields }: amqplib.Message, requeue = true): void {
    this.#settle(fields.deliveryTag, false, requeue);
  }

  async close(): Promise<void> {
    this.#mustBeOpen();
    this.#illegal = 'Channel closing';
    this.#redis.publisher.flush();
    const consumptions = [...this.#consumptions.values()].map((each) => each.stop());
    await Promise.allSettled([this.#confirms.all(), ...consumptions, ...this.#getting]);
    await this.#holdings.giveBack();
    this.toClosed();
  }

  /** The end, by our own close or with the connection. Once. */
  toClosed(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#illegal = 'Channel closed';
    const { leftovers } = this.#redis.exchanges;
    for (const consumption of this.#consumptions.values()) {
      leftovers.unsure(consumption.unsure);
      void consumption.stop();
    }
    this.#consumptions.clear();
    this.#holdings.leave();
    this.#restorer?.close();
    this.emit('close');
  }

  /** One for all publishes: the publisher tells each channel once. */
  readonly #onDrain = (): void => void this.emit('drain');

  /** What consumers meet: a server that cannot serve us, or not now, or a key that is no list. */
  readonly #onTrouble = (error: KombuError): void => {
    if (this.#gone) return;
    // A server that is full, or cannot save, is there all the same: what it refused is asked again.
    if (error instanceof ResourceError) warn(error);
    else if (isRecoverable(error)) this.#redis.useless(error);
    else void this.#fail(error);
  };

  /** Others' messages: consumers here go on. */
  #onRestoreTrouble(error: KombuError): void {
    if (isRecoverable(error)) this.#redis.useless(error);
    else warn(error);
  }

  #deliver(
    consumption: Consumption,
    { consumerTag, noAck, onMessage }: { consumerTag: string; noAck: boolean; onMessage: OnMessage },
    taken: Taken,
  ): PromiseLike<unknown> | undefined {
    const deliveryTag = this.#holdings.hold(consumption, taken, noAck);
    // Taken while it was closing: it goes back with the rest, unless it is recorded nowhere.
    if (this.#illegal !== undefined && taken.tag !== undefined) return undefined;
    const message = received(taken.envelope, deliveryTag);
    const delivery = { ...message, fields: { ...message.fields, consumerTag } } as unknown as amqplib.ConsumeMessage;
    try {
      this.emit('delivery', delivery);
      const handling = onMessage(delivery);
      return isThenable(handling) ? handling : undefined;
    } catch (error) {
      // As amqplib does: whoever took it is told, and what the channel has goes back.
      void this.#fail(Object.assign(error instanceof Error ? error : new Error(String(error)), { code: 541 }));
      return undefined;
    }
  }

  /** The connection lives: what the channel has goes back over it. Never rejects. */
  async #fail(error: Error): Promise<void> {
    if (this.#illegal !== undefined) return;
    this.#illegal = 'Channel closing';
    await Promise.allSettled([...this.#consumptions.values()].map((each) => each.stop()));
    await this.#holdings.giveBack();
    // In a turn of its own: what listeners throw is nobody else's.
    setImmediate(() => {
      if (this.#gone) return;
      try {
        this.emit('error', error);
      } finally {
        this.toClosed();
      }
    });
  }

  #settle(deliveryTag: number, allUpTo: boolean, requeue: boolean): void {
    this.#mustBeOpen();
    this.#holdings.settle(deliveryTag, allUpTo, requeue);
  }

  #mustBeOpen(): void {
    if (this.#illegal !== undefined) throw new IllegalOperationError(this.#illegal);
  }

  async #ask<T>(doing: string, work: () => Promise<T>): Promise<T> {
    this.#mustBeOpen();
    // What was published and requeued before comes before.
    this.#redis.publisher.flush();
    const requeued = this.#holdings.requeued();
    if (requeued !== undefined) {
      await requeued;
      this.#mustBeOpen();
    }
    try {
      return await work();
    } catch (error) {
      if (error instanceof Error && typeof (error as { code?: unknown }).code === 'number') throw error;
      throw errorFromRedis(error, doing);
    }
  }
}

/** Of what ends nothing, and has nobody else to hear it. */
function warn({ message }: KombuError): void {
  process.emitWarning(message, { type: 'MozukuWarning', code: 'MOZUKU_REDIS' });
}
