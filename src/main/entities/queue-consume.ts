/** A consumer without anything around it: what `Queue.consume` starts. */
import type * as amqplib from 'amqplib';
import { toTable } from '../../codec/amqp/plain-table.js';
import { readOptions } from '../../options.js';
import type { Channel } from './channel.js';
import { acceptSet, messageFrom, settleOn, traitsOn } from './delivery.js';
import type { Queue } from './queue.js';
import { CONSUME_OPTIONS, type QueueConsumeOptions } from './queue-options.js';
import { callSafely } from './safely.js';
import { askAndStay, type Target } from './target.js';

/** Resolves with the tag; `consumers` gets to know the channel. Throws `OptionError`, `NotFound`, `AccessRefused`. */
export async function startConsumer(
  queue: Queue,
  target: Target,
  options: QueueConsumeOptions | undefined,
  consumers: Map<string, Channel>,
): Promise<string> {
  const given = readOptions<QueueConsumeOptions>('Queue.consume', CONSUME_OPTIONS, options);
  const { noAck = queue.noAck, callback, consumerTag, onCancel, accept: names, ...call } = given;
  const accept = acceptSet(names!);
  const table = toTable(queue.consumerArguments ?? {}, 'consumerArguments');
  const start = async (raw: amqplib.ConfirmChannel, channel: Channel): Promise<string> => {
    let tag = consumerTag!;
    const deliver = (found: amqplib.ConsumeMessage | null): void => {
      if (found === null) {
        consumers.delete(tag);
        if (onCancel !== undefined) callSafely(queue, () => onCancel(tag));
        return;
      }
      const traits = traitsOn(channel, found, noAck);
      const message = messageFrom(found, queue.name, { accept }, settleOn(channel, found, noAck), traits);
      callSafely(queue, () => callback(message));
    };
    tag = (await raw.consume(queue.name, deliver, { consumerTag: tag, noAck, arguments: table })).consumerTag;
    consumers.set(tag, channel);
    return tag;
  };
  return askAndStay(target, `consuming from ${queue}`, start, call, (late) => {
    // Nobody knows of this consumer; a channel that is gone takes it along.
    queue.cancel(late).catch(() => undefined);
  });
}
