/**
 * One consuming connection and what is on it: the tap, a channel for declarations, and the consuming channel, of which there
 * may be several in turn (each a generation). Mends what breaks on a living connection; its own end is its source's affair.
 *
 *   open ▶ declare (channel 1) ▶ consume (channel 2) ──▶ generation alive
 *               ▲                                          │ channel closed by the broker
 *               └──────── 100 ms × 2, ± 20 %, ≤ 2 s ◀──────┤
 *                          declare, consume one tag ◀──────┘ consumer cancelled by the broker
 */
import type * as amqplib from 'amqplib';
import { toTable } from '../../../codec/amqp/plain-table.js';
import { ConsumerCancelled, KombuError } from '../../../errors.js';
import { withDeadline } from '../../deadline.js';
import { declareQueue } from '../../entities/declare.js';
import type { Queue } from '../../entities/queue.js';
import type { ConnectionParameters } from '../../url.js';
import { retrying } from '../reconnect.js';
import type { SourceOptions } from '../transport.js';
import { type AmqpConnection, openAmqp } from './client.js';
import { errorFromAmqp, saysOnlyClosed } from './errors.js';
import { Tap } from './tap.js';

export interface SessionOptions extends SourceOptions {
  readonly parameters: ConnectionParameters;
  readonly frameMax: number;
  /** What consumer tags begin with; behind it come the queue's place in the list and a number: see `order-key.ts`. */
  readonly tagPrefix: string;
  /** Aborts when nothing more is to be taken: no connection, channel or consumer is made from then on. */
  readonly signal: AbortSignal;
}

export interface SessionEvents {
  queues(byConsumerTag: Readonly<Record<string, string>>): void;
  generationEnded(): void;
  /** Something of what was consumed no longer is, though the connection lives. */
  interrupted(error: KombuError): void;
  /** All is consumed again. */
  mended(attempts: number): void;
}

const DECLARE_TIMEOUT = 10_000;

/** No tag is used twice, over all sessions of all consumers. */
let lastTag = 0;

export class Session {
  readonly tap: Tap;
  readonly #options: SessionOptions;
  readonly #connection: AmqpConnection;
  readonly #events: SessionEvents;
  #signal: AbortSignal;
  #declaring: amqplib.Channel | undefined;
  #consuming: amqplib.Channel | undefined;
  /** Every tag was consumed on the present channel: whatever goes from now on is a loss to mend. */
  #setUp = false;
  /** The tag that the broker consumes a queue with, by the queue's place in the list. */
  readonly #active = new Map<number, string>();
  #mending = false;
  /** Why the broker cancelled a consumer during the set-up. */
  #cancelled: KombuError | undefined;

  /**
   * Connects, declares and consumes. Rejects with one of our errors, or the signal's reason; nothing is left open then.
   * `opened` is called once there is a session, before anything is consumed: deliveries come, and are settled, from then on.
   */
  static async open(
    options: SessionOptions,
    events: SessionEvents,
    opened: (session: Session) => void,
  ): Promise<Session> {
    let tap: Tap | undefined;
    const { sink, prefetchCount, queues, frameMax, signal } = options;
    const connection = await openAmqp(options.parameters, {
      signal,
      clientName: 'mozuku consumer',
      socketOptions: (pass) => {
        // One tap a socket: an attempt that failed leaves its own behind.
        tap?.close();
        tap = new Tap({ ...sink, prefetch: prefetchCount * queues.length, frameMax });
        return tap.socketOptions(pass);
      },
    }).catch((error: unknown) => {
      tap?.close();
      throw error;
    });
    const session = new Session(options, connection, tap!, events);
    opened(session);
    try {
      await session.consume(signal);
    } catch (error) {
      await session.close();
      throw (saysOnlyClosed(error) ? connection.reason : undefined) ?? errorFromAmqp(error, 'cannot consume');
    }
    return session;
  }

  private constructor(options: SessionOptions, connection: AmqpConnection, tap: Tap, events: SessionEvents) {
    this.#options = options;
    this.#connection = connection;
    this.#events = events;
    this.#signal = options.signal;
    this.tap = tap;
    tap.opened(connection.heartbeat);
  }

  /** Resolves when the connection is gone: with the reason, or undefined if we closed it. */
  get ended(): Promise<KombuError | undefined> {
    return this.#connection.ended;
  }

  /** Declares everything and consumes every queue: on the living channel, else on a new one, which begins a generation. */
  async consume(signal: AbortSignal): Promise<void> {
    this.#signal = signal;
    signal.throwIfAborted();
    const names: string[] = [];
    for (const queue of this.#options.queues) names.push(await this.#declareOne(queue));
    const channel = this.#consuming ?? (await this.#openChannel());
    for (const [place, name] of names.entries()) {
      if (!this.#active.has(place)) await this.#consumeOne(channel, place, name);
    }
    if (!this.#connection.open) throw this.#connection.reason ?? new KombuError('the connection was closed');
    this.#setUp = true;
    // A consumer may have been cancelled while the others were being set up.
    if (this.#cancelled !== undefined && !this.#isWhole) this.#mend(this.#cancelled);
    this.#cancelled = undefined;
  }

  get #isWhole(): boolean {
    return this.#active.size === this.#options.queues.length;
  }

  /** basic.cancel, and its answer. What has come stays to be settled on the channel. */
  async cancel(deadline: number): Promise<void> {
    this.#setUp = false;
    const channel = this.#consuming;
    if (channel === undefined) return;
    const cancelling = Promise.all([...this.#active.values()].map((tag) => channel.cancel(tag)));
    try {
      await withDeadline(cancelling, 'cancelling the consumers', deadline);
    } catch {
      // If the channel went with its consumers, nothing comes from it any more either. A broker that does not answer is as good
      // as gone, and takes back what it has given out once its connection is cut.
      if (this.#consuming === channel) this.#connection.destroy();
    }
    this.#active.clear();
  }

  /** Closes the consuming channel: the broker puts what is unsettled back where it was. Never rejects. */
  async release(deadline: number): Promise<void> {
    this.#setUp = false;
    const channel = this.#consuming;
    if (channel === undefined) return;
    this.#consuming = undefined;
    this.#active.clear();
    this.tap.flushAll();
    this.tap.end(true);
    this.#events.generationEnded();
    // If it does not answer, its connection is as good as gone, and so the channel is.
    await withDeadline(channel.close(), 'closing the consuming channel', deadline).catch(() =>
      this.#connection.destroy(),
    );
  }

  /** Ends the generation, says goodbye, and gives the memory back. Never rejects. */
  async close(deadline?: number): Promise<void> {
    this.#setUp = false;
    this.#consuming = undefined;
    this.#active.clear();
    this.tap.end(true);
    await this.#connection.close(deadline);
    this.tap.close();
  }

  /** The connection is gone. */
  dispose(): void {
    this.#setUp = false;
    this.#consuming = undefined;
    this.#active.clear();
    this.tap.close();
  }

  /** Waits for the broker, as long as something is still to be taken. */
  #ask<T>(work: PromiseLike<T>, doing: string): Promise<T> {
    return withDeadline(Promise.resolve(work), doing, DECLARE_TIMEOUT, this.#signal);
  }

  async #declareOne(queue: Queue): Promise<string> {
    if (!this.#options.autoDeclare) return queue.name;
    return await this.#ask(declareQueue(await this.#declarer(), queue), `declaring the queue '${queue.name}'`);
  }

  /** A channel for declarations: a refused one closes it, and must not take the deliveries with it. */
  async #declarer(): Promise<amqplib.Channel> {
    if (this.#declaring !== undefined) return this.#declaring;
    const channel = await this.#ask(this.#connection.model.createChannel(), 'opening a channel');
    // The promise that waits for the declaration rejects with the same error.
    channel.on('error', () => undefined);
    channel.once('close', () => {
      if (this.#declaring === channel) this.#declaring = undefined;
    });
    this.#declaring = channel;
    return channel;
  }

  async #openChannel(): Promise<amqplib.Channel> {
    const channel = await this.#ask(this.#connection.model.createChannel(), 'opening a channel');
    let reason: KombuError | undefined;
    channel.on('error', (error: Error) => {
      reason = errorFromAmqp(error, 'the broker closed the consuming channel');
    });
    channel.once('close', () => this.#channelClosed(channel, reason));
    this.tap.begin(this.tap.lastOpenedChannel);
    this.#consuming = channel;
    this.#active.clear();
    await this.#ask(channel.prefetch(this.#options.prefetchCount, false), 'setting the prefetch');
    return channel;
  }

  /** Each time with a tag of its own: a queue's name may be another one now, and messages of the old one still run. */
  async #consumeOne(channel: amqplib.Channel, place: number, name: string): Promise<void> {
    const queue = this.#options.queues[place]!;
    const consumerTag = `${this.#options.tagPrefix}-${place}-${++lastTag}`;
    this.#events.queues({ [consumerTag]: name });
    const options = {
      consumerTag,
      noAck: false,
      arguments: toTable({ ...queue.consumerArguments, ...this.#options.consumerArguments }, 'consumerArguments'),
    };
    const onMessage = (message: amqplib.ConsumeMessage | null): void => {
      // Deliveries never come this way: the tap keeps them. Null says that the broker cancelled the consumer.
      if (message === null) this.#cancelledByBroker(channel, place, name);
    };
    // Before it is known: should nobody wait for the answer any more, it is cancelled all the same.
    this.#active.set(place, consumerTag);
    try {
      await this.#ask(channel.consume(name, onMessage, options), `consuming from '${name}'`);
    } catch (error) {
      if (!this.#signal.aborted && this.#active.get(place) === consumerTag) this.#active.delete(place);
      throw error;
    }
  }

  /** The queue was deleted, or moved. What else the channel consumes goes on. */
  #cancelledByBroker(channel: amqplib.Channel, place: number, queue: string): void {
    if (this.#consuming !== channel) return;
    this.#active.delete(place);
    const error = new ConsumerCancelled(`the broker cancelled the consumer of '${queue}': was the queue deleted?`, {
      details: { queue },
    });
    this.#cancelled = error;
    this.#mend(error);
  }

  #channelClosed(channel: amqplib.Channel, reason: KombuError | undefined): void {
    if (this.#consuming !== channel) return;
    this.#consuming = undefined;
    this.#active.clear();
    this.tap.end(false);
    this.#events.generationEnded();
    // amqplib closes the channels first when the connection goes. A turn later it is known which of the two it is.
    setImmediate(() => {
      if (this.#connection.open) this.#mend(reason ?? new KombuError('the broker closed the consuming channel'));
    });
  }

  /** Consumes again what is not consumed. A loss in the midst of mending is met by its next attempt. */
  #mend(error: KombuError): void {
    if (!this.#setUp || this.#signal.aborted) return;
    this.#events.interrupted(error);
    if (this.#mending) return;
    this.#mending = true;
    void this.#mendUntilDone().finally(() => {
      this.#mending = false;
    });
  }

  async #mendUntilDone(): Promise<void> {
    const signal = this.#signal;
    await retrying(signal, async (attempts) => {
      if (!this.#connection.open) return true;
      try {
        await this.consume(signal);
      } catch (cause) {
        if (signal.aborted || !this.#connection.open) return true;
        this.#events.interrupted(errorFromAmqp(cause, 'cannot consume again'));
        return false;
      }
      if (this.#isWhole) this.#events.mended(attempts);
      return this.#isWhole;
    });
  }
}
