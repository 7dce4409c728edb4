/**
 * Consuming from Redis, for as long as the consumer lives: envelopes go as they are into the arena, workers read them. Connections
 * come and go; what was taken stays ours by its lease, and is settled over whichever connection there is.
 *
 *   connect ▶ declare ▶ take ──▶ slots, lane … verdicts ──▶ leases ──▶ acked or put back
 *      ▲                                                       │ kept while there is no connection
 *      └─── lost: 100 ms × 2, ± 20 %, ≤ 2 s ───────────────────┘
 */
import { randomBytes } from 'node:crypto';
import { ClosedError, KombuError, ResourceError } from '../../../errors.js';
import { withDeadline } from '../../deadline.js';
import { declareQueue } from '../../entities/declare.js';
import type { Outcome } from '../../runtime/dispatcher.js';
import { errorFromAmqp } from '../amqp/errors.js';
import { openFirst } from '../failover.js';
import { Mending } from '../mending.js';
import { isRecoverable, retrying } from '../reconnect.js';
import type { Source, SourceEvents, SourceOptions } from '../transport.js';
import { Backlog } from './backlog.js';
import { RedisConnection } from './connection.js';
import { errorFromRedis } from './errors.js';
import { Inflow } from './inflow.js';
import { Leases } from './leases.js';
import { Listener } from './listener.js';
import { Restorer } from './restorer.js';
import { Restoring } from './restoring.js';
import { type Orphan, TAKE_TIMEOUT, Taker } from './taker.js';

export class RedisSource implements Source {
  readonly #options: SourceOptions;
  readonly #events: SourceEvents;
  readonly #tagPrefix: string;
  #names: readonly string[] = [];
  /** Aborts by cancel() and close(): nothing more is to be taken. */
  #taking = new AbortController();
  #connection: RedisConnection | undefined;
  #taker: Taker | undefined;
  #restorer: Restorer | undefined;
  #listeners: Listener[] = [];
  /** By the places of queues that are bound to fanout exchanges; they outlive connections. */
  readonly #backlogs = new Map<number, Backlog>();
  #leases: Leases | undefined;
  #inflow: Inflow | undefined;
  /** Of the next tag: none is used twice, also over connections. */
  #nextTag = 1;
  /** What a take may have recorded whose answer was lost with its connection. */
  #unsure: string[] = [];
  /** Those of them that the server may still record. */
  #orphans: Orphan[] = [];
  readonly #mending: Mending;
  /** Makes a connection for what is still held, while nothing is to be taken. */
  #keeping: Promise<void> = Promise.resolve();
  /** Aborts when something is to be taken again, or when all is over. */
  #holding = new AbortController();

  constructor(options: SourceOptions, events: SourceEvents) {
    this.#options = options;
    this.#events = events;
    this.#mending = new Mending(events, async () => {
      await this.#consume();
      return true;
    });
    this.#tagPrefix = `mozuku-${randomBytes(9).toString('hex')}:`;
  }

  get outstanding(): number {
    return this.#inflow?.outstanding ?? 0;
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
    this.#inflow?.settle(entry, outcome);
  }

  flush(): void {
    this.#leases?.flush();
    this.#inflow?.flush();
    this.#taker?.wake();
    for (const backlog of this.#backlogs.values()) backlog.wake();
  }

  holdsUnkept(before: number): boolean {
    return this.#inflow?.holdsUnkept(before) ?? false;
  }

  giveBackUnkept(before: number): void {
    this.#inflow?.giveBackUnkept(before);
    this.#leases?.flush();
  }

  async cancel(deadline: number): Promise<void> {
    this.#rest(new ClosedError('the consumer takes no more messages'));
    await withDeadline(this.#stop(), 'taking no more messages', deadline);
  }

  async release(deadline: number): Promise<void> {
    this.#inflow?.end();
    this.#inflow = undefined;
    await this.#told(deadline);
  }

  async resume(): Promise<void> {
    // cancel() may have been given up, with a take still under way.
    await this.#stop();
    this.#holding.abort();
    await this.#keeping;
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

  async close(deadline: number): Promise<void> {
    this.#rest(new ClosedError('the consumer is closed'));
    await withDeadline(this.#stop(), 'taking no more messages', deadline).catch(() => undefined);
    this.#inflow?.end();
    this.#inflow = undefined;
    await this.#told(deadline);
    this.#holding.abort();
    await this.#keeping;
    await this.#disconnect();
    this.#leases?.close();
  }

  #rest(reason: ClosedError): void {
    this.#taking.abort(reason);
    this.#holding.abort();
    this.#holding = new AbortController();
  }

  async #told(deadline: number): Promise<void> {
    this.#keep();
    const telling = this.#keeping.then(() => this.#leases?.told());
    // What cannot be told comes back by itself when its lease is over.
    await withDeadline(telling, 'settling deliveries', deadline).catch(() => undefined);
  }

  /** Nothing is to be taken, and the connection is lost: what is held is renewed and settled over another one. */
  #keep(): void {
    const { signal } = this.#holding;
    const isNeeded = (): boolean =>
      this.#connection === undefined && (this.#leases?.isIdle === false || this.#unsure.length > 0);
    this.#keeping = this.#keeping.then(async () => {
      if (isNeeded()) await retrying(signal, async () => !isNeeded() || this.#reach(signal));
    });
  }

  /** Never rejects. False: it is to be tried again. */
  async #reach(signal: AbortSignal): Promise<boolean> {
    try {
      const connection = await this.#connect(signal);
      this.#leases?.attach(connection.client);
      await withDeadline(this.#reclaim(connection), 'putting deliveries back', TAKE_TIMEOUT, signal);
      return true;
    } catch (cause) {
      const error = errorFromAmqp(cause, 'cannot settle deliveries');
      if (!signal.aborted && !isRecoverable(error)) this.#events.error(error);
      return false;
    }
  }

  /** Nothing is taken over this connection yet, so nothing of what it puts back is here. */
  async #reclaim({ client, keys, exchanges }: RedisConnection): Promise<void> {
    const tags = this.#unsure;
    this.#unsure = [];
    try {
      await new Restoring(client, keys, exchanges).reclaim(tags);
    } catch (error) {
      this.#unsure.push(...tags);
      throw error;
    }
  }

  async #stop(): Promise<void> {
    for (const backlog of this.#backlogs.values()) backlog.close();
    this.#backlogs.clear();
    await this.#mending.underWay;
    const taker = this.#taker;
    const listeners = this.#listeners.splice(0);
    await Promise.all([taker?.stop(), ...listeners.map((each) => each.stop())]);
    // Mended a moment before it was told to stop.
    this.#deafen();
    if (this.#taker === taker) this.#leave();
    const connection = this.#connection;
    if (this.#unsure.length > 0 && connection !== undefined) {
      try {
        // Once it has answered this it has seen the end of the waiters' sockets as well.
        await connection.client.ping();
        await this.#reclaim(connection);
      } catch {
        // The connection is gone: over the next one.
      }
    }
    // The connection may have been lost before, and nobody mends it now.
    this.#keep();
  }

  /** None of the taker's tags is used again, and what is recorded under them without our hearing of it is put back. */
  #leave(): void {
    const taker = this.#taker;
    if (taker === undefined) return;
    this.#taker = undefined;
    this.#nextTag = taker.nextTag;
    this.#unsure.push(...taker.unsure);
    this.#orphans = taker.orphans;
    void taker.stop();
  }

  #deafen(): void {
    for (const listener of this.#listeners.splice(0)) listener.close();
  }

  async #disconnect(): Promise<void> {
    const connection = this.#connection;
    this.#connection = undefined;
    this.#restorer?.close();
    this.#leases?.detach();
    await connection?.close();
  }

  /** Connects where there is no connection, declares everything, and takes. */
  async #consume(): Promise<void> {
    const { signal } = this.#taking;
    const { queues, sink } = this.#options;
    const connection = this.#connection ?? (await this.#connect(signal));
    this.#names = await this.#declare(connection);
    signal.throwIfAborted();
    if (!connection.open) throw connection.reason ?? new KombuError('the connection was closed');
    const { client, keys, exchanges, options, parameters, canBlock } = connection;
    this.#leases ??= new Leases(keys, exchanges.lasting, options.visibilityTimeout, (error) => this.#trouble(error));
    if (this.#inflow === undefined) {
      const leases = this.#leases;
      this.#backlogs.clear();
      const tags = queues.map((_, index) => `${this.#tagPrefix.slice(0, -1)}-${index}-0`);
      this.#inflow = new Inflow(sink, {
        prefix: this.#tagPrefix,
        consumerTags: tags,
        prefetchCount: this.#options.prefetchCount,
        acked: (tag) => leases.ack(tag),
        returned: (tag, list, envelope) => leases.putBack(tag, list, envelope),
        taken: (tag) => leases.taken(tag),
        ended: () => this.#events.generationEnded(),
      });
      this.#events.queues(Object.fromEntries(tags.map((tag, index) => [tag, this.#names[index]!])));
    }
    const inflow = this.#inflow;
    inflow.lists = this.#names.map((name) => keys.lists(name));
    this.#leases.attach(client);
    await this.#reclaim(connection);
    signal.throwIfAborted();
    this.#restorer?.close();
    this.#restorer = new Restorer(client, keys, exchanges, options, (error) => this.#trouble(error));
    const places: number[] = [];
    // Those of an attempt that failed.
    this.#deafen();
    for (const [index, name] of this.#names.entries()) {
      if (exchanges.fanout.has(name)) await this.#listen(connection, index, inflow);
      else places.push(index);
    }
    if (signal.aborted) this.#deafen();
    signal.throwIfAborted();
    if (places.length === 0) return;
    if (options.queueOrderStrategy === 'sorted') {
      places.sort((one, other) => (this.#names[one]! < this.#names[other]! ? -1 : 1));
    }
    const ordered = places.map((place) => this.#names[place]!);
    const taker = new Taker(
      client,
      {
        parameters,
        keys,
        queues: ordered,
        tagPrefix: this.#tagPrefix,
        firstTag: this.#nextTag,
        noAck: false,
        rotate: options.queueOrderStrategy === 'round_robin',
        canBlock,
        orphans: this.#orphans,
      },
      {
        room: (place) => inflow.room(places[place]!),
        bytes: () => inflow.bytes,
        deliver: (place, list, tag, envelope) => inflow.deliver(places[place]!, list, tag, envelope),
        delivered: () => inflow.flush(),
        failed: (error) => this.#trouble(error),
        reclaim: async (tags) => {
          this.#unsure.push(...tags);
          await this.#reclaim(connection).catch((error: unknown) => {
            this.#trouble(errorFromRedis(error, 'putting back what a lost connection had taken'));
          });
        },
      },
    );
    this.#orphans = [];
    this.#taker = taker;
    taker.wake();
  }

  /** Hears what the queue at this place is bound to. */
  async #listen(connection: RedisConnection, index: number, inflow: Inflow): Promise<void> {
    let backlog = this.#backlogs.get(index);
    if (backlog === undefined) {
      backlog = new Backlog({
        room: () => inflow.room(index),
        bytes: () => inflow.bytes,
        deliver: (envelope) => inflow.deliver(index, -1, 0, envelope),
        delivered: () => inflow.flush(),
      });
      this.#backlogs.set(index, backlog);
    }
    const listener = new Listener(connection, this.#names[index]!, backlog, {
      lost: (error, isAlone) => {
        if (isAlone && !this.#taking.signal.aborted) this.#events.error(error);
        connection.useless(error);
      },
      failed: (error) => this.#trouble(error),
    });
    this.#listeners.push(listener);
    await listener.start();
  }

  async #connect(signal: AbortSignal): Promise<RedisConnection> {
    const connection = await openFirst(this.#options.parameters, signal, (host) =>
      RedisConnection.open(host, { signal, clientName: 'mozuku consuming' }),
    );
    this.#connection = connection;
    void connection.ended.then((reason) => this.#lost(connection, reason));
    return connection;
  }

  async #declare(connection: RedisConnection): Promise<string[]> {
    const { queues, autoDeclare } = this.#options;
    if (!autoDeclare) return queues.map(({ name }) => name);
    const channel = await connection.model.createChannel();
    const names: string[] = [];
    for (const queue of queues) names.push(await declareQueue(channel, queue));
    await channel.close();
    return names;
  }

  #trouble(error: KombuError): void {
    this.#events.error(error);
    // A server that has no room, or cannot write to its disk, is there all the same.
    if (isRecoverable(error) && !(error instanceof ResourceError)) this.#connection?.useless(error);
  }

  #lost(connection: RedisConnection, reason: KombuError | undefined): void {
    if (this.#connection !== connection) return;
    this.#connection = undefined;
    this.#leases?.detach();
    this.#restorer?.close();
    this.#leave();
    this.#deafen();
    if (this.#taking.signal.aborted) this.#keep();
    else this.#mending.down(reason ?? new KombuError('the connection was closed'), this.#taking.signal);
  }
}
