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
import { isRecoverable } from '../reconnect.js';
import type { Source, SourceEvents, SourceOptions } from '../transport.js';
import { RedisConnection } from './connection.js';
import { Inflow } from './inflow.js';
import { Leases } from './leases.js';
import { Restorer } from './restorer.js';
import { Restoring } from './restoring.js';
import { Taker } from './taker.js';

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
  #unsubscribe: (() => Promise<void>)[] = [];
  #leases: Leases | undefined;
  #inflow: Inflow | undefined;
  /** Of the next tag: none is used twice, also over connections. */
  #nextTag = 1;
  /** What a take may have recorded whose answer was lost with its connection. */
  #unsure: string[] = [];
  readonly #mending: Mending;

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
  }

  holdsUnkept(before: number): boolean {
    return this.#inflow?.holdsUnkept(before) ?? false;
  }

  giveBackUnkept(before: number): void {
    this.#inflow?.giveBackUnkept(before);
    this.#leases?.flush();
  }

  async cancel(deadline: number): Promise<void> {
    this.#taking.abort(new ClosedError('the consumer takes no more messages'));
    await withDeadline(this.#stop(), 'taking no more messages', deadline);
  }

  async release(deadline: number): Promise<void> {
    this.#inflow?.end();
    this.#inflow = undefined;
    await this.#told(deadline);
  }

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

  async close(deadline: number): Promise<void> {
    this.#taking.abort(new ClosedError('the consumer is closed'));
    await withDeadline(this.#stop(), 'taking no more messages', deadline).catch(() => undefined);
    this.#inflow?.end();
    this.#inflow = undefined;
    await this.#told(deadline);
    await this.#disconnect();
    this.#leases?.close();
  }

  async #told(deadline: number): Promise<void> {
    // What cannot be told comes back by itself when its lease is over.
    await withDeadline(this.#leases?.told() ?? Promise.resolve(), 'settling deliveries', deadline).catch(
      () => undefined,
    );
  }

  async #stop(): Promise<void> {
    const unsubscribe = this.#unsubscribe;
    this.#unsubscribe = [];
    await Promise.all([
      this.#mending.underWay,
      this.#taker?.stop(),
      ...unsubscribe.map((end) => end().catch(() => undefined)),
    ]);
    if (this.#taker !== undefined) this.#nextTag = this.#taker.nextTag;
    this.#taker = undefined;
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
    this.#leases ??= new Leases(keys, options.visibilityTimeout, (error) => this.#trouble(error));
    if (this.#inflow === undefined) {
      const leases = this.#leases;
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
    // Nothing is taken over this connection yet, so none of these is here.
    await new Restoring(client, keys, exchanges).reclaim(this.#unsure);
    this.#unsure = [];
    signal.throwIfAborted();
    this.#restorer?.close();
    this.#restorer = new Restorer(client, keys, exchanges, options, (error) => this.#trouble(error));
    const places: number[] = [];
    for (const [index, name] of this.#names.entries()) {
      const fanout = exchanges.fanoutQueues.get(name);
      if (fanout === undefined) {
        places.push(index);
        continue;
      }
      const channel = keys.subscription(fanout.exchange, fanout.routingKey);
      const hear = (envelope: Buffer): void => inflow.deliver(index, -1, 0, envelope);
      this.#unsubscribe.push(await connection.subscriptions.subscribe(channel, hear));
    }
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
      },
      {
        room: (place) => inflow.room(places[place]!),
        bytes: () => inflow.bytes,
        deliver: (place, list, tag, envelope) => inflow.deliver(places[place]!, list, tag, envelope),
        delivered: () => inflow.flush(),
        failed: (error) => this.#trouble(error),
      },
    );
    this.#taker = taker;
    taker.wake();
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
    if (this.#taking.signal.aborted) return;
    this.#events.error(error);
    // A server that has no room, or cannot write to its disk, is there all the same.
    if (isRecoverable(error) && !(error instanceof ResourceError)) this.#connection?.useless(error);
  }

  #lost(connection: RedisConnection, reason: KombuError | undefined): void {
    if (this.#connection !== connection) return;
    this.#connection = undefined;
    this.#leases?.detach();
    this.#restorer?.close();
    if (this.#taker !== undefined) {
      // What a last take may have brought without our hearing of it: its tags are not used again, it is put back.
      this.#unsure.push(...this.#taker.unsure);
      this.#nextTag = this.#taker.nextTag + SKIPPED;
      void this.#taker.stop();
      this.#taker = undefined;
    }
    this.#unsubscribe = [];
    if (this.#taking.signal.aborted) return;
    this.#mending.down(reason ?? new KombuError('the connection was closed'), this.#taking.signal);
  }
}

/** More than one take can bring. */
const SKIPPED = 1024;
