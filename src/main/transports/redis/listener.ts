/**
 * Listens to the fanout exchanges of one queue: what is published to one goes by PUBLISH to whoever listens at that moment, and is
 * kept nowhere. Each queue has a socket of its own, since one that is not read because its consumer is slow must not keep others
 * waiting, who may be what that consumer waits for.
 */
import { ClosedError, ConnectionError, type KombuError } from '../../../errors.js';
import { withDeadline } from '../../deadline.js';
import type { Backlog, Valve } from './backlog.js';
import { type Client, locationOf, openClient } from './client.js';
import type { RedisConnection } from './connection.js';
import { errorFromRedis } from './errors.js';
import { watchPulse } from './pulse.js';

/** Milliseconds until an answer that does not come is given up. */
const GIVE_UP = 2000;

export interface ListenerEvents {
  /** What is published is not heard any more. `isAlone`: the server is there, and has ended this socket alone. */
  lost(error: KombuError, isAlone: boolean): void;
  /** A binding that was added while it listened cannot be heard. */
  failed(error: KombuError): void;
}

export class Listener implements Valve {
  readonly #redis: RedisConnection;
  readonly #queue: string;
  readonly #backlog: Backlog;
  readonly #events: ListenerEvents;
  /** What it is subscribed to; those with a `*` are patterns. */
  readonly #subscriptions = new Set<string>();
  #client: Client | undefined;
  #unfollow: () => void = () => undefined;
  /** The last message: by which subscriptions it came so far. */
  #last: { readonly channel: string; readonly envelope: Buffer; readonly by: Set<string> } | undefined;
  #isPaused = false;
  /** Since the pulse last asked. */
  #wasPaused = false;
  /** Those who wait for an answer that may not be read for long. */
  #impatient: (() => void)[] = [];
  #closed = false;

  constructor(redis: RedisConnection, queue: string, backlog: Backlog, events: ListenerEvents) {
    this.#redis = redis;
    this.#queue = queue;
    this.#backlog = backlog;
    this.#events = events;
    void redis.ended.then(() => this.close());
  }

  /** Resolves when it hears all exchanges that the queue is bound to. Rejects if it cannot; it is closed then. */
  async start(): Promise<void> {
    const { parameters, exchanges, heartbeat } = this.#redis;
    const where = locationOf(parameters);
    const { client, ended } = await openClient(parameters, { clientName: 'mozuku listening' });
    this.#client = client;
    client.on('messageBuffer', (channel: Buffer, envelope: Buffer) => {
      const name = channel.toString();
      this.#heard(name, name, envelope);
    });
    client.on('pmessageBuffer', (pattern: Buffer | string, channel: Buffer, envelope: Buffer) =>
      this.#heard(pattern.toString(), channel.toString(), envelope),
    );
    const isExcused = (): boolean => this.#isExcused();
    const calm = watchPulse(client, heartbeat, where, (error) => void this.#lost(error), isExcused);
    void ended.then((reason) => {
      calm();
      void this.#lost(reason);
    });
    this.#unfollow = exchanges.fanout.follow(this.#queue, () => this.#follow());
    try {
      if (this.#closed) throw new ClosedError(`nobody listens for the queue '${this.#queue}' any more`);
      await this.#subscribe(client);
    } catch (error) {
      this.close();
      throw errorFromRedis(error, `listening for the queue '${this.#queue}'`);
    }
    this.#backlog.attach(this);
  }

  /** Nothing more is heard, and the server knows it, once this has resolved. Never rejects. */
  async stop(): Promise<void> {
    const client = this.#client;
    // Where it is not read, the answer is behind all that nobody wants any more.
    const isAnswering = !this.#isPaused && !this.#closed && client?.status === 'ready';
    const goodbye = isAnswering ? client.quit() : undefined;
    this.#end();
    try {
      if (goodbye !== undefined) await withDeadline(goodbye, 'closing a subscription', GIVE_UP);
    } catch {
      // Gone already, or silent: closed is what it should be.
    }
    client?.disconnect();
  }

  close(): void {
    this.#end();
    this.#client?.disconnect();
  }

  #end(): void {
    this.#closed = true;
    this.#unfollow();
    this.#backlog.detach(this);
    this.#releaseImpatient();
  }

  pause(): void {
    if (this.#isPaused || this.#closed) return;
    this.#isPaused = true;
    this.#wasPaused = true;
    this.#client?.stream.pause();
    this.#releaseImpatient();
  }

  resume(): void {
    if (!this.#isPaused || this.#closed) return;
    this.#isPaused = false;
    this.#client?.stream.resume();
  }

  #subscribe(client: Client): Promise<unknown> {
    const { exchanges, keys } = this.#redis;
    const bindings = exchanges.fanout.of(this.#queue);
    const wanted = new Set(bindings.map(({ exchange, routingKey }) => keys.subscription(exchange, routingKey)));
    const asked: Promise<unknown>[] = [];
    for (const each of wanted) {
      if (this.#subscriptions.has(each)) continue;
      this.#subscriptions.add(each);
      asked.push(each.includes('*') ? client.psubscribe(each) : client.subscribe(each));
    }
    for (const each of this.#subscriptions) {
      if (wanted.has(each)) continue;
      this.#subscriptions.delete(each);
      asked.push(each.includes('*') ? client.punsubscribe(each) : client.unsubscribe(each));
    }
    return Promise.all(asked);
  }

  /** The queue's bindings have changed. Never rejects. */
  async #follow(): Promise<void> {
    const client = this.#client;
    if (client === undefined || this.#closed) return;
    const answered = this.#subscribe(client).catch((error: unknown) => {
      if (this.#closed || client.status !== 'ready') return;
      this.#events.failed(errorFromRedis(error, `listening for the queue '${this.#queue}'`));
    });
    if (this.#isPaused) return;
    await Promise.race([answered, new Promise<void>((resolve) => this.#impatient.push(resolve))]);
  }

  #releaseImpatient(): void {
    for (const release of this.#impatient.splice(0)) release();
  }

  #heard(subscription: string, channel: string, envelope: Buffer): void {
    if (this.#closed || !this.#subscriptions.has(subscription)) return;
    if (this.#subscriptions.size > 1 && this.#isCopy(subscription, channel, envelope)) return;
    this.#backlog.push(envelope);
  }

  /**
   * A message comes once for each subscription that it fits, and a queue gets it once. Its copies come one behind the other, since
   * Redis sends them all before it does anything else.
   */
  #isCopy(subscription: string, channel: string, envelope: Buffer): boolean {
    const last = this.#last;
    if (last?.channel === channel && !last.by.has(subscription) && last.envelope.equals(envelope)) {
      last.by.add(subscription);
      return true;
    }
    this.#last = { channel, envelope, by: new Set([subscription]) };
    return false;
  }

  /** While it was not read, it could not tell that the server is there. */
  #isExcused(): boolean {
    const was = this.#wasPaused;
    this.#wasPaused = this.#isPaused;
    return was;
  }

  /** Never rejects. */
  async #lost(reason: KombuError): Promise<void> {
    if (this.#closed) return;
    this.close();
    // A server that is gone takes all sockets with it, and whoever consumes is told so. One that is there has ended this one alone.
    const isAlone = await withDeadline(this.#redis.client.ping(), 'asking whether the server is there', GIVE_UP).then(
      () => true,
      () => false,
    );
    const why =
      "was lost, by the server's client-output-buffer-limit if its consumer is slow: messages may have been missed";
    const text = `the subscription of the queue '${this.#queue}' ${why}`;
    this.#events.lost(new ConnectionError(text, { cause: reason, details: { queue: this.#queue } }), isAlone);
  }
}
