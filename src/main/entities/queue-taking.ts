/** Taking messages from a queue without anything around it: what `Queue.get` and `Queue.consume` do. */
import type * as amqplib from 'amqplib';
import { toTable } from '../../codec/amqp/plain-table.js';
import { OptionError } from '../../errors.js';
import type { Message } from '../../message.js';
import { kinds } from '../../options.js';
import type { CallOptions, Channel } from './channel.js';
import { acceptSet, messageFrom, settleOn, traitsOn } from './delivery.js';
import type { Queue } from './queue.js';
import type { GetOptions, QueueConsumeOptions } from './queue-options.js';
import { callSafely, warn } from './safely.js';
import { askAndStay, readCallOptions, type Target } from './target.js';

/** One message, or null. `options` are read. Throws `SerializerNotInstalled`, `NotFound`. */
export async function takeOne(queue: Queue, target: Target, options: GetOptions): Promise<Message | null> {
  const { noAck = queue.noAck, accept: names, ...call } = options;
  const accept = acceptSet(names!);
  const take = async (raw: amqplib.ConfirmChannel, channel: Channel) => ({
    found: await raw.get(queue.name, { noAck }),
    channel,
  });
  const { found, channel } = await askAndStay(target, `getting from ${queue}`, take, call, (late) => {
    if (late.found !== false && !noAck && !late.channel.closed) late.channel.raw.nack(late.found);
  });
  if (found === false) return null;
  return messageFrom(found, queue.name, { accept }, settleOn(channel, found, noAck), traitsOn(channel, found, noAck));
}

/**
 * Resolves with the tag; `consumers` gets to know the channel. `options` are read. Throws `SerializerNotInstalled`, `NotFound`,
 * `AccessRefused`.
 */
export async function startConsumer(
  queue: Queue,
  target: Target,
  options: QueueConsumeOptions,
  consumers: Map<string, Channel>,
): Promise<string> {
  const { noAck = queue.noAck, callback, consumerTag, onCancel, accept: names, ...call } = options;
  const accept = acceptSet(names!);
  const table = toTable(queue.consumerArguments ?? {}, 'consumerArguments');
  const start = async (raw: amqplib.ConfirmChannel, channel: Channel): Promise<string> => {
    let tag = consumerTag!;
    let isOver = false;
    const end = (why: string): void => {
      isOver = true;
      consumers.delete(tag);
      if (onCancel !== undefined) callSafely(queue, () => onCancel(tag));
      else warn(`a consumer of ${queue} has ended: ${why}`);
    };
    const deliver = (found: amqplib.ConsumeMessage | null): void => {
      if (found === null) {
        end('the broker cancelled it, for the queue was deleted, or is not available');
        return;
      }
      const traits = traitsOn(channel, found, noAck);
      const message = messageFrom(found, queue.name, { accept }, settleOn(channel, found, noAck), traits);
      callSafely(queue, () => callback(message));
    };
    tag = (await raw.consume(queue.name, deliver, { consumerTag: tag, noAck, arguments: table })).consumerTag;
    if (isOver) return tag;
    consumers.set(tag, channel);
    channel.ended.then((reason) => {
      if (consumers.get(tag) !== channel) return;
      if (reason === undefined) consumers.delete(tag);
      else end(reason.message);
    });
    return tag;
  };
  return askAndStay(target, `consuming from ${queue}`, start, call, (late) => {
    // Nobody knows of this consumer; a channel that is gone takes it along.
    queue.cancel(late).catch(() => undefined);
  });
}

/** Throws `OptionError`. */
export async function stopConsumer(
  consumerTag: string,
  options: CallOptions | undefined,
  consumers: Map<string, Channel>,
): Promise<void> {
  const call = readCallOptions('Queue.cancel', options);
  if (!kinds.shortString.test(consumerTag)) {
    throw new OptionError(`Queue.cancel: the consumer tag must be ${kinds.shortString.words}`);
  }
  const channel = consumers.get(consumerTag);
  if (channel === undefined || channel.closed) return;
  await channel.call(`cancelling the consumer '${consumerTag}'`, (raw) => raw.cancel(consumerTag), call);
  consumers.delete(consumerTag);
}
