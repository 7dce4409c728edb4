/** Exchanges: which of their bindings a message matches. Where the bindings lead, and further, is the virtual host's business. */
import { fieldBytes, joinTable } from '../../../codec/amqp/field-bytes.js';
import { type HeadersPattern, headersPattern, matchesHeaders } from './headers-match.js';
import type { StoredMessage } from './message.js';
import type { BrokerQueue } from './queue.js';
import type { Fields } from './queue-settings.js';
import { matchesTopic, topicWords } from './topic.js';

export type ExchangeType = 'direct' | 'topic' | 'fanout' | 'headers';
export type Destination = BrokerQueue | BrokerExchange;

export interface Binding {
  readonly source: BrokerExchange;
  readonly destination: Destination;
  readonly key: string;
  /** Equal for bindings that are the same. */
  readonly identity: string;
  readonly words: readonly string[];
  readonly pattern: HeadersPattern | undefined;
}

export interface ExchangeProperties {
  readonly name: string;
  readonly type: ExchangeType;
  readonly durable: boolean;
  readonly autoDelete: boolean;
  readonly internal: boolean;
  readonly args: Fields;
}

/** How many routing keys an exchange remembers the destinations of. */
const REMEMBERED = 1000;

export class BrokerExchange {
  readonly kind = 'exchange';
  readonly properties: ExchangeProperties;
  readonly incoming = new Set<Binding>();
  readonly #bindings = new Map<string, Binding>();
  /** Routing key to destinations, until a binding changes. */
  readonly #known = new Map<string, readonly Destination[]>();

  constructor(properties: ExchangeProperties) {
    this.properties = properties;
  }

  get name(): string {
    return this.properties.name;
  }

  get bindings(): readonly Binding[] {
    return [...this.#bindings.values()];
  }

  get unused(): boolean {
    return this.#bindings.size === 0;
  }

  /** Throws a refusal. Does nothing if there is such a binding. */
  bind(destination: Destination, key: string, args: Fields): void {
    const { type } = this.properties;
    const pattern = type === 'headers' ? headersPattern(args) : undefined;
    const identity = identityOf(destination, key, args);
    if (this.#bindings.has(identity)) return;
    const binding: Binding = { source: this, destination, key, identity, words: topicWords(key), pattern };
    this.#bindings.set(identity, binding);
    this.#known.clear();
    destination.incoming.add(binding);
  }

  /** True if there was such a binding. */
  unbind(destination: Destination, key: string, args: Fields): boolean {
    const binding = this.#bindings.get(identityOf(destination, key, args));
    if (binding !== undefined) this.remove(binding);
    return binding !== undefined;
  }

  remove(binding: Binding): void {
    this.#bindings.delete(binding.identity);
    this.#known.clear();
    binding.destination.incoming.delete(binding);
  }

  /** Where the bindings that match lead, none twice. */
  route(message: StoredMessage, key: string): readonly Destination[] {
    if (this.properties.type === 'headers') return this.#matching(message, key);
    let destinations = this.#known.get(key);
    if (destinations === undefined) {
      destinations = this.#matching(message, key);
      if (this.#known.size >= REMEMBERED) this.#known.clear();
      this.#known.set(key, destinations);
    }
    return destinations;
  }

  #matching(message: StoredMessage, key: string): readonly Destination[] {
    const { type } = this.properties;
    const words = type === 'topic' ? topicWords(key) : [];
    const found = new Set<Destination>();
    for (const binding of this.#bindings.values()) {
      const matches =
        type === 'fanout' ||
        (type === 'direct' && binding.key === key) ||
        (type === 'topic' && matchesTopic(binding.words, words)) ||
        (type === 'headers' && matchesHeaders(binding.pattern!, message.headers));
      if (matches) found.add(binding.destination);
    }
    return [...found];
  }
}

function identityOf(destination: Destination, key: string, args: Fields): string {
  const sorted = new Map([...args].sort(([a], [b]) => (a < b ? -1 : 1)));
  return `${destination.kind} ${fieldBytes(destination.name).toString('latin1')} ${key} ${joinTable(sorted).toString('latin1')}`;
}
