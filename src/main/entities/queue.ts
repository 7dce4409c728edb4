/** Queues: what they are, declaring them with their exchange and bindings, purging, deleting, getting single messages. */
import { isDeepStrictEqual } from 'node:util';
import { toTable } from '../../codec/amqp/plain-table.js';
import { OptionError } from '../../errors.js';
import type { Message } from '../../message.js';
import { kinds, type OptionTable, readOptions } from '../../options.js';
import { ENTITY } from '../../pool/entity.js';
import { Binding } from './binding.js';
import { declareQueue, queueArgumentsOf } from './declare.js';
import { acceptSet, DEFAULT_ACCEPT, messageFrom, settleOn } from './delivery.js';
import { type BindOptions, bindingArguments, Exchange } from './exchange.js';
import { channelOf, frozenTable, type Target, targetFirst, targetKind } from './target.js';

export interface QueueOptions {
  readonly routingKey?: string;
  readonly channel?: Target;
  readonly bindings?: readonly Binding[];
  readonly durable?: boolean;
  readonly exclusive?: boolean;
  readonly autoDelete?: boolean;
  readonly passive?: boolean;
  readonly noAck?: boolean;
  readonly noDeclare?: boolean;
  readonly alias?: string;
  readonly expires?: number;
  readonly messageTtl?: number;
  readonly maxLength?: number;
  readonly maxLengthBytes?: number;
  readonly maxPriority?: number;
  readonly queueArguments?: Record<string, unknown>;
  readonly bindingArguments?: Record<string, unknown>;
  readonly consumerArguments?: Record<string, unknown>;
}

const BINDINGS = kinds.custom<readonly Binding[]>(
  'a list of bindings',
  (value) => Array.isArray(value) && value.every((each) => each instanceof Binding),
);
const COUNT = kinds.integer(0, Number.MAX_SAFE_INTEGER);

export const QUEUE_OPTIONS: OptionTable<QueueOptions> = {
  routingKey: { kind: kinds.shortString, default: '', doc: 'Binds the queue to its exchange.' },
  channel: { kind: targetKind, doc: 'Binds the entity to a connection or channel.' },
  bindings: { kind: BINDINGS, default: [], doc: 'Bindings to several exchanges; then `exchange` is not used.' },
  durable: { kind: kinds.boolean, default: true, doc: "Outlives the broker's restart." },
  exclusive: { kind: kinds.boolean, default: false, doc: 'For the declaring connection alone; implies `autoDelete`.' },
  autoDelete: { kind: kinds.boolean, default: false, doc: 'Goes when its last consumer does.' },
  passive: { kind: kinds.boolean, default: false, doc: 'Declaring only checks that it is there, and binds nothing.' },
  noAck: { kind: kinds.boolean, default: false, doc: 'Its messages need no ack, unless a consumer says otherwise.' },
  noDeclare: { kind: kinds.boolean, default: false, doc: 'Declaring does nothing.' },
  alias: { kind: kinds.string, doc: 'A name for programs; the broker does not see it.' },
  expires: { kind: kinds.milliseconds, doc: 'Unused for so long, the queue is deleted (ms).' },
  messageTtl: { kind: kinds.milliseconds, doc: 'Messages older than this are dropped (ms).' },
  maxLength: { kind: COUNT, doc: 'The most messages.' },
  maxLengthBytes: { kind: COUNT, doc: 'The most bytes of bodies.' },
  maxPriority: { kind: kinds.integer(0, 255), doc: 'Makes it a priority queue.' },
  queueArguments: {
    kind: kinds.object,
    doc: "More arguments, such as { 'x-queue-type': 'quorum' }; the options above win.",
  },
  bindingArguments: { kind: kinds.object, doc: 'Of the binding to `exchange`.' },
  consumerArguments: { kind: kinds.object, doc: "Of its consumers, such as { 'x-priority': 5 }." },
};

export interface GetOptions {
  readonly noAck?: boolean;
  readonly accept?: readonly string[];
}

const GET_OPTIONS: OptionTable<GetOptions> = {
  noAck: { kind: kinds.boolean, defaultWords: 'as the queue', doc: 'The message needs no ack.' },
  accept: { kind: kinds.strings, default: DEFAULT_ACCEPT, doc: 'Content types or aliases that may be decoded.' },
};

export interface QueueDeleteOptions {
  readonly ifUnused?: boolean;
  readonly ifEmpty?: boolean;
}

const DELETE_OPTIONS: OptionTable<QueueDeleteOptions> = {
  ifUnused: { kind: kinds.boolean, default: false, doc: 'Only if it has no consumers.' },
  ifEmpty: { kind: kinds.boolean, default: false, doc: 'Only if it has no messages.' },
};

/**
 * A queue, the exchange it takes messages from, and the routing key between them. Immutable. Without an exchange messages
 * come through the default exchange, by the queue's name. Without a name the broker invents one: `declare()` returns it.
 */
export class Queue {
  readonly name: string;
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
  readonly #options: QueueOptions;

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
    this.name = name;
    this.bindings = Object.freeze([...new Set([...given.bindings!, ...listed])]);
    const single = exchange instanceof Exchange ? exchange : new Exchange(kinds.string.test(exchange) ? exchange : '');
    this.exchange = this.bindings.length > 0 ? undefined : single;
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
    this.#options = { ...given, bindings: this.bindings };
    Object.freeze(this);
  }

  /** @internal */
  get [ENTITY](): 'queue' {
    return 'queue';
  }

  /** The connection or channel it is bound to. */
  get channel(): Target | undefined {
    return this.#options.channel;
  }

  get isBound(): boolean {
    return this.#options.channel !== undefined;
  }

  /** A copy that talks through `target`. */
  bind(target: Target): Queue {
    return new Queue(this.name, this.exchange, { ...this.#options, channel: target });
  }

  /** A copy with another name, such as the one the broker gave. */
  named(name: string): Queue {
    return new Queue(name, this.exchange, this.#options);
  }

  /**
   * Declares the exchange, the queue and the bindings, in this order, and resolves with the queue's name.
   * Throws `NotBoundError`, `PreconditionFailed` (it exists, but otherwise), `NotFound` (passive), `ResourceLocked`
   * (exclusive to another connection), `AccessRefused`.
   */
  async declare(target?: Target): Promise<string> {
    const channel = await channelOf(target, this.channel, String(this));
    return channel.call(`declaring ${this}`, (raw) => declareQueue(raw, this));
  }

  /** Drops the messages that wait in it; resolves with their number. */
  async purge(target?: Target): Promise<number> {
    const channel = await channelOf(target, this.channel, String(this));
    const { messageCount } = await channel.call(`purging ${this}`, (raw) => raw.purgeQueue(this.name));
    return messageCount;
  }

  /** Deletes it; resolves with the number of messages lost. Throws `PreconditionFailed` if a condition does not hold. */
  async delete(target: Target, options?: QueueDeleteOptions): Promise<number>;
  async delete(options?: QueueDeleteOptions): Promise<number>;
  async delete(first?: Target | QueueDeleteOptions, second?: QueueDeleteOptions): Promise<number> {
    const [target, options] = targetFirst(first, second);
    const { ifUnused, ifEmpty } = readOptions('Queue.delete', DELETE_OPTIONS, options) as Required<QueueDeleteOptions>;
    const channel = await channelOf(target, this.channel, String(this));
    const { messageCount } = await channel.call(`deleting ${this}`, (raw) =>
      raw.deleteQueue(this.name, { ifUnused, ifEmpty }),
    );
    channel.declared.clear();
    return messageCount;
  }

  /** Takes one message, or null if none waits. It is settled on the channel it came through. */
  async get(target: Target, options?: GetOptions): Promise<Message | null>;
  async get(options?: GetOptions): Promise<Message | null>;
  async get(first?: Target | GetOptions, second?: GetOptions): Promise<Message | null> {
    const [target, options] = targetFirst(first, second);
    const given = readOptions('Queue.get', GET_OPTIONS, options);
    const noAck = given.noAck ?? this.noAck;
    const accept = acceptSet(given.accept!);
    const channel = await channelOf(target, this.channel, String(this));
    const found = await channel.call(
      `getting from ${this}`,
      (raw) => raw.get(this.name, { noAck }),
      {},
      (late) => {
        if (late !== false && !noAck && !channel.closed) channel.raw.nack(late);
      },
    );
    return found === false ? null : messageFrom(found, this.name, { accept }, settleOn(channel, found, noAck));
  }

  /** Binds it to one more exchange. */
  async bindTo(source: Exchange | string, options?: BindOptions, target?: Target): Promise<void> {
    const { from, key, args } = bindingArguments(source, options, 'Queue.bindTo');
    const channel = await channelOf(target, this.channel, String(this));
    await channel.call(`binding ${this} to exchange '${from}'`, (raw) => raw.bindQueue(this.name, from, key, args));
  }

  /** Undoes a binding with the same source, key and arguments. */
  async unbindFrom(source: Exchange | string, options?: BindOptions, target?: Target): Promise<void> {
    const { from, key, args } = bindingArguments(source, options, 'Queue.unbindFrom');
    const channel = await channelOf(target, this.channel, String(this));
    await channel.call(`unbinding ${this} from exchange '${from}'`, (raw) =>
      raw.unbindQueue(this.name, from, key, args),
    );
    channel.declared.clear();
  }

  /** Undoes what `declare()` bound: the binding to its exchange, or all of its `bindings`. */
  async unbind(target?: Target): Promise<void> {
    const channel = await channelOf(target, this.channel, String(this));
    const { exchange, routingKey, bindingArguments: args } = this;
    const own = exchange === undefined || exchange.name === '' ? [] : [{ exchange, routingKey, arguments: args }];
    for (const each of [...own, ...this.bindings]) {
      const table = toTable(
        ('unbindArguments' in each ? each.unbindArguments : undefined) ?? each.arguments ?? {},
        'arguments',
      );
      const doing = `unbinding ${this} from ${each.exchange}`;
      await channel.call(doing, (raw) => raw.unbindQueue(this.name, each.exchange.name, each.routingKey, table));
    }
    channel.declared.clear();
  }

  /** True if both would be declared, bound and consumed in the same way. */
  equals(other: unknown): boolean {
    if (!(other instanceof Queue)) return false;
    const sameExchange = this.exchange?.equals(other.exchange) ?? other.exchange === undefined;
    return sameExchange && isDeepStrictEqual(facts(this), facts(other));
  }

  toString(): string {
    return this.name === '' ? 'a queue without a name' : `queue '${this.name}'`;
  }
}

function facts(queue: Queue): unknown[] {
  const {
    name,
    routingKey,
    durable,
    exclusive,
    autoDelete,
    bindingArguments: bind,
    consumerArguments: consume,
  } = queue;
  return [
    name,
    routingKey,
    durable,
    exclusive,
    autoDelete,
    queueArgumentsOf(queue),
    bind ?? {},
    consume ?? {},
    queue.bindings,
  ];
}
