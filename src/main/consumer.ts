/**
 * The inline consumer: callbacks run on this thread, as in kombu. It does not reconnect: whatever ends it, or a part of it, is
 * told by `closed`, by 'error', by the loop over its messages, or failing all of these by a warning of the process.
 * For work that costs CPU there is `ShardedConsumer`.
 */
import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import type * as amqplib from 'amqplib';
import { toTable } from '../codec/amqp/plain-table.js';
import { DEFAULT_MAX_DECODED_BYTES } from '../codec/compression.js';
import { ClosedError, ConsumerCancelled, OptionError, TimeoutError } from '../errors.js';
import type { Message } from '../message.js';
import { kinds, type OptionTable, readOptions } from '../options.js';
import { withDeadline } from './deadline.js';
import { type CallOptions, Channel } from './entities/channel.js';
import { declareQueue } from './entities/declare.js';
import { acceptSet, DEFAULT_ACCEPT, messageFrom, settleOn } from './entities/delivery.js';
import { Queue } from './entities/queue.js';
import { functionKind, isTarget, type Target } from './entities/target.js';

/** May return a promise, which is waited for before the next callback of the same message; other messages do not wait. */
export type Callback = (body: unknown, message: Message) => unknown;
export type OnMessage = (message: Message) => unknown;
export type OnDecodeError = (message: Message, error: unknown) => unknown;

export interface ConsumerOptions {
  readonly noAck?: boolean;
  readonly autoDeclare?: boolean;
  readonly callbacks?: readonly Callback[];
  readonly onMessage?: OnMessage;
  readonly onDecodeError?: OnDecodeError;
  readonly accept?: readonly string[];
  readonly prefetchCount?: number;
  readonly tagPrefix?: string;
  readonly maxDecodedBytes?: number;
}

const callbacksKind = kinds.custom<readonly Callback[]>(
  'a list of functions',
  (value) => Array.isArray(value) && value.every((each) => typeof each === 'function'),
);

export const CONSUMER_OPTIONS: OptionTable<ConsumerOptions> = {
  noAck: { kind: kinds.boolean, defaultWords: 'as each queue', doc: 'The broker forgets messages as it sends them.' },
  autoDeclare: { kind: kinds.boolean, default: true, doc: 'Declare the queues before consuming.' },
  callbacks: { kind: callbacksKind, default: [], doc: 'Called in order with (body, message).' },
  onMessage: {
    kind: functionKind(),
    doc: 'Called with (message) instead; the body is decoded when `payload` is read.',
  },
  onDecodeError: {
    kind: functionKind(),
    defaultWords: 'the error is told, the message stays unsettled',
    doc: 'Called with (message, error).',
  },
  accept: { kind: kinds.strings, default: DEFAULT_ACCEPT, doc: 'Content types or aliases that may be decoded.' },
  prefetchCount: {
    kind: kinds.integer(0, 65535),
    defaultWords: 'no limit, as in kombu; 64 in a `for await`',
    doc: 'Unsettled messages asked of the broker, per queue; 0: no limit.',
  },
  tagPrefix: { kind: kinds.string, default: 'mozuku.', doc: 'Begins the consumer tags that the broker shows.' },
  maxDecodedBytes: {
    kind: kinds.bytes(1, Number.MAX_SAFE_INTEGER),
    default: DEFAULT_MAX_DECODED_BYTES,
    doc: 'A larger body is a decode error.',
  },
};

export interface ConsumerEvents {
  /**
   * What a callback threw, a body that could not be decoded (both with the message, which stays unsettled), a consumer that the
   * broker cancelled, a lost connection. Only emitted if somebody listens.
   */
  error: [error: unknown, message: Message | undefined];
}

/** Process-wide, so that tags are unique on every connection, of other processes too. */
const processId = randomBytes(4).toString('hex');
let lastTag = 0;

export class Consumer extends EventEmitter<ConsumerEvents> {
  readonly queues: readonly Queue[];
  readonly #target: Target;
  readonly #options: ConsumerOptions;
  readonly #accept: ReadonlySet<string>;
  #channel: Channel | undefined;
  /** What is consumed now: consumer tag to the queue's name. */
  readonly #tags = new Map<string, string>();
  #starting: Promise<void> | undefined;
  readonly #running = new Set<Promise<void>>();
  #stale = 0;
  /** Messages for the loop that have no taker yet. */
  #inbox: { readonly message: Message; readonly noAck: boolean }[] = [];
  #iterating = false;
  #wake: () => void = () => undefined;
  #failure: Error | undefined;
  #finished = false;
  #end: { resolve: () => void; reject: (error: Error) => void } | undefined;
  readonly #closed: Promise<void>;
  #observed = false;

  /** Does no I/O. Throws `OptionError`, and `SerializerNotInstalled` for an unknown name in `accept`. */
  constructor(target: Target, queues: Queue | readonly Queue[], options: ConsumerOptions = {}) {
    super();
    if (!isTarget(target)) throw new OptionError('Consumer: the first argument must be a Connection or a Channel');
    const list = queues instanceof Queue ? [queues] : queues;
    if (!Array.isArray(list) || list.length === 0 || !list.every((each) => each instanceof Queue)) {
      throw new OptionError('Consumer: the second argument must be a Queue or a list of queues');
    }
    this.#options = readOptions('Consumer', CONSUMER_OPTIONS, options);
    if (this.#options.onMessage !== undefined && this.#options.callbacks!.length > 0) {
      throw new OptionError('Consumer: callbacks and onMessage exclude each other');
    }
    this.#target = target;
    this.queues = Object.freeze([...list]);
    this.#accept = acceptSet(this.#options.accept!);
    this.#closed = new Promise((resolve, reject) => {
      this.#end = { resolve, reject };
    });
    // Whoever awaits `closed` hears of it all the same.
    this.#closed.catch(() => undefined);
  }

  /** Resolves after `close()`, also of the connection; rejects with the reason when the consumer ends by itself. */
  get closed(): Promise<void> {
    this.#observed = true;
    return this.#closed;
  }

  /** True while the broker sends messages. */
  get consuming(): boolean {
    return this.#tags.size > 0;
  }

  /** Settlements that came too late: their channel was gone, and the broker has given the message to somebody else. */
  get stale(): number {
    return this.#stale;
  }

  /**
   * Declares the queues and starts consuming; does nothing if it does already. After the connection was lost it connects anew.
   * Throws what declaring and connecting throw; `OptionError` if there is nothing to call.
   */
  async consume(options: CallOptions = {}): Promise<void> {
    if (this.#finished) throw new ClosedError('the consumer is closed');
    if (!this.#iterating && this.#options.onMessage === undefined && this.#options.callbacks!.length === 0) {
      throw new OptionError('Consumer: give it callbacks or onMessage, or loop over it with `for await`');
    }
    if (this.consuming && this.#starting === undefined) return;
    this.#starting ??= this.#start(options).finally(() => {
      this.#starting = undefined;
    });
    await this.#starting;
  }

  /**
   * Stops the flow of messages and waits for the broker to say so. Messages at hand can still be settled; `consume()` starts
   * again. The channel stays open until `close()`.
   */
  async cancel(): Promise<void> {
    await this.#starting?.catch(() => undefined);
    const channel = this.#channel;
    for (const [tag, queue] of [...this.#tags]) {
      if (channel === undefined || channel.closed) break;
      try {
        await channel.call(`cancelling the consumer of queue '${queue}'`, (raw) => raw.cancel(tag));
      } catch (error) {
        // A channel that ended meanwhile consumes nothing, and its end is told where all ends are.
        if (!channel.closed) throw error;
      }
      this.#tags.delete(tag);
    }
    this.#tags.clear();
    this.#wake();
  }

  /**
   * Cancels, waits for the callbacks that run (25 s at most), and closes the consumer's own channel, whereby what is unsettled
   * goes back to its queue. A callback must not await it: it would wait for itself.
   */
  async close({ timeout = 25_000 }: { readonly timeout?: number } = {}): Promise<void> {
    if (this.#finished) return this.#closed.catch(() => undefined);
    this.#finished = true;
    try {
      await this.cancel();
      await withDeadline(Promise.all(this.#running), 'waiting for the callbacks of a consumer', timeout);
    } catch (error) {
      if (!(error instanceof TimeoutError)) throw error;
      this.#tell(error, undefined);
    } finally {
      if (!(this.#target instanceof Channel)) await this.#channel?.close();
      this.#end?.resolve();
      this.#wake();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /**
   * The messages, for `for await`: consumes, and cancels when the loop is left; what was not taken by then goes back to its
   * queue (with `noAck` it is kept for the next loop). Throws what ends the consumer; after `close()` the loop ends.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Message, void, undefined> {
    if (this.#options.onMessage !== undefined || this.#options.callbacks!.length > 0) {
      throw new OptionError('Consumer: a loop over the messages excludes callbacks and onMessage');
    }
    if (this.#iterating) throw new OptionError('Consumer: another loop takes the messages already');
    this.#iterating = true;
    try {
      await this.consume();
      for (;;) {
        const next = this.#inbox.shift();
        if (next !== undefined) yield next.message;
        else if (this.#failure !== undefined) throw this.#failure;
        else if (!this.consuming) return;
        else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      try {
        await this.cancel();
      } finally {
        this.#iterating = false;
        const left = this.#inbox;
        this.#inbox = left.filter(({ noAck }) => noAck);
        for (const { message, noAck } of left) if (!noAck) message.requeue();
      }
    }
  }

  async #start(options: CallOptions): Promise<void> {
    const channel = await this.#open(options);
    this.#failure = undefined;
    try {
      const prefetch = this.#options.prefetchCount ?? (this.#iterating ? 64 : undefined);
      if (prefetch !== undefined) await channel.call('setting the prefetch', (raw) => raw.prefetch(prefetch), options);
      for (const queue of this.queues) await this.#consumeFrom(channel, queue, options);
    } catch (error) {
      // What was started is stopped: with the channel, if that is ours to close.
      if (this.#target instanceof Channel) await this.#stopStarted(channel);
      else await channel.close();
      this.#tags.clear();
      throw error;
    }
  }

  async #stopStarted(channel: Channel): Promise<void> {
    for (const tag of this.#tags.keys()) {
      if (channel.closed) return;
      // What cannot be cancelled was not consumed, or its channel is gone.
      await channel.call(`cancelling '${tag}'`, (raw) => raw.cancel(tag)).catch(() => undefined);
    }
  }

  async #open(options: CallOptions): Promise<Channel> {
    if (this.#channel?.closed === false) return this.#channel;
    const channel = this.#target instanceof Channel ? this.#target : await this.#target.channel(options);
    this.#channel = channel;
    channel.ended.then((reason) => this.#lost(channel, reason));
    return channel;
  }

  async #consumeFrom(channel: Channel, queue: Queue, options: CallOptions): Promise<void> {
    const doing = `consuming from ${queue}`;
    const declare = this.#options.autoDeclare!;
    const name = declare ? await channel.call(doing, (raw) => declareQueue(raw, queue), options) : queue.name;
    const noAck = this.#options.noAck ?? queue.noAck;
    const consumerTag = `${this.#options.tagPrefix}${processId}.${++lastTag}`;
    // Known before the answer: the first messages come with it.
    this.#tags.set(consumerTag, name);
    const deliver = (raw: amqplib.ConsumeMessage | null) => {
      if (raw === null) this.#cancelled(consumerTag, name);
      else this.#deliver(channel, raw, name, noAck);
    };
    const settings = { consumerTag, noAck, arguments: toTable(queue.consumerArguments ?? {}, 'consumerArguments') };
    await channel.call(doing, (raw) => raw.consume(name, deliver, settings), options);
  }

  /** Called by amqplib, which closes the channel if this throws. */
  #deliver(channel: Channel, raw: amqplib.ConsumeMessage, queue: string, noAck: boolean): void {
    const stale = () => {
      this.#stale++;
    };
    const decoding = { accept: this.#accept, maxDecodedBytes: this.#options.maxDecodedBytes! };
    const message = messageFrom(raw, queue, decoding, settleOn(channel, raw, noAck, stale));
    if (this.#iterating) {
      this.#inbox.push({ message, noAck });
      this.#wake();
      return;
    }
    const run = this.#run(message)
      .catch((error: unknown) => this.#tell(error, message))
      .finally(() => this.#running.delete(run));
    this.#running.add(run);
  }

  async #run(message: Message): Promise<void> {
    const { onMessage, onDecodeError, callbacks } = this.#options;
    if (onMessage !== undefined) {
      await onMessage(message);
      return;
    }
    let body: unknown;
    try {
      body = message.payload;
    } catch (error) {
      if (onDecodeError === undefined) throw error;
      await onDecodeError(message, error);
      return;
    }
    for (const callback of callbacks!) {
      const result = callback(body, message);
      // Not waiting for what is no promise keeps the callbacks of one message together.
      if (result instanceof Promise) await result;
    }
  }

  #cancelled(consumerTag: string, queue: string): void {
    this.#tags.delete(consumerTag);
    const text = `the broker cancelled the consumer of queue '${queue}': the queue was deleted, or is not available`;
    const error = new ConsumerCancelled(text, { details: { queue, consumerTag } });
    if (this.#iterating || this.#tags.size === 0) this.#fail(error);
    else this.#tell(error, undefined);
  }

  #lost(channel: Channel, reason: Error | undefined): void {
    if (channel !== this.#channel) return;
    const consumed = this.consuming || this.#starting !== undefined;
    this.#tags.clear();
    // The broker gives these to somebody else.
    this.#inbox = this.#inbox.filter(({ noAck }) => noAck);
    if (consumed && !this.#finished) {
      if (reason !== undefined) this.#fail(reason);
      else this.#end?.resolve();
    }
    this.#wake();
  }

  /** The consumer is at its end. */
  #fail(error: Error): void {
    this.#failure = error;
    this.#end?.reject(error);
    this.#wake();
    if (this.listenerCount('error') > 0) this.emit('error', error, undefined);
    else if (!this.#observed && !this.#iterating) this.#tell(error, undefined);
  }

  #tell(error: unknown, message: Message | undefined): void {
    if (this.listenerCount('error') > 0) {
      this.emit('error', error, message);
      return;
    }
    const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    const where =
      message === undefined ? '' : ` (a message of queue '${message.deliveryInfo.queue}', which stays unsettled)`;
    process.emitWarning(`a consumer without an 'error' listener failed: ${text}${where}`, { type: 'MozukuWarning' });
  }
}
