/**
 * Consuming from a broker of this process, for as long as the consumer lives. There is no socket to lose, but queues are deleted
 * and connections closed here as well: what is lost is told once, and consumed again.
 *
 *   connect ▶ declare ▶ consume ──▶ generation alive ── cancelled, closed ──▶ 100 ms × 2, ± 20 %, ≤ 2 s ──▶ again
 */
import { randomBytes } from 'node:crypto';
import { toTable } from '../../../codec/amqp/plain-table.js';
import { ClosedError, ConsumerCancelled, KombuError } from '../../../errors.js';
import { withDeadline } from '../../deadline.js';
import { declareQueue } from '../../entities/declare.js';
import type { Outcome } from '../../runtime/dispatcher.js';
import { errorFromAmqp } from '../amqp/errors.js';
import { openFirst } from '../failover.js';
import { Mending } from '../mending.js';
import type { Source, SourceEvents, SourceOptions } from '../transport.js';
import { fieldsOf } from './channel-arguments.js';
import { closureError } from './channel-life.js';
import { MemoryConnection } from './connection.js';
import { Feed } from './feed.js';
import { method, type Refusal } from './refusal.js';

export class MemorySource implements Source {
  readonly #options: SourceOptions;
  readonly #events: SourceEvents;
  readonly #tags: readonly string[];
  /** Aborts by cancel() and close(): nothing more is to be taken. */
  #taking = new AbortController();
  #connection: MemoryConnection | undefined;
  #feed: Feed | undefined;
  /** Tags that the broker consumes for. */
  readonly #active = new Set<string>();
  /** While a consumer is being set up: what its channel was closed with. */
  #refused: ((refusal: Refusal) => void) | undefined;
  readonly #mending: Mending;

  constructor(options: SourceOptions, events: SourceEvents) {
    this.#options = options;
    this.#events = events;
    this.#mending = new Mending(events, async () => {
      await this.#consume();
      return this.#active.size === this.#tags.length;
    });
    const id = randomBytes(6).toString('hex');
    // As the AMQP source's: the queue's place, then a number.
    this.#tags = options.queues.map((_, index) => `mozuku-${id}-${index}-0`);
  }

  get outstanding(): number {
    return this.#feed?.outstanding ?? 0;
  }

  async start(): Promise<void> {
    try {
      await this.#consume();
    } catch (error) {
      await this.#disconnect();
      throw errorFromAmqp(error, 'cannot consume');
    }
  }

  settle(entry: number, outcome: Outcome): void {
    this.#feed?.settle(entry, outcome);
  }

  flush(): void {
    this.#feed?.flush();
  }

  giveBackUnkept(before: number): void {
    this.#feed?.giveBack(before);
  }

  async cancel(deadline: number): Promise<void> {
    this.#taking.abort(new ClosedError('the consumer takes no more messages'));
    await withDeadline(this.#mending.underWay, 'giving up the attempt to consume again', deadline);
    this.#active.clear();
    this.#feed?.channel.cancelAll();
  }

  holdsUnkept(before: number): boolean {
    return this.#feed?.holdsUnkept(before) ?? false;
  }

  async release(): Promise<void> {
    const feed = this.#feed;
    feed?.flush();
    feed?.channel.close();
  }

  /** Consumes again after `cancel`, on the same channel if it still lives. */
  async resume(): Promise<void> {
    this.#taking = new AbortController();
    const { signal } = this.#taking;
    try {
      await this.#consume();
    } catch (cause) {
      if (signal.aborted) return;
      this.#mending.down(errorFromAmqp(cause, 'cannot consume again'), this.#taking.signal);
      await this.#mending.underWay;
    }
  }

  async close(): Promise<void> {
    this.#taking.abort(new ClosedError('the consumer is closed'));
    this.#active.clear();
    const feed = this.#feed;
    feed?.channel.cancelAll();
    feed?.giveBack();
    feed?.flush();
    await this.#disconnect();
    await this.#mending.underWay;
  }

  async #disconnect(): Promise<void> {
    const connection = this.#connection;
    this.#connection = undefined;
    this.#active.clear();
    this.#feed?.end();
    await connection?.close();
  }

  /** Connects where there is no connection, declares everything, and consumes what is not consumed. */
  async #consume(): Promise<void> {
    const { signal } = this.#taking;
    const connection = this.#connection ?? (await this.#connect(signal));
    const names = await this.#declare(connection);
    signal.throwIfAborted();
    if (!connection.open) throw connection.reason ?? new KombuError('the connection was closed');
    this.#events.queues(names);
    const feed = this.#feed ?? this.#begin(connection);
    for (const tag of this.#tags) if (!this.#active.has(tag)) this.#consumeOne(feed, tag, names[tag]!);
  }

  async #connect(signal: AbortSignal): Promise<MemoryConnection> {
    const { parameters } = this.#options;
    const connection = await openFirst(parameters, signal, async (host) => new MemoryConnection(host));
    this.#connection = connection;
    void connection.ended.then((reason) => this.#lost(connection, reason));
    return connection;
  }

  /** Names by consumer tag. A refused declaration closes its channel, which is of no further use anyway. */
  async #declare(connection: MemoryConnection): Promise<Record<string, string>> {
    const { queues, autoDeclare } = this.#options;
    const names: Record<string, string> = {};
    const channel = autoDeclare ? await connection.model.createChannel() : undefined;
    // The promise that waits for the declaration rejects with the same error.
    channel?.on('error', () => undefined);
    for (const [index, queue] of queues.entries()) {
      names[this.#tags[index]!] = channel === undefined ? queue.name : await declareQueue(channel, queue);
    }
    await channel?.close();
    return names;
  }

  #begin(connection: MemoryConnection): Feed {
    const feed: Feed = new Feed(connection.model.link, this.#options.sink, {
      cancelled: (consumerTag) => this.#cancelled(consumerTag),
      ended: () => {
        if (this.#feed === feed) this.#feed = undefined;
        this.#active.clear();
        this.#events.generationEnded();
      },
      closed: (refusal) => {
        if (this.#refused !== undefined) this.#refused(refusal);
        else this.#interrupted(errorFromAmqp(closureError('Channel closed by server:', refusal), 'consuming'));
      },
    });
    feed.channel.prefetch(this.#options.prefetchCount, false);
    this.#feed = feed;
    return feed;
  }

  #consumeOne(feed: Feed, consumerTag: string, name: string): void {
    const queue = this.#options.queues[this.#tags.indexOf(consumerTag)]!;
    const table = { ...queue.consumerArguments, ...this.#options.consumerArguments };
    const args = fieldsOf(toTable(table, 'consumerArguments'));
    const options = { consumerTag, noAck: false, exclusive: false, args };
    const closed: { with?: Refusal } = {};
    this.#refused = (refusal) => {
      closed.with = refusal;
    };
    this.#active.add(consumerTag);
    const consumed = feed.channel.call(method.BASIC_CONSUME, () =>
      feed.channel.consume(name, options, () => undefined),
    );
    this.#refused = undefined;
    if (consumed !== undefined) return;
    this.#active.delete(consumerTag);
    if (closed.with === undefined) throw new KombuError(`consuming from '${name}': the channel was closed`);
    throw errorFromAmqp(closureError('Operation failed: BasicConsume;', closed.with), `consuming from '${name}'`);
  }

  /** The queue was deleted. What else is consumed goes on. */
  #cancelled(consumerTag: string): void {
    if (!this.#active.delete(consumerTag)) return;
    const queue = this.#options.queues[this.#tags.indexOf(consumerTag)]!.name;
    const error = new ConsumerCancelled(`the broker cancelled the consumer of '${queue}': was the queue deleted?`, {
      details: { queue, consumerTag },
    });
    this.#interrupted(error);
  }

  /** Not in the middle of what somebody else is asking of the broker. */
  #interrupted(error: KombuError): void {
    setImmediate(() => {
      if (this.#taking.signal.aborted) return;
      this.#events.error(error);
      this.#mending.down(error, this.#taking.signal);
    });
  }

  #lost(connection: MemoryConnection, reason: KombuError | undefined): void {
    if (this.#connection !== connection) return;
    this.#connection = undefined;
    this.#feed?.end();
    if (this.#taking.signal.aborted) return;
    this.#mending.down(reason ?? new KombuError('the connection was closed'), this.#taking.signal);
  }
}
