/** Queues: what they are, declaring them with their exchange and bindings, purging, deleting, getting and consuming messages. */
import { inspect, isDeepStrictEqual } from 'node:util';
import type * as amqplib from 'amqplib';
import { OptionError } from '../../errors.js';
import type { Message } from '../../message.js';
import { kinds, readOptions } from '../../options.js';
import { ENTITY } from '../../pool/entity.js';
import type { CallOptions, Channel, Declared } from './channel.js';
import { declareAlone, declareWithBindings, queueArgumentsOf } from './declare.js';
import {
  type Binding,
  type BindOptions,
  bindingArguments,
  DECLARE_OPTIONS,
  type DeclareOptions,
  Exchange,
} from './exchange.js';
import { type QueueDict, queueDict, readQueueDict } from './queue-dict.js';
import {
  BINDINGS,
  CONSUME_OPTIONS,
  DELETE_OPTIONS,
  GET_OPTIONS,
  type GetOptions,
  type OnDeclared,
  QUEUE_OPTIONS,
  type QueueConsumeOptions,
  type QueueDeleteOptions,
  type QueueFacts,
  type QueueOptions,
  UNBIND_OPTIONS,
  type UnbindOptions,
} from './queue-options.js';
import { startConsumer, stopConsumer, takeOne } from './queue-taking.js';
import { ask, frozenTable, readCallOptions, type Target, targetFirst, targetOf } from './target.js';

export { QUEUE_OPTIONS, type QueueFacts, type QueueOptions } from './queue-options.js';

/**
 * A queue, the exchange it takes messages from, and the routing key between them. Immutable, but for a bound one: it adopts the
 * name that the broker gives it, and `revive()` moves it. Without an exchange messages come through the default exchange, by the
 * queue's name. Without a name the broker invents one: `declare()` returns it. Other kinds of queues are asked for with
 * `queueArguments`: `{ 'x-queue-type': 'quorum' }`, `{ 'x-queue-type': 'stream' }`.
 */
export class Queue {
  /** Empty until the broker has named it, which only a bound queue takes over. */
  readonly name!: string;
  /** Undefined if there are `bindings` instead. */
  readonly exchange: Exchange | undefined;
  readonly routingKey: string;
  readonly bindings: readonly Binding[];
  readonly durable: boolean;
  readonly exclusive: boolean;
  readonly autoDelete: boolean;
  readonly passive: boolean;
  readonly noAck: boolean;
  readonly noDeclare: boolean;
  readonly alias: string | undefined;
  readonly expires: number | undefined;
  readonly messageTtl: number | undefined;
  readonly maxLength: number | undefined;
  readonly maxLengthBytes: number | undefined;
  readonly maxPriority: number | undefined;
  readonly queueArguments: Readonly<Record<string, unknown>> | undefined;
  readonly bindingArguments: Readonly<Record<string, unknown>> | undefined;
  readonly consumerArguments: Readonly<Record<string, unknown>> | undefined;
  readonly onDeclared: OnDeclared | undefined;
  readonly #options: QueueOptions;
  readonly #name: string;
  /** The broker's name for it, and the life of the connection in which it gave it. */
  #adopted: { readonly name: string; readonly life: Declared } | undefined;
  #target: Target | undefined;
  /** The channels of `consume()`, by consumer tag; of the copies too. */
  #consumers = new Map<string, Channel>();

  /**
   * `exchange`: an Exchange, the name of a direct one, or a list of bindings; without one the options may come second.
   * Throws `OptionError`.
   */
  constructor(name?: string, exchange?: Exchange | string | readonly Binding[], options?: QueueOptions);
  constructor(name?: string, options?: QueueOptions);
  constructor(
    name = '',
    second?: Exchange | string | readonly Binding[] | QueueOptions,
    third: QueueOptions | undefined = undefined,
  ) {
    if (!kinds.shortString.test(name)) throw new OptionError(`Queue: the name must be ${kinds.shortString.words}`);
    const optionsSecond = kinds.object.test(second) && !(second instanceof Exchange) && third === undefined;
    const exchange = optionsSecond ? undefined : (second as Exchange | string | readonly Binding[] | undefined);
    const options = optionsSecond ? (second as QueueOptions) : (third ?? {});
    if (
      exchange !== undefined &&
      !(exchange instanceof Exchange) &&
      !kinds.string.test(exchange) &&
      !BINDINGS.test(exchange)
    ) {
      throw new OptionError(
        'Queue: the exchange must be an Exchange, a name, or a list of bindings; options come last',
      );
    }
    const given = readOptions('Queue', QUEUE_OPTIONS, options);
    const listed = BINDINGS.test(exchange) ? exchange : [];
    this.#name = name;
    // A property like the others, to whoever copies, prints or compares a queue.
    Object.defineProperty(this, 'name', { get: () => this.#adopted?.name ?? name, enumerable: true });
    this.bindings = Object.freeze([...new Set([...given.bindings!, ...listed])]);
    const single = exchange instanceof Exchange ? exchange : new Exchange(kinds.string.test(exchange) ? exchange : '');
    const bound = given.channel === undefined ? single : single.bind(given.channel);
    this.exchange = this.bindings.length > 0 ? undefined : bound;
    this.routingKey = given.routingKey!;
    this.durable = given.durable!;
    this.exclusive = given.exclusive!;
    this.autoDelete = given.autoDelete! || this.exclusive;
    this.passive = given.passive!;
    this.noAck = given.noAck!;
    this.noDeclare = given.noDeclare!;
    this.alias = given.alias;
    this.expires = given.expires;
    this.messageTtl = given.messageTtl;
    this.maxLength = given.maxLength;
    this.maxLengthBytes = given.maxLengthBytes;
    this.maxPriority = given.maxPriority;
    this.queueArguments = frozenTable(given.queueArguments);
    this.bindingArguments = frozenTable(given.bindingArguments);
    this.consumerArguments = frozenTable(given.consumerArguments);
    this.onDeclared = given.onDeclared;
    this.#options = { ...given, bindings: this.bindings };
    this.#target = given.channel;
    Object.freeze(this);
  }

  /**
   * From a plain object: what `asDict` makes, or a name and kombu's flat options, in which `durable` and `autoDelete` are the
   * queue's and the exchange's (`exchange exchangeType exchangeDurable … queueDurable … bindingKey`), also as Python spells them
   * (`exchange_type`). null counts as absent. Throws `OptionError`.
   */
  static fromDict(name: string, options?: QueueDict): Queue;
  static fromDict(dict: QueueDict): Queue;
  static fromDict(first: string | QueueDict, options: QueueDict = {}): Queue {
    return new Queue(...readQueueDict(typeof first === 'string' ? { ...options, name: first } : first));
  }

  /** True if its name is the broker's. */
  get isServerNamed(): boolean {
    return this.#adopted !== undefined;
  }

  /** The connection or channel it is bound to. Throws `NotBoundError`. */
  get channel(): Target {
    return targetOf(undefined, this.#target, String(this));
  }

  /** @internal */
  get [ENTITY](): 'queue' {
    return 'queue';
  }

  get isBound(): boolean {
    return this.#target !== undefined;
  }

  /** True if one declaration lasts as long as a connection: it does not go away by itself. */
  get canCacheDeclaration(): boolean {
    return !this.autoDelete && queueArgumentsOf(this)['x-expires'] === undefined;
  }

  /** A copy that talks through `target`, and its exchange with it. */
  bind(target: Target): Queue {
    const copy = this.copyWith(this.#name, { ...this.#options, channel: target });
    copy.#adopted = this.#adopted;
    copy.#consumers = this.#consumers;
    return copy;
  }

  /** A bound queue and its exchange talk through `target` from now on; one that is not bound stays so. */
  revive(target: Target): void {
    if (this.#target === undefined) return;
    this.#target = targetOf(target, undefined, String(this));
    this.exchange?.revive(target);
  }

  /** A copy with another name, such as the one the broker gave. */
  named(name: string): Queue {
    const channel = this.#target === undefined ? {} : { channel: this.#target };
    return this.copyWith(name, { ...this.#options, ...channel });
  }

  /** @internal What `bind` and `named` make; for subclasses. */
  protected copyWith(name: string, options: QueueOptions): Queue {
    return new Queue(name, this.exchange, options);
  }

  /**
   * Declares the exchange, the queue and the bindings, in this order, and resolves with the queue's name. With `passive` it is
   * only looked at. Throws `NotBoundError`, `PreconditionFailed` (it exists, but otherwise), `NotFound` (passive),
   * `ResourceLocked` (exclusive to another connection), `AccessRefused`.
   */
  async declare(target: Target | undefined, options?: DeclareOptions): Promise<string>;
  async declare(options?: Target | DeclareOptions): Promise<string>;
  async declare(first?: Target | DeclareOptions, second?: DeclareOptions): Promise<string> {
    const [given, options] = targetFirst(first, second);
    const { passive, ...call } = readOptions<DeclareOptions>('Queue.declare', DECLARE_OPTIONS, options);
    const target = targetOf(given, this.#target, String(this));
    if (this.noDeclare) return this.name;
    const look = passive ?? this.passive;
    return (await this.#declareBy(look ? declareOnly(true) : declareWithBindings, target, call)).name;
  }

  /** Declares the queue alone, not its exchange or bindings, whatever `noDeclare` says. Throws as `declare`. */
  async queueDeclare(target: Target | undefined, options?: DeclareOptions): Promise<QueueFacts>;
  async queueDeclare(options?: Target | DeclareOptions): Promise<QueueFacts>;
  async queueDeclare(first?: Target | DeclareOptions, second?: DeclareOptions): Promise<QueueFacts> {
    const [given, options] = targetFirst(first, second);
    const { passive, ...call } = readOptions<DeclareOptions>('Queue.queueDeclare', DECLARE_OPTIONS, options);
    const target = targetOf(given, this.#target, String(this));
    return this.#declareBy(declareOnly(passive ?? this.passive), target, call);
  }

  /** Binds it to its exchange by its routing key and `bindingArguments`. Throws `NotFound`. */
  async queueBind(target?: Target, options?: CallOptions): Promise<void> {
    await this.bindTo(
      this.#ownExchange(),
      { ...this.#ownWay(), ...readCallOptions('Queue.queueBind', options) },
      target,
    );
  }

  /** Undoes `queueBind`. */
  async queueUnbind(target: Target | undefined, options?: UnbindOptions): Promise<void>;
  async queueUnbind(options?: Target | UnbindOptions): Promise<void>;
  async queueUnbind(first?: Target | UnbindOptions, second?: UnbindOptions): Promise<void> {
    const [target, options] = targetFirst(first, second);
    const given = readOptions<UnbindOptions>('Queue.queueUnbind', UNBIND_OPTIONS, options);
    await this.unbindFrom(this.#ownExchange(), { ...this.#ownWay(), ...given }, target);
  }

  /** Drops the messages that wait in it; resolves with their number. */
  async purge(target?: Target, options?: CallOptions): Promise<number> {
    const call = readCallOptions('Queue.purge', options);
    const to = targetOf(target, this.#target, String(this));
    return (await ask(to, `purging ${this}`, (raw) => raw.purgeQueue(this.name), call)).messageCount;
  }

  /** Deletes it; resolves with the number of messages lost. Throws `PreconditionFailed` if a condition does not hold. */
  async delete(target: Target | undefined, options?: QueueDeleteOptions): Promise<number>;
  async delete(options?: Target | QueueDeleteOptions): Promise<number>;
  async delete(first?: Target | QueueDeleteOptions, second?: QueueDeleteOptions): Promise<number> {
    const [given, options] = targetFirst(first, second);
    const { ifUnused, ifEmpty, ...call } = readOptions<QueueDeleteOptions>('Queue.delete', DELETE_OPTIONS, options);
    const remove = async (raw: amqplib.ConfirmChannel, channel: Channel): Promise<number> => {
      const { messageCount } = await raw.deleteQueue(this.name, { ifUnused: ifUnused!, ifEmpty: ifEmpty! });
      channel.declared.clear();
      this.#adopted = undefined;
      return messageCount;
    };
    return ask(targetOf(given, this.#target, String(this)), `deleting ${this}`, remove, call);
  }

  /** Takes one message, or null if none waits. It is settled on the channel it came through. */
  async get(target: Target | undefined, options?: GetOptions): Promise<Message | null>;
  async get(options?: Target | GetOptions): Promise<Message | null>;
  async get(first?: Target | GetOptions, second?: GetOptions): Promise<Message | null> {
    const [given, options] = targetFirst(first, second);
    const read = readOptions<GetOptions>('Queue.get', GET_OPTIONS, options);
    return takeOne(this, targetOf(given, this.#target, String(this)), read);
  }

  /**
   * Starts a consumer on this thread and resolves with its tag; `cancel(tag)` ends it. It is the plain way: no prefetch, no
   * decoding, nothing starts it again. What `callback` throws becomes a warning of the process, the message stays unsettled. It
   * ends with its channel, which `onCancel` hears of, or a warning. `Consumer` does all of that. Throws `NotFound`, `AccessRefused` (the queue has an exclusive consumer).
   */
  async consume(target: Target | undefined, options: QueueConsumeOptions): Promise<string>;
  async consume(options: QueueConsumeOptions): Promise<string>;
  async consume(first: Target | QueueConsumeOptions | undefined, second?: QueueConsumeOptions): Promise<string> {
    const [given, options] = targetFirst(first, second);
    const read = readOptions<QueueConsumeOptions>('Queue.consume', CONSUME_OPTIONS, options);
    return startConsumer(this, targetOf(given, this.#target, String(this)), read, this.#consumers);
  }

  /**
   * Ends a consumer that `consume` of this queue, or of a copy of it, has started; nothing to do for one that is gone. What it has
   * brought can still be settled.
   */
  async cancel(consumerTag: string, options?: CallOptions): Promise<void> {
    await stopConsumer(consumerTag, options, this.#consumers);
  }

  /** Binds it to one more exchange. */
  async bindTo(source: Exchange | string, options?: BindOptions, target?: Target): Promise<void>;
  async bindTo(source: Exchange | string, target: Target, options?: BindOptions): Promise<void>;
  async bindTo(source: Exchange | string, second?: BindOptions | Target, third?: Target | BindOptions): Promise<void> {
    const { from, key, args, call, given } = bindingArguments(source, second, third, 'Queue.bindTo');
    const target = targetOf(given, this.#target, String(this));
    const doing = `binding ${this} to exchange '${from}'`;
    await ask(target, doing, (raw) => raw.bindQueue(this.name, from, key, args), call);
  }

  /** Undoes a binding with the same source, key and arguments. */
  async unbindFrom(source: Exchange | string, options?: BindOptions, target?: Target): Promise<void>;
  async unbindFrom(source: Exchange | string, target: Target, options?: BindOptions): Promise<void>;
  async unbindFrom(source: Exchange | string, second?: BindOptions | Target, third?: Target | BindOptions) {
    const { from, key, args, call, given } = bindingArguments(source, second, third, 'Queue.unbindFrom');
    const unbind = async (raw: amqplib.ConfirmChannel, channel: Channel) => {
      await raw.unbindQueue(this.name, from, key, args);
      channel.declared.clear();
    };
    const target = targetOf(given, this.#target, String(this));
    await ask(target, `unbinding ${this} from exchange '${from}'`, unbind, call);
  }

  /** Undoes what `declare()` bound: the binding to its exchange, or all of its `bindings`. */
  async unbind(target?: Target, options?: CallOptions): Promise<void> {
    const call = readCallOptions('Queue.unbind', options);
    const to = targetOf(target, this.#target, String(this));
    if (this.exchange !== undefined && this.exchange.name !== '') await this.queueUnbind(to, call);
    for (const each of this.bindings) await each.unbind(this, to, call);
  }

  /** Its attributes as a plain object, for JSON and `fromDict`; `channel` and `onDeclared` are not in it. */
  asDict(): QueueDict {
    return queueDict(this);
  }

  toJSON(): QueueDict {
    return this.asDict();
  }

  /** True if both would be declared, bound and consumed in the same way. */
  equals(other: unknown): boolean {
    if (!(other instanceof Queue) || !isDeepStrictEqual(facts(this), facts(other))) return false;
    const theirs = exchangesOf(other);
    return exchangesOf(this).every((each, index) => each.equals(theirs[index]));
  }

  [inspect.custom](): string {
    return `Queue ${inspect(this.asDict())}`;
  }

  toString(): string {
    return this.name === '' ? 'a queue without a name' : `queue '${this.name}'`;
  }

  async #declareBy(declare: DeclareBy, target: Target, call: CallOptions): Promise<QueueFacts> {
    const found = await ask(
      target,
      `declaring ${this}`,
      async (raw, channel) => {
        const as = this.#nameIn(channel.declared);
        const reply = await declare(raw, this, as, as !== this.#name);
        if (as === '' && this.#target !== undefined) this.#adopted = { name: reply.name, life: channel.declared };
        return reply;
      },
      call,
    );
    // Outside of the question: what the caller throws is the caller's.
    this.onDeclared?.(found.name, found.messages, found.consumers);
    return found;
  }

  /** A queue that went with its connection gets a new name: the broker gives its own names to nobody who asks for them. */
  #nameIn(life: Declared): string {
    if (this.#adopted === undefined) return this.#name;
    return this.autoDelete && this.#adopted.life !== life ? '' : this.#adopted.name;
  }

  #ownExchange(): Exchange {
    if (this.exchange !== undefined) return this.exchange;
    throw new OptionError(
      `${this} has bindings in place of an exchange: bind and unbind them, or name one with bindTo`,
    );
  }

  #ownWay(): BindOptions {
    const { routingKey, bindingArguments: args } = this;
    return { routingKey, ...(args === undefined ? {} : { arguments: args }) };
  }
}

type DeclareBy = (raw: amqplib.ConfirmChannel, queue: Queue, as: string, there: boolean) => Promise<QueueFacts>;

const declareOnly =
  (passive: boolean): DeclareBy =>
  (raw, queue, as, there) =>
    declareAlone(raw, queue, as, passive || there);

/** One, or those of its bindings. */
function exchangesOf({ exchange, bindings }: Queue): Exchange[] {
  return exchange === undefined ? bindings.map((each) => each.exchange) : [exchange];
}

function facts(queue: Queue): unknown[] {
  const { name, routingKey, durable, exclusive, autoDelete, bindings } = queue;
  const tables = [queueArgumentsOf(queue), queue.bindingArguments ?? {}, queue.consumerArguments ?? {}];
  const ways = bindings.map((each) => [each.routingKey, each.arguments ?? {}]);
  return [name, routingKey, durable, exclusive, autoDelete, tables, ways];
}
