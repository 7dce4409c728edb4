/**
 * A channel's life as its client sees it: questions and their answers, deliveries, returns, confirms, and the end, which may come
 * from either side. What the client asks is done at once; all news comes as if by a socket (`Wire`). Errors have amqplib's texts
 * and fields: `transports/amqp/errors.ts` reads them.
 */
import { EventEmitter } from 'node:events';
import type * as amqplib from 'amqplib';
import { IllegalOperationError } from 'amqplib';
import { readAmqplibProperties } from '../../../codec/amqp/amqplib-values.js';
import type { Link } from './broker.js';
import { BrokerChannel, type ChannelClient } from './broker-channel.js';
import { Confirms } from './confirms.js';
import type { StoredMessage } from './message.js';
import type { Method, Refusal } from './refusal.js';
import type { Wire } from './wire.js';

interface Pending {
  readonly method: Method;
  readonly reject: (error: Error) => void;
}

export type OnMessage = (message: amqplib.ConsumeMessage | null) => void;

/** The error that amqplib makes of a closure. */
export function closureError(opening: string, refusal: Refusal): Error {
  const { classId, methodId } = refusal.method;
  return Object.assign(new Error(`${opening} ${refusal.told}`), { code: refusal.replyCode, classId, methodId });
}

export class ChannelLife extends EventEmitter {
  protected readonly link: Link;
  protected readonly broker: BrokerChannel;
  protected readonly wire: Wire;
  protected readonly confirms = new Confirms();
  protected readonly consumers = new Map<string, OnMessage>();
  /** Questions whose answers are on the wire, or will never come. */
  #pending: Pending[] = [];
  /** The text of the error for what is asked of a channel that is closing or closed. */
  #illegal: string | undefined;
  #gone = false;
  /** The broker keeps messages back until the client has heard what it was told. */
  #waits = false;
  /** The confirm that is the last news on the wire: the next one can ride on it. */
  #riding: { news: () => void; upTo: number } | undefined;

  constructor(link: Link, wire: Wire) {
    super();
    this.link = link;
    this.wire = wire;
    this.broker = new BrokerChannel(link, this.#client);
  }

  close(): Promise<void> {
    if (this.#illegal !== undefined) return Promise.reject(new IllegalOperationError(this.#illegal));
    this.#illegal = 'Channel closing';
    this.broker.close();
    return new Promise((resolve) => {
      this.wire.push(() => {
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
    this.confirms.lose();
    this.emit('close');
  }

  protected mustBeOpen(): void {
    if (this.#illegal !== undefined) throw new IllegalOperationError(this.#illegal);
  }

  protected tell(what: Method, run: () => void): void {
    this.mustBeOpen();
    this.broker.call(what, run);
  }

  /** `prepare` reads the arguments: what it throws is the caller's mistake, and nothing has been asked then. */
  protected ask<T>(what: Method, prepare: () => () => T, answered?: () => void): Promise<T> {
    return new Promise((resolve, reject) => {
      this.mustBeOpen();
      const run = prepare();
      this.#pending.push({ method: what, reject });
      const answer = this.broker.call(what, run);
      if (answer === undefined) return;
      this.wire.push(() => {
        if (this.#gone || this.#illegal !== undefined) return;
        this.#pending.shift();
        answered?.();
        resolve(answer.reply);
      });
    });
  }

  /** What the broker says; all but `hasRoom` and `ended` is news for the wire. */
  readonly #client: ChannelClient = {
    hasRoom: () => {
      if (!this.wire.isFull) return true;
      if (!this.#waits) {
        this.#waits = true;
        this.wire.nextTurn(() => {
          this.#waits = false;
          this.broker.wake();
        });
      }
      return false;
    },
    deliver: (consumerTag, deliveryTag, { message, redelivered }) => {
      this.wire.push(() => {
        if (this.#illegal !== undefined) return;
        const { exchange, routingKey } = message;
        const fields = { consumerTag, deliveryTag, redelivered, exchange, routingKey };
        const delivery: amqplib.ConsumeMessage = { ...received(message), fields };
        this.#hand(() => {
          this.emit('delivery', delivery);
          this.consumers.get(consumerTag)?.(delivery);
        });
      });
    },
    cancelled: (consumerTag) => {
      this.wire.push(() => {
        if (this.#illegal !== undefined) return;
        this.emit('cancel', { consumerTag, nowait: true });
        const consumer = this.consumers.get(consumerTag);
        this.consumers.delete(consumerTag);
        consumer?.(null);
      });
    },
    returned: (message) => {
      this.wire.push(() => {
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
      this.wire.push(() => {
        if (this.#gone) return;
        const [asked] = this.#pending.splice(0, 1);
        const { method: at } = refusal;
        const opening = asked?.method === at ? `Operation failed: ${at.name};` : 'Channel closed by server:';
        asked?.reject(closureError(opening, refusal));
        if (this.#illegal === undefined) this.emit('error', closureError('Channel closed by server:', refusal));
        this.toClosed();
      });
    },
  };

  /** The broker has answered a publish: confirms that follow each other without other news are one. */
  #onConfirmed(tag: number, taken: boolean): void {
    if (taken && this.#riding !== undefined && this.wire.isLast(this.#riding.news)) {
      this.#riding.upTo = tag;
      return;
    }
    const news = (): void => {
      if (this.#riding === riding) this.#riding = undefined;
      if (this.#illegal !== undefined) return;
      if (taken) this.emit('ack', { deliveryTag: riding.upTo, multiple: riding.upTo > tag });
      else this.emit('nack', { deliveryTag: tag, multiple: false, requeue: false });
      this.confirms.settle(riding.upTo, taken ? null : new Error('message nacked'));
    };
    const riding = { news, upTo: tag };
    if (taken) this.#riding = riding;
    this.wire.push(news);
  }

  /** Calls the user's code; if that throws the channel is closed, as by amqplib. */
  #hand(call: () => void): void {
    try {
      call();
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown : new Error(String(thrown));
      if (this.#illegal !== undefined) return;
      this.#illegal = 'Channel closing';
      this.broker.close();
      this.wire.push(() => {
        if (this.#gone) return;
        this.emit('error', Object.assign(error, { code: 541 }));
        this.toClosed();
      });
    }
  }
}

/** In memory of its own: the broker keeps the message for others. */
export function received(message: StoredMessage): { content: Buffer; properties: amqplib.MessageProperties } {
  const { bytes, propertiesAt, propertiesEnd } = message.rest;
  const properties = readAmqplibProperties(bytes, propertiesAt, propertiesEnd, message.headersAt);
  return { content: Buffer.from(message.body), properties: properties as amqplib.MessageProperties };
}
