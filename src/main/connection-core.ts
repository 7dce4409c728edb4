/**
 * What is behind a `Connection`: the open connection if there is one, the attempt to make it, what was declared in its life.
 * A connection of a pool outlives those that it is lent to: each of them is a `Connection` of its own around the same core.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { whenAborted } from '../abort.js';
import { ClosedError, KombuError, TimeoutError } from '../errors.js';
import { withDeadline } from './deadline.js';
import { type CallOptions, Channel, type Declared } from './entities/channel.js';
import { isRecoverable, reconnectDelay } from './transports/reconnect.js';
import { openConnection } from './transports/registry.js';
import type { BrokerConnection } from './transports/transport.js';
import { type ConnectionParameters, connectableTransport, formatUrl } from './url.js';

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

/** Who hears of what happens to the connection: whoever has it now. */
export type Tell = <Name extends keyof ConnectionEvents>(name: Name, ...args: ConnectionEvents[Name]) => void;

/** An attempt to connect that several callers may wait for. */
interface Attempt {
  readonly result: Promise<BrokerConnection>;
  readonly abort: AbortController;
  /** Those who hear of each host that failed while there are more to try. */
  readonly onFailure: Set<(error: KombuError) => void>;
  waiting: number;
}

export interface Waits {
  readonly maxRetries: number;
  /** Milliseconds for all attempts together. */
  readonly timeout: number | undefined;
  /** Milliseconds before attempt number `attempt + 1`, which count from 0. */
  readonly interval: (attempt: number) => number;
  readonly errback: ((error: KombuError, interval: number) => void) | undefined;
  readonly signal: AbortSignal | undefined;
}

const DEFAULT_WAITS: Waits = {
  maxRetries: Number.POSITIVE_INFINITY,
  timeout: undefined,
  interval: (attempt) => reconnectDelay(attempt),
  errback: undefined,
  signal: undefined,
};

export class ConnectionCore {
  parameters: ConnectionParameters;
  tell: Tell = () => undefined;
  closed = false;
  /** Set by its pool when it has no more use for it: it cannot be opened again. */
  retired = false;
  #live: BrokerConnection | undefined;
  #attempt: Attempt | undefined;
  #declared: Declared = new Map();
  #default: Channel | undefined;
  #openingDefault: Promise<Channel> | undefined;
  #publishing: Channel | undefined;

  constructor(parameters: ConnectionParameters) {
    this.parameters = parameters;
  }

  get live(): BrokerConnection | undefined {
    return this.#live;
  }

  get connected(): boolean {
    return this.#live?.open === true;
  }

  /** Puts an end to `close()`. Throws `ClosedError` if its pool has closed it. */
  reopen(): void {
    if (this.retired) throw new ClosedError(`the pool has closed its connection to ${formatUrl(this.parameters)}`);
    this.closed = false;
  }

  mustNotBeClosed(): void {
    if (!this.closed) return;
    throw new ClosedError(`the connection to ${formatUrl(this.parameters)} is closed; connect() opens it again`);
  }

  async channel(options: CallOptions): Promise<Channel> {
    this.mustNotBeClosed();
    const live = await this.connect(options.signal);
    return Channel.open(live, this.#declared, options);
  }

  async defaultChannel(): Promise<Channel> {
    if (this.#default?.closed === false) return this.#default;
    this.#openingDefault ??= this.#openDefault().finally(() => {
      this.#openingDefault = undefined;
    });
    return this.#openingDefault;
  }

  /** The channel that producers of a pool publish on, one after another. It stays open when they give the connection back. */
  async publishingChannel(): Promise<Channel> {
    if (this.#publishing?.closed !== false) this.#publishing = await this.channel({});
    return this.#publishing;
  }

  /** Closes the default channel, unless it is `but`. */
  async dropDefault(but?: Channel): Promise<void> {
    const channel = this.#default;
    if (channel === undefined || channel === but) return;
    this.#default = undefined;
    await channel.close();
  }

  /** Callers share one attempt, and it is given up when the last of them stops waiting. */
  async connect(
    signal: AbortSignal | undefined,
    milliseconds = 0x7fffffff,
    onFailure?: (error: KombuError) => void,
  ): Promise<BrokerConnection> {
    signal?.throwIfAborted();
    if (this.#live?.open) return this.#live;
    connectableTransport(this.parameters.transport);
    this.#attempt ??= this.#start();
    const attempt = this.#attempt;
    attempt.waiting++;
    if (onFailure !== undefined) attempt.onFailure.add(onFailure);
    try {
      return await withDeadline(attempt.result, `connecting to ${formatUrl(this.parameters)}`, milliseconds, signal);
    } finally {
      attempt.waiting--;
      if (onFailure !== undefined) attempt.onFailure.delete(onFailure);
      // Aborting an attempt that is over does nothing.
      if (attempt.waiting === 0) {
        if (this.#attempt === attempt) this.#attempt = undefined;
        attempt.abort.abort();
      }
    }
  }

  /** Connects, and tries again after failures that may pass. */
  async ensure(waits: Waits): Promise<BrokerConnection> {
    const { signal } = waits;
    const stop = new AbortController();
    const onAbort = (): void => stop.abort(signal?.reason);
    const unheard = signal?.aborted === false ? whenAborted(signal, onAbort) : undefined;
    if (signal?.aborted) onAbort();
    try {
      return await this.#ensure(waits, stop);
    } finally {
      unheard?.();
    }
  }

  async #ensure({ maxRetries, timeout, interval, errback }: Waits, stop: AbortController): Promise<BrokerConnection> {
    const deadline = timeout === undefined ? Number.POSITIVE_INFINITY : performance.now() + timeout;
    // An errback that throws ends this caller's wait; by then it is the next host's turn.
    const hear = (error: KombuError): void => {
      try {
        errback?.(error, 0);
      } catch (reason) {
        stop.abort(reason);
      }
    };
    let failure: unknown;
    for (let attempt = 0; ; attempt++) {
      try {
        const left = Math.min(deadline - performance.now(), 0x7fffffff);
        return await this.connect(stop.signal, Math.max(left, 0), hear);
      } catch (error) {
        if (stop.signal.aborted || this.closed || attempt >= maxRetries || !isRecoverable(error)) throw error;
        const wait = interval(attempt);
        // An attempt that the deadline has cut short says nothing; the one before it does.
        if (failure === undefined || performance.now() < deadline) failure = error;
        if (performance.now() + wait >= deadline) {
          const text = `no connection to ${formatUrl(this.parameters)} within ${timeout} ms: ${(failure as Error).message}`;
          throw new TimeoutError(text, { cause: failure, details: { milliseconds: timeout } });
        }
        errback?.(lastOf(error as KombuError), wait);
        await this.pause(wait, stop.signal);
      }
    }
  }

  /** Sleeps; throws the signal's reason, and `ClosedError` if the connection was closed meanwhile. */
  async pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
    try {
      await sleep(milliseconds, undefined, signal === undefined ? {} : { signal });
    } catch {
      signal?.throwIfAborted();
    }
    this.mustNotBeClosed();
  }

  /** Never rejects. */
  async close(timeout: number): Promise<void> {
    this.closed = true;
    this.#giveUp();
    await this.#live?.close(timeout);
  }

  /** Cuts what is open without a goodbye; not a `close()`, for the next that needs the connection opens it anew. */
  cut(): void {
    this.#giveUp();
    this.#live?.destroy();
    this.#forget();
  }

  /** Other parameters from now on. What is open to the host so far is closed. */
  async switchTo(parameters: ConnectionParameters, timeout: number): Promise<void> {
    this.#giveUp();
    const before = this.#live;
    this.#forget();
    this.parameters = parameters;
    await before?.close(timeout);
  }

  #giveUp(): void {
    const attempt = this.#attempt;
    this.#attempt = undefined;
    attempt?.abort.abort(new ClosedError('the connection was closed while it was being opened'));
  }

  #forget(): void {
    this.#live = undefined;
    this.#declared = new Map();
    this.#default = undefined;
    this.#publishing = undefined;
  }

  async #openDefault(): Promise<Channel> {
    this.mustNotBeClosed();
    const { connectTimeout, alternates } = this.parameters;
    // Each host has so long.
    const timeout = Math.min(connectTimeout * Math.max(1, alternates.length), 0x7fffffff);
    const live = await this.ensure({ ...DEFAULT_WAITS, timeout });
    this.#default = await Channel.open(live, this.#declared);
    return this.#default;
  }

  #start(): Attempt {
    const abort = new AbortController();
    const parameters = this.parameters;
    const onFailure = new Set<(error: KombuError) => void>();
    const open = async () => {
      try {
        const live = await openConnection(parameters, { signal: abort.signal }, (error) => {
          for (const hear of onFailure) hear(error);
        });
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
    const attempt: Attempt = { result: Promise.resolve().then(open), abort, onFailure, waiting: 0 };
    return attempt;
  }

  #adopt(live: BrokerConnection): void {
    this.#live = live;
    this.#declared = new Map();
    live.model.on('blocked', (reason: string) => this.tell('blocked', reason));
    live.model.on('unblocked', () => this.tell('unblocked'));
    live.ended.then((reason) => {
      if (reason !== undefined) this.tell('error', reason);
      this.tell('disconnected', reason);
    });
    this.tell('connected');
  }
}

/** Of the errors of several hosts, that of the last one; the others have been told. */
function lastOf(error: KombuError): KombuError {
  const last: unknown = error.cause instanceof AggregateError ? error.cause.errors.at(-1) : undefined;
  // Where a name has two addresses, Node gives an AggregateError of its own.
  return last instanceof KombuError ? last : error;
}
