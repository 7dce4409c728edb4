/** Declaring a queue on a channel of amqplib, and remembering what was declared. */
import type * as amqplib from 'amqplib';
import { toTable } from '../../codec/amqp/plain-table.js';
import { ClosedError } from '../../errors.js';
import { errorFromAmqp, saysOnlyClosed } from '../transports/amqp/errors.js';
import type { Channel } from './channel.js';
import { declareExchange, Exchange } from './exchange.js';
import type { Queue } from './queue.js';
import type { QueueFacts } from './queue-options.js';
import type { Target } from './target.js';

/** The arguments of the declaration: the options with names of their own win over `queueArguments`. Durations in ms. */
export function queueArgumentsOf(queue: Queue): Record<string, unknown> {
  const named = {
    'x-expires': queue.expires,
    'x-message-ttl': queue.messageTtl,
    'x-max-length': queue.maxLength,
    'x-max-length-bytes': queue.maxLengthBytes,
    'x-max-priority': queue.maxPriority,
  };
  const result: Record<string, unknown> = { ...queue.queueArguments };
  for (const [key, value] of Object.entries(named)) if (value !== undefined) result[key] = Math.round(value);
  return result;
}

/** Declares the queue alone, by a name that may be another than its own. Throws our error classes, or that the channel is closed. */
export async function declareAlone(
  channel: amqplib.Channel,
  queue: Queue,
  as = queue.name,
  passive = queue.passive,
): Promise<QueueFacts> {
  const { durable, exclusive, autoDelete } = queue;
  try {
    const args = toTable(queueArgumentsOf(queue), 'queueArguments');
    const reply = await (passive
      ? channel.checkQueue(as)
      : channel.assertQueue(as, { durable, exclusive, autoDelete, arguments: args }));
    return { name: reply.queue, messages: reply.messageCount, consumers: reply.consumerCount };
  } catch (error) {
    // Whoever owns the channel knows what it was closed with.
    throw saysOnlyClosed(error) ? error : errorFromAmqp(error, `declaring ${queue}`);
  }
}

/**
 * Declares exchange, queue and bindings, in this order. `there`: the name is the broker's, which it takes from nobody, so that the
 * queue is looked at, and bound again.
 */
export async function declareWithBindings(
  channel: amqplib.Channel,
  queue: Queue,
  as = queue.name,
  there = false,
): Promise<QueueFacts> {
  const { exchange } = queue;
  if (exchange !== undefined) await declareExchange(channel, exchange);
  const facts = await declareAlone(channel, queue, as, there);
  try {
    if (exchange !== undefined && exchange.name !== '') {
      const args = toTable(queue.bindingArguments ?? {}, 'bindingArguments');
      await channel.bindQueue(facts.name, exchange.name, queue.routingKey, args);
    }
    for (const binding of queue.bindings) {
      await declareExchange(channel, binding.exchange);
      const args = toTable(binding.arguments ?? {}, 'arguments');
      await channel.bindQueue(facts.name, binding.exchange.name, binding.routingKey, args);
    }
    return facts;
  } catch (error) {
    throw saysOnlyClosed(error) ? error : errorFromAmqp(error, `declaring ${queue}`);
  }
}

/**
 * Declares exchange, queue and bindings on a channel of amqplib; resolves with the queue's real name, which is the broker's
 * for a queue without one, and calls `onDeclared`. Throws our error classes; after one the broker has closed the channel.
 */
export async function declareQueue(channel: amqplib.Channel, queue: Queue): Promise<string> {
  if (queue.noDeclare) return queue.name;
  const { name, messages, consumers } = await (queue.passive
    ? declareAlone(channel, queue)
    : declareWithBindings(channel, queue, queue.name, queue.isServerNamed));
  queue.onDeclared?.(name, messages, consumers);
  return name;
}

/** What is declared of an entity does not change, so keys are made once. */
const keys = new WeakMap<Exchange | Queue, string>();

function cacheKey(entity: Exchange | Queue): string | undefined {
  if (!entity.canCacheDeclaration || entity.passive) return undefined;
  const isQueue = !(entity instanceof Exchange);
  // A name that the broker gave came with a declaration of its own.
  if (isQueue && (entity.name === '' || entity.isServerNamed)) return undefined;
  let key = keys.get(entity);
  if (key === undefined) {
    key = JSON.stringify([isQueue, entity.asDict()], plain);
    keys.set(entity, key);
  }
  return key;
}

/** JSON has no integers of 64 bits. */
function plain(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? `${value}n` : value;
}

/** True if `entity` needs no declaration on this connection any more. */
export function isDeclared(channel: Channel, entity: Exchange | Queue): boolean {
  const key = cacheKey(entity);
  return key !== undefined && channel.declared.get(key) === DONE;
}

const DONE = Promise.resolve();

/** The broker has said neither yes nor no. */
const NOT_ASKED = Symbol('not asked');

/**
 * Declares `entity` once in the life of a connection: what goes away by itself (`autoDelete`, `expires`) every time. Equal
 * declarations that are under way are joined, and failed ones forgotten. `channel` says in which life; `target`: through what,
 * which for a connection is another channel where its default one is closed over somebody else's mistake.
 */
export async function declareOnce(channel: Channel, entity: Exchange | Queue, target: Target = channel): Promise<void> {
  const key = cacheKey(entity);
  if (key === undefined) {
    await entity.declare(target);
    return;
  }
  const { declared } = channel;
  for (;;) {
    const before = declared.get(key);
    if (before === undefined) break;
    // It may have been made on a channel that ended under it: then it says nothing of ours.
    if ((await before) !== NOT_ASKED) return;
  }
  const declaring = entity.declare(target);
  const shared = declaring.then(
    () => {
      // Unless something was deleted meanwhile, which forgets all.
      if (declared.get(key) === shared) declared.set(key, DONE);
    },
    (error: unknown) => {
      if (declared.get(key) === shared) declared.delete(key);
      if (error instanceof ClosedError || channel.closedOverAnother(error)) return NOT_ASKED;
      throw error;
    },
  );
  // Those who join it may be none; who asked hears of it by `declaring`.
  shared.catch(() => undefined);
  declared.set(key, shared);
  await declaring;
}
