/**
 * The sharded consumer: sockets, prefetch and acks on this thread, callbacks on worker threads. This class is the
 * conductor; what it conducts: the AMQP source (bytes in, acks out), the dispatcher (slots, lane, settlements), the
 * supervisor (threads), the dead letters.
 */
import { EventEmitter } from 'node:events';
import { ClosedError, OptionError } from '../errors.js';
import { Arena } from '../pool/arena.js';
import { ringAlways } from '../pool/bell.js';
import { now } from '../pool/clock.js';
import { block, board, HISTOGRAM_BUCKETS } from '../pool/layout.js';
import { allocateMemory, type Memory } from '../pool/memory.js';
import { type FromWorker, type LogLevel, MOST_TAGS } from '../pool/worker-protocol.js';
import { MAX_THREADS } from '../pool/worker-thread.js';
import { Connection } from './connection.js';
import { Queue } from './entities/queue.js';
import { endRuntime } from './runtime/closing.js';
import { DeadLetters, type DeadLetterTarget } from './runtime/dead-letters.js';
import { Dispatcher } from './runtime/dispatcher.js';
import type { ShardedConsumerEvents } from './runtime/events.js';
import { Failures, oversizeOutcome } from './runtime/failures.js';
import {
  type ResolvedOptions,
  readShardedOptions,
  SHARDED_CONSUMER_OPTIONS,
  type ShardedConsumerOptions,
} from './runtime/options.js';
import { keyReader } from './runtime/order-key.js';
import { Outlets } from './runtime/outlets.js';
import { Publishing } from './runtime/publishing.js';
import { Retries } from './runtime/retries.js';
import { addHistogram, latencyOf, type ShardedConsumerStats, workerStats } from './runtime/stats.js';
import { Supervisor } from './runtime/supervisor.js';
import { Taking } from './runtime/taking.js';
import { transportOf } from './transports/registry.js';
import type { Source } from './transports/transport.js';
import type { ConnectionParameters } from './url.js';

type State = ShardedConsumerStats['state'];

/** Slots for threads that are terminated and do not exit, beyond what is planned for. */
const SPARE_SLOTS = 64;

/** Settlements are looked for this often, ms, while messages are here, whether or not anybody rings. */
const LOOK_EVERY = 20;

const WORKER_ENTRY = new URL('../worker/start.cjs', import.meta.url).href;

/** An error of the user's own code, thrown where nothing of ours is in its way. */
function surface(error: unknown): void {
  process.nextTick(() => {
    throw error;
  });
}

/** Undefined if something in it, such as a function, cannot go to another thread. */
function cloneable(parameters: ConnectionParameters): ConnectionParameters | undefined {
  try {
    return structuredClone({ ...parameters });
  } catch {
    // Told where it is missed: most handlers open no connections of their own.
    return undefined;
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export class ShardedConsumer extends EventEmitter<ShardedConsumerEvents> {
  /** Resolves when the consumer has closed; rejects if it had to close by an error. Never an unhandled rejection. */
  readonly closed: Promise<void>;
  readonly #options: ResolvedOptions;
  readonly #memory: Memory;
  readonly #arena: Arena;
  readonly #dispatcher: Dispatcher;
  readonly #source: Source;
  readonly #supervisor: Supervisor;
  readonly #outlets: Outlets;
  readonly #publishing: Publishing;
  readonly #retries: Retries;
  readonly #failures: Failures;
  readonly #taking: Taking;
  readonly #queueOf = new Map<string, string>();
  #state: State = 'idle';
  #starting: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  #settleClosed: (error?: Error) => void = () => undefined;
  #tick: NodeJS.Timeout | undefined;
  #look: NodeJS.Timeout | undefined;
  #shedSeen = 0;
  /** Figures of lives that are over. */
  readonly #past = { failed: 0, histogram: new Float64Array(HISTOGRAM_BUCKETS) };

  /**
   * Does no I/O. Throws `OptionError`, `HandlerLoadError` (no such module), `TransportNotAvailable`.
   * `connection` gives the parameters: the runtime opens connections of its own and leaves this one alone.
   */
  constructor(connection: Connection, queues: Queue | readonly Queue[], options: ShardedConsumerOptions) {
    super();
    if (!(connection instanceof Connection)) {
      throw new OptionError('ShardedConsumer: the first argument must be a Connection');
    }
    const list = Array.isArray(queues) ? (queues as readonly Queue[]) : [queues as Queue];
    if (list.length === 0 || !list.every((queue) => queue instanceof Queue)) {
      throw new OptionError(
        'ShardedConsumer: the second argument must be a Queue, or a list of them that is not empty',
      );
    }
    const read = readShardedOptions(options);
    const { parameters } = connection;
    const transport = transportOf(parameters);
    if (read.deadLetter === 'broker' && !transport.hasPolicies) {
      throw new OptionError(
        `ShardedConsumer: deadLetter 'broker' would lose messages: ${parameters.transport} drops what is rejected; name a queue or an exchange`,
        { details: { option: 'deadLetter' } },
      );
    }
    this.#options = read;
    this.closed = new Promise((resolve, reject) => {
      this.#settleClosed = (error) => (error === undefined ? resolve() : reject(error));
    });
    // Whoever wants to know awaits it; nobody must.
    this.closed.catch(() => undefined);

    const prefetch = read.prefetchCount * list.length;
    // What callbacks hold of an ended generation keeps its slot while the new one brings its own prefetch.
    const stale = read.ack === 'manual' ? prefetch : 2 * Math.max(MAX_THREADS, read.workers) * read.concurrency;
    const slots = prefetch + stale + SPARE_SLOTS;
    this.#memory = allocateMemory(2 ** Math.ceil(Math.log2(slots)), read.maxMemory);
    this.#arena = new Arena(read.maxMemory);
    this.#dispatcher = new Dispatcher(
      this.#memory,
      this.#arena,
      {
        settle: (entry, outcome) => this.#source.settle(entry, outcome),
        dead: (index, why, text) => this.#failures.dead(index, why, text),
        retry: (index, milliseconds) => this.#retries.add(index, milliseconds),
      },
      read.maxDeliveries,
      read.orderBy === undefined ? undefined : keyReader(read.orderBy),
    );
    this.#source = transport.source(
      {
        parameters,
        queues: list,
        prefetchCount: read.prefetchCount,
        autoDeclare: read.autoDeclare,
        consumerArguments: read.consumerArguments,
        sink: {
          memory: this.#memory,
          arena: this.#arena,
          dispatcher: this.#dispatcher,
          ordered: this.#ordered,
          maxMessageBytes: Math.min(read.maxMessageBytes, this.#arena.largestFitting),
          oversize: oversizeOutcome(read),
          onTooLarge: (index, bodySize) => this.#failures.tooLarge(index, bodySize),
          onSwallowed: (bodySize, settled) => this.#failures.swallowed(bodySize, settled),
          onRead: () => this.#pump(),
        },
      },
      {
        queues: (names) => {
          this.#nameQueues(names);
          this.#supervisor.setQueues(names);
        },
        generationEnded: () => this.#supervisor.generationEnded(this.#dispatcher.generation),
        disconnected: (error) => {
          if (this.#state === 'consuming') this.#state = 'disconnected';
          this.emit('disconnected', error);
        },
        reconnected: (attempts) => {
          if (this.#state === 'disconnected') this.#state = 'consuming';
          this.emit('reconnected', { attempts });
        },
        error: (error) => this.#error(error),
      },
    );
    this.#supervisor = new Supervisor(
      {
        entry: WORKER_ENTRY,
        workers: read.workers,
        startTimeout: read.startTimeout,
        terminateGrace: read.terminateGrace,
        ...(read.maxMessagesPerWorker === undefined ? {} : { maxMessagesPerWorker: read.maxMessagesPerWorker }),
        ...(read.maxWorkerMemory === undefined ? {} : { maxWorkerMemory: read.maxWorkerMemory }),
        ...(read.resourceLimits === undefined ? {} : { resourceLimits: read.resourceLimits }),
        ...(read.env === undefined ? {} : { env: read.env }),
        ...(read.execArgv === undefined ? {} : { execArgv: read.execArgv }),
        task: {
          handler: read.handler,
          concurrency: read.concurrency,
          ack: read.ack,
          retry: read.retry,
          accept: read.accept,
          onDecodeError: read.onDecodeError,
          timeout: read.timeout,
          maxDecodedBytes: read.maxDecodedBytes,
          types: read.types,
          connection: cloneable(parameters),
        },
      },
      this.#memory,
      this.#dispatcher,
      {
        worker: (event) => this.emit('worker', event),
        message: (worker, message) => this.#fromWorker(worker, message),
        ended: (words) => {
          this.#past.failed += words[block.FAILED]! >>> 0;
          addHistogram(this.#past.histogram, words);
        },
        publishing: (answer) => this.#publishing.client(answer),
        culprit: (worker, index, error, dead) => this.#failures.culprit(worker, index, error, dead),
        stalled: (worker, forMs) => this.emit('stalled', { worker, forMs }),
        fatal: (error) => this.#fatal(error),
      },
    );
    this.#publishing = new Publishing(connection.clone());
    this.#outlets = new Outlets(parameters, (error) => this.#error(error));
    const held = !transport.hasPolicies || (this.#ordered && read.retry?.order !== 'skip');
    this.#retries = new Retries({
      memory: this.#memory,
      dispatcher: this.#dispatcher,
      queueOf: this.#queueOf,
      outlets: held ? undefined : this.#outlets,
      onSettled: () => this.#source.flush(),
    });
    this.#failures = new Failures({
      options: read,
      memory: this.#memory,
      dispatcher: this.#dispatcher,
      queueOf: this.#queueOf,
      deadLetters: this.#deadLettersTo(read.deadLetter),
      onFailed: (failure) => this.emit('failed', failure),
      onError: (error) => this.#error(error),
    });
    this.#taking = new Taking({
      source: this.#source,
      dispatcher: this.#dispatcher,
      retries: this.#retries,
      ordered: this.#ordered,
      outlets: this.#outlets,
      window: prefetch,
      ready: () => this.#mustRun(),
      onError: (error) => this.#error(error),
    });
    if (read.signal !== undefined) this.#closeOn(read.signal);
  }

  /**
   * Loads the handler on every worker, connects, declares and consumes. From then on lost connections and threads are
   * replaced by themselves. Rejects with `HandlerLoadError`, `AccessRefused`, `ConnectionError`, `NotFound`,
   * `PreconditionFailed`, `TimeoutError`; the consumer is closed then.
   */
  consume(): Promise<void> {
    if (this.#closing !== undefined) return Promise.reject(new ClosedError('the consumer is closed'));
    this.#starting ??= this.#start();
    return this.#starting;
  }

  /**
   * Stops taking messages, gives back what has not started, lets callbacks run to their end for `drainTimeout`, then
   * aborts their signals and, a second later, their threads; writes the acks, and closes. Never rejects.
   */
  close(): Promise<void> {
    return this.#shutDown(undefined);
  }

  /**
   * Takes no more messages and gives back those that have not started; callbacks that run go on, and are settled. In order
   * (`orderBy`) that waits for them: only then can the rest go back to its place. `resume()` consumes again.
   * Throws `ClosedError`, and `OptionError` before `consume()`.
   */
  pause(): Promise<void> {
    return this.#taking.pause();
  }

  /** Consumes again after `pause()`: resolves when it does, however long the broker cannot be reached. Throws `ClosedError`. */
  resume(): Promise<void> {
    return this.#taking.resume();
  }

  /**
   * Changes the number of workers. Resolves when there are so many: new ones have loaded the handler, surplus ones have finished
   * what they ran and ended. The prefetch stays as it is. Throws `OptionError` (1 to 64), `ClosedError`.
   */
  async scale(workers: number): Promise<void> {
    const { kind } = SHARDED_CONSUMER_OPTIONS.workers;
    if (!kind.test(workers)) throw new OptionError(`scale: the number of workers must be ${kind.words}`);
    await this.#mustRun();
    await this.#supervisor.scale(workers);
  }

  /** Throws unless it has been started and not closed; waits for a start that is under way. */
  async #mustRun(): Promise<void> {
    if (this.#closing !== undefined) throw new ClosedError('the consumer is closed');
    if (this.#starting === undefined) throw new OptionError('the consumer does not consume yet: call consume() first');
    await this.#starting;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  get #ordered(): boolean {
    return this.#options.orderBy !== undefined;
  }

  /** Counts since the start, and what is going on now. Cheap: reads shared memory. */
  stats(): ShardedConsumerStats {
    const { counters } = this.#dispatcher;
    const running = this.#state === 'consuming' || this.#state === 'disconnected';
    const histogram = Float64Array.from(this.#past.histogram);
    let failed = this.#past.failed + this.#failures.culprits;
    const workers = [];
    for (const life of this.#supervisor.lives()) {
      addHistogram(histogram, life.words);
      failed += life.words[block.FAILED]! >>> 0;
      workers.push(workerStats(life, this.#memory, this.#options.concurrency, this.#queueOf));
    }
    return {
      state: running ? (this.#taking.state ?? this.#state) : this.#state,
      ...counters,
      failed,
      inFlight: this.#dispatcher.running(),
      waiting: this.#dispatcher.waiting(),
      held: this.#dispatcher.held(),
      unsettled: this.#source.outstanding,
      arena: { used: this.#arena.usedBytes, size: this.#arena.size },
      latency: latencyOf(histogram),
      workers: workers.sort((a, b) => a.id - b.id),
    };
  }

  async #start(): Promise<void> {
    this.#state = 'starting';
    try {
      await this.#supervisor.start();
      this.#listen().catch((error: unknown) => this.#fatal(error as Error));
      await this.#source.start();
    } catch (error) {
      await this.#shutDown(error as Error);
      throw error;
    }
    if (this.#closing !== undefined) throw new ClosedError('the consumer was closed while it started');
    this.#state = 'consuming';
    const period = Math.max(10, Math.min(1000, this.#options.maxWait / 4));
    this.#tick = setInterval(() => this.#onTick(), period);
    this.emit('ready');
  }

  /** Takes settlements whenever a worker rings. */
  async #listen(): Promise<void> {
    while (this.#state !== 'closed') {
      const bell = this.#dispatcher.sleep();
      // If there is work already the sockets must have their turn all the same.
      await (bell ?? turn());
      this.#pump();
    }
  }

  #pump(): void {
    this.#dispatcher.drain();
    this.#source.flush();
    // A worker that goes from a short message straight to a long one does not ring in between.
    this.#taking.settled();
    if (this.#dispatcher.used > 0) this.#look ??= setTimeout(this.#onLook, LOOK_EVERY);
  }

  readonly #onLook = (): void => {
    this.#look = undefined;
    this.#pump();
  };

  #onTick(): void {
    const before = now() - this.#options.maxWait * 1000;
    if (this.#ordered) {
      if (this.#source.holdsUnkept(before)) this.#taking.renew(false);
      else if (this.#dispatcher.waitsSince(before)) this.#taking.renew(true);
    } else {
      if (this.#dispatcher.giveBack(before) > 0) this.#source.flush();
      this.#source.giveBackUnkept(before);
    }
    const { shed } = this.#dispatcher.counters;
    if (shed === this.#shedSeen) return;
    this.emit('pressure', { shed: shed - this.#shedSeen, used: this.#arena.usedBytes, size: this.#arena.size });
    this.#shedSeen = shed;
  }

  #deadLettersTo(target: DeadLetterTarget): DeadLetters | undefined {
    if (target === 'broker' || target === 'drop') return undefined;
    return new DeadLetters({
      outlets: this.#outlets,
      target,
      memory: this.#memory,
      dispatcher: this.#dispatcher,
      queueOf: this.#queueOf,
      onDead: (letter) => this.emit('dead', letter),
      onSettled: () => this.#source.flush(),
    });
  }

  #fromWorker(worker: number, message: FromWorker): void {
    if (message.type === 'failed' || message.type === 'failures') this.#failures.told(worker, message);
    else if (message.type === 'log') this.#log(message.level, { worker, ...message.fields }, message.text);
  }

  /** What a listener throws must not reach the runtime: it surfaces as an uncaught error, as from any event. */
  override emit<K>(event: keyof ShardedConsumerEvents | K, ...args: unknown[]): boolean {
    try {
      return super.emit(event as never, ...(args as never));
    } catch (error) {
      surface(error);
      return true;
    }
  }

  #error(error: Error): void {
    this.#log('error', { err: error }, error.message);
    if (this.listenerCount('error') > 0) this.emit('error', error);
  }

  #log(level: LogLevel, fields: object, text: string): void {
    try {
      this.#options.logger?.[level](fields, text);
    } catch (error) {
      surface(error);
    }
  }

  #fatal(error: Error): void {
    this.#error(error);
    void this.#shutDown(error);
  }

  #nameQueues(names: Readonly<Record<string, string>>): void {
    for (const [tag, name] of Object.entries(names)) this.#queueOf.set(tag, name);
    for (const tag of this.#queueOf.keys()) {
      if (this.#queueOf.size <= MOST_TAGS) break;
      this.#queueOf.delete(tag);
    }
  }

  #closeOn(signal: AbortSignal): void {
    if (signal.aborted) void this.close();
    else signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  readonly #onAbort = (): void => {
    void this.close();
  };

  #shutDown(error: Error | undefined): Promise<void> {
    this.#closing ??= this.#stop().then(() => {
      this.#settleClosed(error);
      this.emit('closed');
    });
    return this.#closing;
  }

  async #stop(): Promise<void> {
    const started = this.#state !== 'idle';
    this.#state = 'closing';
    this.#taking.close();
    clearInterval(this.#tick);
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    if (started) {
      await endRuntime({
        source: this.#source,
        dispatcher: this.#dispatcher,
        supervisor: this.#supervisor,
        outlets: this.#outlets,
        retries: this.#retries,
        publishing: this.#publishing,
        ordered: this.#ordered,
        drainTimeout: this.#options.drainTimeout,
        terminateGrace: this.#options.terminateGrace,
        pump: () => this.#pump(),
        onError: (error) => this.#error(error),
      });
    }
    this.#supervisor.destroy();
    this.#state = 'closed';
    clearTimeout(this.#look);
    // Ends the loop that listens for workers.
    ringAlways(this.#memory.boardWords, board.MAIN_BELL, board.MAIN_SLEEPING);
  }
}
