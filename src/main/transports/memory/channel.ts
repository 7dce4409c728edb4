/**
 * amqplib's channel, spoken to a broker in this process. What it asks is done at once; answers, deliveries, returns, confirms and
 * the end of the channel come as if by a socket (`Wire`). Errors have amqplib's texts and fields: `transports/amqp/errors.ts`
 * reads them. What amqplib's own documentation says of a method holds here.
 */
import { EventEmitter } from 'node:events';
import type * as amqplib from 'amqplib';
import { IllegalOperationError } from 'amqplib';
import { readAmqplibProperties } from '../../../codec/amqp/amqplib-values.js';
import type { Link } from './broker.js';
import { BrokerChannel, type ChannelClient, moreKeysOf } from './broker-channel.js';
import { copyOf, fieldsOf, publishProperties, shortString, withNamed } from './channel-arguments.js';
import { StoredMessage } from './message.js';
import type { BrokerQueue, Entry } from './queue.js';
import { type Method, method, type Refusal } from './refusal.js';
import type { Wire } from './wire.js';

interface Pending {
  readonly method: Method;
  readonly reject: (error: Error) => void;
}

type OnMessage = (message: amqplib.ConsumeMessage | null) => void;
type OnConfirm = (error: unknown, ok: amqplib.Replies.Empty) => void;

/** Publishes in one turn before `publish` says false, as amqplib's buffer of 1024 frames does. */
const HIGH_WATER = 1024;

/** The error that amqplib makes of a closure. */
export function closureError(opening: string, refusal: Refusal): Error {
  const { classId, methodId } = refusal.method;
  return Object.assign(new Error(`${opening}: ${refusal.told}`), { code: refusal.replyCode, classId, methodId });
}

export class MemoryChannel extends EventEmitter implements amqplib.ConfirmChannel {
  readonly connection: amqplib.Connection;
  readonly #link: Link;
  readonly #broker: BrokerChannel;
  readonly #wire: Wire;
  readonly #consumers = new Map<string, OnMessage>();
  /** Questions whose answers are on the wire, or will never come. */
  #pending: Pending[] = [];
  /** The texts of the error for what is asked of a channel that is closing or closed. */
  #illegal: string | undefined;
  #gone = false;
  #confirms = false;
  /** Callbacks of publishes that are not confirmed, the oldest first; undefined where there is none. */
  #unconfirmed: (OnConfirm | undefined)[] = [];
  #waiters: { left: number; resolve: () => void; reject: (error: Error) => void }[] = [];
  #lostConfirms = false;
  #writtenThisTurn = 0;
  /** The confirm that is the last news on the wire: the next one can ride on it. */
  #riding: { news: () => void; upTo: number } | undefined;
  #confirmed = 0;

  constructor(connection: amqplib.Connection, link: Link, wire: Wire) {
    super();
    this.connection = connection;
    this.#link = link;
    this.#wire = wire;
    this.#broker = new BrokerChannel(link, this.#client);
  }

  // queues and exchanges

  assertQueue(name = '', options: amqplib.Options.AssertQueue = {}): Promise<amqplib.Replies.AssertQueue> {
    return this.#ask(method.QUEUE_DECLARE, () => {
      const queue = shortString(name || '', 'queue');
      const args = fieldsOf(
        withNamed(options.arguments, {
          'x-expires': options.expires,
          'x-message-ttl': options.messageTtl,
          'x-dead-letter-exchange': options.deadLetterExchange,
          'x-dead-letter-routing-key': options.deadLetterRoutingKey,
          'x-max-length': options.maxLength,
          'x-max-priority': options.maxPriority,
          'x-overflow': options.overflow,
          'x-queue-mode': options.queueMode,
        }),
      );
      const { durable = true, exclusive, autoDelete } = options;
      return () => queueReply(this.#broker.declareQueue(queue, !!durable, !!exclusive, !!autoDelete, args));
    });
  }

  checkQueue(name: string): Promise<amqplib.Replies.AssertQueue> {
    return this.#ask(method.QUEUE_DECLARE, () => {
      const queue = shortString(name, 'queue');
      return () => queueReply(this.#broker.checkQueue(queue));
    });
  }

  deleteQueue(name: string, options: amqplib.Options.DeleteQueue = {}): Promise<amqplib.Replies.DeleteQueue> {
    return this.#ask(method.QUEUE_DELETE, () => {
      const queue = shortString(name, 'queue');
      const { ifUnused, ifEmpty } = options;
      return () => ({ messageCount: this.#link.vhost.deleteQueue(queue, this.#link, !!ifUnused, !!ifEmpty) });
    });
  }

  purgeQueue(name: string): Promise<amqplib.Replies.PurgeQueue> {
    return this.#ask(method.QUEUE_PURGE, () => {
      const queue = shortString(name, 'queue');
      return () => ({ messageCount: this.#broker.queueNamed(queue).purge() });
    });
  }

  bindQueue(name: string, source: string, pattern: string, args?: object): Promise<amqplib.Replies.Empty> {
    return this.#ask(method.QUEUE_BIND, () => {
      const [queue, exchange, key] = names(['queue', name], ['exchange', source], ['routingKey', pattern]);
      const fields = fieldsOf(args);
      return () => {
        if (exchange !== '') this.#link.vhost.exchange(exchange!);
        const destination = this.#broker.queueNamed(queue!);
        // RabbitMQ's shortcut for the queue declared last.
        this.#link.vhost.bind(destination, exchange!, queue === '' && key === '' ? destination.name : key!, fields);
        return {};
      };
    });
  }

  unbindQueue(name: string, source: string, pattern: string, args?: object): Promise<amqplib.Replies.Empty> {
    return this.#ask(method.QUEUE_UNBIND, () => {
      const [queue, exchange, key] = names(['queue', name], ['exchange', source], ['routingKey', pattern]);
      const fields = fieldsOf(args);
      return () => {
        this.#link.vhost.unbind('queue', queue!, exchange!, key!, fields);
        return {};
      };
    });
  }

  assertExchange(
    name: string,
    type: string,
    options: amqplib.Options.AssertExchange = {},
  ): Promise<amqplib.Replies.AssertExchange> {
    return this.#ask(method.EXCHANGE_DECLARE, () => {
      const [exchange, kind] = names(['exchange', name], ['type', type]);
      const args = fieldsOf(withNamed(options.arguments, { 'alternate-exchange': options.alternateExchange }));
      const { durable = true, autoDelete, internal } = options;
      const flags = { durable: !!durable, autoDelete: !!autoDelete, internal: !!internal };
      return () => {
        this.#link.vhost.declareExchange({ name: exchange!, type: kind!, ...flags, args });
        return { exchange: name };
      };
    });
  }

  checkExchange(name: string): Promise<amqplib.Replies.Empty> {
    return this.#ask(method.EXCHANGE_DECLARE, () => {
      const exchange = shortString(name, 'exchange');
      return () => {
        this.#link.vhost.checkExchange(exchange);
        return {};
      };
    });
  }

  deleteExchange(name: string, options: amqplib.Options.DeleteExchange = {}): Promise<amqplib.Replies.Empty> {
    return this.#ask(method.EXCHANGE_DELETE, () => {
      const exchange = shortString(name, 'exchange');
      return () => {
        this.#link.vhost.deleteExchange(exchange, !!options.ifUnused);
        return {};
      };
    });
  }

  bindExchange(to: string, source: string, pattern: string, args?: object): Promise<amqplib.Replies.Empty> {
    return this.#ask(method.EXCHANGE_BIND, () => {
      const [destination, from, key] = names(['destination', to], ['source', source], ['routingKey', pattern]);
      const fields = fieldsOf(args);
      return () => {
        const { vhost } = this.#link;
        if (destination === '' || from === '') vhost.checkExchange('');
        vhost.exchange(from!);
        vhost.bind(vhost.exchange(destination!), from!, key!, fields);
        return {};
      };
    });
  }

  unbindExchange(to: string, source: string, pattern: string, args?: object): Promise<amqplib.Replies.Empty> {
    return this.#ask(method.EXCHANGE_UNBIND, () => {
      const [destination, from, key] = names(['destination', to], ['source', source], ['routingKey', pattern]);
      const fields = fieldsOf(args);
      return () => {
        this.#link.vhost.unbind('exchange', destination!, from!, key!, fields);
        return {};
      };
    });
  }

  // publishing

  publish(
    exchange: string,
    routingKey: string,
    content: Buffer,
    options: amqplib.Options.Publish = {},
    callback?: OnConfirm,
  ): boolean {
    this.#mustBeOpen();
    if (!Buffer.isBuffer(content)) throw new TypeError('content is not a buffer');
    // Encoded here, whatever the broker says to it: what cannot be encoded is the caller's mistake.
    const properties = publishProperties(options);
    const [to, key] = names(['exchange', exchange], ['routingKey', routingKey]);
    const { headers } = properties;
    const listed = headers?.CC !== undefined || headers?.BCC !== undefined;
    const cleartext =
      listed && headers?.BCC !== undefined ? { ...properties, headers: { ...headers, BCC: undefined } } : properties;
    const message = new StoredMessage(to!, key!, cleartext, content);
    const make = (): StoredMessage =>
      listed ? new StoredMessage(to!, key!, cleartext, content, moreKeysOf(fieldsOf(headers))) : message;
    if (this.#confirms) this.#unconfirmed.push(callback);
    this.#broker.publish(make, !!options.mandatory);
    return this.#hasWritten();
  }

  sendToQueue(queue: string, content: Buffer, options?: amqplib.Options.Publish, callback?: OnConfirm): boolean {
    return this.publish('', queue, content, options, callback);
  }

  /** For the connection that opens the channel. */
  selectConfirms(): void {
    this.#confirms = true;
    this.#broker.selectConfirms();
  }

  waitForConfirms(): Promise<void> {
    if (this.#lostConfirms) return Promise.reject(new Error('channel closed'));
    if (this.#unconfirmed.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiters.push({ left: this.#unconfirmed.length, resolve, reject });
    });
  }

  #hasWritten(): boolean {
    if (++this.#writtenThisTurn === 1) {
      this.#wire.nextTurn(() => {
        const full = this.#writtenThisTurn >= HIGH_WATER;
        this.#writtenThisTurn = 0;
        if (full) this.#wire.push(() => this.emit('drain'));
      });
    }
    return this.#writtenThisTurn < HIGH_WATER;
  }

  // consuming

  consume(name: string, onMessage: OnMessage, options: amqplib.Options.Consume = {}): Promise<amqplib.Replies.Consume> {
    return this.#ask(method.BASIC_CONSUME, () => {
      const [queue, consumerTag] = names(['queue', name], ['consumerTag', options.consumerTag || '']);
      const args = fieldsOf(withNamed(options.arguments, { 'x-priority': options.priority }));
      const settings = { consumerTag: consumerTag!, noAck: !!options.noAck, exclusive: !!options.exclusive, args };
      const known = (tag: string): void => {
        this.#consumers.set(tag, onMessage);
      };
      return () => ({ consumerTag: this.#broker.consume(queue!, settings, known) });
    });
  }

  cancel(tag: string): Promise<amqplib.Replies.Cancel> {
    return this.#ask(
      method.BASIC_CANCEL,
      () => {
        const consumerTag = shortString(tag, 'consumerTag');
        return () => {
          this.#broker.cancel(consumerTag);
          return { consumerTag };
        };
      },
      () => this.#consumers.delete(tag),
    );
  }

  async get(name: string, options: amqplib.Options.Get = {}): Promise<amqplib.GetMessage | false> {
    return await this.#ask<amqplib.GetMessage | false>(method.BASIC_GET, () => {
      const queue = shortString(name, 'queue');
      return () => {
        const found = this.#broker.get(queue, !!options.noAck);
        if (found === undefined) return false;
        const { entry, tag, left } = found;
        const { exchange, routingKey } = entry.message;
        const fields = { deliveryTag: tag, redelivered: entry.redelivered, exchange, routingKey, messageCount: left };
        return { ...received(entry.message), fields };
      };
    });
  }

  prefetch(count: number, wholeChannel = false): Promise<amqplib.Replies.Empty> {
    return this.#ask(method.BASIC_QOS, () => {
      const size = count || 0;
      if (!(size >= 0 && size <= 65535)) {
        throw new RangeError(`The value of "value" is out of range. It must be >= 0 and <= 65535. Received ${count}`);
      }
      return () => {
        this.#broker.prefetch(size, !!wholeChannel);
        return {};
      };
    });
  }

  recover(): Promise<amqplib.Replies.Empty> {
    return this.#ask(method.BASIC_RECOVER, () => () => {
      this.#broker.recover();
      return {};
    });
  }

  ack({ fields }: amqplib.Message, allUpTo = false): void {
    this.#tell(method.BASIC_ACK, () => this.#broker.ack(fields.deliveryTag, !!allUpTo));
  }

  ackAll(): void {
    this.#tell(method.BASIC_ACK, () => this.#broker.ack(0, true));
  }

  nack({ fields }: amqplib.Message, allUpTo = false, requeue = true): void {
    this.#tell(method.BASIC_NACK, () => this.#broker.reject(fields.deliveryTag, !!allUpTo, !!requeue));
  }

  nackAll(requeue = true): void {
    this.#tell(method.BASIC_NACK, () => this.#broker.reject(0, true, !!requeue));
  }

  reject({ fields }: amqplib.Message, requeue = true): void {
    this.#tell(method.BASIC_REJECT, () => this.#broker.reject(fields.deliveryTag, false, !!requeue));
  }

  // the channel's life

  close(): Promise<void> {
    if (this.#illegal !== undefined) return Promise.reject(new IllegalOperationError(this.#illegal));
    this.#illegal = 'Channel closing';
    this.#broker.close();
    return new Promise((resolve) => {
      this.#wire.push(() => {
        resolve();
        this.toClosed();
      });
    });
  }

  /** The end, as the client hears of it: by itself, by its own close, or with its connection. Once. */
  toClosed(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#illegal = 'Channel closed';
    for (const { reject } of this.#pending) reject(new Error('Channel ended, no reply will be forthcoming'));
    this.#pending = [];
    const error = new Error('channel closed');
    this.#lostConfirms = this.#unconfirmed.length > 0;
    const lost = this.#unconfirmed;
    this.#unconfirmed = [];
    for (const callback of lost) callback?.(error, {});
    for (const waiter of this.#waiters) waiter.reject(error);
    this.#waiters = [];
    this.emit('close');
  }

  #mustBeOpen(): void {
    if (this.#illegal !== undefined) throw new IllegalOperationError(this.#illegal);
  }

  #tell(what: Method, run: () => void): void {
    this.#mustBeOpen();
    this.#broker.call(what, run);
  }

  /** `prepare` reads the arguments: what it throws is the caller's mistake, and nothing has been asked then. */
  #ask<T>(what: Method, prepare: () => () => T, answered?: () => void): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#mustBeOpen();
      const run = prepare();
      this.#pending.push({ method: what, reject });
      const answer = this.#broker.call(what, run);
      if (answer === undefined) return;
      this.#wire.push(() => {
        if (this.#gone || this.#illegal !== undefined) return;
        this.#pending.shift();
        answered?.();
        resolve(answer.reply);
      });
    });
  }

  /** What the broker says; all but `hasRoom` is news for the wire. */
  readonly #client: ChannelClient = {
    hasRoom: () => true,
    deliver: (consumerTag, deliveryTag, { message, redelivered }) => {
      this.#wire.push(() => {
        if (this.#illegal !== undefined) return;
        const { exchange, routingKey } = message;
        const fields = { consumerTag, deliveryTag, redelivered, exchange, routingKey };
        const delivery: amqplib.ConsumeMessage = { ...received(message), fields };
        this.#hand(() => {
          this.emit('delivery', delivery);
          this.#consumers.get(consumerTag)?.(delivery);
        });
      });
    },
    cancelled: (consumerTag) => {
      this.#wire.push(() => {
        if (this.#illegal !== undefined) return;
        this.emit('cancel', { consumerTag });
        const consumer = this.#consumers.get(consumerTag);
        this.#consumers.delete(consumerTag);
        consumer?.(null);
      });
    },
    returned: (message) => {
      this.#wire.push(() => {
        if (this.#illegal !== undefined) return;
        const { exchange, routingKey } = message;
        const fields = { replyCode: 312, replyText: 'NO_ROUTE', exchange, routingKey };
        this.#hand(() => this.emit('return', { ...received(message), fields }));
      });
    },
    confirmed: (tag, taken) => this.#onConfirmed(tag, taken),
    // The client hears of it by the wire.
    ended: () => undefined,
    closed: (refusal) => {
      this.#wire.push(() => {
        if (this.#gone) return;
        const [asked] = this.#pending.splice(0, 1);
        const { method: at } = refusal;
        const opening = asked?.method === at ? `Operation failed: ${at.name};` : 'Channel closed by server:';
        asked?.reject(Object.assign(closureError('', refusal), { message: `${opening} ${refusal.told}` }));
        if (this.#illegal === undefined) this.emit('error', closureError('Channel closed by server', refusal));
        this.toClosed();
      });
    },
  };

  /** The broker has answered a publish: confirms that follow each other without other news are one. */
  #onConfirmed(tag: number, taken: boolean): void {
    if (taken && this.#riding !== undefined && this.#wire.isLast(this.#riding.news)) {
      this.#riding.upTo = tag;
      return;
    }
    const news = (): void => {
      if (this.#riding === riding) this.#riding = undefined;
      if (this.#illegal !== undefined) return;
      if (taken) this.emit('ack', { deliveryTag: riding.upTo, multiple: riding.upTo > tag });
      else this.emit('nack', { deliveryTag: tag, multiple: false, requeue: false });
      while (this.#confirmed < riding.upTo) this.#settle(taken ? null : new Error('message nacked'));
    };
    const riding = { news, upTo: tag };
    if (taken) this.#riding = riding;
    this.#wire.push(news);
  }

  #settle(error: Error | null): void {
    this.#confirmed++;
    this.#unconfirmed.shift()?.(error, {});
    for (const waiter of this.#waiters) {
      waiter.left--;
      if (error !== null) waiter.reject(error);
      else if (waiter.left === 0) waiter.resolve();
    }
    if (this.#waiters.length > 0) this.#waiters = this.#waiters.filter(({ left }) => left > 0);
  }

  /** Calls the user's code; if that throws the channel is closed, as by amqplib. */
  #hand(call: () => void): void {
    try {
      call();
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown : new Error(String(thrown));
      if (this.#illegal !== undefined) return;
      this.#illegal = 'Channel closing';
      this.#broker.close();
      this.#wire.push(() => {
        if (this.#gone) return;
        this.emit('error', Object.assign(error, { code: 541 }));
        this.toClosed();
      });
    }
  }
}

function queueReply(queue: BrokerQueue): amqplib.Replies.AssertQueue {
  return { queue: queue.name, messageCount: queue.size, consumerCount: queue.consumers.size };
}

/** Names as AMQP has them, or amqplib's TypeError. */
function names(...given: readonly (readonly [field: string, name: string])[]): readonly string[] {
  return given.map(([field, name]) => shortString(name, field));
}

/** In memory of its own: the broker keeps the message for others. */
function received(message: StoredMessage): { content: Buffer; properties: amqplib.MessageProperties } {
  const { bytes, propertiesAt, propertiesEnd } = message.rest;
  const properties = readAmqplibProperties(bytes, propertiesAt, propertiesEnd, message.headersAt);
  return { content: copyOf(message.body), properties: properties as amqplib.MessageProperties };
}

export type { Entry };
