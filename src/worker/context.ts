/**
 * What a callback is given besides the message. The worker's part is made once a thread; `signal` and `attempt` belong
 * to one message. An AbortController costs more than most callbacks' whole bookkeeping, so it is made when first read.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import type { ConnectionParameters } from '../connection-parameters.js';
import { OptionError } from '../errors.js';
import { now } from '../pool/clock.js';
import * as pools from '../pool/pools.js';
import type { ProducerOptions } from '../pool/publication.js';
import type { LogLevel } from '../pool/worker-protocol.js';
import type { Producers, WorkerProducer } from './producer.js';

export interface Logger {
  debug(fields: Record<string, unknown> | string, text?: string): void;
  info(fields: Record<string, unknown> | string, text?: string): void;
  warn(fields: Record<string, unknown> | string, text?: string): void;
  error(fields: Record<string, unknown> | string, text?: string): void;
}

/** What `setup` and `teardown` get: the same for a thread's whole life. */
export interface WorkerContext {
  /** The worker's number, 0 and up; a replacement has its predecessor's. */
  readonly worker: number;
  /** Lines go to the `logger` of the consumer's options, on the main thread. */
  readonly logger: Logger;
  /**
   * The parameters of the consumer's connection, for connections of this thread's own. They hold the password. Throws `OptionError`
   * if a function among them (a failover strategy) cannot cross threads.
   */
  readonly connection: ConnectionDescriptor;
  /** This thread's own pools of connections and producers, as `pools` of the package. For instance `pools.producers.get(connection)`. */
  readonly pools: typeof pools;
  /**
   * A producer that publishes through the main thread's connection: this thread may block for as long as it likes. The same one for
   * the same options. Throws `OptionError`.
   *
   * What a callback publishes belongs to its message, also by a producer that `setup` has asked for: with `ack: 'auto'` the message
   * is settled when all of it is confirmed, and fails if one publish does, whether or not the callback waits for them. Waiting for
   * confirms does not count towards `timeout`. A message that its callback settles by itself is settled at once.
   */
  producer(options?: ProducerOptions): WorkerProducer;
}

/** What `new Connection(…)` and `pools.connections.get(…)` take. */
export type ConnectionDescriptor = ConnectionParameters;

export interface Context extends WorkerContext {
  /** Aborts when the callback's time is over, when its delivery can no longer be settled, and at the end of `close()`. */
  readonly signal: AbortSignal;
  /** 1 for the first run of the message, as far as is known; one more for each run that failed or that a worker's death cut short. */
  readonly attempt: number;
}

export function makeLogger(post: (level: LogLevel, text: string, fields?: Record<string, unknown>) => void): Logger {
  const at =
    (level: LogLevel) =>
    (fields: Record<string, unknown> | string, text = ''): void => {
      if (typeof fields === 'string') post(level, fields);
      else post(level, text, fields);
    };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

/** What all messages of a thread have in common. */
export class ThreadContext implements WorkerContext {
  readonly #producers: Producers;
  readonly #attributed = new WeakMap<WorkerProducer, WorkerProducer>();
  #attribution: AsyncLocalStorage<MessageContext> | undefined;
  readonly #connection: ConnectionDescriptor | undefined;

  constructor(
    readonly worker: number,
    readonly logger: Logger,
    producers: Producers,
    connection: ConnectionDescriptor | undefined,
  ) {
    this.#producers = producers;
    this.#connection = connection;
  }

  get connection(): ConnectionDescriptor {
    if (this.#connection !== undefined) return this.#connection;
    throw new OptionError(
      'context.connection: the parameters of the consumer’s connection cannot go to another thread; is there a function among them?',
    );
  }

  get pools(): typeof pools {
    return pools;
  }

  /** Whose callback runs, where a producer was asked of this context: it costs every callback, so others do without. */
  get attribution(): AsyncLocalStorage<MessageContext> | undefined {
    return this.#attribution;
  }

  producer(options?: ProducerOptions): WorkerProducer {
    this.#attribution ??= new AsyncLocalStorage();
    const running = this.#attribution;
    const producer = this.#producers.get(options);
    let attributed = this.#attributed.get(producer);
    if (attributed === undefined) {
      attributed = {
        publish: (body, publish) => {
          const published = producer.publish(body, publish);
          return running.getStore()?.track(published) ?? published;
        },
      };
      this.#attributed.set(producer, attributed);
    }
    return attributed;
  }

  /** One that belongs to nobody's message. */
  plainProducer(options: ProducerOptions | undefined): WorkerProducer {
    return this.#producers.get(options);
  }
}

interface RetriesSource {
  readRetries(): number;
}

function retriesOf(delivery: RetriesSource): number {
  try {
    return delivery.readRetries();
  } catch {
    // Headers that cannot be read fail where somebody wants them.
    return 0;
  }
}

export class MessageContext implements Context {
  readonly worker: number;
  readonly logger: Logger;
  readonly #base: ThreadContext;
  readonly #runs: number;
  readonly #delivery: RetriesSource;
  #attempt: number | undefined;
  #controller: AbortController | undefined;
  #aborted: unknown;
  #producers: Map<WorkerProducer, WorkerProducer> | undefined;
  #publishing = 0;
  #publishFailure: { readonly error: unknown } | undefined;
  #onPublished: (() => void) | undefined;
  /** Microseconds: spent in waiting for confirms, and since when it does. */
  #waited = 0;
  #waitsSince = 0;

  /** `runs`: of this delivery, here; those before it are in the message. */
  constructor(base: ThreadContext, runs: number, delivery: RetriesSource) {
    this.#base = base;
    this.worker = base.worker;
    this.logger = base.logger;
    this.#runs = runs;
    this.#delivery = delivery;
  }

  get attempt(): number {
    this.#attempt ??= this.#runs + retriesOf(this.#delivery) + 1;
    return this.#attempt;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#aborted !== undefined) this.#controller.abort(this.#aborted);
    }
    return this.#controller.signal;
  }

  get connection(): ConnectionDescriptor {
    return this.#base.connection;
  }

  get pools(): typeof pools {
    return pools;
  }

  producer(options?: ProducerOptions): WorkerProducer {
    const producer = this.#base.plainProducer(options);
    this.#producers ??= new Map();
    let tracked = this.#producers.get(producer);
    if (tracked === undefined) {
      tracked = { publish: (body, publish) => this.track(producer.publish(body, publish)) };
      this.#producers.set(producer, tracked);
    }
    return tracked;
  }

  /** @internal */
  track(published: Promise<void>): Promise<void> {
    if (this.#publishing++ === 0) this.#waitsSince = now();
    const ended = (): void => {
      if (--this.#publishing > 0) return;
      this.#waited += now() - this.#waitsSince;
      this.#onPublished?.();
    };
    // Whoever made it may not wait for it: the message hears of its failure.
    published.then(ended, (error: unknown) => {
      this.#publishFailure ??= { error };
      ended();
    });
    return published;
  }

  /** @internal False: there is nothing to wait for, and nothing failed. */
  get mustBePublished(): boolean {
    return this.#publishing > 0 || this.#publishFailure !== undefined;
  }

  /** @internal Resolves when everything published through this context is confirmed. Rejects with the first failure. */
  async published(): Promise<void> {
    while (this.#publishing > 0) {
      await new Promise<void>((resolve) => {
        this.#onPublished = resolve;
      });
    }
    if (this.#publishFailure !== undefined) throw this.#publishFailure.error;
  }

  /** @internal Microseconds that the broker, not the callback, took. */
  get waited(): number {
    return this.#waited + (this.#publishing > 0 ? now() - this.#waitsSince : 0);
  }

  /** @internal */
  abort(reason: unknown): void {
    this.#aborted ??= reason;
    this.#controller?.abort(reason);
  }
}
