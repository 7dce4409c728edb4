/**
 * Dead letters of one target: a channel of its own, so that a target that cannot be reached holds up no other. Several are
 * published at a time; after a failure one by one, in turn, so that one that cannot be published holds up no other either.
 */
import type * as amqplib from 'amqplib';
import { type KombuError, MessageNacked, MessageReturned, NotFound } from '../../errors.js';
import { withDeadline } from '../deadline.js';
import { errorFromAmqp, saysOnlyClosed } from '../transports/amqp/errors.js';
import { pause, reconnectDelay } from '../transports/reconnect.js';
import type { BrokerConnection } from '../transports/transport.js';

export interface Letter {
  readonly body: Buffer;
  readonly id: string;
  readonly properties: amqplib.Options.Publish;
}

export interface Route {
  readonly exchange: string;
  readonly routingKey: string;
  /** A queue by its name, which is declared if it is not there. */
  readonly isQueue: boolean;
}

export interface OutletJob {
  /** False: the message is no longer ours, and needs no dead letter of ours. */
  readonly wanted: () => boolean;
  /** Made when it is published: its bytes lie in shared memory until then. */
  readonly letter: () => Letter;
  /** The broker has confirmed it. */
  readonly done: () => void;
}

const PUBLISH_TIMEOUT = 30_000;
/** At a time, so that what is copied for them has a bound. */
const MOST = 16;
export const ID_HEADER = 'x-mozuku-id';

export class DeadLetterOutlet {
  readonly #route: Route;
  readonly #connect: () => Promise<BrokerConnection>;
  readonly #signal: AbortSignal;
  readonly #onError: (error: KombuError) => void;
  #waiting: OutletJob[] = [];
  #underWay = 0;
  #working = false;
  #channel: amqplib.ConfirmChannel | undefined;
  /** What the broker closed the channel with: the confirms that are missing then say no more than that it is closed. */
  #refused: unknown;
  readonly #returned = new Map<string, (reply: string) => void>();

  constructor(
    route: Route,
    connect: () => Promise<BrokerConnection>,
    signal: AbortSignal,
    onError: (error: KombuError) => void,
  ) {
    this.#route = route;
    this.#connect = connect;
    this.#signal = signal;
    this.#onError = onError;
  }

  get pending(): number {
    return this.#waiting.length + this.#underWay;
  }

  add(job: OutletJob): void {
    this.#waiting.push(job);
    if (!this.#working) void this.#work();
  }

  async #work(): Promise<void> {
    this.#working = true;
    let failures = 0;
    let sinceFailure = 0;
    while (this.#waiting.length > 0 && !this.#signal.aborted) {
      if (await this.#publishSome(failures === 0 ? MOST : 1)) {
        // Each of them was published since, or came after: there is no bad one among them.
        if (++sinceFailure >= this.#waiting.length) failures = 0;
      } else {
        sinceFailure = 0;
        await pause(reconnectDelay(failures++), this.#signal);
      }
    }
    this.#working = false;
  }

  /** True if all of them are published, or nobody wants them any more. Those that failed go to the end of the line. */
  async #publishSome(most: number): Promise<boolean> {
    this.#waiting = this.#waiting.filter((job) => job.wanted());
    const batch = this.#waiting.splice(0, most);
    this.#underWay = batch.length;
    let failure: unknown;
    try {
      const channel = await this.#ready();
      const outcomes = await Promise.allSettled(batch.map((job) => this.#publish(channel, job)));
      for (const [i, outcome] of outcomes.entries()) {
        if (outcome.status === 'fulfilled') continue;
        failure ??= outcome.reason;
        this.#waiting.push(batch[i]!);
      }
    } catch (error) {
      failure = error;
      this.#waiting.push(...batch);
    }
    this.#underWay = 0;
    if (failure === undefined || this.#signal.aborted) return true;
    this.#onError(errorFromAmqp(failure, 'a dead letter could not be published, its message stays unsettled'));
    return false;
  }

  async #ready(): Promise<amqplib.ConfirmChannel> {
    if (this.#channel !== undefined) return this.#channel;
    const connection = await this.#connect();
    if (this.#route.isQueue) await this.#provideQueue(connection);
    const channel = await this.#ask(connection.model.createConfirmChannel(), 'opening a channel');
    this.#refused = undefined;
    channel.on('error', (error) => {
      this.#refused = error;
    });
    channel.once('close', () => {
      if (this.#channel === channel) this.#channel = undefined;
    });
    channel.on('return', (message: amqplib.Message) => {
      const { replyText } = message.fields as unknown as { replyText: string };
      this.#returned.get(String(message.properties.headers?.[ID_HEADER]))?.(replyText);
    });
    this.#channel = channel;
    return channel;
  }

  /** A queue that is there is used as it is: its owner may have wanted other arguments than ours. */
  async #provideQueue(connection: BrokerConnection): Promise<void> {
    const { routingKey } = this.#route;
    const doing = `declaring the dead-letter queue '${routingKey}'`;
    const onChannel = async (work: (channel: amqplib.Channel) => Promise<unknown>): Promise<void> => {
      const channel = await this.#ask(connection.model.createChannel(), 'opening a channel');
      // The promise of the question rejects with the same error.
      channel.on('error', () => undefined);
      let open = true;
      channel.once('close', () => {
        open = false;
      });
      await this.#ask(work(channel), doing);
      if (open) await this.#ask(channel.close(), 'closing a channel');
    };
    try {
      await onChannel((channel) => channel.checkQueue(routingKey));
    } catch (error) {
      if (!(errorFromAmqp(error, doing) instanceof NotFound)) throw error;
      await onChannel((channel) => channel.assertQueue(routingKey, { durable: true }));
    }
  }

  #ask<T>(work: PromiseLike<T>, doing: string): Promise<T> {
    return withDeadline(Promise.resolve(work), doing, PUBLISH_TIMEOUT, this.#signal);
  }

  async #publish(channel: amqplib.ConfirmChannel, job: OutletJob): Promise<void> {
    if (!job.wanted()) return;
    const { exchange, routingKey } = this.#route;
    const { body, id, properties } = job.letter();
    const confirmed = new Promise<void>((resolve, reject) => {
      this.#returned.set(id, (reply) => {
        const text = `no queue takes dead letters for '${exchange}' with the routing key '${routingKey}': ${reply}`;
        reject(new MessageReturned(text, { details: { exchange, routingKey, reply } }));
      });
      channel.publish(exchange, routingKey, body, { ...properties, mandatory: true }, (error: unknown) => {
        if (error === null || error === undefined) resolve();
        else reject(this.#whyNot(error));
      });
    });
    try {
      await withDeadline(confirmed, 'publishing a dead letter', PUBLISH_TIMEOUT, this.#signal);
    } finally {
      this.#returned.delete(id);
    }
    job.done();
  }

  /** A broker that does not know the exchange closes the channel; one that cannot take the message nacks it. */
  #whyNot(error: unknown): KombuError {
    const doing = 'publishing a dead letter';
    if (this.#refused !== undefined) return errorFromAmqp(this.#refused, doing);
    if (saysOnlyClosed(error)) return errorFromAmqp(error, doing);
    return new MessageNacked('the broker refused a dead letter', { cause: error });
  }
}
