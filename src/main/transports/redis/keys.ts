/**
 * Where kombu keeps things in Redis, and where we keep the same:
 *
 *   <queue>                       list: envelopes of the lowest priority; pushed on the left, taken from the right
 *   <queue><sep><step>            list: those of another priority
 *   _kombu.binding.<exchange>     set:  routing key <sep> pattern <sep> queue
 *   unacked                       hash: tag → [envelope, exchange, routing key]
 *   unacked_index                 sorted set: tag → when its lease was given or renewed, seconds since 1970
 *   /<db>.<exchange>[/<key>]      channel of a fanout exchange
 *
 * Pure: knows names, no server.
 */
import type { RedisOptions } from '../../../redis-options.js';

export interface Binding {
  readonly routingKey: string;
  readonly queue: string;
  /** It was made for a topic exchange. */
  readonly isTopic: boolean;
}

export class Keys {
  readonly unacked: string;
  readonly unackedIndex: string;
  readonly separator: string;
  readonly prefix: string;
  /** Of priorities, in the order in which their lists are taken from. */
  readonly steps: readonly number[];
  readonly #steps: readonly number[];
  readonly #fanoutPrefix: string;
  readonly #fanoutPatterns: boolean;

  constructor(options: RedisOptions, db: number) {
    this.prefix = options.globalKeyprefix;
    this.separator = options.sep;
    this.unacked = this.prefix + options.unackedKey;
    this.unackedIndex = this.prefix + options.unackedIndexKey;
    this.#steps = options.prioritySteps;
    this.steps = options.priorityOrder === 'lowestFirst' ? this.#steps : [...this.#steps].reverse();
    const { fanoutPrefix } = options;
    this.#fanoutPrefix = fanoutPrefix === true ? `/${db}.` : fanoutPrefix === false ? '' : fanoutPrefix;
    this.#fanoutPatterns = options.fanoutPatterns;
  }

  /** The list for messages of this priority: that of the highest step that is not above it. */
  list(queue: string, priority: number): string {
    return this.#listOf(queue, this.stepOf(priority));
  }

  /** All lists of a queue, in the order in which they are taken from. */
  lists(queue: string): string[] {
    return this.steps.map((step) => this.#listOf(queue, step));
  }

  /** Of one of its lists. */
  queueOf(list: string): string {
    const name = list.slice(this.prefix.length);
    const at = name.lastIndexOf(this.separator);
    const step = at < 0 ? 0 : Number(name.slice(at + this.separator.length));
    return step > 0 && this.#steps.includes(step) ? name.slice(0, at) : name;
  }

  stepOf(priority: number): number {
    const wanted = Math.min(9, Math.max(0, Number.isFinite(priority) ? Math.trunc(priority) : 0));
    let found = 0;
    for (const step of this.#steps) if (step <= wanted) found = step;
    return found;
  }

  #listOf(queue: string, step: number): string {
    return `${this.prefix}${this.stepSuffix(queue, step)}`;
  }

  stepSuffix(queue: string, step: number): string {
    return step === 0 ? queue : `${queue}${this.separator}${step}`;
  }

  bindings(exchange: string): string {
    return `${this.prefix}_kombu.binding.${exchange}`;
  }

  /** The member of the set of bindings. The pattern is for Python's readers; we match by the routing key. */
  binding(routingKey: string, queue: string, isTopic: boolean): string {
    return [routingKey, isTopic ? topicPattern(routingKey) : '', queue].join(this.separator);
  }

  readBinding(member: string): Binding | undefined {
    const parts = member.split(this.separator);
    if (parts.length !== 3) return undefined;
    return { routingKey: parts[0]!, isTopic: parts[1] !== '', queue: parts[2]! };
  }

  /** Where a fanout exchange publishes. */
  fanout(exchange: string, routingKey: string): string {
    const key = this.#fanoutPatterns && routingKey !== '' ? `/${routingKey}` : '';
    return `${this.prefix}${this.#fanoutPrefix}${exchange}${key}`;
  }

  /** What to subscribe to, by PSUBSCRIBE where it is a pattern. */
  subscription(exchange: string, routingKey: string): string {
    return this.fanout(exchange, this.#fanoutPatterns ? routingKey.replaceAll('#', '*') : '');
  }
}

/**
 * The regular expression, as Python's kombu writes it, of a topic's binding key: `*` as a word is some text that does not end with
 * a point, `#` as a word any text; both may have points in them. A `*` beside other characters is left as it is there.
 */
export function topicPattern(bindingKey: string): string {
  const words = bindingKey.split('.').map((word) => {
    if (word === '*') return '.*?[^\\.]';
    if (word === '#') return '.*?';
    return word.replace(/[^\p{L}\p{N}*#]/gu, '\\$&');
  });
  return `^${words.join('\\.')}$`;
}
