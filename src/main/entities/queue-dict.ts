/**
 * Queues as plain objects: what `asDict` gives, and the flat options that carrot had and kombu took over, where one
 * object tells of the queue and of its exchange.
 */
import { OptionError } from '../../errors.js';
import { kinds, type OptionTable, readOptions } from '../../options.js';
import {
  Binding,
  type BindingDict,
  type DeliveryMode,
  deliveryModeKind,
  Exchange,
  type ExchangeDict,
  type ExchangeOptions,
  withoutNulls,
} from './exchange.js';
import type { Queue } from './queue.js';
import { QUEUE_OPTIONS, type QueueOptions } from './queue-options.js';

/** `asDict` gives those of `QueueOptions`, `exchange` and `bindings`; the rest is carrot's. */
export interface QueueDict extends Omit<QueueOptions, 'channel' | 'onDeclared' | 'bindings'> {
  readonly name?: string;
  readonly exchange?: Exchange | ExchangeDict | string;
  readonly bindings?: readonly (Binding | BindingDict)[];
  readonly bindingKey?: string;
  readonly exchangeType?: string;
  readonly exchangeDurable?: boolean;
  readonly exchangeAutoDelete?: boolean;
  readonly exchangeArguments?: Record<string, unknown>;
  readonly deliveryMode?: DeliveryMode;
  readonly queueDurable?: boolean;
  readonly queueAutoDelete?: boolean;
}

const exchangeKind = kinds.custom<Exchange | ExchangeDict | string>(
  'an Exchange, its attributes, or a name',
  (value) => value instanceof Exchange || kinds.string.test(value) || kinds.object.test(value),
);
const listKind = kinds.custom<readonly (Binding | BindingDict)[]>(
  'a list of bindings or their attributes',
  (value) => Array.isArray(value) && value.every((each) => kinds.object.test(each)),
);
// `undefined` is no default: what is not given is left to the classes.
const { channel: _channel, onDeclared: _onDeclared, ...plain } = QUEUE_OPTIONS;

const QUEUE_DICT: OptionTable<QueueDict> = {
  ...(Object.fromEntries(
    Object.entries(plain).map(([key, { default: _, ...row }]) => [key, row]),
  ) as unknown as typeof plain),
  name: { kind: kinds.shortString, doc: 'The name of the queue.' },
  exchange: { kind: exchangeKind, doc: 'What the queue is bound to.' },
  bindings: { kind: listKind, doc: 'Bindings to several exchanges.' },
  bindingKey: { kind: kinds.shortString, defaultWords: '`routingKey`', doc: 'Binds the queue to its exchange.' },
  exchangeType: { kind: kinds.shortName, doc: 'Of the exchange.' },
  exchangeDurable: { kind: kinds.boolean, defaultWords: '`durable`', doc: 'Of the exchange.' },
  exchangeAutoDelete: { kind: kinds.boolean, defaultWords: '`autoDelete`', doc: 'Of the exchange.' },
  exchangeArguments: { kind: kinds.object, doc: 'Of the exchange.' },
  deliveryMode: { kind: deliveryModeKind, doc: 'Of the exchange.' },
  queueDurable: { kind: kinds.boolean, defaultWords: '`durable`', doc: 'Of the queue.' },
  queueAutoDelete: { kind: kinds.boolean, defaultWords: '`autoDelete`', doc: 'Of the queue.' },
};

/** The keys of kombu's from_dict as Python spells them, for configuration that both read. None of them is a duration. */
const SPELLED_IN_PYTHON = new Set([
  'binding_key',
  'routing_key',
  'exchange_type',
  'exchange_durable',
  'exchange_auto_delete',
  'exchange_arguments',
  'delivery_mode',
  'queue_durable',
  'queue_auto_delete',
  'queue_arguments',
  'binding_arguments',
  'consumer_arguments',
  'auto_delete',
  'no_ack',
]);

function camelCase(key: string): string {
  return SPELLED_IN_PYTHON.has(key) ? key.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase()) : key;
}

const EXCHANGE_KEYS = ['exchangeType', 'exchangeDurable', 'exchangeAutoDelete', 'exchangeArguments', 'deliveryMode'];

function exchangeFrom(given: QueueDict): Exchange | undefined {
  const { exchange, durable, autoDelete } = given;
  if (exchange instanceof Exchange || kinds.object.test(exchange)) {
    const both = EXCHANGE_KEYS.find((key) => given[key as keyof QueueDict] !== undefined);
    if (both !== undefined) {
      throw new OptionError(`Queue.fromDict: '${both}' goes with the name of an exchange; this one has attributes`, {
        details: { option: both },
      });
    }
    return exchange instanceof Exchange ? exchange : Exchange.fromDict(exchange);
  }
  const options = {
    type: given.exchangeType,
    durable: given.exchangeDurable ?? durable,
    autoDelete: given.exchangeAutoDelete ?? autoDelete,
    arguments: given.exchangeArguments,
    deliveryMode: given.deliveryMode,
  };
  return new Exchange(exchange ?? '', withoutNulls(options) as ExchangeOptions);
}

/** The arguments for `new Queue`. null counts as absent. Throws `OptionError`. */
export function readQueueDict(dict: unknown): [name: string, exchange: Exchange | undefined, options: QueueOptions] {
  if (!kinds.object.test(dict)) throw new OptionError('Queue.fromDict: it takes an object');
  const entries = Object.entries(withoutNulls(dict)).map(([key, value]) => [camelCase(key), value]);
  const given = readOptions<QueueDict>('Queue.fromDict', QUEUE_DICT, Object.fromEntries(entries));
  const bindings = given.bindings?.map((each) => (each instanceof Binding ? each : Binding.fromDict(each)));
  const { name = '', bindingKey, queueDurable, queueAutoDelete, ...same } = given;
  const options: Record<string, unknown> = {
    ...same,
    bindings,
    routingKey: bindingKey || given.routingKey,
    durable: queueDurable ?? given.durable,
    autoDelete: queueAutoDelete ?? given.autoDelete,
  };
  delete options.exchange;
  for (const key of EXCHANGE_KEYS) delete options[key];
  return [name, exchangeFrom(given), options];
}

/** The attributes of a queue; what is undefined is left out. */
export function queueDict(queue: Queue): QueueDict {
  const { name, exchange, bindings, routingKey, durable, exclusive, autoDelete, passive, noAck, noDeclare } = queue;
  const { alias, expires, messageTtl, maxLength, maxLengthBytes, maxPriority } = queue;
  const { queueArguments, bindingArguments, consumerArguments } = queue;
  const flags = { durable, exclusive, autoDelete, passive, noAck, noDeclare, alias };
  const limits = { expires, messageTtl, maxLength, maxLengthBytes, maxPriority };
  const tables = { queueArguments, bindingArguments, consumerArguments };
  const ways = { exchange: exchange?.asDict(), bindings: bindings.map((each) => each.asDict()), routingKey };
  return withoutNulls({ name, ...ways, ...flags, ...limits, ...tables });
}
