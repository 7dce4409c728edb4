/** Exchanges: what they are, declaring, binding to each other, deleting. */
import { isDeepStrictEqual } from 'node:util';
import type * as amqplib from 'amqplib';
import { toTable } from '../../codec/amqp/plain-table.js';
import { OptionError } from '../../errors.js';
import { kinds, type OptionTable, readOptions } from '../../options.js';
import { type DeliveryMode, deliveryModeKind, ENTITY } from '../../pool/entity.js';
import { errorFromAmqp, saysOnlyClosed } from '../transports/amqp/errors.js';
import { channelOf, frozenTable, type Target, targetFirst, targetKind } from './target.js';

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
    kind: kinds.name,
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

export interface BindOptions {
  readonly routingKey?: string;
  readonly arguments?: Record<string, unknown>;
}

export const BIND_OPTIONS: OptionTable<BindOptions> = {
  routingKey: { kind: kinds.shortString, default: '', doc: 'The key or pattern.' },
  arguments: { kind: kinds.object, doc: 'Of the binding; what a headers exchange matches.' },
};

/**
 * An exchange. Immutable: `bind()` and `bindTo()` change nothing here. Without a name it is the default exchange, which
 * routes to the queue that the routing key names and is never declared.
 */
export class Exchange {
  readonly name: string;
  readonly type: string;
  readonly durable: boolean;
  readonly autoDelete: boolean;
  readonly passive: boolean;
  readonly deliveryMode: DeliveryMode | undefined;
  readonly arguments: Readonly<Record<string, unknown>> | undefined;
  readonly noDeclare: boolean;
  readonly #options: ExchangeOptions;

  /** Throws `OptionError`. */
  constructor(name = '', options: ExchangeOptions = {}) {
    if (!kinds.shortString.test(name)) throw new OptionError(`Exchange: the name must be ${kinds.shortString.words}`);
    const given = readOptions('Exchange', EXCHANGE_OPTIONS, options);
    this.name = name;
    this.type = given.type!;
    this.durable = given.durable!;
    this.autoDelete = given.autoDelete!;
    this.passive = given.passive!;
    this.deliveryMode = given.deliveryMode;
    this.arguments = frozenTable(given.arguments);
    this.noDeclare = given.noDeclare!;
    this.#options = given;
    Object.freeze(this);
  }

  /** @internal */
  get [ENTITY](): 'exchange' {
    return 'exchange';
  }

  /** The connection or channel it is bound to. */
  get channel(): Target | undefined {
    return this.#options.channel;
  }

  get isBound(): boolean {
    return this.#options.channel !== undefined;
  }

  /** A copy that talks through `target`. */
  bind(target: Target): Exchange {
    return new Exchange(this.name, { ...this.#options, channel: target });
  }

  /**
   * Declares it. Nothing to do for the default exchange, names that begin with 'amq.', and `noDeclare`.
   * Throws `NotBoundError`, `PreconditionFailed` (it exists, but otherwise), `NotFound` (passive), `AccessRefused`.
   */
  async declare(target?: Target): Promise<void> {
    const channel = await channelOf(target, this.channel, String(this));
    await channel.call(`declaring ${this}`, (raw) => declareExchange(raw, this));
  }

  /** Deletes it. Throws `PreconditionFailed` with `ifUnused` if a queue is bound to it. */
  async delete(target?: Target, options?: { readonly ifUnused?: boolean }): Promise<void>;
  async delete(options?: { readonly ifUnused?: boolean }): Promise<void>;
  async delete(
    first?: Target | { readonly ifUnused?: boolean },
    second?: { readonly ifUnused?: boolean },
  ): Promise<void> {
    const [target, options] = targetFirst(first, second);
    const table = { ifUnused: { kind: kinds.boolean, default: false, doc: 'Only if no queue is bound.' } };
    const { ifUnused } = readOptions<{ ifUnused?: boolean }>('Exchange.delete', table, options);
    const channel = await channelOf(target, this.channel, String(this));
    await channel.call(`deleting ${this}`, (raw) => raw.deleteExchange(this.name, { ifUnused: ifUnused! }));
    channel.declared.clear();
  }

  /** Lets messages of `source` flow into this exchange. */
  async bindTo(source: Exchange | string, options?: BindOptions, target?: Target): Promise<void> {
    const { from, key, args } = bindingArguments(source, options, 'Exchange.bindTo');
    const channel = await channelOf(target, this.channel, String(this));
    await channel.call(`binding ${this} to exchange '${from}'`, (raw) => raw.bindExchange(this.name, from, key, args));
  }

  /** Undoes `bindTo` with the same source, key and arguments. */
  async unbindFrom(source: Exchange | string, options?: BindOptions, target?: Target): Promise<void> {
    const { from, key, args } = bindingArguments(source, options, 'Exchange.unbindFrom');
    const channel = await channelOf(target, this.channel, String(this));
    await channel.call(`unbinding ${this} from exchange '${from}'`, (raw) =>
      raw.unbindExchange(this.name, from, key, args),
    );
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

/** Source, key and table of a binding, checked. */
export function bindingArguments(
  source: Exchange | string,
  options: BindOptions | undefined,
  owner: string,
): { from: string; key: string; args: Record<string, unknown> } {
  const { routingKey, arguments: args } = readOptions(owner, BIND_OPTIONS, options);
  const from = source instanceof Exchange ? source.name : source;
  if (!kinds.shortString.test(from)) throw new OptionError(`${owner}: the source must be an Exchange or a name`);
  return { from, key: routingKey!, args: toTable(args ?? {}, 'arguments') };
}

/** Declares `exchange` on a channel of amqplib. Throws our error classes. */
export async function declareExchange(channel: amqplib.Channel, exchange: Exchange): Promise<void> {
  const { name, type, durable, autoDelete, passive, noDeclare } = exchange;
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
