/**
 * What the runtime publishes to one target: on a channel of its own, so that a target that cannot be reached holds up no
 * other. Several are published at a time; after a failure one by one, in turn, so that one that cannot be published holds up
 * no other either. Each is confirmed, and returned ones are failures.
 */
import type * as amqplib from 'amqplib';
import { toTable } from '../../codec/amqp/plain-table.js';
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
  /** The routing key is a queue, which is declared with these if it is not there. */
  readonly queueArguments?: Readonly<Record<string, number | string>>;
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

/** A queue with `x-expires` is declared again after so long, ms: that is a use of it. */
const RENEW_AFTER = 60_000;

export class Outlet {
  readonly #route: Route;
  readonly #connect: () => Promise<BrokerConnection>;
  readonly #signal: AbortSignal;
  readonly #onError: (error: KombuError) => void;
  /** Nothing is pending. */
  readonly #onRest: () => void;
  #declaredAt = 0;
  /** A message came back: if it is a queue that is missing, it is declared again. */
  #isMissing = false;
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
    onRest: () => void,
  ) {
    this.#route = route;
    this.#connect = connect;
    this.#signal = signal;
    this.#onError = onError;
    this.#onRest = onRest;
  }

  get #what(): string {
    return this.#route.queueArguments?.['x-message-ttl'] === undefined ? 'a dead letter' : 'a retry';
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
    if (this.pending === 0) this.#onRest();
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
    this.#onError(errorFromAmqp(failure, `${this.#what} could not be published, its message stays unsettled`));
    return false;
  }

  async #ready(): Promise<amqplib.ConfirmChannel> {
    const { queueArguments } = this.#route;
    const renew = queueArguments?.['x-expires'] !== undefined && performance.now() - this.#declaredAt > RENEW_AFTER;
    if (this.#channel !== undefined && !renew && !this.#isMissing) return this.#channel;
    const connection = await this.#connect();
    if (queueArguments !== undefined) await this.#provideQueue(connection, queueArguments);
    this.#isMissing = false;
    if (this.#channel !== undefined) return this.#channel;
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

  /** A plain queue that is there is used as it is: its owner may have wanted other arguments than none. */
  async #provideQueue(
    connection: BrokerConnection,
    queueArguments: Readonly<Record<string, number | string>>,
  ): Promise<void> {
    const { routingKey } = this.#route;
    const doing = `declaring the queue '${routingKey}'`;
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
    const declare = (channel: amqplib.Channel) =>
      channel.assertQueue(routingKey, { durable: true, arguments: toTable(queueArguments, 'queueArguments') });
    if (Object.keys(queueArguments).length > 0) {
      await onChannel(declare);
      this.#declaredAt = performance.now();
      return;
    }
    try {
      await onChannel((channel) => channel.checkQueue(routingKey));
    } catch (error) {
      if (!(errorFromAmqp(error, doing) instanceof NotFound)) throw error;
      await onChannel(declare);
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
        this.#isMissing = true;
        const text = `no queue takes ${this.#what} for '${exchange}' with the routing key '${routingKey}': ${reply}`;
        reject(new MessageReturned(text, { details: { exchange, routingKey, reply } }));
      });
      channel.publish(exchange, routingKey, body, { ...properties, mandatory: true }, (error: unknown) => {
        if (error === null || error === undefined) resolve();
        else reject(this.#whyNot(error));
      });
    });
    try {
      await withDeadline(confirmed, `publishing ${this.#what}`, PUBLISH_TIMEOUT, this.#signal);
    } finally {
      this.#returned.delete(id);
    }
    job.done();
  }

  /** A broker that does not know the exchange closes the channel; one that cannot take the message nacks it. */
  #whyNot(error: unknown): KombuError {
    const doing = `publishing ${this.#what}`;
    if (this.#refused !== undefined) return errorFromAmqp(this.#refused, doing);
    if (saysOnlyClosed(error)) return errorFromAmqp(error, doing);
    return new MessageNacked(`the broker refused ${this.#what}`, { cause: error });
  }
}
