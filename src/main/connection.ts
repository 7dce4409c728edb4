/**
 * A connection to a broker, opened when it is first needed. It never reconnects behind its user's back: what was lost is told
 * by events and errors, and the next thing that needs the connection opens it anew.
 */
import { ClosedError } from '../errors.js';
import { kinds, type OptionTable, readOptions } from '../options.js';
import { ChannelPool } from '../pool/channel-pool.js';
import { ConnectionPool } from '../pool/connection-pool.js';
import { type ConnectionMember, loadMembers } from '../pool/members.js';
import type { ProducerOptions } from '../pool/publication.js';
import type { Ticket } from '../pool/ticket.js';
import { ConnectionCore } from './connection-core.js';
import { ConnectionFacts } from './connection-facts.js';
import { Consumer, type ConsumerOptions } from './consumer.js';
import { withDeadline } from './deadline.js';
import {
  AUTORETRY_OPTIONS,
  type AutoretryOptions,
  ENSURE_OPTIONS,
  type EnsureConnectionOptions,
  type EnsureOptions,
  ensured,
  type Reviving,
  readWaits,
} from './ensure.js';
import type { CallOptions, Channel } from './entities/channel.js';
import type { Queue } from './entities/queue.js';
import type { ChannelSource } from './entities/target.js';
import { SimpleBuffer, SimpleQueue, type SimpleQueueOptions } from './helpers/simple.js';
import { Producer } from './producer.js';
import { failoverOf } from './transports/failover.js';
import { type ConnectionOptions, type ConnectionParameters, readParameters, switchedTo } from './url.js';

export type { ConnectionEvents } from './connection-core.js';
export type { AsUriOptions } from './connection-facts.js';
export type { AutoretryOptions, EnsureConnectionOptions, EnsureOptions } from './ensure.js';

interface SignalOption {
  readonly signal?: AbortSignal;
}

interface TimeoutOption {
  readonly timeout?: number;
}

const CONNECT: OptionTable<SignalOption> = {
  signal: { kind: kinds.signal, doc: 'Gives up; the promise rejects with its reason.' },
};
const CLOSE: OptionTable<TimeoutOption> = {
  timeout: { kind: kinds.milliseconds, default: 5000, doc: 'Until the socket is cut (ms).' },
};
const CHANNEL: OptionTable<CallOptions> = {
  timeout: { kind: kinds.milliseconds, default: 10_000, doc: 'For the broker to open it (ms).' },
  signal: { kind: kinds.signal, doc: 'Gives up; the promise rejects with its reason.' },
};
const DEFAULT_CHANNEL: OptionTable<CallOptions> = {
  ...CHANNEL,
  timeout: {
    kind: kinds.milliseconds,
    defaultWords: '`connectTimeout` for each host, and 10 s',
    doc: 'For all of it (ms).',
  },
};

export class Connection extends ConnectionFacts {
  readonly #core: ConnectionCore;
  /** Of a connection that belongs to a pool: how it is given back. */
  readonly #ticket: Ticket | undefined;
  /** What was opened here, to be closed when the connection is given back; plain connections keep no list. */
  readonly #channels = new Set<Channel>();
  #usedDefault = false;
  #ending: Promise<void> | undefined;

  /**
   * Does no I/O. `url`: 'amqp://user:password@host:port/vhost', URLs joined by ';', or a list of them (see `parseUrl`). What
   * the URL says wins over `options`. Throws `OptionError`, `InvalidUrl`, `TransportNotAvailable`.
   */
  constructor(url?: string | URL | readonly string[] | ConnectionOptions, options?: ConnectionOptions);
  /** @internal A connection of a pool, lent. */
  constructor(core: ConnectionCore, ticket: Ticket);
  constructor(
    first?: string | URL | readonly string[] | ConnectionOptions | ConnectionCore,
    second: ConnectionOptions | Ticket = {},
  ) {
    super();
    if (first instanceof ConnectionCore) {
      this.#core = first;
      this.#ticket = second as Ticket;
    } else {
      const given = first instanceof URL ? first.href : first;
      const options = second as ConnectionOptions;
      this.#core = new ConnectionCore(
        typeof given === 'string' || Array.isArray(given)
          ? readParameters(given as string | readonly string[], options)
          : readParameters(undefined, { ...(given as ConnectionOptions | undefined), ...options }),
      );
    }
    this.#core.tell = (name, ...args) => {
      if (name !== 'error' || this.listenerCount('error') > 0) this.emit(name, ...(args as never));
    };
  }

  override get parameters(): ConnectionParameters {
    return this.#core.parameters;
  }

  /** 'host:port' of the host that it is connected to, else of the one that its parameters name. */
  get host(): string {
    const { hostname, port } = this.#core.live?.open ? this.#core.live.parameters : this.parameters;
    return port === undefined ? hostname : `${hostname}:${port}`;
  }

  override get connected(): boolean {
    return this.#ending === undefined && this.#core.connected;
  }

  /** True after `close()`, until `connect()` or `ensureConnection()` is called again; for good once it is given back to a pool. */
  get closed(): boolean {
    return this.#ending !== undefined || this.#core.closed;
  }

  /** Seconds between heartbeats, as agreed with the broker; 0: none, or not connected. */
  getHeartbeatInterval(): number {
    return this.connected ? (this.#core.live?.heartbeat ?? 0) : 0;
  }

  /** Heartbeats go out by themselves. Throws what the connection was lost with, if it was and is not open again. */
  heartbeatCheck(): void {
    const reason = this.connected ? undefined : this.#core.live?.reason;
    if (reason !== undefined) throw reason;
  }

  /**
   * Connects, trying each host of `alternates` once; does nothing if connected. Throws `AccessRefused`, `ConnectionError`,
   * `TimeoutError` (no answer within `connectTimeout`), `TransportNotAvailable`, `ClosedError` (given back to its pool), or the
   * signal's reason.
   */
  async connect(options: SignalOption = {}): Promise<this> {
    const { signal } = readOptions('connect', CONNECT, options);
    this.#reopen();
    await this.#core.connect(signal);
    return this;
  }

  /**
   * Connects, and tries again after failures that may pass: waits 100 ms, doubling, ±20 %, at most 2 s. A refused login is no
   * such failure. With several hosts they are tried one right after the other, and only then it waits. An `errback` that throws
   * ends it; the next attempt begins at the next host. Throws the last error, `TimeoutError` after `timeout`, the signal's
   * reason, or what `errback` threw.
   */
  async ensureConnection(options: EnsureConnectionOptions = {}): Promise<this> {
    const waits = readWaits(options);
    this.#reopen();
    await this.#core.ensure(waits);
    return this;
  }

  /**
   * A function that does what `fn` does, and does it again if the connection is lost meanwhile: it reconnects, calls `onRevive`
   * with the new default channel, and runs `fn` with the same arguments. Also after `RecoverableChannelError` and after
   * `retryErrors`. Other errors pass unchanged. Rejects with `OperationalError` (the last error is its `cause`) after
   * `maxRetries` or `timeout`; with the last of the `retryErrors` itself.
   */
  ensure<Args extends unknown[], Result>(
    fn: (...args: Args) => Result | Promise<Result>,
    options: EnsureOptions = {},
  ): (...args: Args) => Promise<Result> {
    return ensured(this.#reviving(), fn, readOptions('ensure', ENSURE_OPTIONS, options));
  }

  /**
   * As `ensure`, for a function whose first argument is a channel: `options.channel`, or the default channel, and the new default
   * channel when that is gone. Resolves with what it gave, and the channel it last ran on.
   */
  autoretry<Args extends unknown[], Result>(
    fn: (channel: Channel, ...args: Args) => Result | Promise<Result>,
    options: AutoretryOptions = {},
  ): (...args: Args) => Promise<[result: Result, channel: Channel]> {
    const { channel: first, onRevive, ...rest } = readOptions('autoretry', AUTORETRY_OPTIONS, options);
    let channel = first;
    const run = async (...args: Args): Promise<[Result, Channel]> => {
      if (channel === undefined || channel.closed) channel = await this.defaultChannel();
      const through = channel;
      return [await fn(through, ...args), through];
    };
    const revived = async (fresh: Channel): Promise<void> => {
      channel = fresh;
      await onRevive?.(fresh);
    };
    return ensured(this.#reviving(), run, { ...rest, onRevive: revived });
  }

  /** A new channel, connecting first if need be. Throws what `connect()` throws; `ClosedError` after `close()`. */
  async channel(options: CallOptions = {}): Promise<Channel> {
    const given = readOptions('channel', CHANNEL, options);
    this.#mustBeOurs();
    return this.#keep(await this.#core.channel(given));
  }

  /**
   * The channel that declarations use, opened anew if the last one is gone. Tries to connect for `connectTimeout` for each host, or
   * for `timeout` if that is less. Throws as `channel()`.
   */
  async defaultChannel(options: CallOptions = {}): Promise<Channel> {
    const { timeout, signal } = readOptions('defaultChannel', DEFAULT_CHANNEL, options);
    this.#mustBeOurs();
    this.#usedDefault = true;
    const opening = this.#core.defaultChannel();
    const waits = timeout !== undefined || signal !== undefined;
    const channel = await (waits ? withDeadline(opening, 'opening a channel', timeout ?? 0x7fffffff, signal) : opening);
    // Given back meanwhile, it may be somebody else's by now.
    this.#mustBeOurs();
    return channel;
  }

  /** Forgets the default channel, unless it is `channel`, and closes it; declarations open another. Never rejects. */
  async revive(channel?: Channel): Promise<void> {
    if (this.#ending === undefined) await this.#core.dropDefault(channel);
  }

  /** Closes a channel whatever state it is in. Never rejects. */
  async maybeCloseChannel(channel: Channel): Promise<void> {
    await channel.close();
  }

  /**
   * Closes the connection and all its channels; after `timeout` ms without an answer the socket is cut. Rejects with nothing but
   * `OptionError`. A connection of a pool leaves the pool, which makes another one when it is needed.
   */
  async close(options: TimeoutOption = {}): Promise<void> {
    const { timeout } = readOptions('close', CLOSE, options);
    const ticket = this.#ticket;
    if (ticket === undefined) {
      await this.#core.close(timeout!);
      return;
    }
    if (this.#ending === undefined) {
      this.#core.retired = true;
      this.#ending = this.#core.close(timeout!).then(() => ticket.discard());
    }
    await this.#ending;
  }

  /**
   * Gives the connection back to its pool, once: the channels that were opened here are closed, and what is unsettled on them
   * goes back to its queues. One that belongs to no pool is closed.
   */
  async release(): Promise<void> {
    const ticket = this.#ticket;
    if (ticket === undefined) {
      await this.close();
      return;
    }
    this.#ending ??= this.#giveBack(ticket);
    await this.#ending;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  /** Cuts the socket without a goodbye and forgets what was open; what needs the connection next opens it anew. */
  collect(): void {
    if (this.#ending === undefined) this.#core.cut();
  }

  /**
   * Closes what is open and takes on the host of another URL, which leaves out what stays; connects when it is next needed.
   * Throws `InvalidUrl`, `TransportNotAvailable`, `ClosedError`.
   */
  async switch(url: string): Promise<void> {
    this.#mustBeOurs();
    await this.#core.switchTo(switchedTo(url, this.parameters), 5000);
  }

  /** Switches to the host that comes next by the failover strategy; does nothing if there is but one. */
  async maybeSwitchNext(): Promise<void> {
    const [own] = this.alternates;
    const next = failoverOf(this.parameters)
      .cycle()
      .find((url) => url !== own);
    if (own !== undefined && next !== undefined) await this.switch(next);
  }

  /** A new, unconnected connection with the same parameters, but for `overrides`. */
  clone(overrides: ConnectionOptions = {}): Connection {
    const { alternates, ...same } = this.parameters;
    // Their first is the host that another one takes the place of.
    const others = overrides.hostname === undefined ? alternates : alternates.slice(1);
    return new Connection({ ...same, alternates: others, ...overrides });
  }

  /** A producer that publishes through this connection. */
  Producer(options: ProducerOptions = {}): Producer {
    return new Producer(this, options);
  }

  /** A consumer that runs its callbacks on this thread. */
  Consumer(queues: Queue | readonly Queue[], options: ConsumerOptions = {}): Consumer {
    return new Consumer(this, queues, options);
  }

  /** A queue with `put` and `get`. */
  SimpleQueue(name: string | Queue, options: SimpleQueueOptions = {}): SimpleQueue {
    return new SimpleQueue(this, name, options);
  }

  /** A transient one. */
  SimpleBuffer(name: string | Queue, options: SimpleQueueOptions = {}): SimpleBuffer {
    return new SimpleBuffer(this, name, options);
  }

  /** A pool of connections like this one, at most `limit` at a time; without a limit each is closed when it is given back. */
  Pool(limit?: number): ConnectionPool {
    return new ConnectionPool(this.parameters, loadMembers, limit);
  }

  /** A pool of channels of this connection. */
  ChannelPool(limit?: number): ChannelPool {
    return new ChannelPool(this, limit);
  }

  /** @internal For a producer of a pool: its channel stays with the connection when that is given back. */
  publishing(): ChannelSource {
    const closed = () => this.closed;
    return {
      get closed() {
        return closed();
      },
      defaultChannel: () => this.defaultChannel(),
      channel: (options) => this.channel(options),
      publishingChannel: async () => {
        this.#mustBeOurs();
        return this.#core.publishingChannel();
      },
    };
  }

  #mustBeOurs(): void {
    if (this.#ending !== undefined) {
      throw new ClosedError(`the connection to ${this.asUri()} was given back to its pool; acquire another one`);
    }
  }

  #reopen(): void {
    this.#mustBeOurs();
    this.#core.reopen();
  }

  /** A channel of a connection that is lent is closed with it. */
  async #keep(channel: Channel): Promise<Channel> {
    if (this.#ticket === undefined) return channel;
    if (this.#ending !== undefined) {
      await channel.close();
      this.#mustBeOurs();
    }
    this.#channels.add(channel);
    void channel.ended.then(() => this.#channels.delete(channel));
    return channel;
  }

  async #giveBack(ticket: Ticket): Promise<void> {
    const closing = [...this.#channels].map((channel) => channel.close());
    if (this.#usedDefault) closing.push(this.#core.dropDefault());
    await Promise.all(closing);
    this.#core.tell = () => undefined;
    await ticket.release();
  }

  #reviving(): Reviving {
    const closed = () => this.closed;
    const connected = () => this.connected;
    return {
      get closed() {
        return closed();
      },
      get connected() {
        return connected();
      },
      connect: (waits) => this.#core.ensure(waits),
      pause: (milliseconds, signal) => this.#core.pause(milliseconds, signal),
      defaultChannel: () => this.defaultChannel(),
    };
  }
}

/** A connection as its pool keeps it. */
export function connectionMember(parameters: ConnectionParameters): ConnectionMember {
  const core = new ConnectionCore(parameters);
  return {
    get usable() {
      return !core.retired && core.parameters === parameters && (core.live === undefined || core.connected);
    },
    lend: (ticket) => new Connection(core, ticket),
    destroy: async () => {
      core.retired = true;
      await core.close(5000);
    },
  };
}
