/**
 * Publishes messages as kombu does: serialized, compressed if asked, each confirmed by the broker. Any number may be under
 * way at once; they reach the broker in the order of the calls.
 */
import { OptionError } from '../errors.js';
import { readOptions } from '../options.js';
import {
  type GivenPublish,
  PRODUCER_OPTIONS,
  type ProducerOptions,
  PUBLISH_OPTIONS,
  type Publication,
  type PublishOptions,
  preparePublication,
  RETRY_POLICY,
  type RetryPolicy,
} from '../pool/publication.js';
import { Channel } from './entities/channel.js';
import { declareOnce, isDeclared } from './entities/declare.js';
import type { Exchange } from './entities/exchange.js';
import type { Queue } from './entities/queue.js';
import { ownEntity, ownExchange } from './entities/rebuild.js';
import { isTarget, type Target } from './entities/target.js';
import { Outbox } from './outbox.js';
import { Submission } from './submission.js';

/** `new Producer(connection or channel, options)`, or `connection.Producer(options)`. */
export class Producer {
  readonly exchange: Exchange;
  readonly routingKey: string;
  readonly serializer: string | undefined;
  readonly compression: string | undefined;
  readonly autoDeclare: boolean;
  /** @internal */
  readonly outbox: Outbox;
  readonly #target: Target;

  /** Given a connection, the producer opens a channel of its own at the first publish. Throws `OptionError`. */
  constructor(target: Target, options: ProducerOptions = {}) {
    if (!isTarget(target)) throw new OptionError('Producer: the first argument must be a Connection or a Channel');
    const given = readOptions('Producer', PRODUCER_OPTIONS, options);
    this.#target = target;
    this.exchange = ownExchange(given.exchange!);
    this.routingKey = given.routingKey!;
    this.serializer = given.serializer;
    this.compression = given.compression;
    // A name alone says nothing about type and durability, so only an Exchange can be declared.
    this.autoDeclare = given.autoDeclare! && typeof given.exchange !== 'string';
    this.outbox = new Outbox(target, given.onReturn);
  }

  /**
   * Publishes a message; resolves when the broker has confirmed it. What the connection has lost is opened anew; a message that
   * was under way at that moment rejects, unless `retry` sends it again, with the same message id.
   * Throws `EncodeError`, `SerializerNotInstalled`, `MessageReturned` (`mandatory`), `MessageNacked`, `NotFound` (no such
   * exchange; the broker closes the channel, so all that is under way fails), `ConnectionError`, `TimeoutError` (after it, as
   * after `signal`, the message may have been taken), `ClosedError`, `OptionError`.
   */
  publish(body: unknown, options: PublishOptions = {}): Promise<void> {
    // Not `async`: a promise for each message is enough, where tens of thousands are under way.
    try {
      return this.#publish(body, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #publish(body: unknown, options: PublishOptions): Promise<void> {
    this.outbox.mustBeOpen();
    const given = readOptions('publish', PUBLISH_OPTIONS, options) as GivenPublish;
    const policy =
      given.retry || options.retryPolicy !== undefined
        ? readOptions<RetryPolicy>('publish: retryPolicy', RETRY_POLICY, given.retryPolicy)
        : undefined;
    given.signal?.throwIfAborted();
    const publication = preparePublication(body, given, this, given.mandatory || given.retry === true);
    const publishing = new Publishing(
      this.outbox,
      publication,
      this.#entities(given),
      given.retry ? policy : undefined,
      given,
    );
    this.outbox.begin(publishing);
    return publishing.outcome;
  }

  #entities({ declare }: GivenPublish): readonly (Exchange | Queue)[] {
    if (declare.length === 0 && !this.autoDeclare) return NOTHING;
    const entities = declare.map(ownEntity);
    if (this.autoDeclare) entities.push(this.exchange);
    return entities;
  }

  /** Declares the producer's own exchange, whether or not that was done before. Throws what declaring throws. */
  async declare(): Promise<void> {
    await this.exchange.declare(this.#target);
  }

  /** Declares `entity`, unless that was done in the life of the connection: true if it was done now. Throws what declaring throws. */
  async maybeDeclare(entity: Exchange | Queue): Promise<boolean> {
    const channel = this.#target instanceof Channel ? this.#target : await this.#target.defaultChannel();
    if (isDeclared(channel, entity)) return false;
    await declareOnce(channel, entity, this.#target);
    return true;
  }

  /** Waits until what is under way has ended, then closes the producer's own channel. */
  async close(): Promise<void> {
    await this.outbox.close();
  }

  /** As `close()`. */
  async release(): Promise<void> {
    await this.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

const NOTHING: readonly never[] = [];

/** A publish of whose end a promise tells. */
class Publishing extends Submission {
  /** Settles as this does. */
  readonly outcome: Promise<void>;
  readonly #outbox: Outbox;
  #resolve: () => void = NEVER;
  #reject: (error: unknown) => void = NEVER;

  constructor(
    outbox: Outbox,
    publication: Publication,
    declare: readonly (Exchange | Queue)[],
    policy: RetryPolicy | undefined,
    { timeout, signal }: GivenPublish,
  ) {
    super(publication, declare, policy, timeout, signal);
    this.#outbox = outbox;
    this.outcome = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  protected ended(error: unknown): void {
    if (error === undefined) this.#resolve();
    else this.#reject(this.#outbox.told(error, this));
  }
}

const NEVER = (): void => undefined;
