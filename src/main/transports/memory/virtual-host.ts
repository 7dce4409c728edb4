/**
 * One virtual host: its exchanges and queues, what may be declared and deleted, and the way of a message from an exchange to
 * queues. Pure but for the clock it is given. Throws refusals; channels turn them into closures.
 */
import { randomBytes } from 'node:crypto';
import { readField } from '../../../codec/amqp/amqplib-values.js';
import type { Clock } from './clock.js';
import { buried, isCycle } from './dead-letter.js';
import { BrokerExchange, type Destination, type ExchangeProperties, type ExchangeType } from './exchange.js';
import type { StoredMessage } from './message.js';
import { BrokerQueue, type DeathReason, type QueueHost } from './queue.js';
import { argumentsMustBeEqual, type Fields, mustBeEqual, readQueueSettings } from './queue-settings.js';
import { accessRefused, defaultExchange, locked, notFound, preconditionFailed, Refusal } from './refusal.js';

const TYPES: readonly string[] = ['direct', 'topic', 'fanout', 'headers'] satisfies ExchangeType[];
const NO_ARGUMENTS: Fields = new Map();
const PREDECLARED: readonly (readonly [name: string, type: ExchangeType, internal: boolean])[] = [
  ['', 'direct', false],
  ['amq.direct', 'direct', false],
  ['amq.fanout', 'fanout', false],
  ['amq.topic', 'topic', false],
  ['amq.headers', 'headers', false],
  ['amq.match', 'headers', false],
  ['amq.rabbitmq.trace', 'topic', true],
];

/** What became of a publish. */
export const UNROUTABLE = 0;
export const TAKEN = 1;
/** A queue that it belongs to is full and refuses. */
export const REFUSED = 2;
export type Published = typeof UNROUTABLE | typeof TAKEN | typeof REFUSED;

export interface QueueDeclaration {
  readonly name: string;
  readonly durable: boolean;
  readonly exclusive: boolean;
  readonly autoDelete: boolean;
  readonly args: Fields;
}

export class VirtualHost implements QueueHost {
  readonly #exchanges = new Map<string, BrokerExchange>();
  readonly #queues = new Map<string, BrokerQueue>();
  /** Dead letters on their way: one after the other, so that queues which feed each other do not recurse. */
  #graves: (() => void)[] | undefined;

  constructor(
    readonly name: string,
    readonly clock: Clock,
  ) {
    for (const [exchange, type, internal] of PREDECLARED) {
      const properties = { name: exchange, type, internal, durable: true, autoDelete: false, args: NO_ARGUMENTS };
      this.#exchanges.set(exchange, new BrokerExchange(properties));
    }
  }

  get queues(): readonly BrokerQueue[] {
    return [...this.#queues.values()];
  }

  // exchanges

  exchange(name: string): BrokerExchange {
    const found = this.#exchanges.get(name);
    if (found === undefined) throw notFound('exchange', name, this.name);
    return found;
  }

  checkExchange(name: string): void {
    if (name === '') throw defaultExchange();
    this.exchange(name);
  }

  declareExchange(wanted: Omit<ExchangeProperties, 'type'> & { readonly type: string }): void {
    const { name, type, args } = wanted;
    if (!TYPES.includes(type)) throw new Refusal(503, `unknown exchange type '${type}'`);
    if (name === '') throw defaultExchange();
    const there = this.#exchanges.get(name)?.properties;
    if (there === undefined) {
      if (name.startsWith('amq.')) throw accessRefused(`exchange name '${name}' contains reserved prefix 'amq.*'`);
      this.#exchanges.set(name, new BrokerExchange({ ...wanted, type: type as ExchangeType }));
      return;
    }
    const of = `exchange '${name}' in vhost '${this.name}'`;
    mustBeEqual('type', of, there.type, type);
    mustBeEqual('durable', of, there.durable, wanted.durable);
    mustBeEqual('auto_delete', of, there.autoDelete, wanted.autoDelete);
    mustBeEqual('internal', of, there.internal, wanted.internal);
    argumentsMustBeEqual(there.args, args, of, ['alternate-exchange']);
  }

  deleteExchange(name: string, ifUnused: boolean): void {
    if (name === '') throw defaultExchange();
    const what = `exchange '${name}' in vhost '${this.name}'`;
    if (name.startsWith('amq.')) throw accessRefused(`deletion of system ${what} not allowed`);
    const exchange = this.#exchanges.get(name);
    if (exchange === undefined) return;
    if (ifUnused && !exchange.unused) throw preconditionFailed(`${what} in use`);
    this.#removeExchange(exchange);
  }

  bind(destination: Destination, source: string, key: string, args: Fields): void {
    if (source === '' || destination.name === '') throw defaultExchange();
    this.exchange(source).bind(destination, key, args);
  }

  /** Undoing what is not there is no error. */
  unbind(kind: Destination['kind'], destination: string, source: string, key: string, args: Fields): void {
    if (source === '' || (kind === 'exchange' && destination === '')) throw defaultExchange();
    const exchange = this.#exchanges.get(source);
    const target = kind === 'queue' ? this.#queues.get(destination) : this.#exchanges.get(destination);
    if (exchange === undefined || target === undefined) return;
    if (exchange.unbind(target, key, args)) this.#maybeAutoDelete(exchange);
  }

  #removeExchange(exchange: BrokerExchange): void {
    this.#exchanges.delete(exchange.name);
    for (const binding of exchange.bindings) exchange.remove(binding);
    this.#removeIncoming(exchange);
  }

  #removeIncoming(destination: Destination): void {
    for (const binding of [...destination.incoming]) {
      binding.source.remove(binding);
      this.#maybeAutoDelete(binding.source);
    }
  }

  #maybeAutoDelete(exchange: BrokerExchange): void {
    if (exchange.properties.autoDelete && exchange.unused) this.#removeExchange(exchange);
  }

  // queues

  /** `owner`: the connection that asks; another one's exclusive queue is locked. */
  queue(name: string, owner: object): BrokerQueue {
    const found = this.#queues.get(name);
    if (found === undefined) throw notFound('queue', name, this.name);
    if (found.properties.owner !== undefined && found.properties.owner !== owner) throw locked(name, this.name);
    return found;
  }

  declareQueue(wanted: QueueDeclaration, owner: object): BrokerQueue {
    const { durable, autoDelete, exclusive, args } = wanted;
    const name = wanted.name === '' ? `amq.gen-${randomBytes(16).toString('base64url')}` : wanted.name;
    if (wanted.name.startsWith('amq.')) {
      throw accessRefused(`queue name '${name}' contains reserved prefix 'amq.*'`);
    }
    const there = this.#queues.get(name);
    const mine = exclusive ? owner : undefined;
    if (there !== undefined) {
      const of = `queue '${name}' in vhost '${this.name}'`;
      if (there.properties.owner !== mine) throw locked(name, this.name);
      mustBeEqual('durable', of, there.properties.durable, durable);
      mustBeEqual('auto_delete', of, there.properties.autoDelete, autoDelete);
      argumentsMustBeEqual(there.properties.args, args, of);
      there.used();
      return there;
    }
    const settings = readQueueSettings(args, name, this.name);
    const queue = new BrokerQueue({ name, durable, autoDelete, owner: mine, args, settings }, this);
    this.#queues.set(name, queue);
    return queue;
  }

  /** Resolves to the number of messages that were lost. */
  deleteQueue(name: string, owner: object, ifUnused: boolean, ifEmpty: boolean): number {
    if (!this.#queues.has(name)) return 0;
    const queue = this.queue(name, owner);
    const what = `queue '${name}' in vhost '${this.name}'`;
    if (ifUnused && queue.consumers.size > 0) throw preconditionFailed(`${what} in use`);
    if (ifEmpty && queue.size > 0) throw preconditionFailed(`${what} not empty`);
    return this.removeQueue(queue);
  }

  removeQueue(queue: BrokerQueue): number {
    const { size } = queue;
    this.#queues.delete(queue.name);
    this.#removeIncoming(queue);
    queue.delete();
    return size;
  }

  expired(queue: BrokerQueue): void {
    this.removeQueue(queue);
  }

  /** The connection is gone, and its exclusive queues with it. */
  removeExclusive(owner: object): void {
    for (const queue of this.queues) if (queue.properties.owner === owner) this.removeQueue(queue);
  }

  // messages

  /** Throws a refusal if there is no such exchange, or nobody may publish to it. */
  publish(message: StoredMessage): Published {
    if (message.exchange === '' && message.moreKeys.length === 0) {
      const queue = this.#queues.get(message.routingKey);
      if (queue === undefined) return UNROUTABLE;
      return queue.publish(message) ? TAKEN : REFUSED;
    }
    const exchange = this.exchange(message.exchange);
    if (exchange.properties.internal) {
      throw accessRefused(`cannot publish to internal exchange '${exchange.name}' in vhost '${this.name}'`);
    }
    const queues = this.#route(message, exchange);
    let published: Published = queues.size === 0 ? UNROUTABLE : TAKEN;
    for (const queue of queues) if (!queue.publish(message)) published = REFUSED;
    return published;
  }

  /** All queues it reaches, by exchanges bound to exchanges and by alternate exchanges; each once. */
  #route(message: StoredMessage, start: BrokerExchange): Set<BrokerQueue> {
    const keys = [message.routingKey, ...message.moreKeys];
    const queues = new Set<BrokerQueue>();
    const seen = new Set<BrokerExchange>([start]);
    for (const exchange of seen) {
      let found = false;
      for (const key of keys) {
        for (const destination of this.#destinations(exchange, message, key)) {
          found = true;
          if (destination.kind === 'queue') queues.add(destination);
          else seen.add(destination);
        }
      }
      if (found) continue;
      const alternate = exchange.properties.args.get('alternate-exchange');
      const next = alternate === undefined ? undefined : this.#exchanges.get(String(readField(alternate)));
      if (next !== undefined) seen.add(next);
    }
    return queues;
  }

  #destinations(exchange: BrokerExchange, message: StoredMessage, key: string): readonly Destination[] {
    if (exchange.name !== '') return exchange.route(message, key);
    const queue = this.#queues.get(key);
    return queue === undefined ? [] : [queue];
  }

  deadLetter(queue: BrokerQueue, message: StoredMessage, reason: DeathReason): void {
    const { deadLetterExchange: name, deadLetterRoutingKey: routingKey } = queue.properties.settings;
    if (name === undefined) return;
    this.#later(() => {
      const exchange = this.#exchanges.get(name);
      if (exchange === undefined) return;
      const seconds = this.clock.seconds();
      const letter = buried(message, { queue: queue.name, reason, seconds, exchange: name, routingKey });
      for (const target of this.#route(letter, exchange)) {
        if (reason === 'rejected' || !isCycle(letter, target.name)) target.publish(letter);
      }
    });
  }

  #later(task: () => void): void {
    if (this.#graves !== undefined) {
      this.#graves.push(task);
      return;
    }
    this.#graves = [task];
    try {
      for (const each of this.#graves) each();
    } finally {
      this.#graves = undefined;
    }
  }
}
