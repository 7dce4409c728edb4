/**
 * Consuming from AMQP, for as long as the consumer lives: opens the runtime's own consuming connection, declares what the
 * consumer needs on it, consumes on one channel, and does all of it again whenever the broker or the network ends it.
 * Knows nothing of threads: deliveries go to the dispatcher, verdicts come through `settle`.
 *
 *   connect ▶ declare (channel 1) ▶ consume (channel 2) ──▶ generation alive
 *      ▲                                  ▲                       │ channel closed: a new channel
 *      └── 100 ms × 2, ± 20 %, ≤ 2 s ─────┴───────────────────────┘ socket lost: a new connection
 */
import { randomBytes } from 'node:crypto';
import type * as amqplib from 'amqplib';
import { ClosedError, ConsumerCancelled, KombuError } from '../../../errors.js';
import { withDeadline } from '../../deadline.js';
import { declareQueue } from '../../entities/declare.js';
import type { Queue } from '../../entities/queue.js';
import { amqpTransportOptions, type ConnectionParameters } from '../../url.js';
import { isRecoverable, reconnectDelay } from '../reconnect.js';
import type { Source, SourceEvents, SourceOptions } from '../transport.js';
import { type AmqpConnection, openAmqp } from './client.js';
import { errorFromAmqp } from './errors.js';
import { LARGEST_FRAME } from './intake.js';
import type { LedgerVerdict } from './ledger.js';
import { Tap } from './tap.js';

const DECLARE_TIMEOUT = 10_000;

/** The runtime's own connections: a frame must fit well into a segment of the arena. */
function smallerFrames(parameters: ConnectionParameters): ConnectionParameters {
  const { transportOptions } = parameters;
  const frameMax = Math.min(amqpTransportOptions(transportOptions).frameMax, LARGEST_FRAME);
  return { ...parameters, transportOptions: { ...transportOptions, frameMax } };
}

export class AmqpSource implements Source {
  readonly #options: SourceOptions;
  readonly #parameters: ConnectionParameters;
  readonly #events: SourceEvents;
  readonly #tags: readonly string[];
  readonly #closing = new AbortController();
  #connection: AmqpConnection | undefined;
  #tap: Tap | undefined;
  #declaring: amqplib.Channel | undefined;
  #consuming: amqplib.Channel | undefined;
  /** Tags that the broker still consumes for. */
  #active = new Set<string>();
  #names: Record<string, string> = {};
  #cancelling = false;

  constructor(options: SourceOptions, events: SourceEvents) {
    this.#options = options;
    this.#parameters = smallerFrames(options.parameters);
    this.#events = events;
    const id = randomBytes(6).toString('hex');
    this.#tags = options.queues.map((_, index) => `mozuku-${id}-${index}`);
  }

  get connected(): boolean {
    return this.#active.size > 0;
  }

  /** Deliveries the broker counts as ours. */
  get outstanding(): number {
    return this.#tap?.outstanding ?? 0;
  }

  /** Connects and consumes. Rejects if that fails the first time; from then on every loss is mended by itself. */
  async start(): Promise<void> {
    await this.#connect();
  }

  settle(entry: number, outcome: LedgerVerdict): void {
    this.#tap?.settle(entry, outcome);
  }

  flush(): void {
    this.#tap?.flush();
  }

  /** Deliveries whose bodies are not kept, and that came before this time, go back to their queue. */
  giveBackUnkept(before: number): void {
    this.#tap?.giveBack(before);
  }

  /** No more deliveries after this: basic.cancel, and cancel-ok waited for. What is with us stays ours to settle. */
  async cancel(deadline: number): Promise<void> {
    this.#cancelling = true;
    const channel = this.#consuming;
    if (channel === undefined) return;
    const tags = [...this.#active];
    try {
      await withDeadline(Promise.all(tags.map((tag) => channel.cancel(tag))), 'cancelling the consumers', deadline);
    } catch (error) {
      // The channel went with its consumers: then nothing comes from it any more either.
      if (this.#consuming === channel) throw errorFromAmqp(error, 'cannot cancel the consumers');
    }
    this.#active.clear();
  }

  /** Writes what is settled, ends the generation, and closes channel and connection. Never rejects. */
  async close(deadline: number): Promise<void> {
    this.#cancelling = true;
    this.#closing.abort(new ClosedError('the consumer is closed'));
    const tap = this.#tap;
    const connection = this.#connection;
    tap?.giveBack();
    tap?.flushAll();
    tap?.end(true);
    this.#consuming = undefined;
    this.#active.clear();
    await connection?.close(deadline);
    tap?.close();
  }

  async #connect(): Promise<void> {
    const { signal } = this.#closing;
    const socketOptions = (): Record<string, unknown> => {
      // One tap a socket: an attempt that failed leaves its own behind.
      this.#tap?.close();
      this.#tap = this.#newTap();
      return this.#tap.socketOptions();
    };
    const connection = await openAmqp(this.#parameters, { signal, clientName: 'mozuku consumer', socketOptions });
    const tap = this.#tap!;
    tap.opened(connection.heartbeat);
    try {
      await this.#declare(connection);
      await this.#consume(connection, tap);
      if (!connection.open) throw connection.reason ?? new KombuError('the connection was closed');
    } catch (error) {
      this.#consuming = undefined;
      tap.end(true);
      await connection.close();
      tap.close();
      throw errorFromAmqp(error, 'cannot consume');
    }
    this.#connection = connection;
    void connection.ended.then((reason) => this.#lost(connection, tap, reason));
  }

  #newTap(): Tap {
    const { sink, prefetchCount, queues } = this.#options;
    const { frameMax } = amqpTransportOptions(this.#parameters.transportOptions);
    return new Tap({ ...sink, prefetch: prefetchCount * queues.length, frameMax });
  }

  async #declare(connection: AmqpConnection): Promise<void> {
    const channel = await withDeadline(connection.model.createChannel(), 'opening a channel', DECLARE_TIMEOUT);
    // A refused declaration closes the channel; the promise that waits for the declaration rejects with the same error.
    channel.on('error', () => undefined);
    this.#declaring = channel;
    this.#names = {};
    for (const [index, queue] of this.#options.queues.entries()) {
      this.#names[this.#tags[index]!] = await this.#declareOne(channel, queue);
    }
    this.#events.queues(this.#names);
  }

  async #declareOne(channel: amqplib.Channel, queue: Queue): Promise<string> {
    if (!this.#options.autoDeclare) return queue.name;
    return await withDeadline(declareQueue(channel, queue), `declaring the queue '${queue.name}'`, DECLARE_TIMEOUT);
  }

  /** Opens the consuming channel: a new generation. */
  async #consume(connection: AmqpConnection, tap: Tap): Promise<void> {
    const channel = await withDeadline(connection.model.createChannel(), 'opening a channel', DECLARE_TIMEOUT);
    let reason: KombuError | undefined;
    channel.on('error', (error: Error) => {
      reason = errorFromAmqp(error, 'the broker closed the consuming channel');
    });
    channel.once('close', () => this.#channelClosed(connection, tap, channel, reason));
    tap.begin(tap.lastOpenedChannel);
    this.#consuming = channel;
    this.#active = new Set();
    await withDeadline(channel.prefetch(this.#options.prefetchCount, false), 'setting the prefetch', DECLARE_TIMEOUT);
    for (const tag of this.#tags) await this.#consumeOne(channel, tag);
  }

  async #consumeOne(channel: amqplib.Channel, consumerTag: string): Promise<void> {
    const name = this.#names[consumerTag]!;
    const queue = this.#options.queues[this.#tags.indexOf(consumerTag)]!;
    const options = {
      consumerTag,
      noAck: false,
      arguments: { ...queue.consumerArguments, ...this.#options.consumerArguments },
    };
    const onMessage = (message: amqplib.ConsumeMessage | null): void => {
      // Deliveries never come this way: the tap keeps them. Null says that the broker cancelled the consumer.
      if (message === null) this.#cancelledByBroker(channel, consumerTag);
    };
    await withDeadline(channel.consume(name, onMessage, options), `consuming from '${name}'`, DECLARE_TIMEOUT);
    this.#active.add(consumerTag);
  }

  /** The queue was deleted, or moved: declare and consume it again. What else the channel consumes goes on. */
  #cancelledByBroker(channel: amqplib.Channel, consumerTag: string): void {
    this.#active.delete(consumerTag);
    if (this.#cancelling || this.#consuming !== channel) return;
    const queue = this.#options.queues[this.#tags.indexOf(consumerTag)]!;
    const name = this.#names[consumerTag];
    const error = new ConsumerCancelled(`the broker cancelled the consumer of '${name}': was the queue deleted?`, {
      details: { queue: name, consumerTag },
    });
    this.#events.error(error);
    void this.#retry(
      () => this.#consuming === channel,
      async () => {
        const connection = this.#connection;
        if (connection === undefined || this.#declaring === undefined) return;
        this.#names[consumerTag] = await this.#declareOne(this.#declaring, queue);
        this.#events.queues(this.#names);
        await this.#consumeOne(channel, consumerTag);
      },
      () => {
        // A refused declaration or consume has closed its channel: begin again with a whole connection.
        if (this.#consuming === channel) this.#connection?.destroy();
        return false;
      },
    );
  }

  /** The channel is gone and its connection is not: a new channel, a new generation. */
  #channelClosed(connection: AmqpConnection, tap: Tap, channel: amqplib.Channel, reason: KombuError | undefined): void {
    if (this.#consuming !== channel) return;
    const wasActive = this.#active.size > 0;
    this.#consuming = undefined;
    this.#active.clear();
    tap.end(false);
    this.#events.generationEnded();
    // amqplib closes the channels first when the connection goes. A turn later it is known which of the two it is.
    if (wasActive) setImmediate(() => this.#reopen(connection, tap, reason));
  }

  #reopen(connection: AmqpConnection, tap: Tap, reason: KombuError | undefined): void {
    // While the consumers are being set up, or the connection goes, somebody else deals with it.
    if (this.#cancelling || !connection.open || this.#connection !== connection) return;
    const error = reason ?? new KombuError('the broker closed the consuming channel');
    this.#events.error(error);
    this.#events.disconnected(error);
    void this.#retry(
      () => connection.open,
      async () => {
        await this.#declare(connection);
        await this.#consume(connection, tap);
      },
      () => {
        connection.destroy();
        return false;
      },
    );
  }

  #lost(connection: AmqpConnection, tap: Tap, reason: KombuError | undefined): void {
    tap.close();
    this.#consuming = undefined;
    this.#active.clear();
    if (this.#connection !== connection) return;
    this.#connection = undefined;
    this.#events.generationEnded();
    if (this.#cancelling) return;
    this.#events.disconnected(reason ?? new KombuError('the connection was closed'));
    void this.#retry(
      () => this.#connection === undefined,
      () => this.#connect(),
      (error) => {
        // A queue that is gone or a login that is refused now may be there in a while; the user is told each time.
        if (!isRecoverable(error)) this.#events.error(error);
        return true;
      },
    );
  }

  /** Tries until it works, it is no longer wanted, the consumer closes, or `failed` says no. */
  async #retry(
    wanted: () => boolean,
    attempt: () => Promise<void>,
    failed: (error: KombuError) => boolean,
  ): Promise<void> {
    for (let attempts = 1; wanted() && !this.#closing.signal.aborted; attempts++) {
      await this.#pause(reconnectDelay(attempts - 1));
      if (!wanted() || this.#closing.signal.aborted) return;
      try {
        await attempt();
        this.#events.reconnected(attempts);
        return;
      } catch (error) {
        const known = errorFromAmqp(error, 'cannot consume again');
        if (this.#closing.signal.aborted) return;
        if (!failed(known)) return;
      }
    }
  }

  #pause(milliseconds: number): Promise<void> {
    const { signal } = this.#closing;
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, milliseconds);
      signal.addEventListener('abort', done);
    });
  }
}
