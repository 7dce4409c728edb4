/**
 * What handlers publish by `context.producer()`: main's part. One connection for all workers, opened when the first of them
 * publishes. It is not the consuming one: a broker alarm blocks connections that publish, and acks must get through. Nor is it
 * that of the dead letters, which must not wait behind a flood of results.
 */
import { bufferOf } from '../../codec/bytes.js';
import { KombuError } from '../../errors.js';
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
import type { Forwarded, Producer } from '../producer.js';

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
    return new PublishClient(this.#producer, answer);
  }

  /** What is under way is confirmed or fails first, within its own deadline and `milliseconds`. Never rejects. */
  async close(milliseconds: number): Promise<void> {
    // Nobody waits for it any more: the workers are gone. It was asked for all the same.
    await this.#producer.settled(milliseconds);
    await this.#connection.close({ timeout: milliseconds });
    await this.#producer.close();
  }
}

export class PublishClient {
  readonly #producer: Producer;
  readonly #answer: (answers: PublishAnswers) => void;
  readonly #underWay = new Map<number, Forwarded>();
  #confirmed: number[] = [];
  #failed: PublishFailure[] = [];
  #scheduled = false;

  constructor(producer: Producer, answer: (answers: PublishAnswers) => void) {
    this.#producer = producer;
    this.#answer = answer;
  }

  received(message: PublishBatch | PublishAbandoned): void {
    if (message.type === 'publish') {
      for (const request of message.requests) void this.#publish(request, message.bytes);
      return;
    }
    for (const id of message.ids) {
      const forwarded = this.#underWay.get(id);
      if (forwarded !== undefined) this.#producer.abandon(forwarded);
    }
  }

  async #publish(
    { id, exchange, routingKey, start, length, own, properties, timeout, declare }: PublishRequest,
    bytes: ArrayBuffer,
  ): Promise<void> {
    try {
      const forwarded: Forwarded = {
        exchange,
        routingKey,
        body: own === undefined ? Buffer.from(bytes, start, length) : Buffer.from(own),
        // Bytes come out of a clone as plain arrays of them, which AMQP's tables do not know.
        properties: mapHeaderBytes(properties, bufferOf),
        declare: declare === undefined ? NOTHING : declare.map((each) => rebuildEntity(each) as Exchange | Queue),
        abandoned: false,
      };
      this.#underWay.set(id, forwarded);
      await this.#producer.forward(forwarded, timeout);
      this.#confirmed.push(id);
    } catch (error) {
      const details = error instanceof KombuError ? error.details : undefined;
      this.#failed.push({ id, error: { ...toPortableError(error), ...(details !== undefined && { details }) } });
    }
    this.#underWay.delete(id);
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
