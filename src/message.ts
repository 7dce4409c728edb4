/**
 * What a callback is given: one delivered message. The same class on the main thread and on worker threads; where its
 * parts come from (an object of amqplib, or bytes in shared memory) is the `MessageSource`'s business.
 */
import { MessageStateError } from './errors.js';

/** AMQP's message properties in camelCase; absent ones are undefined. */
export interface MessageProperties {
  readonly contentType?: string;
  readonly contentEncoding?: string;
  /** 1 transient, 2 persistent. */
  readonly deliveryMode?: number;
  readonly priority?: number;
  readonly correlationId?: string;
  readonly replyTo?: string;
  /** Milliseconds, as the decimal string that is on the wire. */
  readonly expiration?: string;
  readonly messageId?: string;
  /** Seconds since 1970, as on the wire. */
  readonly timestamp?: number;
  readonly type?: string;
  readonly userId?: string;
  readonly appId?: string;
}

/** How this delivery reached us. */
export interface DeliveryInfo {
  readonly exchange: string;
  readonly routingKey: string;
  readonly redelivered: boolean;
  readonly consumerTag: string;
  /** Counts from 1 in each life of a channel. */
  readonly deliveryTag: number;
  /** The queue it was consumed from. */
  readonly queue: string;
}

/** Where a message's parts come from. Each getter may do work; `Message` asks once and keeps the answer. */
export interface MessageSource {
  readProperties(): MessageProperties;
  readHeaders(): Record<string, unknown>;
  readDeliveryInfo(): DeliveryInfo;
  /** The body as it was sent (still compressed), in memory of its own. */
  readBody(): Buffer;
  /** The body decompressed and deserialized. Throws `DecodeError`, `ContentDisallowed`. */
  decode(): unknown;
}

export type Outcome = 'ack' | 'reject' | 'requeue';

/** Takes the outcome to the broker. `multiple`: all earlier deliveries of the channel too. */
export type Settle = (outcome: Outcome, multiple: boolean) => void;

const UNREAD = Symbol('unread');

export class Message<Payload = unknown> {
  #source: MessageSource | undefined;
  #settle: Settle;
  #outcome: Outcome | undefined;
  #properties: MessageProperties | undefined;
  #headers: Record<string, unknown> | undefined;
  #deliveryInfo: DeliveryInfo | undefined;
  #body: Buffer | undefined;
  #payload: unknown = UNREAD;

  constructor(source: MessageSource, settle: Settle) {
    this.#source = source;
    this.#settle = settle;
  }

  /** The body as it came, compressed if it was. A copy, made at the first access. */
  get body(): Buffer {
    this.#body ??= this.#from('body').readBody();
    return this.#body;
  }

  /** The decoded body. Decoded at the first access and kept. */
  get payload(): Payload {
    if (this.#payload === UNREAD) this.#payload = this.#from('payload').decode();
    return this.#payload as Payload;
  }

  /** The headers table, without a prototype. */
  get headers(): Record<string, unknown> {
    this.#headers ??= this.#from('headers').readHeaders();
    return this.#headers;
  }

  get properties(): MessageProperties {
    this.#properties ??= this.#from('properties').readProperties();
    return this.#properties;
  }

  get deliveryInfo(): DeliveryInfo {
    this.#deliveryInfo ??= this.#from('deliveryInfo').readDeliveryInfo();
    return this.#deliveryInfo;
  }

  /** True once it was acked, rejected or requeued. */
  get acknowledged(): boolean {
    return this.#outcome !== undefined;
  }

  /** Tells the broker that the message was handled. Takes effect once; a second settlement throws `MessageStateError`. */
  ack({ multiple = false }: { multiple?: boolean } = {}): void {
    this.#settleOnce('ack', multiple);
  }

  /** Refuses the message: the broker drops it, or dead-letters it where the queue says so. */
  reject(): void {
    this.#settleOnce('reject', false);
  }

  /** Gives the message back to its queue. */
  requeue(): void {
    this.#settleOnce('requeue', false);
  }

  #settleOnce(outcome: Outcome, multiple: boolean): void {
    if (this.#outcome !== undefined) {
      throw new MessageStateError(
        `the message is already settled (${this.#outcome}); it cannot be settled again (${outcome})`,
      );
    }
    this.#settle(outcome, multiple);
    this.#outcome = outcome;
  }

  #from(part: string): MessageSource {
    if (this.#source === undefined) {
      throw new MessageStateError(
        `message.${part} was first read after the callback had ended and the message's bytes were given back: read it inside the callback`,
      );
    }
    return this.#source;
  }

  /** @internal */
  static outcomeOf(message: Message): Outcome | undefined {
    return message.#outcome;
  }

  /**
   * The runtime settled the message and gives its bytes back: what was read stays, what was not throws from now on, and
   * so does a late `ack()` of the callback's leftovers.
   * @internal
   */
  static close(message: Message, outcome: Outcome): void {
    message.#outcome ??= outcome;
    message.#source = undefined;
  }

  /**
   * The message's bytes are given back though it was not settled, since its delivery is void: a settlement of its user's
   * changes nothing, and is no mistake.
   * @internal
   */
  static detach(message: Message): void {
    message.#source = undefined;
  }
}
