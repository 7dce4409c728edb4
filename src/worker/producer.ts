/**
 * A producer on a worker thread: what is published is serialized and compressed here and written by main, on its publishing
 * connection. The same options and errors as on main.
 */
import { MessageReturned } from '../errors.js';
import { readOptions } from '../options.js';
import { describeEntity, type EntityFields, type ExchangeLike, type QueueLike } from '../pool/entity.js';
import {
  type GivenPublish,
  PRODUCER_OPTIONS,
  type ProducerOptions,
  PUBLISH_OPTIONS,
  type PublishDefaults,
  type PublishOptions,
  preparePublication,
  RETRY_POLICY,
} from '../pool/publication.js';
import type { Publisher } from './publisher.js';

/** What `context.producer()` returns. */
export interface WorkerProducer {
  /**
   * Resolves when the broker has confirmed the message. What a lost connection leaves unconfirmed is sent again, with the same
   * message id, until `timeout`: `retry` and `retryPolicy` change nothing. Throws what `Producer.publish` throws.
   */
  publish(body: unknown, options?: PublishOptions): Promise<void>;
}

export class ThroughMain implements WorkerProducer {
  readonly #publisher: Publisher;
  readonly #defaults: PublishDefaults;
  readonly #own: EntityFields | undefined;
  readonly #onReturn: ProducerOptions['onReturn'];

  /** Throws `OptionError`. */
  constructor(publisher: Publisher, options: ProducerOptions) {
    const given = readOptions('producer', PRODUCER_OPTIONS, options);
    const { exchange, routingKey, serializer, compression, autoDeclare } = given;
    this.#publisher = publisher;
    this.#defaults = { exchange: exchange!, routingKey: routingKey!, serializer, compression };
    this.#own = autoDeclare && typeof exchange !== 'string' ? describeEntity(exchange!) : undefined;
    this.#onReturn = given.onReturn;
  }

  async publish(body: unknown, options: PublishOptions = {}): Promise<void> {
    const given = readOptions('publish', PUBLISH_OPTIONS, options) as GivenPublish;
    if (given.retryPolicy !== undefined) readOptions('publish: retryPolicy', RETRY_POLICY, given.retryPolicy);
    given.signal?.throwIfAborted();
    const prepared = preparePublication(body, given, this.#defaults, true);
    // It is posted later in this turn: until then bytes are still the caller's to change.
    const publication = body instanceof Uint8Array ? { ...prepared, body: Buffer.from(prepared.body) } : prepared;
    const declare = this.#entities(given.declare);
    try {
      await this.#publisher.publish(publication, declare, given.timeout, given.signal);
    } catch (error) {
      if (error instanceof MessageReturned) this.#onReturn?.(error, publication.exchange, publication.routingKey);
      throw error;
    }
  }

  #entities(declare: readonly (ExchangeLike | QueueLike)[]): readonly EntityFields[] | undefined {
    if (this.#own === undefined && declare.length === 0) return undefined;
    const entities = declare.map(describeEntity);
    return this.#own === undefined ? entities : [...entities, this.#own];
  }
}

/** Producers by their options: who asks twice for the same gets the same. */
export class Producers {
  readonly #publisher: Publisher;
  #made: { readonly options: ProducerOptions; readonly producer: ThroughMain }[] = [];

  constructor(publisher: Publisher) {
    this.#publisher = publisher;
  }

  get(options: ProducerOptions = {}): ThroughMain {
    const found = this.#made.find((each) => sameOptions(each.options, options));
    if (found !== undefined) return found.producer;
    const producer = new ThroughMain(this.#publisher, options);
    this.#made.push({ options: { ...options }, producer });
    // Who makes new options for every message, such as a new exchange, must not make us remember them all.
    if (this.#made.length > MOST_REMEMBERED) this.#made.shift();
    return producer;
  }
}

const MOST_REMEMBERED = 64;

function sameOptions(a: ProducerOptions, b: ProducerOptions): boolean {
  const keys = new Set([...Object.keys(a), ...Object.keys(b)] as (keyof ProducerOptions)[]);
  for (const key of keys) if (a[key] !== b[key]) return false;
  return true;
}
