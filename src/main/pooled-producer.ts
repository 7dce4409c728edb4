/** A producer of a pool. */
import { ClosedError } from '../errors.js';
import type { PublishOptions } from '../pool/publication.js';
import type { Ticket } from '../pool/ticket.js';
import type { Connection } from './connection.js';
import { Producer } from './producer.js';

export class PooledProducer extends Producer {
  readonly #connection: Connection;
  readonly #ticket: Ticket;
  #ending: Promise<void> | undefined;

  constructor(connection: Connection, ticket: Ticket) {
    super(connection.publishing());
    this.#connection = connection;
    this.#ticket = ticket;
  }

  override publish(body: unknown, options: PublishOptions = {}): Promise<void> {
    if (this.#ending === undefined) return super.publish(body, options);
    return Promise.reject(new ClosedError('the producer was given back to its pool; acquire another one'));
  }

  /** Waits until what is under way has ended, then gives the producer and its connection back. Only the first call does. */
  override async release(): Promise<void> {
    this.#ending ??= this.#end(false);
    await this.#ending;
  }

  /** The same, but the connection is closed and leaves its pool. */
  override async close(): Promise<void> {
    this.#ending ??= this.#end(true);
    await this.#ending;
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  async #end(discard: boolean): Promise<void> {
    await this.outbox.underWay.idle();
    // A broker that has not answered in time: nobody else should wait for it on the same connection.
    if (discard || this.outbox.silent) await this.#connection.close();
    else await this.#connection.release();
    await this.#ticket.release();
  }
}
