/**
 * The sharded consumer: sockets, prefetch and acks on this thread, callbacks on worker threads. This class is the
 * conductor; what it conducts: the AMQP source (bytes in, acks out), the dispatcher (slots, lane, settlements), the
 * supervisor (threads), the dead letters.
 */
import { EventEmitter } from 'node:events';
import { ClosedError, MessageTooLarge, OptionError } from '../errors.js';
import { Arena } from '../pool/arena.js';
import { ringAlways } from '../pool/bell.js';
import { now } from '../pool/clock.js';
import { Delivery, NO_DECODING } from '../pool/delivery.js';
import { block, board, HISTOGRAM_BUCKETS, slot, verdict } from '../pool/layout.js';
import { allocateMemory, type Memory } from '../pool/memory.js';
import type { FromWorker, LogLevel } from '../pool/worker-protocol.js';
import { MAX_THREADS } from '../pool/worker-thread.js';
import { Connection } from './connection.js';
import { Queue } from './entities/queue.js';
import { BROKER_TIMEOUT, endRuntime } from './runtime/closing.js';
import { DeadLetters } from './runtime/dead-letters.js';
import { Dispatcher } from './runtime/dispatcher.js';
import type { FailureOutcome, ShardedConsumerEvents } from './runtime/events.js';
import {
  type ResolvedOptions,
  readShardedOptions,
  SHARDED_CONSUMER_OPTIONS,
  type ShardedConsumerOptions,
} from './runtime/options.js';
import { keyReader } from './runtime/order-key.js';
import { Outlets } from './runtime/outlets.js';
import { Retries } from './runtime/retries.js';
import { addHistogram, latencyOf, type ShardedConsumerStats, workerStats } from './runtime/stats.js';
import { Supervisor } from './runtime/supervisor.js';
import { fromPortable } from './runtime/worker-life.js';
import { transportOf } from './transports/registry.js';
import type { Source } from './transports/transport.js';

type State = ShardedConsumerStats['state'];

/** Slots for threads that are terminated and do not exit, beyond what is planned for. */
const SPARE_SLOTS = 64;

/** Settlements are looked for this often, ms, while messages are here, whether or not anybody rings. */
const LOOK_EVERY = 20;

/** Consumer tags whose queues are remembered: each reconnect brings new ones, and messages of old ones may still run. */
const MOST_TAGS = 1024;

const WORKER_ENTRY = new URL('../worker/entry.js', import.meta.url).href;

/** An error of the user's own code, thrown where nothing of ours is in its way. */
function surface(error: unknown): void {
  process.nextTick(() => {
    throw error;
  });
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
  readonly #deadLetters: DeadLetters | undefined;
  readonly #retries: Retries;
  readonly #queueOf = new Map<string, string>();
  #state: State = 'idle';
  #starting: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  #settleClosed: (error?: Error) => void = () => undefined;
  #tick: NodeJS.Timeout | undefined;
  #look: NodeJS.Timeout | undefined;
  #shedSeen = 0;
  /** The last change of what is taken. */
  #changes: Promise<void> = Promise.resolve();
  #renewing = false;
  #resting: (() => void)[] = [];
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
        dead: (index, why, text) => this.#dead(index, why, text),
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
          oversize: this.#oversizeOutcome(),
          onTooLarge: (index, bodySize) => this.#tooLarge(index, bodySize),
          onSwallowed: (bodySize, settled) => this.#swallowed(bodySize, settled),
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
        culprit: (worker, index, error, dead) => this.#culprit(worker, index, error, dead),
        stalled: (worker, forMs) => this.emit('stalled', { worker, forMs }),
        fatal: (error) => this.#fatal(error),
      },
    );
    this.#outlets = new Outlets(parameters, (error) => this.#error(error));
    const held = this.#ordered && read.retry?.order !== 'skip';
    this.#retries = new Retries({
      memory: this.#memory,
      dispatcher: this.#dispatcher,
      queueOf: this.#queueOf,
      outlets: held ? undefined : this.#outlets,
      onSettled: () => this.#source.flush(),
    });
    const target = read.deadLetter;
    if (target !== 'broker' && target !== 'drop') {
      this.#deadLetters = new DeadLetters({
        outlets: this.#outlets,
        target,
        memory: this.#memory,
        dispatcher: this.#dispatcher,
        queueOf: this.#queueOf,
        onDead: (letter) => this.emit('dead', letter),
        onSettled: () => this.#source.flush(),
      });
    }
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
    return this.#inTurn(async () => {
      if (this.#state === 'paused') return;
      this.#state = 'pausing';
      await this.#withdraw(true);
      if (this.#state === 'pausing') this.#state = 'paused';
    });
  }

  /** Consumes again after `pause()`: resolves when it does, however long the broker cannot be reached. Throws `ClosedError`. */
  resume(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#state !== 'paused') return;
      await this.#source.resume();
      if (this.#closing !== undefined) throw new ClosedError('the consumer was closed while it resumed');
      this.#state = 'consuming';
    });
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

  /** One change of what is taken after the other. */
  #inTurn(change: () => Promise<void>): Promise<void> {
    const turn = this.#changes.then(async () => {
      await this.#mustRun();
      await change();
    });
    this.#changes = turn.catch(() => undefined);
    return turn;
  }

  /** Takes no more, and gives back what has not started; in order, with the channel once nothing runs any more. */
  async #withdraw(unstarted: boolean): Promise<void> {
    await this.#source.cancel(BROKER_TIMEOUT);
    if (this.#ordered) {
      if (unstarted) this.#dispatcher.withdrawUnstarted();
      if (unstarted) this.#retries.giveBack();
      await this.#rest();
      await this.#source.release(BROKER_TIMEOUT);
    } else {
      this.#dispatcher.giveBack();
      this.#retries.giveBack();
      this.#source.giveBackUnkept(Number.POSITIVE_INFINITY);
      this.#source.flush();
    }
  }

  /** In order, what cannot be kept or has waited too long goes back only with all that came after it. */
  #renew(unstarted: boolean): void {
    if (this.#renewing || this.#state !== 'consuming') return;
    this.#renewing = true;
    this.#inTurn(async () => {
      if (this.#state !== 'consuming') return;
      await this.#withdraw(unstarted);
      await this.#source.resume();
    })
      .catch((error: unknown) => {
        if (this.#closing === undefined) this.#error(error as Error);
      })
      .finally(() => {
        this.#renewing = false;
      });
  }

  /** Resolves when no message is here any more, or the consumer closes. */
  #rest(): Promise<void> {
    if (this.#dispatcher.busy === 0 || this.#closing !== undefined) return Promise.resolve();
    return new Promise((resolve) => {
      this.#resting.push(resolve);
    });
  }

  #rested(): void {
    const resting = this.#resting;
    this.#resting = [];
    for (const resolve of resting) resolve();
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
    const histogram = Float64Array.from(this.#past.histogram);
    let { failed } = this.#past;
    const workers = [];
    for (const life of this.#supervisor.lives()) {
      addHistogram(histogram, life.words);
      failed += life.words[block.FAILED]! >>> 0;
      workers.push(workerStats(life, this.#memory, this.#options.concurrency, this.#queueOf));
    }
    return {
      state: this.#state,
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
    if (this.#resting.length > 0 && this.#dispatcher.busy === 0) this.#rested();
    if (this.#dispatcher.used > 0) this.#look ??= setTimeout(this.#onLook, LOOK_EVERY);
  }

  readonly #onLook = (): void => {
    this.#look = undefined;
    this.#pump();
  };

  #onTick(): void {
    const before = now() - this.#options.maxWait * 1000;
    if (this.#ordered) {
      if (this.#source.holdsUnkept) this.#renew(false);
      else if (this.#dispatcher.waitsSince(before)) this.#renew(true);
    } else {
      if (this.#dispatcher.giveBack(before) > 0) this.#source.flush();
      this.#source.giveBackUnkept(before);
    }
    const { shed } = this.#dispatcher.counters;
    if (shed === this.#shedSeen) return;
    this.emit('pressure', { shed: shed - this.#shedSeen, used: this.#arena.usedBytes, size: this.#arena.size });
    this.#shedSeen = shed;
  }

  #oversizeOutcome(): typeof verdict.ACK | typeof verdict.REJECT | typeof verdict.REQUEUE | undefined {
    const { onDecodeError, deadLetter } = this.#options;
    if (onDecodeError === 'reject' || (onDecodeError === 'deadLetter' && deadLetter === 'broker'))
      return verdict.REJECT;
    if (onDecodeError === 'requeue') return verdict.REQUEUE;
    if (onDecodeError === 'ack' || deadLetter === 'drop') return verdict.ACK;
    return undefined;
  }

  /** A worker, or main itself, gave a message up: `deadLetter` decides. */
  #dead(index: number, why: 'failed' | 'deaths', text = 'its worker died'): void {
    const word = this.#dispatcher.stateOf(index);
    if (this.#options.deadLetter === 'broker') this.#dispatcher.finish(index, word, verdict.REJECT);
    else if (this.#options.deadLetter === 'drop') this.#dispatcher.finish(index, word, verdict.ACK);
    else if (why === 'failed') this.#deadLetters?.add(index);
    else
      this.#deadLetters?.add(
        index,
        'deaths',
        `${text} (${this.#options.maxDeliveries} times, running this message alone)`,
      );
  }

  /** What "to the dead letters" means here. */
  get #deadOutcome(): FailureOutcome {
    const { deadLetter } = this.#options;
    if (deadLetter === 'broker') return 'reject';
    return deadLetter === 'drop' ? 'drop' : 'deadLetter';
  }

  #culprit(worker: number, index: number, error: Error, dead: boolean): void {
    const words = this.#memory.slotWords;
    const at = index << slot.SHIFT;
    const delivery = new Delivery(
      this.#memory.bytes,
      words[at + slot.OFFSET]!,
      words[at + slot.LENGTH]!,
      this.#queueOf,
      NO_DECODING,
    );
    const { queue, deliveryTag } = delivery.readDeliveryInfo();
    this.#past.failed++;
    this.emit('failed', {
      error,
      count: 1,
      worker,
      queue,
      deliveryTag,
      attempt: words[at + slot.ATTEMPTS]!,
      outcome: dead ? this.#deadOutcome : 'again',
    });
  }

  #tooLarge(index: number, bodySize: number): void {
    const { maxMessageBytes } = this.#options;
    const text = `the body has ${bodySize} bytes; maxMessageBytes is ${maxMessageBytes}`;
    this.#deadLetters?.add(index, 'tooLarge', text);
  }

  #swallowed(bodySize: number, settled: boolean): void {
    const { maxMessageBytes, maxMemory, onDecodeError } = this.#options;
    const details = { bodySize, maxMessageBytes, maxMemory };
    const text = `a body of ${bodySize} bytes came; maxMessageBytes is ${maxMessageBytes}, maxMemory ${maxMemory}`;
    if (settled) {
      this.#error(new MessageTooLarge(`${text}: onDecodeError is '${onDecodeError}'`, { details }));
      return;
    }
    const advice = 'it stays unsettled: raise maxMemory, or set onDecodeError to reject it';
    this.#error(new MessageTooLarge(`${text}. It does not fit in memory to be dead-lettered; ${advice}`, { details }));
  }

  #fromWorker(worker: number, message: FromWorker): void {
    if (message.type === 'failed') {
      const { type: _, error, outcome, ...rest } = message;
      this.emit('failed', {
        error: fromPortable(error),
        count: 1,
        worker,
        ...rest,
        outcome: outcome === 'deadLetter' ? this.#deadOutcome : outcome,
      });
    } else if (message.type === 'failures') {
      for (const [name, count] of Object.entries(message.counts)) {
        this.emit('failed', {
          error: fromPortable({ name, message: `${count} more failures in a second` }),
          count,
          worker,
        });
      }
    } else if (message.type === 'log') {
      this.#log(message.level, { worker, ...message.fields }, message.text);
    }
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
    this.#rested();
    clearInterval(this.#tick);
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    if (started) {
      await endRuntime({
        source: this.#source,
        dispatcher: this.#dispatcher,
        supervisor: this.#supervisor,
        outlets: this.#outlets,
        retries: this.#retries,
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
