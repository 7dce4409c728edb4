/**
 * What handlers publish by `context.producer()`: main's part. One connection for all workers, opened when the first of them
 * publishes. It is not the consuming one: a broker alarm blocks connections that publish, and acks must get through. Nor is it
 * that of the dead letters, which must not wait behind a flood of results.
 */
import { bufferOf } from '../../codec/bytes.js';
import { ClosedError, KombuError } from '../../errors.js';
import { mapHeaderBytes } from '../../pool/map-bytes.js';
import type {
  PublishAbandoned,
  PublishAnswers,
  PublishBatch,
  PublishFailure,
  PublishRequest,
} from '../../pool/publish-protocol.js';
import { toPortableError } from '../../pool/worker-protocol.js';
import type { Connection } from '../connection.js';
import type { Exchange } from '../entities/exchange.js';
import type { Queue } from '../entities/queue.js';
import { rebuildEntity } from '../entities/rebuild.js';
import { FORWARDING, type Outbox } from '../outbox.js';
import type { Producer } from '../producer.js';
import { Submission } from '../submission.js';

export class Publishing {
  readonly #connection: Connection;
  readonly #producer: Producer;

  /** `connection`: this runtime's own, not yet opened. */
  constructor(connection: Connection) {
    this.#connection = connection;
    this.#producer = connection.Producer();
  }

  /** For one life of a worker. */
  client(answer: (answers: PublishAnswers) => void): PublishClient {
    return new PublishClient(this.#producer.outbox, answer);
  }

  /** What is under way is confirmed or fails first, within its own deadline and `milliseconds`. Never rejects. */
  async close(milliseconds: number): Promise<void> {
    // Nobody waits for it any more: the workers are gone. It was asked for all the same.
    await this.#producer.outbox.settled(milliseconds);
    await this.#connection.close({ timeout: milliseconds });
    await this.#producer.close();
  }
}

export class PublishClient {
  readonly #outbox: Outbox;
  readonly #answer: (answers: PublishAnswers) => void;
  #confirmed: number[] = [];
  #failed: PublishFailure[] = [];
  #scheduled = false;

  constructor(outbox: Outbox, answer: (answers: PublishAnswers) => void) {
    this.#outbox = outbox;
    this.#answer = answer;
  }

  received(message: PublishBatch | PublishAbandoned): void {
    if (message.type === 'publish') for (const request of message.requests) this.#publish(request, message.bytes);
    else this.#abandon(new Set(message.ids));
  }

  /** Nobody waits for these any more: they are not kept, and not written if they were not yet. Rare, so looking for them may take its time. */
  #abandon(ids: ReadonlySet<number>): void {
    const abandoned = [...this.#outbox.underWay].filter(
      (each) => each instanceof Forwarded && each.client === this && ids.has(each.id),
    );
    for (const each of abandoned) (each as Forwarded).settle(new ClosedError('nobody waits for this message any more'));
  }

  #publish(request: PublishRequest, bytes: ArrayBuffer): void {
    try {
      this.#outbox.begin(new Forwarded(this, request, bytes));
    } catch (error) {
      this.ended(request.id, error);
    }
  }

  /** @internal Of `Forwarded`: confirmed (undefined), or why not. */
  ended(id: number, error: unknown): void {
    if (error === undefined) {
      this.#confirmed.push(id);
    } else {
      const details = error instanceof KombuError ? error.details : undefined;
      this.#failed.push({ id, error: { ...toPortableError(error), ...(details !== undefined && { details }) } });
    }
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#onTurn);
  }

  readonly #onTurn = (): void => {
    this.#scheduled = false;
    const answers: PublishAnswers = { type: 'published', confirmed: this.#confirmed, failed: this.#failed };
    this.#confirmed = [];
    this.#failed = [];
    this.#answer(answers);
  };
}

const NOTHING: readonly never[] = [];

/** A publish of a worker's. Sent again until its deadline. */
class Forwarded extends Submission {
  readonly client: PublishClient;
  readonly id: number;

  constructor(
    client: PublishClient,
    { id, exchange, routingKey, start, length, own, properties, timeout, waited, declare }: PublishRequest,
    bytes: ArrayBuffer,
  ) {
    const publication = {
      exchange,
      routingKey,
      body: own === undefined ? Buffer.from(bytes, start, length) : Buffer.from(own),
      // Bytes come out of a clone as plain arrays of them, which AMQP's tables do not know.
      properties: mapHeaderBytes(properties, bufferOf),
    };
    const entities = declare?.map((each) => rebuildEntity(each) as Exchange | Queue) ?? NOTHING;
    super(publication, entities, FORWARDING, timeout, undefined, waited);
    this.client = client;
    this.id = id;
  }

  protected ended(error: unknown): void {
    this.client.ended(this.id, error);
  }
}
