/**
 * Messages that the broker keeps for a while: kombu's native delayed delivery, with the same names, arguments and bindings, so
 * that its programs and ours share one set of queues. 28 levels, of which level n is a queue that keeps a message for 2^n
 * seconds and hands it to the level below. A message enters at the top; the 28 binary digits before its routing key say at
 * which levels it waits and which it passes by.
 */
import { OptionError } from '../errors.js';
import { kinds, type OptionTable, readOptions } from '../options.js';
import { type CallOptions, Channel } from './entities/channel.js';
import { Exchange } from './entities/exchange.js';
import { Queue } from './entities/queue.js';
import { warn } from './entities/safely.js';
import { CALL_OPTIONS, isTarget, type Target } from './entities/target.js';

const LEVELS = 28;
const MAX_SECONDS = 2 ** LEVELS - 1;
const DIGITS = new RegExp(`^(?:[01]\\.){${LEVELS}}`);

export interface DelayedDeliveryOptions extends CallOptions {
  readonly prefix?: string;
}

const OPTIONS: OptionTable<DelayedDeliveryOptions> = {
  prefix: { kind: kinds.string, default: '', doc: 'Begins all names, with an underscore behind it.' },
  ...CALL_OPTIONS,
};

function named(name: string, prefix: string | undefined): string {
  if (prefix !== undefined && !kinds.string.test(prefix)) {
    throw new OptionError(`delayedDelivery: the prefix must be ${kinds.string.words}`);
  }
  return prefix === undefined || prefix === '' ? name : `${prefix}_${name}`;
}

/** The name of a level's exchange and of its queue; level 27 is where messages enter. Throws `OptionError`. */
export function levelName(level: number, prefix?: string): string {
  if (!kinds.integer(0, LEVELS - 1).test(level)) {
    throw new OptionError(`levelName: the level must be ${kinds.integer(0, LEVELS - 1).words}`);
  }
  return named(`celery_delayed_${level}`, prefix);
}

/** The exchange that messages come out of. */
export function deliveryExchangeName(prefix?: string): string {
  return named('celery_delayed_delivery', prefix);
}

/** Runs `work` on the channel, or on one of its own. */
async function onChannel(target: Target, call: CallOptions, work: (channel: Channel) => Promise<void>): Promise<void> {
  if (!isTarget(target)) throw new OptionError('delayedDelivery: the first argument must be a Connection or a Channel');
  if (target instanceof Channel) {
    await work(target);
    return;
  }
  const channel = await target.channel(call);
  try {
    await work(channel);
  } finally {
    await channel.close();
  }
}

/**
 * Declares the levels and the exchange that messages come out of; once is enough, and doing it again changes nothing.
 * `queueType`: 'quorum' (replicated; with its dead letters confirmed) or 'classic'; not to be changed without deleting the queues.
 * `timeout` is each question's. Throws `OptionError`, `PreconditionFailed` (declared otherwise).
 */
export async function declareNativeDelayedDeliveryExchangesAndQueues(
  connection: Target,
  queueType: 'classic' | 'quorum',
  options?: DelayedDeliveryOptions,
): Promise<void> {
  const { prefix, ...call } = readOptions<DelayedDeliveryOptions>('delayedDelivery', OPTIONS, options);
  if (queueType !== 'classic' && queueType !== 'quorum') {
    throw new OptionError("delayedDelivery: the queue type must be 'classic' or 'quorum'");
  }
  await onChannel(connection, call, async (channel) => {
    for (let level = LEVELS - 1; level >= 0; level--) {
      const exchange = levelExchange(level, prefix);
      const queue = levelQueue(level, queueType, prefix);
      await exchange.declare(channel, call);
      await queue.declare(channel, call);
      await queue.bindTo(exchange, channel, { routingKey: `${anyDigits(level)}1.#`, ...call });
    }
    const delivery = new Exchange(deliveryExchangeName(prefix), { type: 'topic' });
    await delivery.declare(channel, call);
    for (let level = LEVELS - 1; level >= 0; level--) {
      const below = level === 0 ? delivery : levelExchange(level - 1, prefix);
      const way = { routingKey: `${anyDigits(level)}0.#`, ...call };
      await below.bindTo(levelExchange(level, prefix), channel, way);
    }
  });
}

/** For the digits of the levels above. */
function anyDigits(level: number): string {
  return '*.'.repeat(LEVELS - 1 - level);
}

function levelExchange(level: number, prefix: string | undefined): Exchange {
  return new Exchange(levelName(level, prefix), { type: 'topic' });
}

function levelQueue(level: number, queueType: 'classic' | 'quorum', prefix: string | undefined): Queue {
  const next = level === 0 ? deliveryExchangeName(prefix) : levelName(level - 1, prefix);
  return new Queue(levelName(level, prefix), {
    queueArguments: {
      'x-queue-type': queueType,
      'x-overflow': 'reject-publish',
      'x-message-ttl': 2 ** level * 1000,
      'x-dead-letter-exchange': next,
      ...(queueType === 'quorum' ? { 'x-dead-letter-strategy': 'at-least-once' } : {}),
    },
  });
}

/**
 * Lets delayed messages come to a queue: binds its exchange, or those of its bindings, to the delivery exchange, and the queue to
 * them, for any digits before the routing key. The exchanges and the queue must be declared. A direct exchange compares whole
 * keys and cannot take part: it is left out with a warning of the process. Throws `OptionError`, `NotFound`.
 */
export async function bindQueueToNativeDelayedDeliveryExchange(
  connection: Target,
  queue: Queue,
  options?: DelayedDeliveryOptions,
): Promise<void> {
  const { prefix, ...call } = readOptions<DelayedDeliveryOptions>('delayedDelivery', OPTIONS, options);
  if (!(queue instanceof Queue)) throw new OptionError('delayedDelivery: the second argument must be a Queue');
  const { exchange, routingKey, bindings } = queue;
  const ways = exchange === undefined ? bindings : [{ exchange, routingKey }];
  await onChannel(connection, call, async (channel) => {
    for (const way of ways) {
      if (way.exchange.type === 'direct') {
        warn(
          `${way.exchange} is a direct exchange: no delayed messages come to ${queue} by it; a topic exchange would do`,
        );
        continue;
      }
      const key = way.routingKey.startsWith('#') ? way.routingKey : `#.${way.routingKey}`;
      await way.exchange.bindTo(deliveryExchangeName(prefix), channel, { routingKey: key, ...call });
      await queue.bindTo(way.exchange, channel, { routingKey: key, ...call });
    }
  });
}

/**
 * The routing key that delays a message by `countdown` milliseconds, rounded up to whole seconds: from 1000 ms to 2^28 - 1 seconds
 * (8.5 years). Digits that are before the key already, as on a message that comes again, are replaced. Throws `OptionError`.
 */
export function calculateRoutingKey(countdown: number, routingKey: string): string {
  const seconds = typeof countdown === 'number' ? Math.ceil(countdown / 1000) : Number.NaN;
  if (!(countdown >= 1000 && seconds <= MAX_SECONDS)) {
    throw new OptionError(
      `calculateRoutingKey: the countdown must be milliseconds, from 1000 (a second is the finest) to ${MAX_SECONDS * 1000}`,
    );
  }
  if (!kinds.name.test(routingKey)) {
    throw new OptionError(`calculateRoutingKey: the routing key must be ${kinds.name.words}`);
  }
  const digits = [...seconds.toString(2).padStart(LEVELS, '0')];
  const key = [...digits, routingKey.replace(DIGITS, '')].join('.');
  if (!kinds.shortString.test(key)) {
    const room = 255 - 2 * LEVELS;
    throw new OptionError(`calculateRoutingKey: the routing key is too long: ${room} bytes are left beside the delay`);
  }
  return key;
}

/**
 * Where to publish a message that is to arrive `delay` milliseconds later: exchange and routing key for
 * `producer.publish(body, { ...delayedDelivery.delayed(60_000, 'mail.send') })`. Throws as `calculateRoutingKey`.
 */
export function delayed(
  delay: number,
  routingKey: string,
  options?: Pick<DelayedDeliveryOptions, 'prefix'>,
): { exchange: string; routingKey: string } {
  const { prefix } = readOptions<DelayedDeliveryOptions>('delayedDelivery', OPTIONS, options);
  return { exchange: levelName(LEVELS - 1, prefix), routingKey: calculateRoutingKey(delay, routingKey) };
}
