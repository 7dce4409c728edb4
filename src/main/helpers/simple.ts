/**
 * A queue with `put` and `get`: an exchange, a queue and a routing key of one name, a producer and a consumer of it. Nothing
 * is asked of the broker before the first operation; after the connection was lost the next one connects and declares anew.
 */
import { whenAborted } from '../../abort.js';
import { ClosedError, Empty, OptionError } from '../../errors.js';
import type { Message } from '../../message.js';
import { kinds, type OptionTable, readOptions } from '../../options.js';
import { PUBLISH_OPTIONS, type PublishOptions } from '../../pool/publication.js';
import { Consumer } from '../consumer.js';
import { withDeadline } from '../deadline.js';
import { Channel } from '../entities/channel.js';
import { acceptSet, DEFAULT_ACCEPT } from '../entities/delivery.js';
import { Exchange, type ExchangeOptions } from '../entities/exchange.js';
import { Queue, type QueueOptions } from '../entities/queue.js';
import { isTarget, type Target } from '../entities/target.js';
import { Producer } from '../producer.js';
import { isPassing, REPEAT_OPTIONS, type RepeatOptions, repeating } from './retrying.js';

export interface SimpleQueueOptions {
  readonly noAck?: boolean;
  readonly queueOpts?: QueueOptions;
  readonly queueArgs?: Record<string, unknown>;
  readonly exchangeOpts?: ExchangeOptions;
  readonly serializer?: string;
  readonly compression?: string;
  readonly accept?: readonly string[];
  readonly prefetchCount?: number;
}

export const SIMPLE_QUEUE_OPTIONS: OptionTable<SimpleQueueOptions> = {
  noAck: {
    kind: kinds.boolean,
    defaultWords: 'false; of a SimpleBuffer true',
    doc: 'The broker forgets messages as it sends them.',
  },
  queueOpts: { kind: kinds.custom<QueueOptions>('an object', kinds.object.test), doc: 'Options of the queue.' },
  queueArgs: { kind: kinds.object, doc: 'Arguments of the queue, as `queueArguments`.' },
  exchangeOpts: {
    kind: kinds.custom<ExchangeOptions>('an object', kinds.object.test),
    doc: 'Options of the exchange.',
  },
  serializer: { kind: kinds.name, defaultWords: 'json; strings go as text, Buffers as they are', doc: 'Name.' },
  compression: { kind: kinds.name, doc: 'Name or content type of a compressor.' },
  accept: { kind: kinds.strings, default: DEFAULT_ACCEPT, doc: 'Content types or aliases that may be decoded.' },
  prefetchCount: {
    kind: kinds.integer(0, 65535),
    default: 0,
    doc: 'Unsettled messages that may be here; 0: no limit, as in kombu. With a limit, a get waits for an ack before it.',
  },
};

export interface SimpleGetOptions {
  readonly block?: boolean;
  readonly timeout?: number;
  readonly signal?: AbortSignal;
}

const SIGNAL = { kind: kinds.signal, doc: 'Stops waiting; rejects with its reason.' } as const;

export const SIMPLE_GET_OPTIONS: OptionTable<SimpleGetOptions> = {
  block: { kind: kinds.boolean, default: true, doc: 'Wait for a message; false: as `getNowait()`.' },
  timeout: { kind: kinds.milliseconds, defaultWords: 'none', doc: 'How long (ms), from when the queue is consumed.' },
  signal: SIGNAL,
};

type SimpleGetNowaitOptions = Pick<SimpleGetOptions, 'signal'>;

const GET_NOWAIT_OPTIONS: OptionTable<SimpleGetNowaitOptions> = { signal: SIGNAL };

interface Waiting {
  readonly resolve: (message: Message) => void;
  readonly reject: (error: unknown) => void;
}

/** One life of the channel that declares, gets and consumes. */
interface Life {
  readonly channel: Channel;
  /** With the name that the broker gave, if it was to give one. */
  readonly queue: Queue;
  consuming: Promise<Consumer> | undefined;
  /** Why it is over: the channel is gone, or the consumer was cancelled; the queue may be gone too, and is declared again. */
  failure: unknown;
}

/** What a subclass begins with; the user's options go over it. */
interface Defaults {
  readonly noAck: boolean;
  readonly queueOpts: QueueOptions;
  readonly exchangeOpts: ExchangeOptions;
}

/** For messages that outlive the broker's restart: durable, each to be acked. */
export class SimpleQueue {
  /** What `get()` throws when no message came. */
  static readonly Empty: typeof Empty = Empty;
  /** @internal */
  static readonly defaults: Defaults = { noAck: false, queueOpts: {}, exchangeOpts: { type: 'direct' } };

  readonly queue: Queue;
  readonly producer: Producer;
  readonly noAck: boolean;
  readonly #target: Target;
  readonly #accept: readonly string[];
  readonly #prefetchCount: number;
  readonly #buffer: Message[] = [];
  readonly #waiting = new Set<Waiting>();
  #life: Promise<Life> | undefined;
  #closed: Promise<void> | undefined;

  /**
   * `name`: of the exchange, the queue and the routing key; or a `Queue`, whose exchange and routing key are used (then
   * `queueOpts`, `queueArgs` and `exchangeOpts` have nothing to say, and are refused). Does no I/O. Throws `OptionError`, and
   * `SerializerNotInstalled` for an unknown name in `accept`.
   */
  constructor(target: Target, name: string | Queue, options: SimpleQueueOptions = {}) {
    const { defaults, name: owner } = new.target as typeof SimpleQueue;
    if (!isTarget(target)) throw new OptionError(`${owner}: the first argument must be a Connection or a Channel`);
    const given = readOptions(owner, SIMPLE_QUEUE_OPTIONS, options);
    this.#target = target;
    this.#accept = given.accept!;
    acceptSet(this.#accept);
    this.#prefetchCount = given.prefetchCount!;
    this.noAck = given.noAck ?? defaults.noAck;
    this.queue = name instanceof Queue ? ownQueue(name, given, owner) : named(name, given, defaults, owner);
    const { exchange = new Exchange(''), routingKey } = this.queue;
    this.producer = new Producer(target, {
      exchange,
      // Without an exchange messages come by the queue's name.
      routingKey: exchange.name === '' ? this.queue.name : routingKey,
      autoDeclare: false,
      ...(given.serializer === undefined ? {} : { serializer: given.serializer }),
      ...(given.compression === undefined ? {} : { compression: given.compression }),
    });
  }

  /**
   * Publishes; resolves when the broker has confirmed. Options and errors: those of `Producer.publish`; `timeout`, `signal` and
   * `retry` hold for connecting and declaring too.
   */
  async put(message: unknown, options: PublishOptions = {}): Promise<void> {
    const { timeout, signal, retry, retryPolicy } = readOptions('SimpleQueue.put', PUBLISH_OPTIONS, options);
    const end = performance.now() + timeout!;
    const policy = readOptions<RepeatOptions>('SimpleQueue.put: retryPolicy', REPEAT_OPTIONS, {
      ...retryPolicy,
      ...(!retry && { maxRetries: 0 }),
      timeout,
      signal,
    });
    const again = (error: unknown): boolean => isPassing(error) && this.#closed === undefined && !this.#target.closed;
    const { queue } = await repeating(`putting into ${this.queue}`, policy, () => this.#ready(signal), again);
    await this.producer.publish(message, {
      // Of a queue without a name the broker's is known only now.
      ...(this.producer.exchange.name === '' && { routingKey: queue.name }),
      ...options,
      timeout: Math.max(0, end - performance.now()),
    });
  }

  /**
   * The next message; waits for one, for ever without `timeout`. What is not acked comes again after `close()`. Throws `Empty`,
   * the signal's reason, `ClosedError` after `close()`, and why the connection was lost or the broker cancelled: the next get
   * begins anew.
   */
  async get(options: SimpleGetOptions = {}): Promise<Message> {
    const { block, timeout, signal } = readOptions('SimpleQueue.get', SIMPLE_GET_OPTIONS, options);
    if (!block) return this.getNowait(signal === undefined ? {} : { signal });
    const life = await this.#ready(signal);
    await untilAborted(this.#consume(life), signal);
    const here = this.#buffer.shift();
    if (here !== undefined) return here;
    // What ended with the broker's yes brings nothing, and nobody was waiting to be told.
    if (life.failure !== undefined) throw life.failure;
    return this.#next(timeout, signal);
  }

  /** The next message if there is one. Throws `Empty`, and what `get()` throws. */
  async getNowait(options: SimpleGetNowaitOptions = {}): Promise<Message> {
    const { signal } = readOptions('SimpleQueue.getNowait', GET_NOWAIT_OPTIONS, options);
    const { channel, queue } = await this.#ready(signal);
    const here = this.#buffer.shift();
    if (here !== undefined) return here;
    const getting = queue.get(channel, { noAck: this.noAck, accept: this.#accept });
    // Nobody will settle what comes after the caller has left.
    getting.then(
      (late) => signal?.aborted && late !== null && !this.noAck && late.requeue(),
      () => undefined,
    );
    // With a consumer beside it, the broker may have sent the last ones there.
    const found = (await untilAborted(getting, signal)) ?? this.#buffer.shift();
    if (found === undefined) throw new Empty(`${this.queue} is empty`);
    return found;
  }

  /** Drops the messages that wait, here and at the broker; resolves with their number. */
  async clear(): Promise<number> {
    const { channel, queue } = await this.#ready();
    const purged = await queue.purge(channel);
    const here = this.#buffer.splice(0);
    for (const message of here) if (!this.noAck) message.ack();
    return here.length + purged;
  }

  /** How many messages wait, here and at the broker; what was got and is not acked does not count. */
  async qsize(): Promise<number> {
    const { channel, queue } = await this.#ready();
    const { messageCount } = await channel.call(`counting ${queue}`, (raw) => raw.checkQueue(queue.name));
    return messageCount + this.#buffer.length;
  }

  /**
   * Cancels and closes its channel: what was got and is not acked goes back to the queue, and so does what nobody got (with
   * `noAck` that is lost). On a channel that was given only the latter goes back, since the channel stays open.
   */
  close(): Promise<void> {
    this.#closed ??= this.#end();
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #end(): Promise<void> {
    this.#fail(new ClosedError(`${this.queue}: the simple queue was closed`));
    const life = await this.#life?.catch(() => undefined);
    try {
      await this.producer.close();
      if (life === undefined || life.channel.closed) return;
      const consumer = await life.consuming?.catch(() => undefined);
      await consumer?.close();
    } finally {
      // Those of a channel that is gone are settled in vain, which does no harm.
      for (const message of this.#buffer.splice(0)) if (!this.noAck) message.requeue();
      if (!(this.#target instanceof Channel)) await life?.channel.close();
    }
  }

  /** A channel on which the queue is declared; whoever comes first opens it for all. */
  async #ready(signal?: AbortSignal): Promise<Life> {
    // Once: one that has begun anew takes what that gives, rather than asking a broker again and again.
    for (let begun = false; ; ) {
      this.#mustBeOpen();
      signal?.throwIfAborted();
      begun ||= this.#life === undefined;
      const opening = this.#life ?? this.#begin(undefined);
      // If it fails, it has failed for all who wait: one after another they would wait for a broker that does not answer.
      const life = await untilAborted(opening, signal);
      this.#mustBeOpen();
      // Meanwhile somebody else has begun anew.
      if (this.#life !== opening) continue;
      if (begun || (!life.channel.closed && life.failure === undefined)) return life;
      this.#begin(life.channel.closed ? undefined : life.channel);
      begun = true;
    }
  }

  #begin(kept: Channel | undefined): Promise<Life> {
    const opening = this.#open(kept);
    this.#life = opening;
    // The next one tries again.
    opening.catch(() => {
      if (this.#life === opening) this.#life = undefined;
    });
    return opening;
  }

  async #open(kept: Channel | undefined): Promise<Life> {
    const target = this.#target;
    const channel = kept ?? (target instanceof Channel ? target : await target.channel());
    try {
      const queue = this.queue.named(await this.queue.declare(channel));
      const life: Life = { channel, queue, consuming: undefined, failure: undefined };
      channel.ended.then((reason) => this.#lost(life, reason));
      return life;
    } catch (error) {
      if (channel !== target) await channel.close();
      throw error;
    }
  }

  #consume(life: Life): Promise<Consumer> {
    life.consuming ??= this.#start(life).catch((error: unknown) => {
      life.consuming = undefined;
      throw error;
    });
    return life.consuming;
  }

  async #start(life: Life): Promise<Consumer> {
    const consumer = new Consumer(life.channel, life.queue, {
      noAck: this.noAck,
      autoDeclare: false,
      accept: this.#accept,
      onMessage: (message) => this.#arrived(message),
      ...(this.#prefetchCount === 0 ? {} : { prefetchCount: this.#prefetchCount }),
    });
    consumer.on('error', (error) => {
      life.failure ??= error;
      this.#fail(error);
    });
    await consumer.consume();
    return consumer;
  }

  #arrived(message: Message): void {
    const [first] = this.#waiting;
    if (first === undefined) this.#buffer.push(message);
    else first.resolve(message);
  }

  #next(timeout: number | undefined, signal: AbortSignal | undefined): Promise<Message> {
    return new Promise<Message>((resolve, reject) => {
      const end = (): void => {
        clearTimeout(timer);
        unheard?.();
        this.#waiting.delete(waiting);
      };
      const waiting: Waiting = {
        resolve: (message) => {
          end();
          resolve(message);
        },
        reject: (error) => {
          end();
          reject(error);
        },
      };
      const aborted = (): void => waiting.reject(signal?.reason);
      const late = (): void => waiting.reject(new Empty(`${this.queue}: no message within ${timeout} ms`));
      const timer = timeout === undefined ? undefined : setTimeout(late, timeout);
      const unheard = signal?.aborted === false ? whenAborted(signal, aborted) : undefined;
      this.#waiting.add(waiting);
      if (this.#closed !== undefined) waiting.reject(new ClosedError(`${this.queue}: the simple queue is closed`));
      else if (signal?.aborted) aborted();
    });
  }

  #lost(life: Life, reason: Error | undefined): void {
    // The broker gives these to somebody else, or to us again.
    if (!this.noAck) this.#buffer.length = 0;
    life.failure ??= reason ?? new ClosedError(`${this.queue}: the channel was closed`);
    this.#fail(life.failure);
  }

  #fail(error: unknown): void {
    for (const waiting of [...this.#waiting]) waiting.reject(error);
  }

  #mustBeOpen(): void {
    if (this.#closed !== undefined) throw new ClosedError(`${this.queue}: the simple queue is closed`);
  }
}

/**
 * For messages that need not last: a transient queue for one connection alone, which goes when it is closed; nothing is acked.
 * Another connection may use it too with `queueOpts: { exclusive: false }`, which RabbitMQ 4.3 refuses for transient queues.
 */
export class SimpleBuffer extends SimpleQueue {
  /** @internal */
  static override readonly defaults: Defaults = {
    noAck: true,
    queueOpts: { durable: false, autoDelete: true, exclusive: true },
    exchangeOpts: { type: 'direct', durable: false, deliveryMode: 'transient', autoDelete: true },
  };
}

function ownQueue(queue: Queue, { queueOpts, queueArgs, exchangeOpts }: SimpleQueueOptions, owner: string): Queue {
  if (queueOpts !== undefined || queueArgs !== undefined || exchangeOpts !== undefined) {
    throw new OptionError(`${owner}: queueOpts, queueArgs and exchangeOpts go with a name; a Queue has its own`);
  }
  return queue;
}

function named(name: string, given: SimpleQueueOptions, defaults: Defaults, owner: string): Queue {
  if (!kinds.name.test(name)) throw new OptionError(`${owner}: the second argument must be a name or a Queue`);
  const exchange = new Exchange(name, { ...defaults.exchangeOpts, ...given.exchangeOpts });
  const queueArguments = { ...given.queueOpts?.queueArguments, ...given.queueArgs };
  return new Queue(name, exchange, { routingKey: name, ...defaults.queueOpts, ...given.queueOpts, queueArguments });
}

/** Waits no longer than the signal is quiet; what is waited for has a deadline of its own. */
function untilAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  return signal === undefined ? work : withDeadline(work, 'a simple queue', 0x7fffffff, signal);
}
