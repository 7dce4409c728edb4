/**
 * A connection to a broker, opened when it is first needed. It never reconnects behind its user's back: what was lost is told
 * by events and errors, and the next thing that needs the connection opens it anew.
 */
import { EventEmitter } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { ClosedError, type KombuError, TimeoutError } from '../errors.js';
import { kinds, type OptionTable, readOptions } from '../options.js';
import { Consumer, type ConsumerOptions } from './consumer.js';
import { withDeadline } from './deadline.js';
import { type CallOptions, Channel, type Declared } from './entities/channel.js';
import type { Queue } from './entities/queue.js';
import { functionKind } from './entities/target.js';
import { SimpleBuffer, SimpleQueue, type SimpleQueueOptions } from './helpers/simple.js';
import { Producer, type ProducerOptions } from './producer.js';
import { isRecoverable, reconnectDelay } from './transports/reconnect.js';
import { openConnection } from './transports/registry.js';
import type { BrokerConnection } from './transports/transport.js';
import {
  type ConnectionOptions,
  type ConnectionParameters,
  connectableTransport,
  formatUrl,
  readParameters,
  type SslOptions,
} from './url.js';

export interface ConnectionEvents {
  /** The connection was lost; also what would otherwise go unheard. Only emitted if somebody listens. */
  error: [error: KombuError];
  connected: [];
  /** The connection is gone: with the error if it was lost, without one after `close()`. */
  disconnected: [error: KombuError | undefined];
  /** The broker takes no publishes for now: its memory or disk is short. */
  blocked: [reason: string];
  unblocked: [];
}

export interface EnsureConnectionOptions {
  readonly maxRetries?: number;
  readonly timeout?: number;
  readonly intervalStart?: number;
  readonly intervalMax?: number;
  readonly errback?: (error: KombuError, interval: number) => void;
  readonly signal?: AbortSignal;
}

const ENSURE_OPTIONS: OptionTable<EnsureConnectionOptions> = {
  maxRetries: {
    kind: kinds.integer(0, Number.MAX_SAFE_INTEGER),
    defaultWords: 'for ever',
    doc: 'How often to try again after the first time.',
  },
  timeout: { kind: kinds.milliseconds, defaultWords: 'none', doc: 'For all attempts together (ms).' },
  intervalStart: {
    kind: kinds.milliseconds,
    default: 100,
    doc: 'The first wait (ms); each is twice the one before, ±20 %.',
  },
  intervalMax: { kind: kinds.milliseconds, default: 2000, doc: 'The longest wait (ms).' },
  errback: { kind: functionKind(), doc: 'Called with each error and the milliseconds until the next attempt.' },
  signal: { kind: kinds.signal, doc: 'Gives up; the promise rejects with its reason.' },
};

/** An attempt to connect that several callers may wait for. */
interface Attempt {
  readonly result: Promise<BrokerConnection>;
  readonly abort: AbortController;
  waiting: number;
}

export class Connection extends EventEmitter<ConnectionEvents> {
  /** What it connects to; frozen. Holds the password. */
  readonly parameters: ConnectionParameters;
  #live: BrokerConnection | undefined;
  #attempt: Attempt | undefined;
  #declared: Declared = new Map();
  #default: Channel | undefined;
  #openingDefault: Promise<Channel> | undefined;
  #closed = false;

  /**
   * Does no I/O. `url`: 'amqp://user:password@host:port/vhost', URLs joined by ';', or a list of them (see `parseUrl`). What
   * the URL says wins over `options`. Throws `OptionError`, `InvalidUrl`, `TransportNotAvailable`.
   */
  constructor(url?: string | URL | readonly string[] | ConnectionOptions, options: ConnectionOptions = {}) {
    super();
    const given = url instanceof URL ? url.href : url;
    this.parameters =
      typeof given === 'string' || Array.isArray(given)
        ? readParameters(given as string | readonly string[], options)
        : readParameters(undefined, { ...(given as ConnectionOptions | undefined), ...options });
  }

  get hostname(): string {
    return this.parameters.hostname;
  }
  get userid(): string | undefined {
    return this.parameters.userid;
  }
  get password(): string | undefined {
    return this.parameters.password;
  }
  get virtualHost(): string {
    return this.parameters.virtualHost;
  }
  get port(): number | undefined {
    return this.parameters.port;
  }
  get transport(): string {
    return this.parameters.transport;
  }
  get ssl(): boolean | SslOptions {
    return this.parameters.ssl;
  }
  get connectTimeout(): number {
    return this.parameters.connectTimeout;
  }
  get transportOptions(): Readonly<Record<string, unknown>> {
    return this.parameters.transportOptions;
  }
  /** Seconds as asked for; `undefined` means the broker's, at most 60. */
  get heartbeat(): number | undefined {
    return this.parameters.heartbeat;
  }
  get alternates(): readonly string[] {
    return this.parameters.alternates;
  }
  get failoverStrategy(): ConnectionParameters['failoverStrategy'] {
    return this.parameters.failoverStrategy;
  }

  get connected(): boolean {
    return this.#live?.open === true;
  }

  /** True after `close()`, until `connect()` or `ensureConnection()` is called again. */
  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Connects, trying each host of `alternates` once; does nothing if connected. Throws `AccessRefused`, `ConnectionError`,
   * `TimeoutError` (no answer within `connectTimeout`), `TransportNotAvailable`, or the signal's reason.
   */
  async connect({ signal }: { readonly signal?: AbortSignal } = {}): Promise<this> {
    this.#closed = false;
    await this.#connect(signal);
    return this;
  }

  /**
   * Connects, and tries again after failures that may pass: waits 100 ms, doubling, ±20 %, at most 2 s. A refused login is no
   * such failure. Throws the last error, `TimeoutError` after `timeout`, or the signal's reason.
   */
  async ensureConnection(options: EnsureConnectionOptions = {}): Promise<this> {
    this.#closed = false;
    await this.#ensure(options);
    return this;
  }

  /** A new channel, connecting first if need be. Throws what `connect()` throws; `ClosedError` after `close()`. */
  async channel(options: CallOptions = {}): Promise<Channel> {
    this.#mustNotBeClosed();
    const live = await this.#connect(options.signal);
    return Channel.open(live, this.#declared, options);
  }

  /** The channel that declarations use, opened anew if the last one is gone. Tries to connect for `connectTimeout`. */
  async defaultChannel(): Promise<Channel> {
    if (this.#default?.closed === false) return this.#default;
    this.#openingDefault ??= this.#openDefault().finally(() => {
      this.#openingDefault = undefined;
    });
    return this.#openingDefault;
  }

  /** Closes the connection and all its channels; after `timeout` ms without an answer the socket is cut. Never rejects. */
  async close({ timeout = 5000 }: { readonly timeout?: number } = {}): Promise<void> {
    this.#closed = true;
    const attempt = this.#attempt;
    this.#attempt = undefined;
    attempt?.abort.abort(new ClosedError('the connection was closed while it was being opened'));
    await this.#live?.close(timeout);
  }

  /** Gives the connection back; one that belongs to no pool is closed. */
  async release(): Promise<void> {
    await this.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  /** A new, unconnected connection with the same parameters, but for `overrides`. */
  clone(overrides: ConnectionOptions = {}): Connection {
    const { alternates, ...same } = this.parameters;
    const others = alternates.slice(1);
    return new Connection({ ...same, alternates: others, ...overrides });
  }

  /** The parameters, defaults filled in. Holds the password. */
  info(): ConnectionParameters {
    return { ...this.parameters };
  }

  /** The URL, with `**` for the password unless it is asked for. */
  asUri(options: { readonly includePassword?: boolean } = {}): string {
    const table = { includePassword: { kind: kinds.boolean, default: false, doc: 'Show the password.' } };
    return formatUrl(this.parameters, readOptions<{ includePassword?: boolean }>('asUri', table, options));
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

  [inspect.custom](): string {
    return `Connection <${this.asUri()}${this.connected ? '' : ', not connected'}>`;
  }

  override toString(): string {
    return this.asUri();
  }

  /** Never shows the password. */
  toJSON(): string {
    return this.asUri();
  }

  #mustNotBeClosed(): void {
    if (this.#closed) throw new ClosedError(`the connection to ${this.asUri()} is closed; connect() opens it again`);
  }

  async #openDefault(): Promise<Channel> {
    this.#mustNotBeClosed();
    // Each host has so long.
    const timeout = Math.min(this.connectTimeout * Math.max(1, this.alternates.length), 0x7fffffff);
    const live = await this.#ensure({ timeout });
    this.#default = await Channel.open(live, this.#declared);
    return this.#default;
  }

  async #ensure(options: EnsureConnectionOptions): Promise<BrokerConnection> {
    const given = readOptions('ensureConnection', ENSURE_OPTIONS, options);
    const { maxRetries = Number.POSITIVE_INFINITY, timeout, errback, signal } = given;
    const deadline = timeout === undefined ? Number.POSITIVE_INFINITY : performance.now() + timeout;
    for (let attempt = 0; ; attempt++) {
      try {
        const left = Math.min(deadline - performance.now(), 0x7fffffff);
        return await this.#connect(signal, Math.max(left, 0));
      } catch (error) {
        if (signal?.aborted || this.#closed || attempt >= maxRetries || !isRecoverable(error)) throw error;
        const wait = reconnectDelay(attempt, { initial: given.intervalStart!, max: given.intervalMax! });
        if (performance.now() + wait >= deadline) {
          const text = `no connection to ${this.asUri()} within ${timeout} ms: ${(error as Error).message}`;
          throw new TimeoutError(text, { cause: error, details: { milliseconds: timeout } });
        }
        errback?.(error as KombuError, wait);
        await this.#sleep(wait, signal);
      }
    }
  }

  /** Sleeps; throws the signal's reason, and `ClosedError` if the connection was closed meanwhile. */
  async #sleep(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
    try {
      await sleep(milliseconds, undefined, signal === undefined ? {} : { signal });
    } catch {
      signal?.throwIfAborted();
    }
    this.#mustNotBeClosed();
  }

  /** Callers share one attempt, and it is given up when the last of them stops waiting. */
  async #connect(signal: AbortSignal | undefined, milliseconds = 0x7fffffff): Promise<BrokerConnection> {
    signal?.throwIfAborted();
    if (this.#live?.open) return this.#live;
    connectableTransport(this.transport);
    this.#attempt ??= this.#start();
    const attempt = this.#attempt;
    attempt.waiting++;
    try {
      return await withDeadline(attempt.result, `connecting to ${this.asUri()}`, milliseconds, signal);
    } finally {
      attempt.waiting--;
      // Aborting an attempt that is over does nothing.
      if (attempt.waiting === 0) attempt.abort.abort();
    }
  }

  #start(): Attempt {
    const abort = new AbortController();
    const open = async () => {
      try {
        const live = await openConnection(this.parameters, { signal: abort.signal });
        if (abort.signal.aborted) {
          await live.close();
          throw abort.signal.reason;
        }
        this.#adopt(live);
        return live;
      } finally {
        if (this.#attempt === attempt) this.#attempt = undefined;
      }
    };
    const attempt: Attempt = { result: Promise.resolve().then(open), abort, waiting: 0 };
    return attempt;
  }

  #adopt(live: BrokerConnection): void {
    this.#live = live;
    this.#declared = new Map();
    live.model.on('blocked', (reason: string) => this.emit('blocked', reason));
    live.model.on('unblocked', () => this.emit('unblocked'));
    live.ended.then((reason) => {
      if (reason !== undefined && this.listenerCount('error') > 0) this.emit('error', reason);
      this.emit('disconnected', reason);
    });
    this.emit('connected');
  }
}
