/**
 * What a callback is given: one delivered message. The same class on the main thread and on worker threads; where its
 * parts come from (an object of amqplib, or bytes in shared memory) is the `MessageSource`'s business.
 */
import { MessageStateError } from './errors.js';
import { kinds, type OptionTable, readOptions } from './options.js';

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
  /** Content types that may be decoded. */
  readAccept(): ReadonlySet<string>;
  /** The body as it was sent (still compressed), in memory of its own. */
  readBody(): Buffer;
  /** The body decompressed and deserialized. Throws `DecodeError`, `ContentDisallowed`. */
  decode(): unknown;
}

export type Outcome = 'ack' | 'reject' | 'requeue';

/** Takes the outcome to the broker. `multiple`: all earlier deliveries of the channel too. */
export type Settle = (outcome: Outcome, multiple: boolean) => void;

/** What a message may do beside being settled. */
export interface MessageTraits {
  /** The broker has forgotten it: `ack()` does nothing, as often as one likes, and there is nothing to give back. */
  readonly noAck?: boolean;
  /** True once the ack of a later message has settled this one too. */
  settledAlong?(): boolean;
}

export interface AckOptions {
  readonly multiple?: boolean;
}

export interface RejectOptions {
  readonly requeue?: boolean;
}

const ACK_OPTIONS: OptionTable<AckOptions> = {
  multiple: { kind: kinds.boolean, default: false, doc: 'All earlier messages of the channel too.' },
};
const REJECT_OPTIONS: OptionTable<RejectOptions> = {
  requeue: { kind: kinds.boolean, default: false, doc: 'Back to its queue.' },
};

type ErrorClass = abstract new (...args: never[]) => Error;

/** Where `ackLogError` writes: `console`, a handler's `context.logger`, or the like. */
export interface ErrorLogger {
  error(text: string): void;
}

const UNREAD = Symbol('unread');

const NO_ERRORS: readonly unknown[] = Object.freeze([]);

export class Message<Payload = unknown> {
  #source: MessageSource | undefined;
  #settle: Settle;
  #outcome: Outcome | undefined;
  #properties: MessageProperties | undefined;
  #headers: Record<string, unknown> | undefined;
  #deliveryInfo: DeliveryInfo | undefined;
  #body: Buffer | undefined;
  #payload: unknown = UNREAD;
  #accept: ReadonlySet<string> | undefined;
  readonly #traits: MessageTraits | undefined;
  #errors: readonly unknown[] = NO_ERRORS;

  constructor(source: MessageSource, settle: Settle, traits?: MessageTraits) {
    this.#source = source;
    this.#settle = settle;
    this.#traits = traits;
  }

  /** The body as it came, compressed if it was. A copy, made at the first access. */
  get body(): Buffer {
    this.#body ??= this.#from('body').readBody();
    return this.#body;
  }

  /** The decoded body. Decoded at the first access and kept. Throws `DecodeError`, `ContentDisallowed`. */
  get payload(): Payload {
    if (this.#payload === UNREAD) {
      const source = this.#from('payload');
      try {
        this.#payload = source.decode();
        this.#errors = NO_ERRORS;
      } catch (error) {
        this.#errors = Object.freeze([error]);
        throw error;
      }
    }
    return this.#payload as Payload;
  }

  /** The same as `payload`. */
  decode(): Payload {
    return this.payload;
  }

  /** What decompressing or decoding failed with when it was last tried; empty if it went well, or before it was tried. */
  get errors(): readonly unknown[] {
    return this.#errors;
  }

  /** Content types that may be decoded. */
  get accept(): ReadonlySet<string> {
    this.#accept ??= this.#from('accept').readAccept();
    return this.#accept;
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

  /** `deliveryInfo.deliveryTag`. */
  get deliveryTag(): number {
    return this.deliveryInfo.deliveryTag;
  }

  /** `properties.contentType`: of the body once it is decompressed. */
  get contentType(): string | undefined {
    return this.properties.contentType;
  }

  /** `properties.contentEncoding`: its charset, or 'binary'. */
  get contentEncoding(): string | undefined {
    return this.properties.contentEncoding;
  }

  /** True once it was acked, rejected or requeued, also by `ack({ multiple: true })` of a later one. */
  get acknowledged(): boolean {
    return this.#outcome !== undefined || this.#traits?.settledAlong?.() === true;
  }

  /**
   * Tells the broker that the message was handled; with `multiple` all that its channel delivered earlier too. Takes effect once;
   * a second settlement throws `MessageStateError`. Of a consumer without acks it does nothing.
   */
  ack(options?: AckOptions): void {
    const multiple = options !== undefined && readOptions('Message.ack', ACK_OPTIONS, options).multiple!;
    if (this.#traits?.noAck !== true) this.#settleOnce('ack', multiple);
  }

  /** Refuses the message: the broker drops it, or dead-letters it where the queue says so. With `requeue` as `requeue()`. */
  reject(options?: RejectOptions): void {
    const requeue = options !== undefined && readOptions('Message.reject', REJECT_OPTIONS, options).requeue!;
    this.#settleOnce(requeue ? 'requeue' : 'reject', false);
  }

  /** Gives the message back to its queue. */
  requeue(): void {
    this.#settleOnce('requeue', false);
  }

  /** `ack()`, but errors of these classes are logged, not thrown. */
  ackLogError(logger: ErrorLogger, errors: ErrorClass | readonly ErrorClass[], options?: AckOptions): void {
    this.#logError(logger, errors, 'ack', () => this.ack(options));
  }

  /** `reject()`, but errors of these classes are logged, not thrown. */
  rejectLogError(logger: ErrorLogger, errors: ErrorClass | readonly ErrorClass[], options?: RejectOptions): void {
    this.#logError(logger, errors, 'reject', () => this.reject(options));
  }

  #logError(logger: ErrorLogger, errors: ErrorClass | readonly ErrorClass[], doing: string, settle: () => void): void {
    try {
      settle();
    } catch (error) {
      const classes = typeof errors === 'function' ? [errors] : errors;
      if (!classes.some((each) => error instanceof each)) throw error;
      const { deliveryTag = 'whose bytes are gone' } = this.#source === undefined ? (this.#deliveryInfo ?? {}) : this;
      logger.error(`could not ${doing} message ${deliveryTag}: ${(error as Error).message}`);
    }
  }

  #settleOnce(outcome: Outcome, multiple: boolean): void {
    if (this.#traits?.noAck === true) {
      throw new MessageStateError(
        `the message was delivered without acks, so the broker has forgotten it; there is nothing to settle (${outcome})`,
      );
    }
    if (this.#outcome === undefined && this.acknowledged) {
      throw new MessageStateError(
        `the message is already settled, by the ack of a later one with all before it; it cannot be settled again (${outcome})`,
      );
    }
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
