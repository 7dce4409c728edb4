/**
 * Classes to extend for programs that consume: they connect, consume, and begin anew when the connection is lost, until they are
 * told to stop. As in kombu, but for `run()` being a promise and callbacks that may return one.
 */
import { AccessRefused, ChannelError, ClosedError, TimeoutError } from '../../errors.js';
import type { Message } from '../../message.js';
import { kinds, type OptionTable, readOptions } from '../../options.js';
import type { Connection } from '../connection.js';
import { Consumer, type ConsumerOptions } from '../consumer.js';
import type { Channel } from '../entities/channel.js';
import type { Queue } from '../entities/queue.js';
import { Producer } from '../producer.js';
import { isRecoverable, pause } from '../transports/reconnect.js';
import { Round } from './round.js';
import { TokenBucket } from './token-bucket.js';

/** Makes a consumer on the mixin's channel; `onDecodeError` is the mixin's unless the options have another. */
export type ConsumerFactory = (queues: Queue | readonly Queue[], options?: ConsumerOptions) => Consumer;

/** What mixins log to. */
export interface MixinLogger {
  info(text: string): void;
  warn(text: string, error: unknown): void;
  error(text: string, error: unknown): void;
}

/** Information is for nobody; the rest are warnings of the process. */
const WARNINGS: MixinLogger = {
  info: () => undefined,
  warn: (text, error) => warning(text, error),
  error: (text, error) => warning(text, error),
};

function warning(text: string, error: unknown): void {
  process.emitWarning(`${text}: ${String(error)}`, { type: 'MozukuWarning' });
}

export interface MixinConsumeOptions {
  readonly limit?: number;
  readonly timeout?: number;
  readonly safetyInterval?: number;
  readonly signal?: AbortSignal;
}

export const MIXIN_CONSUME_OPTIONS: OptionTable<MixinConsumeOptions> = {
  limit: { kind: kinds.integer(0, Number.MAX_SAFE_INTEGER), default: 0, doc: 'Messages; 0: no end.' },
  timeout: { kind: kinds.milliseconds, defaultWords: 'none', doc: 'The longest time without a message (ms).' },
  safetyInterval: {
    kind: kinds.duration,
    default: 1000,
    doc: 'Without a message `onIteration` is called, and `shouldStop` looked at, as often as this (ms).',
  },
  signal: { kind: kinds.signal, doc: 'As `stop()`.' },
};

export type MixinRunOptions = Omit<MixinConsumeOptions, 'limit'>;

const { limit: _, ...RUN_OPTIONS } = MIXIN_CONSUME_OPTIONS;

interface EstablishOptions {
  readonly signal?: AbortSignal;
}

const ESTABLISH_OPTIONS: OptionTable<EstablishOptions> = {
  signal: { kind: kinds.signal, doc: 'Gives up; rejects with its reason.' },
};

/** What failed for good, whatever class its errors are of. */
const final = new WeakSet<object>();

export abstract class ConsumerMixin {
  /** Its parameters are used: each round has a connection of its own. */
  abstract readonly connection: Connection;
  /** How often to try again to connect. Undefined: for ever. */
  connectMaxRetries: number | undefined = undefined;
  /** How often consuming may begin anew: once a second. */
  restartLimit: TokenBucket = new TokenBucket(1);
  logger: MixinLogger = WARNINGS;
  #shouldStop = false;
  #running = 0;
  #stopping = new AbortController();

  /** True: to stop after the message at hand, or within `safetyInterval`. Once true, `run()` does nothing. */
  get shouldStop(): boolean {
    return this.#shouldStop;
  }
  set shouldStop(stop: boolean) {
    this.#shouldStop = stop;
    if (stop) this.#stopping.abort();
    else if (this.#stopping.signal.aborted) this.#stopping = new AbortController();
  }

  /** Ends `run()` and `consume()`: callbacks that run are waited for (25 s at most), then `run()` resolves. */
  stop(): void {
    this.shouldStop = true;
  }

  /** The consumers to start: `[Consumer(queues, { callbacks })]`, or others, for example on channels of their own. */
  abstract getConsumers(
    Consumer: ConsumerFactory,
    channel: Channel,
  ): readonly Consumer[] | Promise<readonly Consumer[]>;

  /** Called whenever a connection was made. */
  onConnectionRevived(): unknown {
    return undefined;
  }

  /** Called when all consumers consume, before the first message. */
  onConsumeReady(_connection: Connection, _channel: Channel, _consumers: readonly Consumer[]): unknown {
    return undefined;
  }

  /** Called when the consumers are cancelled, before the connection is closed. */
  onConsumeEnd(_connection: Connection, _channel: Channel): unknown {
    return undefined;
  }

  /** Called once for each message, about when it comes, and each `safetyInterval` without one. */
  onIteration(): unknown {
    return undefined;
  }

  /** Called with a message whose body cannot be decoded. By default it is logged **and acked**: whoever overrides this has to settle it. */
  onDecodeError(message: Message, error: unknown): unknown {
    const { contentType, contentEncoding } = message.properties;
    this.logger.error(`a message cannot be decoded (type '${contentType}', encoding '${contentEncoding}')`, error);
    message.ack();
    return undefined;
  }

  /** Called when the broker cannot be reached, with the milliseconds until the next attempt. By default it is logged. */
  onConnectionError(error: unknown, interval: number): void {
    this.logger.warn(`no connection to the broker, trying again in ${Math.round(interval)} ms`, error);
  }

  /** Something to dispose of when the consumers have ended. */
  extraContext(_connection: Connection, _channel: Channel): unknown {
    return undefined;
  }

  /** A new connection with the parameters of `connection`. */
  createConnection(): Connection {
    return this.connection.clone();
  }

  /** A connected one; tries `connectMaxRetries` times again. Throws what `ensureConnection` throws. */
  async establishConnection(options: EstablishOptions = {}): Promise<Connection> {
    const { signal } = readOptions('ConsumerMixin.establishConnection', ESTABLISH_OPTIONS, options);
    const connection = this.createConnection();
    try {
      return await connection.ensureConnection({
        errback: (error, interval) => this.onConnectionError(error, interval),
        ...(this.connectMaxRetries === undefined ? {} : { maxRetries: this.connectMaxRetries }),
        ...(signal === undefined ? {} : { signal }),
      });
    } catch (error) {
      await connection.close();
      // Tried as often as was wanted.
      if (typeof error === 'object' && error !== null) final.add(error);
      throw error;
    }
  }

  /**
   * Consumes until `stop()`, `shouldStop` or `signal`; begins anew, at most once a second, when the connection or a channel is lost.
   * Resolves when all is closed. Rejects with what a callback or a hook throws (its message is left unsettled, and so comes again),
   * unless the callback's consumer has a listener for 'error'; with a refused login; after `connectMaxRetries`; and with
   * `TimeoutError` after `timeout`.
   */
  async run(options: MixinRunOptions = {}): Promise<void> {
    const given = readOptions('ConsumerMixin.run', RUN_OPTIONS as OptionTable<MixinRunOptions>, options);
    this.#running++;
    const stop = this.#stopSignal(given.signal);
    try {
      while (!this.shouldStop && !stop.aborted) {
        if (!this.restartLimit.canConsume(1)) {
          await pause(this.restartLimit.expectedTime(1), stop);
          continue;
        }
        try {
          for await (const _message of this.consume(given)) if (this.shouldStop) break;
        } catch (error) {
          if (!mayComeBack(error)) throw error;
          if (!this.shouldStop && !stop.aborted) this.logger.warn('the connection to the broker was lost', error);
        }
      }
    } finally {
      if (--this.#running === 0) await this.closeOthers();
    }
  }

  /**
   * One round: connects, consumes, and yields after each message that came, until `limit`, `stop()`, or until the loop is left;
   * then all is closed. Callbacks are waited for when it ends, not before it yields. Throws what `run()` begins anew for, too.
   */
  async *consume(options: MixinConsumeOptions = {}): AsyncGenerator<void, void, undefined> {
    const given = readOptions('ConsumerMixin.consume', MIXIN_CONSUME_OPTIONS, options);
    const { limit, timeout = Number.POSITIVE_INFINITY, safetyInterval } = given;
    const stop = this.#stopSignal(given.signal);
    if (this.shouldStop || stop.aborted) return;
    const round = await this.#begin(stop);
    if (round === undefined) return;
    try {
      let idle = 0;
      for (let taken = 0; (limit === 0 || taken < limit!) && !this.shouldStop && !stop.aborted; ) {
        await this.onIteration();
        if (await round.next(safetyInterval!, stop)) {
          taken++;
          idle = 0;
          yield;
        } else if (!stop.aborted) {
          idle += safetyInterval!;
          if (idle >= timeout) throw timedOut(timeout);
        }
      }
    } catch (error) {
      // What fails while stopping is no news.
      if (!this.shouldStop || !mayComeBack(error)) throw error;
    } finally {
      await round.end();
      if (this.#running === 0) await this.closeOthers();
    }
  }

  /** @internal What a subclass has opened beside. */
  protected async closeOthers(): Promise<void> {
    // Nothing here.
  }

  #stopSignal(signal: AbortSignal | undefined): AbortSignal {
    return signal === undefined ? this.#stopping.signal : AbortSignal.any([signal, this.#stopping.signal]);
  }

  /** Undefined if it was stopped before it could begin. */
  async #begin(stop: AbortSignal): Promise<Round | undefined> {
    let connection: Connection;
    try {
      connection = await this.establishConnection({ signal: stop });
    } catch (error) {
      if (stop.aborted) return undefined;
      throw error;
    }
    const round = new Round(connection, (channel) => this.onConsumeEnd(connection, channel));
    try {
      await this.onConnectionRevived();
      this.logger.info(`connected to ${connection.asUri()}`);
      const channel = await round.open();
      const make: ConsumerFactory = (queues, options = {}) =>
        new Consumer(channel, queues, {
          onDecodeError: (message, error) => this.onDecodeError(message, error),
          ...options,
        });
      await round.start(await this.getConsumers(make, channel));
      round.extra = await this.extraContext(connection, channel);
      await this.onConsumeReady(connection, channel, round.consumers);
      round.begin();
    } catch (error) {
      await round.end();
      throw error;
    }
    return round;
  }
}

function timedOut(timeout: number): TimeoutError {
  const error = new TimeoutError(`ConsumerMixin: no message within ${timeout} ms`, {
    details: { milliseconds: timeout },
  });
  final.add(error);
  return error;
}

/** True for what another connection may mend. */
function mayComeBack(error: unknown): boolean {
  if (error instanceof AccessRefused || final.has(error as object)) return false;
  return isRecoverable(error) || error instanceof ChannelError || error instanceof ClosedError;
}

/** With a connection of its own to publish through: a broker that takes no publishes for now still takes acks. */
export abstract class ConsumerProducerMixin extends ConsumerMixin {
  #connection: Connection | undefined;
  #producer: Producer | undefined;

  /** A producer on the second connection; it stays when consuming begins anew, and goes when `run()` ends. */
  get producer(): Producer {
    this.#producer ??= new Producer(this.producerConnection);
    return this.#producer;
  }

  /** The second connection, opened when it is first needed. */
  get producerConnection(): Connection {
    this.#connection ??= this.connection.clone();
    return this.#connection;
  }

  /** @internal */
  protected override async closeOthers(): Promise<void> {
    const [producer, connection] = [this.#producer, this.#connection];
    this.#producer = undefined;
    this.#connection = undefined;
    await producer?.close();
    await connection?.close();
  }
}
