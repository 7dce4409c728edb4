/**
 * The inline consumer: callbacks run on this thread, as in kombu. It does not reconnect: whatever ends it, or a part of it, is
 * told by `closed`, by 'error', by the loop over its messages, or failing all of these by a warning of the process.
 * For work that costs CPU there is `ShardedConsumer`.
 */

import { EventEmitter } from 'node:events';
import type * as amqplib from 'amqplib';
import type { ExtendedTypes } from '../codec/extended-types.js';
import { ClosedError, ConsumerCancelled, OptionError, TimeoutError } from '../errors.js';
import type { Message } from '../message.js';
import { readOptions } from '../options.js';
import { ConsumerLife, tellError } from './consumer-life.js';
import * as known from './consumer-options.js';
import { Consuming } from './consuming.js';
import { withDeadline } from './deadline.js';
import type { CallOptions, Channel } from './entities/channel.js';
import { acceptSet, messageFrom, traitsOn } from './entities/delivery.js';
import { Queue } from './entities/queue.js';
import type { QueueDict } from './entities/queue-dict.js';
import { isThenable } from './entities/safely.js';
import { isTarget, readCallOptions, type Target } from './entities/target.js';
import { type Held, Unsettled } from './unsettled.js';

export * from './consumer-options.js';

/** Methods that ask the broker wait for each other, in the order of their calls. */
export class Consumer extends EventEmitter<known.ConsumerEvents> {
  readonly autoDeclare: boolean;
  readonly tagPrefix: string;
  readonly accept: ReadonlySet<string>;
  readonly noAck: boolean | undefined;
  readonly #maxDecodedBytes: number;
  readonly #types: ExtendedTypes;
  readonly #consuming: Consuming;
  #callbacks: known.Callback[];
  #onMessage: known.OnMessage | undefined;
  #onDecodeError: known.OnDecodeError | undefined;
  #prefetchCount: number | undefined;
  readonly #running = new Set<Promise<void>>();
  readonly #unsettled = new Unsettled();
  /** Messages for the loop that have no taker yet; without acks there is nothing held. */
  #inbox: { readonly message: Message; readonly held: Held | undefined; readonly onTaken: () => void }[] = [];
  #iterating = false;
  #wake: () => void = () => undefined;
  #life = new ConsumerLife();
  #closing: Promise<void> | undefined;

  /**
   * Does no I/O: queues are declared by `consume()`, `declare()` or `addQueue()`. A queue that is named twice is one.
   * Throws `OptionError`, and `SerializerNotInstalled` for an unknown name in `accept`.
   */
  constructor(target: Target, queues: Queue | readonly Queue[] = [], options: known.ConsumerOptions = {}) {
    super();
    if (!isTarget(target)) throw new OptionError('Consumer: the first argument must be a Connection or a Channel');
    const list = queues instanceof Queue ? [queues] : queues;
    if (!Array.isArray(list) || !list.every((each) => each instanceof Queue)) {
      throw new OptionError('Consumer: the second argument must be a Queue or a list of queues');
    }
    const given = readOptions('Consumer', known.CONSUMER_OPTIONS, options);
    this.autoDeclare = given.autoDeclare!;
    this.tagPrefix = given.tagPrefix!;
    this.noAck = given.noAck;
    this.accept = acceptSet(given.accept!);
    this.#maxDecodedBytes = given.maxDecodedBytes!;
    this.#types = given.types!;
    this.#prefetchCount = given.prefetchCount;
    this.#onDecodeError = given.onDecodeError;
    this.#callbacks = [...given.callbacks!];
    this.#onMessage = given.onMessage;
    this.#mustNotHaveBoth();
    this.#consuming = new Consuming(target, list, this, {
      deliver: (channel, raw, queue, noAck) => this.#deliver(channel, raw, queue, noAck),
      cancelled: (queue, consumerTag) => this.#cancelled(queue, consumerTag),
      lost: (channel, reason, consumed) => this.#lost(channel, reason, consumed),
    });
  }

  /** What it takes messages from, bound to its connection or channel; those that the broker named have their names. */
  get queues(): readonly Queue[] {
    return this.#consuming.queues;
  }

  /** Called in order with each message that comes from now on. Setting it copies the list. Throws `OptionError`. */
  get callbacks(): readonly known.Callback[] {
    return [...this.#callbacks];
  }
  set callbacks(callbacks: readonly known.Callback[]) {
    if (!known.callbacksKind.test(callbacks))
      throw new OptionError(`Consumer: callbacks must be ${known.callbacksKind.words}`);
    this.#mustNotHaveBoth(callbacks);
    this.#callbacks = [...callbacks];
  }

  /** In place of callbacks. Setting it throws `OptionError` while there are any. */
  get onMessage(): known.OnMessage | undefined {
    return this.#onMessage;
  }
  set onMessage(onMessage: known.OnMessage | undefined) {
    this.#mustNotHaveBoth(this.#callbacks, known.functionOrNone('onMessage', onMessage));
    this.#onMessage = onMessage;
  }

  /** Called with what cannot be decoded. */
  get onDecodeError(): known.OnDecodeError | undefined {
    return this.#onDecodeError;
  }
  set onDecodeError(onDecodeError: known.OnDecodeError | undefined) {
    this.#onDecodeError = known.functionOrNone('onDecodeError', onDecodeError);
  }

  /** Unsettled messages asked of the broker, per queue; `qos()` changes it. */
  get prefetchCount(): number | undefined {
    return this.#prefetchCount;
  }

  /** The connection or channel that it was made with, or moved to. */
  get target(): Target {
    return this.#consuming.target;
  }

  /** The channel that messages come through; undefined before the first `consume()`. */
  get channel(): Channel | undefined {
    return this.#consuming.channel;
  }

  /**
   * Resolves after `close()`, also of the connection; rejects with the reason when the consumer ends by itself. `consume()` after
   * that begins anew, and then this is another promise.
   */
  get closed(): Promise<void> {
    return this.#life.end;
  }

  /** True while the broker sends messages. */
  get consuming(): boolean {
    return this.#consuming.active;
  }

  /** Settlements that came too late: the broker has given the message to somebody else. */
  get stale(): number {
    return this.#unsettled.stale;
  }

  /** One more callback, after the others. Throws `OptionError`. */
  registerCallback(callback: known.Callback): void {
    this.callbacks = [...this.#callbacks, callback];
  }

  /** Declares the queues, with exchanges and bindings, whatever `autoDeclare` says. Throws as `Queue.declare`. */
  async declare(options?: CallOptions): Promise<void> {
    const call = readCallOptions('Consumer.declare', options);
    await this.#consuming.declare(call);
  }

  /**
   * One more queue, or another declaration of one that it has; declared unless `autoDeclare` is off. `consume()` starts on it.
   * Resolves with the bound queue. Throws as `Queue.declare`; then it is not added, and the others are not disturbed unless the
   * consumer was made with a channel, which the broker closes.
   */
  async addQueue(queue: Queue, options?: CallOptions): Promise<Queue> {
    if (!(queue instanceof Queue)) throw new OptionError('Consumer.addQueue: it takes a Queue');
    const call = readCallOptions('Consumer.addQueue', options);
    return this.#consuming.add(queue, call);
  }

  /** `addQueue(Queue.fromDict(name, dict))`. */
  async addQueueFromDict(name: string, dict?: QueueDict, options?: CallOptions): Promise<Queue> {
    return this.addQueue(Queue.fromDict(name, dict), options);
  }

  /** True while messages come from this queue. */
  consumingFrom(queue: Queue | string): boolean {
    known.mustBeQueueOrName('consumingFrom', queue);
    return this.#consuming.consumesFrom(queue);
  }

  /**
   * Declares the queues and starts consuming, from those it does not consume from yet; without queues it does nothing. After the
   * connection was lost it connects anew. Throws what declaring and connecting throw; `OptionError` if there is nothing to call.
   */
  async consume(options?: known.ConsumeOptions): Promise<void> {
    const { noAck, ...call } = readOptions<known.ConsumeOptions>('Consumer.consume', known.CONSUME_OPTIONS, options);
    await this.#start(noAck ?? this.noAck, call, false);
  }

  async #start(noAck: boolean | undefined, call: CallOptions, resume: boolean): Promise<void> {
    if (this.#closing !== undefined) throw new ClosedError('the consumer is closed');
    const mute = this.#callbacks.length === 0 && this.receive === Consumer.prototype.receive;
    if (mute && !this.#iterating && this.#onMessage === undefined) {
      throw new OptionError('Consumer: give it callbacks or onMessage, or loop over it with `for await`');
    }
    const begin = () => {
      if (this.#life.over) this.#life = new ConsumerLife();
      return this.#prefetchCount ?? (this.#iterating ? 64 : undefined);
    };
    await this.#consuming.start({ noAck, begin, resume }, call);
  }

  /**
   * Stops the flow of messages and waits for the broker to say so. Messages at hand can still be settled; `consume()` starts
   * again. The channel stays open until `close()`.
   */
  async cancel(options?: CallOptions): Promise<void> {
    const call = readCallOptions('Consumer.cancel', options);
    await this.#consuming.cancel(call);
    this.#wake();
  }

  /** Stops taking messages from one queue and forgets it; nothing to do if it has no such queue. */
  async cancelByQueue(queue: Queue | string, options?: CallOptions): Promise<void> {
    const call = readCallOptions('Consumer.cancelByQueue', options);
    known.mustBeQueueOrName('cancelByQueue', queue);
    await this.#consuming.remove(queue, call);
    this.#wake();
  }

  /** false: no more messages, true: they flow again, with acks or without as before. RabbitMQ has no `channel.flow`, so it cancels and consumes. */
  async flow(active: boolean, options?: CallOptions): Promise<void> {
    if (typeof active !== 'boolean') throw new OptionError('Consumer.flow: it takes true or false');
    const call = readCallOptions('Consumer.flow', options);
    await (active ? this.#start(this.noAck, call, true) : this.cancel(call));
  }

  /**
   * Sets how many unsettled messages the broker may have with it, per queue. What is consumed now gets a new consumer with this
   * limit, the old one is cancelled, and what it has brought does not count. Throws `OptionError`, also for what no RabbitMQ does.
   */
  async qos(options: known.QosOptions): Promise<void> {
    const read = readOptions<known.QosOptions>('Consumer.qos', known.QOS_OPTIONS, options);
    const { prefetchCount, prefetchSize: _size, applyGlobal: _global, ...call } = read;
    this.#prefetchCount = prefetchCount!;
    await this.#consuming.limit(prefetchCount!, call);
  }

  /** Gives all messages at hand back to their queues; what their callbacks settle after that is `stale`. Throws `OptionError`. */
  async recover(options?: known.RecoverOptions): Promise<void> {
    readOptions<known.RecoverOptions>('Consumer.recover', known.RECOVER_OPTIONS, options);
    this.#unsettled.giveBack();
    const isGone = ({ held }: { readonly held: Held | undefined }): boolean => held?.givenBack === true;
    for (const each of this.#inbox) if (isGone(each)) each.onTaken();
    this.#inbox = this.#inbox.filter((each) => !isGone(each));
  }

  /** Drops what waits in its queues; resolves with the number of messages. */
  async purge(options?: CallOptions): Promise<number> {
    const call = readCallOptions('Consumer.purge', options);
    return this.#consuming.purge(call);
  }

  /**
   * Moves to another connection or channel: leaves the old channel, binds the queues to the new target and declares them
   * (`autoDeclare`). `consume()` starts there, with the same prefetch. Throws as `Queue.declare`.
   */
  async revive(target: Target, options?: CallOptions): Promise<void> {
    if (!isTarget(target)) throw new OptionError('Consumer.revive: it takes a Connection or a Channel');
    const call = readCallOptions('Consumer.revive', options);
    await this.#consuming.move(target, call);
    this.#wake();
  }

  /** Hands a message to the callbacks, one after another. To be overridden; throws `OptionError` if there are none. */
  async receive(body: unknown, message: Message): Promise<void> {
    if (this.#callbacks.length === 0) throw new OptionError('Consumer: it has no callbacks');
    for (const callback of [...this.#callbacks]) {
      const result = callback(body, message);
      // Not waiting for what is no promise keeps the callbacks of one message together.
      if (isThenable(result)) await result;
    }
  }

  /**
   * Cancels, waits for the callbacks that run (25 s at most), and closes the consumer's own channel, whereby what is unsettled
   * goes back to its queue. A callback must not await it: it would wait for itself.
   */
  async close(options?: known.CloseOptions): Promise<void> {
    const { timeout } = readOptions<known.CloseOptions>('Consumer.close', known.CLOSE_OPTIONS, options);
    this.#closing ??= this.#close(timeout!);
    await this.#closing;
  }

  async #close(timeout: number): Promise<void> {
    try {
      await this.cancel();
      await withDeadline(Promise.all(this.#running), 'waiting for the callbacks of a consumer', timeout);
    } catch (error) {
      if (!(error instanceof TimeoutError)) throw error;
      tellError(this, error, undefined);
    } finally {
      await this.#consuming.close();
      this.#life.finish();
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
    if (this.#onMessage !== undefined || this.#callbacks.length > 0) {
      throw new OptionError('Consumer: a loop over the messages excludes callbacks and onMessage');
    }
    if (this.#iterating) throw new OptionError('Consumer: another loop takes the messages already');
    this.#iterating = true;
    try {
      await this.consume();
      for (;;) {
        const next = this.#inbox.shift();
        next?.onTaken();
        if (next !== undefined) yield next.message;
        else if (this.#life.failure !== undefined) throw this.#life.failure;
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
        this.#inbox = left.filter(({ held }) => held === undefined);
        for (const { message, held } of left) if (held !== undefined) message.requeue();
      }
    }
  }

  /** Called by amqplib, which closes the channel if this throws. */
  #deliver(channel: Channel, raw: amqplib.ConsumeMessage, queue: string, noAck: boolean): Promise<void> | undefined {
    const held = noAck ? undefined : this.#unsettled.add(channel, raw);
    const decoding = { accept: this.accept, maxDecodedBytes: this.#maxDecodedBytes, types: this.#types };
    const settle = held === undefined ? () => undefined : this.#unsettled.settle(held);
    const message = messageFrom(raw, queue, decoding, settle, traitsOn(channel, raw, noAck));
    if (this.#iterating) {
      const taken = new Promise<void>((onTaken) => this.#inbox.push({ message, held, onTaken }));
      this.#wake();
      return taken;
    }
    const run = this.#run(message)
      .catch((error: unknown) => tellError(this, error, message))
      .finally(() => this.#running.delete(run));
    this.#running.add(run);
    return run;
  }

  async #run(message: Message): Promise<void> {
    if (this.#onMessage !== undefined) {
      await this.#onMessage(message);
      return;
    }
    let body: unknown;
    try {
      body = message.payload;
    } catch (error) {
      if (this.#onDecodeError === undefined) throw error;
      await this.#onDecodeError(message, error);
      return;
    }
    await this.receive(body, message);
  }

  #cancelled(queue: string, consumerTag: string): void {
    const text = `the broker cancelled the consumer of queue '${queue}': the queue was deleted, or is not available`;
    const error = new ConsumerCancelled(text, { details: { queue, consumerTag } });
    if (this.#iterating || !this.consuming) this.#fail(error);
    else tellError(this, error, undefined);
  }

  #lost(channel: Channel, reason: Error | undefined, consumed: boolean): void {
    this.#unsettled.lost(channel);
    // The broker gives these to somebody else.
    this.#inbox = this.#inbox.filter(({ held }) => held === undefined);
    if (consumed && this.#closing === undefined) {
      if (reason !== undefined) this.#fail(reason);
      else this.#life.finish();
    }
    this.#wake();
  }

  /** The consumer is at its end. */
  #fail(error: Error): void {
    this.#life.finish(error);
    this.#wake();
    if (this.listenerCount('error') > 0 || (!this.#life.observed && !this.#iterating))
      tellError(this, error, undefined);
  }

  #mustNotHaveBoth(callbacks: readonly known.Callback[] = this.#callbacks, onMessage = this.#onMessage): void {
    if (onMessage !== undefined && callbacks.length > 0) {
      throw new OptionError('Consumer: callbacks and onMessage exclude each other');
    }
  }
}
