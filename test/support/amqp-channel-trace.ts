// What one life of one channel delivered and settled, for amqp-trace.ts: which tags are outstanding, whose body is coming,
// whether the channel may still be written to.

import { now } from '#src/pool/clock';
import { type Fields, readContentHeader } from './amqp-reader.js';

export type SettleKind = 'ack' | 'nack' | 'reject';

export interface TracedDelivery {
  /** Number of the TCP connection, channel on it, and which life of that channel: 1, 2 … */
  connection: number;
  channel: number;
  incarnation: number;
  tag: number;
  /** When it was sent on to the client: microseconds of the clock that all threads share. */
  at: number;
  via: 'deliver' | 'get';
  consumerTag: string | undefined;
  redelivered: boolean;
  exchange: string;
  routingKey: string;
  noAck: boolean;
  messageId: string | undefined;
  /** Only if the trace was asked to keep bodies. */
  body: Buffer | undefined;
  /** Whether the last byte of the body has passed. */
  complete: boolean;
  settled: SettleKind | undefined;
}

export interface TracedSettlement {
  connection: number;
  channel: number;
  incarnation: number;
  kind: SettleKind;
  tag: number;
  multiple: boolean;
  requeue: boolean;
  /** The broker had closed the channel, which the client could not know yet: the broker ignores this one. */
  crossedClose: boolean;
  /** What it settled, oldest first; empty after a violation. */
  deliveries: TracedDelivery[];
}

/** `closing`: the server has closed it and the client has not answered yet. */
export type ChannelState = 'open' | 'closing' | 'closed';

interface Content {
  delivery: TracedDelivery | undefined;
  chunks: Buffer[];
  left: number | undefined;
}

export class ChannelTrace {
  state: ChannelState = 'open';
  /** In the order of their tags, as the broker delivers them. */
  readonly #outstanding = new Map<number, TracedDelivery>();
  /** Settled, or delivered without a need to. */
  readonly #done = new Map<number, TracedDelivery>();
  readonly #noAckConsumers = new Set<string>();
  readonly #consumesAsked: { noAck: boolean }[] = [];
  readonly #getsAsked: { noAck: boolean }[] = [];
  #content: Content | undefined;

  constructor(
    readonly connection: number,
    readonly channel: number,
    readonly incarnation: number,
    readonly keepBodies: boolean,
  ) {}

  get name(): string {
    return `connection ${this.connection} channel ${this.channel} (life ${this.incarnation})`;
  }

  outstanding(): TracedDelivery[] {
    return [...this.#outstanding.values()];
  }

  consumeAsked(fields: Fields): void {
    fields.short();
    fields.shortString();
    const consumerTag = fields.shortString();
    const bits = fields.octet();
    const noAck = (bits & 2) !== 0;
    const noWait = (bits & 8) !== 0;
    if (noAck && consumerTag) this.#noAckConsumers.add(consumerTag);
    if (!noWait) this.#consumesAsked.push({ noAck });
  }

  consumeConfirmed(fields: Fields): void {
    // the name of a server-named consumer is known only now
    if (this.#consumesAsked.shift()?.noAck) this.#noAckConsumers.add(fields.shortString());
  }

  getAsked(fields: Fields): void {
    fields.short();
    fields.shortString();
    this.#getsAsked.push({ noAck: (fields.octet() & 1) !== 0 });
  }

  getEmpty(): void {
    this.#getsAsked.shift();
  }

  delivered(via: 'deliver' | 'get', fields: Fields): TracedDelivery {
    const consumerTag = via === 'deliver' ? fields.shortString() : undefined;
    const noAck =
      consumerTag === undefined ? this.#getsAsked.shift()?.noAck === true : this.#noAckConsumers.has(consumerTag);
    const delivery: TracedDelivery = {
      connection: this.connection,
      channel: this.channel,
      incarnation: this.incarnation,
      tag: fields.longlong(),
      at: now(),
      via,
      consumerTag,
      redelivered: (fields.octet() & 1) !== 0,
      exchange: fields.shortString(),
      routingKey: fields.shortString(),
      noAck,
      messageId: undefined,
      body: undefined,
      complete: false,
      settled: undefined,
    };
    (noAck ? this.#done : this.#outstanding).set(delivery.tag, delivery);
    this.#content = { delivery, chunks: [], left: undefined };
    return delivery;
  }

  returned(): void {
    this.#content = { delivery: undefined, chunks: [], left: undefined };
  }

  contentHeader(payload: Buffer): void {
    if (!this.#content || this.#content.left !== undefined) throw new Error('a content header without its method');
    const { bodySize, messageId } = readContentHeader(payload);
    this.#content.left = bodySize;
    if (this.#content.delivery) this.#content.delivery.messageId = messageId;
    this.#contentDone();
  }

  contentBody(payload: Buffer): void {
    if (this.#content?.left === undefined || this.#content.left < payload.length) {
      throw new Error('a body frame without its header, or longer than the header said');
    }
    this.#content.left -= payload.length;
    if (this.keepBodies) this.#content.chunks.push(Buffer.from(payload));
    this.#contentDone();
  }

  /** basic.recover: the broker takes everything outstanding back, to deliver it again with new tags. */
  recovered(): void {
    this.#outstanding.clear();
  }

  /** Gives what is wrong with the settlement, or settles. */
  settle(settlement: TracedSettlement): string | undefined {
    const { kind, tag, multiple } = settlement;
    const what = `basic.${kind}${multiple ? ' multiple' : ''} of tag ${tag} on ${this.name}`;
    if (this.state === 'closed') return `${what}: the channel is closed`;
    const named = this.#outstanding.get(tag);
    // RabbitMQ takes multiple with tag 0 as "all of them"
    if (!named && !(multiple && tag === 0)) {
      const done = this.#done.get(tag);
      if (!done) return `${what}: no such delivery there`;
      return `${what}: ${done.noAck ? 'its consumer asked for no acknowledgements' : `already settled (${done.settled})`}`;
    }
    if (named && !multiple) this.#take(named, settlement);
    else {
      for (const delivery of this.#outstanding.values()) {
        if (named && delivery.tag > tag) break;
        this.#take(delivery, settlement);
      }
    }
    return undefined;
  }

  #take(delivery: TracedDelivery, settlement: TracedSettlement): void {
    delivery.settled = settlement.kind;
    settlement.deliveries.push(delivery);
    this.#outstanding.delete(delivery.tag);
    this.#done.set(delivery.tag, delivery);
  }

  #contentDone(): void {
    if (this.#content?.left !== 0) return;
    const { delivery, chunks } = this.#content;
    this.#content = undefined;
    if (!delivery) return;
    delivery.complete = true;
    if (this.keepBodies) delivery.body = Buffer.concat(chunks);
  }
}
