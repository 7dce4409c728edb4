/** Gives recorded deliveries back to the queues that they came from, in front and marked. */
import { readEnvelope, rewriteEnvelope } from '../../../codec/envelope.js';
import { DecodeError, OperationalError, PreconditionFailed } from '../../../errors.js';
import type { Client } from './client.js';
import { errorOfReply } from './errors.js';
import type { Exchanges } from './exchanges.js';
import { type Keys, topicPattern } from './keys.js';
import { readRecord } from './record.js';

export class Restoring {
  readonly #client: Client;
  readonly #keys: Keys;
  readonly #exchanges: Exchanges;

  constructor(client: Client, keys: Keys, exchanges: Exchanges) {
    this.#client = client;
    this.#keys = keys;
    this.#exchanges = exchanges;
  }

  /**
   * `latest`: only if its lease is not younger; '': in any case. Resolves with 1, or 0 if it is not delivered any more. Throws
   * `DecodeError`, `OperationalError` and `PreconditionFailed` for one that cannot be put back, which stays where it is; whatever
   * else it throws would befall others as well.
   */
  async restore(latest: string, tag: string, record: Buffer): Promise<number> {
    const { unacked, unackedIndex } = this.#keys;
    const { envelope, exchange, routingKey } = readRecord(record);
    if (exchange !== '' && this.#exchanges.typeOf(exchange) === 'fanout') {
      // It was for the listener that is dead; nobody would take it from a list.
      await this.#client.mozukuAck(2, unacked, unackedIndex, tag);
      return 0;
    }
    const [priority, marked] = again(envelope);
    const queues = exchange === '' ? [routingKey] : await this.#route(exchange, routingKey);
    const lists = queues.map((queue) => this.#keys.list(queue, priority));
    if (lists.length === 0) {
      throw new OperationalError(`no queue is bound to '${exchange}' for '${routingKey}' any more`);
    }
    // Python's records do not say which of several queues it came from: all of them get it, as by Python.
    const [count, place, text] = await this.#client.mozukuRestoreBuffer(
      2 + lists.length,
      ...[unacked, unackedIndex, ...lists, latest, tag, marked],
      ...queues.map((queue) => this.#exchanges.lasting.get(queue) ?? ''),
    );
    if (place !== undefined) throw errorOfReply(text as Buffer, `putting it into '${lists[(place as number) - 1]}'`);
    return count as number;
  }

  /** Those of these deliveries that are recorded go back, whoever holds them. */
  async reclaim(tags: readonly string[]): Promise<void> {
    if (tags.length === 0) return;
    const records = await this.#client.hmgetBuffer(this.#keys.unacked, ...tags);
    // The last one first, for each goes in front of those before it.
    for (let i = tags.length - 1; i >= 0; i--) {
      const record = records[i];
      if (record == null) continue;
      try {
        await this.restore('', tags[i]!, record);
      } catch (error) {
        // Whoever finds it when its lease is over tells what is wrong with it.
        if (!isOfOne(error)) throw error;
      }
    }
  }

  async #route(exchange: string, routingKey: string): Promise<string[]> {
    const isTopic = this.#exchanges.typeOf(exchange) === 'topic';
    const queues = new Set<string>();
    for (const member of await this.#client.smembers(this.#keys.bindings(exchange))) {
      const binding = this.#keys.readBinding(member);
      if (binding === undefined || binding.queue === '') continue;
      const matched =
        binding.isTopic || isTopic ? matches(binding.routingKey, routingKey) : binding.routingKey === routingKey;
      if (matched) queues.add(binding.queue);
    }
    return [...queues];
  }
}

function matches(bindingKey: string, routingKey: string): boolean {
  let pattern: RegExp;
  try {
    pattern = new RegExp(topicPattern(bindingKey));
  } catch (error) {
    // A `*` where it repeats nothing: Python cannot read it either.
    if (error instanceof SyntaxError) return bindingKey === routingKey;
    throw error;
  }
  return pattern.test(routingKey);
}

/** True for what is wrong with one delivery, and with no other. */
export function isOfOne(error: unknown): error is DecodeError | OperationalError {
  const isPlain = error instanceof OperationalError && error.code === OperationalError.code;
  return error instanceof DecodeError || error instanceof PreconditionFailed || isPlain;
}

/** Its priority, and the envelope marked. One that cannot be read goes back as it is: who consumes it tells what is wrong. */
function again(envelope: Buffer): [priority: number, envelope: Buffer] {
  try {
    return [readEnvelope(envelope).priority, rewriteEnvelope(envelope, { redelivered: true })];
  } catch (error) {
    if (error instanceof DecodeError) return [0, envelope];
    throw error;
  }
}
