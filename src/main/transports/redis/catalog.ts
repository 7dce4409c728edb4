/** Declaring, binding and deleting: kombu's sets and lists, and what only processes know. Errors have AMQP's reply codes. */
import { randomBytes } from 'node:crypto';
import type * as amqplib from 'amqplib';
import type { RedisConnection } from './connection.js';
import { errorFromRedis } from './errors.js';
import { type ExchangeType, TYPES } from './exchanges.js';
import { refuse, warnOfArguments } from './refusal.js';

/** How names begin that queues without one are given. */
export const GIVEN_NAME = 'amq.gen-';

export class Catalog {
  readonly #redis: RedisConnection;

  constructor(redis: RedisConnection) {
    this.#redis = redis;
  }

  async assertQueue(name: string, options: amqplib.Options.AssertQueue): Promise<amqplib.Replies.AssertQueue> {
    const queue = name === '' ? `${GIVEN_NAME}${randomBytes(16).toString('base64url')}` : name;
    const { exchanges } = this.#redis;
    const args = plain(options.arguments);
    const expires = options.expires ?? args['x-expires'];
    warnOfArguments(queue, args);
    if (typeof expires === 'number' && expires > 0) exchanges.lasting.set(queue, Math.round(expires));
    else exchanges.lasting.delete(queue);
    exchanges.queues.add(queue);
    if (options.exclusive === true) this.#redis.passing.set(queue, 'exclusive');
    else if (options.autoDelete === true) this.#redis.passing.set(queue, 'autoDelete');
    return { queue, messageCount: await this.size(queue), consumerCount: 0 };
  }

  /** A list that is empty is not there: a queue is known by its messages, or because this process declared it. */
  async checkQueue(queue: string): Promise<amqplib.Replies.AssertQueue> {
    const messageCount = await this.size(queue);
    if (messageCount === 0 && !this.#redis.exchanges.queues.has(queue)) {
      throw refuse(404, `NOT_FOUND - no queue '${queue}' with messages, nor declared by this process`);
    }
    return { queue, messageCount, consumerCount: 0 };
  }

  async size(queue: string): Promise<number> {
    const { client, keys } = this.#redis;
    const sizes = await Promise.all(
      keys.lists(queue).map((list) =>
        client.llen(list).catch((error: unknown) => {
          throw errorFromRedis(error, `asking for the length of the list '${list}'`);
        }),
      ),
    );
    return sizes.reduce((sum, size) => sum + size, 0);
  }

  /** It was used: a queue with `expires` begins to last anew. */
  async renew(queue: string): Promise<void> {
    const { client, exchanges, keys } = this.#redis;
    const milliseconds = exchanges.lasting.get(queue);
    if (milliseconds === undefined) return;
    await Promise.all(keys.lists(queue).map((list) => client.pexpire(list, milliseconds)));
  }

  async purge(queue: string): Promise<number> {
    const { client, keys } = this.#redis;
    const lists = keys.lists(queue);
    const transaction = client.multi();
    // Not DEL: it would take away what is no list, and was never ours.
    for (const list of lists) transaction.llen(list).ltrim(list, 1, 0);
    const replies = (await transaction.exec()) ?? [];
    let messages = 0;
    for (const [error, reply] of replies) {
      if (error !== null) throw error;
      if (typeof reply === 'number') messages += reply;
    }
    return messages;
  }

  async deleteQueue(queue: string, ifEmpty: boolean): Promise<number> {
    const { client, exchanges, keys } = this.#redis;
    if (ifEmpty && (await this.size(queue)) > 0) throw refuse(406, `PRECONDITION_FAILED - queue '${queue}' not empty`);
    const messages = await this.purge(queue);
    for (const [exchange, members] of exchanges.bindings) {
      for (const member of members) {
        const binding = keys.readBinding(member);
        if (binding?.queue !== queue) continue;
        members.delete(member);
        exchanges.lasting.unbound(exchange, binding.routingKey, queue);
        await client.srem(keys.bindings(exchange), member);
      }
    }
    exchanges.queues.delete(queue);
    this.#redis.passing.delete(queue);
    exchanges.lasting.delete(queue);
    await exchanges.fanout.removeQueue(queue);
    return messages;
  }

  /**
   * At the end of a connection: its exclusive queues, and those of fanout exchanges that are to go with their consumers, if they were
   * the last in this process. Others may have consumers elsewhere, which nobody here knows of.
   */
  async deletePassing(): Promise<void> {
    const { passing, exchanges } = this.#redis;
    for (const [queue, why] of passing) {
      const isForsaken = exchanges.fanout.has(queue) && !exchanges.fanout.isHeard(queue);
      if (why === 'exclusive' || isForsaken) await this.deleteQueue(queue, false);
    }
  }

  async bind(queue: string, exchange: string, routingKey: string): Promise<void> {
    const { client, exchanges, keys } = this.#redis;
    if (exchange === '') throw refuse(403, 'ACCESS_REFUSED - operation not permitted on the default exchange');
    const type = exchanges.typeOf(exchange);
    const member = keys.binding(routingKey, queue, type === 'topic');
    exchanges.bindingsOf(exchange).add(member);
    exchanges.lasting.bound(exchange, routingKey, queue);
    await client.sadd(keys.bindings(exchange), member);
    if (type === 'fanout') await exchanges.fanout.add(queue, exchange, routingKey);
  }

  async unbind(queue: string, exchange: string, routingKey: string): Promise<void> {
    const { client, exchanges, keys } = this.#redis;
    await exchanges.fanout.remove(queue, exchange, routingKey);
    const member = keys.binding(routingKey, queue, exchanges.typeOf(exchange) === 'topic');
    exchanges.bindingsOf(exchange).delete(member);
    exchanges.lasting.unbound(exchange, routingKey, queue);
    await client.srem(keys.bindings(exchange), member);
  }

  assertExchange(
    name: string,
    type: string,
    { durable = true, autoDelete = false }: amqplib.Options.AssertExchange,
  ): void {
    const { exchanges } = this.#redis;
    if (name === '') throw refuse(403, 'ACCESS_REFUSED - operation not permitted on the default exchange');
    if (!TYPES.has(type))
      throw refuse(540, `NOT_IMPLEMENTED - Redis has direct, topic and fanout exchanges, not '${type}'`);
    const facts = { type: type as ExchangeType, durable, autoDelete };
    const before = exchanges.declared.get(name);
    if (before !== undefined && JSON.stringify(before) !== JSON.stringify(facts)) {
      throw refuse(406, `PRECONDITION_FAILED - exchange '${name}' was declared otherwise: ${JSON.stringify(before)}`);
    }
    exchanges.declared.set(name, facts);
  }

  async checkExchange(name: string): Promise<void> {
    const { client, exchanges, keys } = this.#redis;
    if (name === '' || exchanges.declared.has(name)) return;
    if ((await client.exists(keys.bindings(name))) === 0) throw refuse(404, `NOT_FOUND - no exchange '${name}'`);
  }

  async deleteExchange(name: string): Promise<void> {
    const { client, exchanges, keys } = this.#redis;
    exchanges.declared.delete(name);
    exchanges.bindings.delete(name);
    exchanges.lasting.exchangeDeleted(name);
    await exchanges.fanout.removeExchange(name);
    await client.del(keys.bindings(name));
  }
}

/** Arguments as they were given: amqplib's way to give a value's type undone. */
function plain(args: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  const isTyped = (value: unknown): value is { readonly value: unknown } =>
    typeof value === 'object' && value !== null && Object.hasOwn(value, '!');
  return Object.fromEntries(Object.entries(args).map(([key, value]) => [key, isTyped(value) ? value.value : value]));
}
