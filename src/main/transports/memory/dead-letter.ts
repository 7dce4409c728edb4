/**
 * What becomes of a message that a queue gives up: the same message with an account of its deaths in the headers, and the
 * question whether it goes round in a circle. Pure; follows RabbitMQ's rabbit_dead_letter.
 *
 *   x-death: [ { count, reason, queue, time, exchange, routing-keys, original-expiration? }, … ]   latest first, one a queue and reason
 *   x-first-death-reason, x-first-death-queue, x-first-death-exchange: of the first, once and for all
 */
import { readField } from '../../../codec/amqp/amqplib-values.js';
import { fieldBytes } from '../../../codec/amqp/field-bytes.js';
import { keysOf, type StoredMessage, textField } from './message.js';
import type { DeathReason } from './queue.js';

export interface Death {
  readonly queue: string;
  readonly reason: DeathReason;
  readonly seconds: number;
  readonly exchange: string;
  /** Undefined: it keeps its own. */
  readonly routingKey: string | undefined;
}

type Record_ = Record<string, unknown>;

function deathsOf(message: StoredMessage): Record_[] {
  const field = message.headers.get('x-death');
  const value = field === undefined ? [] : readField(field);
  if (!Array.isArray(value)) return [];
  return value.filter((each): each is Record_ => typeof each === 'object' && each !== null);
}

/** The message as it goes to the dead letter exchange. */
export function buried(message: StoredMessage, death: Death): StoredMessage {
  const { queue, reason, seconds } = death;
  const headers = new Map(message.headers);
  const before = deathsOf(message);
  const known = before.find((each) => each.queue === queue && each.reason === reason);
  const others = before.filter((each) => each !== known);
  const latest: Record_ =
    known === undefined
      ? {
          count: { '!': 'long', value: 1 },
          reason,
          queue,
          time: { '!': 'timestamp', value: seconds },
          exchange: message.exchange,
          'routing-keys': [message.routingKey, ...keysOf(headers, 'CC')],
          ...(message.expiration !== undefined && { 'original-expiration': message.expiration }),
        }
      : { ...known, count: Number(known.count) + 1 };
  // One that somebody wrote there, whatever it is, counts as a first death that is not ours to tell.
  if (!headers.has('x-death')) {
    headers.set('x-first-death-exchange', textField(message.exchange));
    headers.set('x-first-death-queue', textField(queue));
    headers.set('x-first-death-reason', textField(reason));
  }
  headers.set('x-death', fieldBytes([latest, ...others].map(countAsLong)));
  const own = death.routingKey === undefined;
  if (!own) headers.delete('CC');
  return message.reborn(death.exchange, death.routingKey ?? message.routingKey, own ? message.moreKeys : [], headers);
}

/** The count of each is an integer of 64 bits, however small. */
function countAsLong(death: Record_): Record_ {
  return { ...death, count: typeof death.count === 'number' ? { '!': 'long', value: death.count } : death.count };
}

/** True if `queue` has given this message up before, and nobody has rejected it since: it would go round for ever. */
export function isCycle(message: StoredMessage, queue: string): boolean {
  const deaths = deathsOf(message);
  const last = deaths.findIndex((each) => each.queue === queue);
  return last >= 0 && deaths.slice(0, last + 1).every((each) => each.reason !== 'rejected');
}
