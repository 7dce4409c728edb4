/**
 * amqplib's channel, spoken to a broker in this process. What amqplib's own documentation says of a method holds here; this file
 * reads their arguments, and `ChannelLife` does the rest.
 */
import type * as amqplib from 'amqplib';
import type { Link } from './broker.js';
import { moreKeysOf } from './broker-channel.js';
import { fieldsOf, publishProperties, shortString, withNamed, withoutBcc } from './channel-arguments.js';
import { ChannelLife, type OnMessage, received } from './channel-life.js';
import type { OnConfirm } from './confirms.js';
import { StoredMessage } from './message.js';
import type { BrokerQueue } from './queue.js';
import { method } from './refusal.js';
import type { Wire } from './wire.js';

/** Publishes in one turn before `publish` says false, as amqplib's buffer of 1024 frames does. */
const HIGH_WATER = 1024;

export class MemoryChannel extends ChannelLife implements amqplib.ConfirmChannel {
  readonly connection: amqplib.Connection;
  #confirms = false;
  #writtenThisTurn = 0;

  constructor(connection: amqplib.Connection, link: Link, wire: Wire) {
    super(link, wire);
    this.connection = connection;
  }

  // queues and exchanges

  assertQueue(name = '', options: amqplib.Options.AssertQueue = {}): Promise<amqplib.Replies.AssertQueue> {
    return this.ask(method.QUEUE_DECLARE, () => {
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
      return () => queueReply(this.broker.declareQueue(queue, !!durable, !!exclusive, !!autoDelete, args));
    });
  }

  checkQueue(name: string): Promise<amqplib.Replies.AssertQueue> {
    return this.ask(method.QUEUE_DECLARE, () => {
      const queue = shortString(name, 'queue');
      return () => queueReply(this.broker.checkQueue(queue));
    });
  }

  deleteQueue(name: string, options: amqplib.Options.DeleteQueue = {}): Promise<amqplib.Replies.DeleteQueue> {
    return this.ask(method.QUEUE_DELETE, () => {
      const queue = shortString(name, 'queue');
      const { ifUnused, ifEmpty } = options;
      return () => ({ messageCount: this.link.vhost.deleteQueue(queue, this.link, !!ifUnused, !!ifEmpty) });
    });
  }

  purgeQueue(name: string): Promise<amqplib.Replies.PurgeQueue> {
    return this.ask(method.QUEUE_PURGE, () => {
      const queue = shortString(name, 'queue');
      return () => ({ messageCount: this.broker.queueNamed(queue).purge() });
    });
  }

  bindQueue(name: string, source: string, pattern: string, args?: object): Promise<amqplib.Replies.Empty> {
    return this.ask(method.QUEUE_BIND, () => {
      const [queue, exchange, key] = names(['queue', name], ['exchange', source], ['routingKey', pattern]);
      const fields = fieldsOf(args);
      return () => {
        if (exchange !== '') this.link.vhost.exchange(exchange!);
        const destination = this.broker.queueNamed(queue!);
        // RabbitMQ's shortcut for the queue declared last.
        this.link.vhost.bind(destination, exchange!, queue === '' && key === '' ? destination.name : key!, fields);
        return {};
      };
    });
  }

  unbindQueue(name: string, source: string, pattern: string, args?: object): Promise<amqplib.Replies.Empty> {
    return this.ask(method.QUEUE_UNBIND, () => {
      const [queue, exchange, key] = names(['queue', name], ['exchange', source], ['routingKey', pattern]);
      const fields = fieldsOf(args);
      return () => {
        this.link.vhost.unbind('queue', queue!, exchange!, key!, fields);
        return {};
      };
    });
  }

  assertExchange(
    name: string,
    type: string,
    options: amqplib.Options.AssertExchange = {},
  ): Promise<amqplib.Replies.AssertExchange> {
    return this.ask(method.EXCHANGE_DECLARE, () => {
      const [exchange, kind] = names(['exchange', name], ['type', type]);
      const args = fieldsOf(withNamed(options.arguments, { 'alternate-exchange': options.alternateExchange }));
      const { durable = true, autoDelete, internal } = options;
      const flags = { durable: !!durable, autoDelete: !!autoDelete, internal: !!internal };
      return () => {
        this.link.vhost.declareExchange({ name: exchange!, type: kind!, ...flags, args });
        return { exchange: name };
      };
    });
  }

  checkExchange(name: string): Promise<amqplib.Replies.Empty> {
    return this.ask(method.EXCHANGE_DECLARE, () => {
      const exchange = shortString(name, 'exchange');
      return () => {
        this.link.vhost.checkExchange(exchange);
        return {};
      };
    });
  }

  deleteExchange(name: string, options: amqplib.Options.DeleteExchange = {}): Promise<amqplib.Replies.Empty> {
    return this.ask(method.EXCHANGE_DELETE, () => {
      const exchange = shortString(name, 'exchange');
      return () => {
        this.link.vhost.deleteExchange(exchange, !!options.ifUnused);
        return {};
      };
    });
  }

  bindExchange(to: string, source: string, pattern: string, args?: object): Promise<amqplib.Replies.Empty> {
    return this.ask(method.EXCHANGE_BIND, () => {
      const [destination, from, key] = names(['destination', to], ['source', source], ['routingKey', pattern]);
      const fields = fieldsOf(args);
      return () => {
        const { vhost } = this.link;
        if (destination === '' || from === '') vhost.checkExchange('');
        vhost.exchange(from!);
        vhost.bind(vhost.exchange(destination!), from!, key!, fields);
        return {};
      };
    });
  }

  unbindExchange(to: string, source: string, pattern: string, args?: object): Promise<amqplib.Replies.Empty> {
    return this.ask(method.EXCHANGE_UNBIND, () => {
      const [destination, from, key] = names(['destination', to], ['source', source], ['routingKey', pattern]);
      const fields = fieldsOf(args);
      return () => {
        this.link.vhost.unbind('exchange', destination!, from!, key!, fields);
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
    this.mustBeOpen();
    if (!Buffer.isBuffer(content)) throw new TypeError('content is not a buffer');
    // Encoded here, whatever the broker says to it: what cannot be encoded is the caller's mistake.
    const properties = publishProperties(options);
    const [to, key] = names(['exchange', exchange], ['routingKey', routingKey]);
    const { headers } = properties;
    const message = new StoredMessage(to!, key!, { ...properties, headers: withoutBcc(headers) }, content);
    // The keys of CC and BCC are the broker's to judge.
    const make = (): StoredMessage => {
      const isCopied = headers.CC !== undefined || headers.BCC !== undefined;
      return isCopied ? message.withKeys(moreKeysOf(fieldsOf(headers))) : message;
    };
    if (this.#confirms) this.confirms.published(callback);
    this.broker.publish(make, !!options.mandatory);
    return this.#hasWritten();
  }

  sendToQueue(queue: string, content: Buffer, options?: amqplib.Options.Publish, callback?: OnConfirm): boolean {
    return this.publish('', queue, content, options, callback);
  }

  /** For the connection that opens the channel. */
  selectConfirms(): void {
    this.#confirms = true;
    this.broker.selectConfirms();
  }

  waitForConfirms(): Promise<void> {
    return this.confirms.all();
  }

  #hasWritten(): boolean {
    if (++this.#writtenThisTurn === 1) {
      this.wire.nextTurn(() => {
        const full = this.#writtenThisTurn >= HIGH_WATER;
        this.#writtenThisTurn = 0;
        if (full) this.wire.push(() => this.emit('drain'));
      });
    }
    return this.#writtenThisTurn < HIGH_WATER;
  }

  // consuming

  consume(name: string, onMessage: OnMessage, options: amqplib.Options.Consume = {}): Promise<amqplib.Replies.Consume> {
    return this.ask(method.BASIC_CONSUME, () => {
      const [queue, consumerTag] = names(['queue', name], ['consumerTag', options.consumerTag || '']);
      const args = fieldsOf(withNamed(options.arguments, { 'x-priority': options.priority }));
      const settings = { consumerTag: consumerTag!, noAck: !!options.noAck, exclusive: !!options.exclusive, args };
      const known = (tag: string): void => {
        this.consumers.set(tag, onMessage);
      };
      return () => ({ consumerTag: this.broker.consume(queue!, settings, known) });
    });
  }

  cancel(tag: string): Promise<amqplib.Replies.Cancel> {
    return this.ask(
      method.BASIC_CANCEL,
      () => {
        const consumerTag = shortString(tag, 'consumerTag');
        return () => {
          this.broker.cancel(consumerTag);
          return { consumerTag };
        };
      },
      () => this.consumers.delete(tag),
    );
  }

  async get(name: string, options: amqplib.Options.Get = {}): Promise<amqplib.GetMessage | false> {
    return await this.ask<amqplib.GetMessage | false>(method.BASIC_GET, () => {
      const queue = shortString(name, 'queue');
      return () => {
        const found = this.broker.get(queue, !!options.noAck);
        if (found === undefined) return false;
        const { entry, tag, left } = found;
        const { exchange, routingKey } = entry.message;
        const fields = { deliveryTag: tag, redelivered: entry.redelivered, exchange, routingKey, messageCount: left };
        return { ...received(entry.message), fields };
      };
    });
  }

  prefetch(count: number, wholeChannel = false): Promise<amqplib.Replies.Empty> {
    return this.ask(method.BASIC_QOS, () => {
      const size = count || 0;
      if (!(size >= 0 && size <= 65535)) {
        throw new RangeError(`The value of "value" is out of range. It must be >= 0 and <= 65535. Received ${count}`);
      }
      return () => {
        this.broker.prefetch(size, !!wholeChannel);
        return {};
      };
    });
  }

  recover(): Promise<amqplib.Replies.Empty> {
    return this.ask(method.BASIC_RECOVER, () => () => {
      this.broker.recover();
      return {};
    });
  }

  ack({ fields }: amqplib.Message, allUpTo = false): void {
    this.tell(method.BASIC_ACK, () => this.broker.ack(fields.deliveryTag, !!allUpTo));
  }

  ackAll(): void {
    this.tell(method.BASIC_ACK, () => this.broker.ack(0, true));
  }

  nack({ fields }: amqplib.Message, allUpTo = false, requeue = true): void {
    this.tell(method.BASIC_NACK, () => this.broker.reject(fields.deliveryTag, !!allUpTo, !!requeue));
  }

  nackAll(requeue = true): void {
    this.tell(method.BASIC_NACK, () => this.broker.reject(0, true, !!requeue));
  }

  reject({ fields }: amqplib.Message, requeue = true): void {
    this.tell(method.BASIC_REJECT, () => this.broker.reject(fields.deliveryTag, false, !!requeue));
  }
}

function queueReply(queue: BrokerQueue): amqplib.Replies.AssertQueue {
  return { queue: queue.name, messageCount: queue.size, consumerCount: queue.consumers.size };
}

/** Names as AMQP has them, or amqplib's TypeError. */
function names(...given: readonly (readonly [field: string, name: string])[]): readonly string[] {
  return given.map(([field, name]) => shortString(name, field));
}
