/**
 * Gives the messages of dead consumers to others: what was taken and neither settled nor renewed within the visibility timeout
 * goes back to the front of its queue. Every consuming connection looks, ours and Python's; whoever comes first moves it.
 */
import { readEnvelope, rewriteEnvelope } from '../../../codec/envelope.js';
import { DecodeError, type KombuError, OperationalError } from '../../../errors.js';
import type { RedisOptions } from '../../../redis-options.js';
import type { Client } from './client.js';
import { errorFromRedis } from './errors.js';
import type { Exchanges } from './exchanges.js';
import { type Keys, topicPattern } from './keys.js';
import { readRecord } from './record.js';

export class Restorer {
  readonly #client: Client;
  readonly #keys: Keys;
  readonly #exchanges: Exchanges;
  readonly #options: RedisOptions;
  readonly #onError: (error: KombuError) => void;
  readonly #timer: NodeJS.Timeout;
  #looking = false;
  /** Messages put back so far. */
  restored = 0;

  constructor(
    client: Client,
    keys: Keys,
    exchanges: Exchanges,
    options: RedisOptions,
    onError: (error: KombuError) => void,
  ) {
    this.#client = client;
    this.#keys = keys;
    this.#exchanges = exchanges;
    this.#options = options;
    this.#onError = onError;
    const every = Math.min(options.unackedRestoreInterval, options.visibilityTimeout / 4);
    this.#timer = setInterval(() => void this.look(), Math.max(10, every));
    this.#timer.unref();
    void this.look();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** Never rejects. */
  async look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    try {
      while ((await this.#some()) === this.#options.unackedRestoreLimit);
    } catch (error) {
      if (this.#client.status === 'ready')
        this.#onError(errorFromRedis(error, 'looking for messages of dead consumers'));
    } finally {
      this.#looking = false;
    }
  }

  async #some(): Promise<number> {
    const { unacked, unackedIndex } = this.#keys;
    const { visibilityTimeout, unackedRestoreLimit } = this.#options;
    const found = await this.#client.mozukuOverdueBuffer(
      2,
      unacked,
      unackedIndex,
      visibilityTimeout / 1000,
      unackedRestoreLimit,
    );
    const latest = found[0]!.toString();
    // Newest first, since each goes in front of those before it.
    for (let i = found.length - 2; i > 0; i -= 2) await this.#restore(latest, found[i]!.toString(), found[i + 1]!);
    return (found.length - 1) / 2;
  }

  async #restore(latest: string, tag: string, record: Buffer): Promise<void> {
    const { unacked, unackedIndex } = this.#keys;
    let lists: string[];
    let envelope: Buffer;
    try {
      const { envelope: bytes, exchange, routingKey } = readRecord(record);
      if (exchange !== '' && this.#exchanges.typeOf(exchange) === 'fanout') {
        // It was for the listener that is dead; nobody would take it from a list.
        await this.#client.mozukuAck(2, unacked, unackedIndex, tag);
        return;
      }
      const returning = readReturning(bytes);
      const queues = exchange === '' ? [routingKey] : await this.#route(exchange, routingKey);
      lists = queues.map((queue) => this.#keys.list(queue, returning.priority));
      envelope = returning.envelope;
      if (lists.length === 0) {
        throw new OperationalError(`no queue is bound to '${exchange}' for '${routingKey}' any more`);
      }
    } catch (error) {
      await this.#leave(tag, error);
      return;
    }
    // Python's records do not say which of several queues it came from: all of them get it, as by Python.
    const keys = [unacked, unackedIndex, ...lists];
    this.restored += await this.#client.mozukuRestore(keys.length, ...keys, latest, tag, envelope);
  }

  /** It cannot be put back, and must not be lost, nor stand in the way of the others. */
  async #leave(tag: string, cause: unknown): Promise<void> {
    if (!(cause instanceof DecodeError) && !(cause instanceof OperationalError)) throw cause;
    await this.#client.mozukuRenew(1, this.#keys.unackedIndex, tag);
    const where = `the delivery '${tag}' in '${this.#keys.unacked}'`;
    this.#onError(new OperationalError(`${where} cannot be given to another consumer: ${cause.message}`, { cause }));
  }

  async #route(exchange: string, routingKey: string): Promise<string[]> {
    const isTopic = this.#exchanges.typeOf(exchange) === 'topic';
    const queues = new Set<string>();
    for (const member of await this.#client.smembers(this.#keys.bindings(exchange))) {
      const binding = this.#keys.readBinding(member);
      if (binding === undefined || binding.queue === '') continue;
      const matches = binding.isTopic || isTopic;
      const matched = matches
        ? new RegExp(topicPattern(binding.routingKey)).test(routingKey)
        : binding.routingKey === routingKey;
      if (matched) queues.add(binding.queue);
    }
    return [...queues];
  }
}

/** What cannot be read goes back as it is: whoever takes it next says what is wrong with it. */
function readReturning(bytes: Buffer): { readonly priority: number; readonly envelope: Buffer } {
  try {
    return { priority: readEnvelope(bytes).priority, envelope: rewriteEnvelope(bytes, { redelivered: true }) };
  } catch (error) {
    if (error instanceof DecodeError) return { priority: 0, envelope: bytes };
    throw error;
  }
}
