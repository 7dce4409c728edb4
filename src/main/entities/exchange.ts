/** Exchanges and the ways out of them: what they are, declaring, binding to each other, publishing bytes, deleting. */
import { isDeepStrictEqual } from 'node:util';
import type * as amqplib from 'amqplib';
import { toTable } from '../../codec/amqp/plain-table.js';
import { OptionError } from '../../errors.js';
import { kinds, type OptionTable, readOptions } from '../../options.js';
import { type DeliveryMode, deliveryModeKind, deliveryModeNumber, ENTITY } from '../../pool/entity.js';
import { errorFromAmqp, saysOnlyClosed } from '../transports/amqp/errors.js';
import type { CallOptions } from './channel.js';
import {
  type ExchangePublishOptions,
  type OutgoingMessage,
  type OutgoingOptions,
  outgoingMessage,
  publishTo,
} from './publishing.js';
import {
  ask,
  CALL_OPTIONS,
  frozenTable,
  isTarget,
  readCallOptions,
  type Target,
  targetFirst,
  targetKind,
  targetOf,
} from './target.js';

export { type DeliveryMode, deliveryModeKind } from '../../pool/entity.js';

export interface ExchangeOptions {
  readonly type?: string;
  readonly channel?: Target;
  readonly durable?: boolean;
  readonly autoDelete?: boolean;
  readonly passive?: boolean;
  readonly deliveryMode?: DeliveryMode;
  readonly arguments?: Record<string, unknown>;
  readonly noDeclare?: boolean;
}

export const EXCHANGE_OPTIONS: OptionTable<ExchangeOptions> = {
  type: {
    kind: kinds.shortName,
    default: 'direct',
    doc: "'direct', 'topic', 'fanout', 'headers', or a type of a broker's plugin.",
  },
  channel: { kind: targetKind, doc: 'Binds the exchange to a connection or channel.' },
  durable: { kind: kinds.boolean, default: true, doc: "Outlives the broker's restart." },
  autoDelete: { kind: kinds.boolean, default: false, doc: 'Goes when its last queue is unbound.' },
  passive: { kind: kinds.boolean, default: false, doc: 'Declaring only checks that it is there.' },
  deliveryMode: { kind: deliveryModeKind, doc: 'Of messages published to it that name none; else 2.' },
  arguments: { kind: kinds.object, doc: "Arguments of the declaration, such as 'alternate-exchange'." },
  noDeclare: { kind: kinds.boolean, default: false, doc: 'Declaring does nothing.' },
};

/** An exchange as a plain object: what `asDict` makes and `fromDict` takes. */
export type ExchangeDict = Omit<ExchangeOptions, 'channel'> & { readonly name: string };

export interface DeclareOptions extends CallOptions {
  readonly passive?: boolean;
}

export const DECLARE_OPTIONS: OptionTable<DeclareOptions> = {
  passive: { kind: kinds.boolean, defaultWords: 'as the entity', doc: 'Only checks that it is there.' },
  ...CALL_OPTIONS,
};

export interface BindOptions extends CallOptions {
  readonly routingKey?: string;
  readonly arguments?: Record<string, unknown>;
}

export const BIND_OPTIONS: OptionTable<BindOptions> = {
  routingKey: { kind: kinds.shortString, default: '', doc: 'The key or pattern.' },
  arguments: { kind: kinds.object, doc: 'Of the binding; what a headers exchange matches.' },
  ...CALL_OPTIONS,
};

export interface ExchangeDeleteOptions extends CallOptions {
  readonly ifUnused?: boolean;
}

const DELETE_OPTIONS: OptionTable<ExchangeDeleteOptions> = {
  ifUnused: { kind: kinds.boolean, default: false, doc: 'Only if no queue is bound.' },
  ...CALL_OPTIONS,
};

/**
 * An exchange. Immutable, but that `revive()` moves a bound one. Without a name it is the default exchange, which routes to the
 * queue that the routing key names and is never declared.
 */
export class Exchange {
  static readonly TRANSIENT_DELIVERY_MODE = 1;
  static readonly PERSISTENT_DELIVERY_MODE = 2;

  readonly name: string;
  readonly type: string;
  readonly durable: boolean;
  readonly autoDelete: boolean;
  readonly passive: boolean;
  readonly deliveryMode: 1 | 2 | undefined;
  readonly arguments: Readonly<Record<string, unknown>> | undefined;
  readonly noDeclare: boolean;
  readonly #options: ExchangeOptions;
  #target: Target | undefined;

  /** Throws `OptionError`. */
  constructor(name = '', options: ExchangeOptions = {}) {
    if (!kinds.shortString.test(name)) throw new OptionError(`Exchange: the name must be ${kinds.shortString.words}`);
    const given = readOptions('Exchange', EXCHANGE_OPTIONS, options);
    this.name = name;
    this.type = given.type!;
    this.durable = given.durable!;
    this.autoDelete = given.autoDelete!;
    this.passive = given.passive!;
    this.deliveryMode = given.deliveryMode === undefined ? undefined : deliveryModeNumber(given.deliveryMode);
    this.arguments = frozenTable(given.arguments);
    this.noDeclare = given.noDeclare!;
    this.#options = given;
    this.#target = given.channel;
    Object.freeze(this);
  }

  /** From a plain object, such as `asDict` makes; null counts as absent. Throws `OptionError`. */
  static fromDict(dict: ExchangeDict): Exchange {
    if (!kinds.object.test(dict)) throw new OptionError('Exchange.fromDict: it takes an object');
    const { name, ...options } = withoutNulls(dict);
    return new Exchange(name as string | undefined, options);
  }

  /** The connection or channel it is bound to. Throws `NotBoundError`. */
  get channel(): Target {
    return targetOf(undefined, this.#target, String(this));
  }

  /** @internal */
  get [ENTITY](): 'exchange' {
    return 'exchange';
  }

  get isBound(): boolean {
    return this.#target !== undefined;
  }

  /** True if one declaration lasts as long as a connection: it does not go away by itself. */
  get canCacheDeclaration(): boolean {
    return !this.autoDelete;
  }

  /** A copy that talks through `target`. */
  bind(target: Target): Exchange {
    return new Exchange(this.name, { ...this.#options, channel: target });
  }

  /** A bound exchange talks through `target` from now on; one that is not bound stays so. */
  revive(target: Target): void {
    if (this.#target !== undefined) this.#target = targetOf(target, undefined, String(this));
  }

  /**
   * Declares it. Nothing to do for the default exchange, names that begin with 'amq.', and `noDeclare`.
   * Throws `NotBoundError`, `PreconditionFailed` (it exists, but otherwise), `NotFound` (passive), `AccessRefused`.
   */
  async declare(target: Target | undefined, options?: DeclareOptions): Promise<void>;
  async declare(options?: Target | DeclareOptions): Promise<void>;
  async declare(first?: Target | DeclareOptions, second?: DeclareOptions): Promise<void> {
    const [given, options] = targetFirst(first, second);
    const { passive, ...call } = readOptions<DeclareOptions>('Exchange.declare', DECLARE_OPTIONS, options);
    const target = targetOf(given, this.#target, String(this));
    await ask(target, `declaring ${this}`, (raw) => declareExchange(raw, this, passive), call);
  }

  /** Deletes it. Throws `PreconditionFailed` with `ifUnused` if a queue is bound to it. */
  async delete(target: Target | undefined, options?: ExchangeDeleteOptions): Promise<void>;
  async delete(options?: Target | ExchangeDeleteOptions): Promise<void>;
  async delete(first?: Target | ExchangeDeleteOptions, second?: ExchangeDeleteOptions): Promise<void> {
    const [given, options] = targetFirst(first, second);
    const { ifUnused, ...call } = readOptions<ExchangeDeleteOptions>('Exchange.delete', DELETE_OPTIONS, options);
    const remove = async (raw: amqplib.ConfirmChannel, { declared }: { declared: Map<string, unknown> }) => {
      await raw.deleteExchange(this.name, { ifUnused: ifUnused! });
      declared.clear();
    };
    await ask(targetOf(given, this.#target, String(this)), `deleting ${this}`, remove, call);
  }

  /** Lets messages of `source` flow into this exchange. */
  async bindTo(source: Exchange | string, options?: BindOptions, target?: Target): Promise<void>;
  async bindTo(source: Exchange | string, target: Target, options?: BindOptions): Promise<void>;
  async bindTo(source: Exchange | string, second?: BindOptions | Target, third?: Target | BindOptions): Promise<void> {
    const { from, key, args, call, given } = bindingArguments(source, second, third, 'Exchange.bindTo');
    const target = targetOf(given, this.#target, String(this));
    const doing = `binding ${this} to exchange '${from}'`;
    await ask(target, doing, (raw) => raw.bindExchange(this.name, from, key, args), call);
  }

  /** Undoes `bindTo` with the same source, key and arguments. */
  async unbindFrom(source: Exchange | string, options?: BindOptions, target?: Target): Promise<void>;
  async unbindFrom(source: Exchange | string, target: Target, options?: BindOptions): Promise<void>;
  async unbindFrom(source: Exchange | string, second?: BindOptions | Target, third?: Target | BindOptions) {
    const { from, key, args, call, given } = bindingArguments(source, second, third, 'Exchange.unbindFrom');
    const target = targetOf(given, this.#target, String(this));
    const doing = `unbinding ${this} from exchange '${from}'`;
    await ask(target, doing, (raw) => raw.unbindExchange(this.name, from, key, args), call);
  }

  /** A way from this exchange to a queue, for `new Queue(name, [binding, …])`. Throws `OptionError`. */
  binding(routingKey?: string, options?: BindingOptions): Binding {
    return new Binding(this, routingKey, options);
  }

  /** A message as `publish` takes it: the body as it is, with properties. Throws `OptionError`, `EncodeError`. */
  Message(body: string | Uint8Array, options?: OutgoingOptions): OutgoingMessage {
    return outgoingMessage(body, options, this.deliveryMode);
  }

  /**
   * Publishes bytes or a string as they are, or what `Message` made; resolves when the broker has confirmed it. Serializers,
   * retries and declarations are a `Producer`'s. Throws what `producer.publish` throws; `timeout` is 30 s.
   */
  async publish(
    message: OutgoingMessage | string | Uint8Array,
    options?: ExchangePublishOptions,
    target?: Target,
  ): Promise<void> {
    const ready = typeof message === 'string' || message instanceof Uint8Array ? this.Message(message) : message;
    await publishTo(this.name, targetOf(target, this.#target, String(this)), ready, options);
  }

  /** Its attributes as a plain object, for JSON and `fromDict`; to what it is bound is not in it. */
  asDict(): ExchangeDict {
    const { name, type, durable, autoDelete, passive, deliveryMode, arguments: args, noDeclare } = this;
    const dict = { name, type, durable, autoDelete, passive, deliveryMode, arguments: args, noDeclare };
    return withoutNulls(dict) as unknown as ExchangeDict;
  }

  toJSON(): ExchangeDict {
    return this.asDict();
  }

  /** True if both would be declared in the same way and publish with the same delivery mode. */
  equals(other: unknown): boolean {
    return other instanceof Exchange && isDeepStrictEqual(facts(this), facts(other));
  }

  toString(): string {
    return this.name === '' ? 'the default exchange' : `exchange '${this.name}'`;
  }
}

function facts({ name, type, durable, autoDelete, deliveryMode, arguments: args }: Exchange): unknown[] {
  return [name, type, durable, autoDelete, deliveryMode, args ?? {}];
}

/** The keys that say something: Python writes None as null. */
export function withoutNulls(dict: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(dict).filter(([, value]) => value !== undefined && value !== null));
}

/** Source, key and table of a binding, checked; options and target come in either order. */
export function bindingArguments(
  source: Exchange | string,
  second: BindOptions | Target | undefined,
  third: Target | BindOptions | undefined,
  owner: string,
): { from: string; key: string; args: Record<string, unknown>; call: CallOptions; given: Target | undefined } {
  const [given, options] = isTarget(second) ? [second, third] : [third as Target | undefined, second];
  const { routingKey, arguments: args, ...call } = readOptions<BindOptions>(owner, BIND_OPTIONS, options);
  const from = source instanceof Exchange ? source.name : source;
  if (!kinds.shortString.test(from)) throw new OptionError(`${owner}: the source must be an Exchange or a name`);
  return { from, key: routingKey!, args: toTable(args ?? {}, 'arguments'), call, given };
}

/** Declares `exchange` on a channel of amqplib. Throws our error classes. */
export async function declareExchange(
  channel: amqplib.Channel,
  exchange: Exchange,
  passive = exchange.passive,
): Promise<void> {
  const { name, type, durable, autoDelete, noDeclare } = exchange;
  if (noDeclare || name === '' || name.startsWith('amq.')) return;
  try {
    if (passive) await channel.checkExchange(name);
    else {
      const args = toTable(exchange.arguments ?? {}, 'arguments');
      await channel.assertExchange(name, type, { durable, autoDelete, arguments: args });
    }
  } catch (error) {
    // Whoever owns the channel knows what it was closed with.
    throw saysOnlyClosed(error) ? error : errorFromAmqp(error, `declaring ${exchange}`);
  }
}

export interface BindingOptions {
  readonly arguments?: Record<string, unknown>;
  readonly unbindArguments?: Record<string, unknown>;
}

const BINDING_OPTIONS: OptionTable<BindingOptions> = {
  arguments: { kind: kinds.object, doc: 'Of the binding; what a headers exchange matches.' },
  unbindArguments: { kind: kinds.object, defaultWords: '`arguments`', doc: 'For unbinding, where they differ.' },
};

/** A queue or an exchange: what a binding can lead to. */
interface Bindable {
  bindTo(source: Exchange, options: BindOptions, target?: Target): Promise<void>;
  unbindFrom(source: Exchange, options: BindOptions, target?: Target): Promise<void>;
}

function mustBeBindable(entity: Bindable, owner: string): void {
  if (typeof (entity as Partial<Bindable> | null | undefined)?.bindTo === 'function') return;
  throw new OptionError(`${owner}: the first argument must be a Queue or an Exchange`);
}

/** A binding as a plain object. */
export type BindingDict = BindingOptions & {
  readonly exchange: ExchangeDict | string;
  readonly routingKey?: string;
};

/** One way from an exchange to a queue, for queues that have several. Immutable; `new Queue(name, [binding, …])` takes them. */
export class Binding {
  readonly exchange: Exchange;
  readonly routingKey: string;
  readonly arguments: Readonly<Record<string, unknown>> | undefined;
  readonly unbindArguments: Readonly<Record<string, unknown>> | undefined;

  /** Throws `OptionError`. */
  constructor(exchange: Exchange | string, routingKey = '', options: BindingOptions = {}) {
    const given = readOptions('binding', BINDING_OPTIONS, options);
    if (!(exchange instanceof Exchange) && !kinds.name.test(exchange)) {
      throw new OptionError('binding: the exchange must be an Exchange or a name');
    }
    if (!kinds.shortString.test(routingKey)) {
      throw new OptionError(`binding: the routing key must be ${kinds.shortString.words}`);
    }
    this.exchange = exchange instanceof Exchange ? exchange : new Exchange(exchange);
    this.routingKey = routingKey;
    this.arguments = frozenTable(given.arguments);
    this.unbindArguments = frozenTable(given.unbindArguments);
    Object.freeze(this);
  }

  /** From a plain object, such as `asDict` makes. Throws `OptionError`. */
  static fromDict(dict: BindingDict): Binding {
    if (!kinds.object.test(dict)) throw new OptionError('Binding.fromDict: it takes an object');
    const { exchange, routingKey, ...options } = withoutNulls(dict);
    const from = kinds.object.test(exchange) ? Exchange.fromDict(exchange as ExchangeDict) : exchange;
    return new Binding(from as Exchange | string, routingKey as string | undefined, options);
  }

  /** Declares the exchange. */
  async declare(target: Target, options?: DeclareOptions): Promise<void> {
    await this.exchange.declare(target, options);
  }

  /** Binds a queue or exchange by it, through `target` or what the entity is bound to. */
  async bind(entity: Bindable, target?: Target, options?: CallOptions): Promise<void> {
    const call = readCallOptions('binding.bind', options);
    mustBeBindable(entity, 'binding.bind');
    await entity.bindTo(this.exchange, { ...this.#way(this.arguments), ...call }, target);
  }

  /** Undoes `bind`. */
  async unbind(entity: Bindable, target?: Target, options?: CallOptions): Promise<void> {
    const call = readCallOptions('binding.unbind', options);
    mustBeBindable(entity, 'binding.unbind');
    await entity.unbindFrom(this.exchange, { ...this.#way(this.unbindArguments ?? this.arguments), ...call }, target);
  }

  /** Its attributes as a plain object, for JSON and `fromDict`. */
  asDict(): BindingDict {
    const { exchange, routingKey, arguments: args, unbindArguments } = this;
    const dict = { exchange: exchange.asDict(), routingKey, arguments: args, unbindArguments };
    return withoutNulls(dict) as unknown as BindingDict;
  }

  toJSON(): BindingDict {
    return this.asDict();
  }

  #way(args: Readonly<Record<string, unknown>> | undefined): BindOptions {
    return { routingKey: this.routingKey, ...(args === undefined ? {} : { arguments: args }) };
  }
}
