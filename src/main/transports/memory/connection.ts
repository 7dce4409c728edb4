/** An open connection to a broker of this process. The listeners that amqplib would miss are put on here. */
import type * as amqplib from 'amqplib';
import type { KombuError } from '../../../errors.js';
import type { ConnectionParameters } from '../../url.js';
import { errorFromAmqp } from '../amqp/errors.js';
import type { BrokerConnection, Publish } from '../transport.js';
import { memoryBroker } from './broker.js';
import { MemoryModel } from './model.js';

/** RabbitMQ's own name for whoever gives none. */
const USER = 'guest';

export class MemoryConnection implements BrokerConnection {
  readonly model: MemoryModel;
  readonly parameters: ConnectionParameters;
  readonly ended: Promise<KombuError | undefined>;
  #open = true;
  #closing = false;
  #cut = false;
  #reason: KombuError | undefined;

  constructor(parameters: ConnectionParameters) {
    const { hostname, virtualHost, userid = USER } = parameters;
    this.parameters = parameters;
    this.model = new MemoryModel(memoryBroker(hostname), virtualHost, userid);
    const lost = (error: unknown): void => {
      if (!this.#closing) this.#reason ??= errorFromAmqp(error, `the connection to memory://${hostname} was lost`);
    };
    this.model.on('error', lost);
    this.ended = new Promise((resolve) => {
      this.model.once('close', (error?: Error) => {
        this.#open = false;
        if (error !== undefined) lost(error);
        resolve(this.#reason);
      });
    });
  }

  get open(): boolean {
    return this.#open && !this.#closing && !this.#cut;
  }

  get reason(): KombuError | undefined {
    return this.#reason;
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#closing = true;
    // Rejects if it is being closed already; `ended` knows.
    this.model.close().catch(() => undefined);
    await this.ended;
  }

  publisherOf(channel: amqplib.ConfirmChannel): Publish {
    return ({ exchange, routingKey, body, properties }, onSettled) =>
      channel.publish(exchange, routingKey, body, properties, onSettled);
  }

  destroy(): void {
    this.#cut = true;
    this.model.cut();
  }
}
