/**
 * A delivery in shared memory, read where it lies. It is of one of two forms: AMQP's frames as they came from the socket, or
 * kombu's envelope behind a basic.deliver of ours. Nothing is decoded before somebody asks. The bytes are lent: after the
 * settlement they belong to the next message, unless `own` copied them before.
 *
 *   basic.deliver │ content header │ body frames …     AmqpDelivery
 *   basic.deliver │ FRAME_ENVELOPE                     EnvelopeDelivery
 *
 * What both have in common; `open-delivery.ts` tells them apart.
 */
import { FRAME_HEAD } from '../codec/amqp/frames.js';
import { skipShortString } from '../codec/amqp/properties.js';
import type { DecodeLimits } from '../codec/decode.js';
import type { DeliveryInfo, MessageSource } from '../message.js';

/** Runs before this one, of a message that the broker kept for a while: written by main, read by workers. */
export const RETRIES_HEADER = 'x-mozuku-retries';

/** Names of queues by consumer tag. */
export interface QueueLookup {
  get(consumerTag: string): string | undefined;
}

/** For readers that want the fields and never the payload. */
export const NO_DECODING: DecodeLimits = { accept: new Set(), maxDecodedBytes: 0 };

export interface Delivery extends MessageSource {
  /** Makes the bytes its own, so that they outlive the settlement. */
  own(): void;
  /** How often it had run before the broker kept it for another time. */
  readRetries(): number;
  /** What stands in for a body that cannot be read: the message as it came, in memory of its own. */
  readRaw(): Buffer;
}

/** Writes into the basic.deliver of the delivery at `start` that it is not the first time. */
export function markRedelivered(bytes: Buffer, start: number): void {
  const tag = start + FRAME_HEAD + 4;
  // Behind the consumer tag and the delivery tag.
  bytes[tag + 1 + bytes[tag]! + 8]! |= 1;
}

/** The fields of the basic.deliver at `start`. Throws `DecodeError` where its names are cut off. */
export function readDeliver(bytes: Buffer, start: number, queues: QueueLookup): DeliveryInfo {
  const end = start + FRAME_HEAD + bytes.readUInt32BE(start + 3);
  let at = start + FRAME_HEAD + 4;
  const text = (): string => {
    const next = skipShortString(bytes, at, end);
    const value = bytes.utf8Slice(at + 1, next);
    at = next;
    return value;
  };
  const consumerTag = text();
  const deliveryTag = bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4);
  const redelivered = (bytes[at + 8]! & 1) === 1;
  at += 9;
  const exchange = text();
  const routingKey = text();
  const queue = queues.get(consumerTag) ?? '';
  return { exchange, routingKey, redelivered, consumerTag, deliveryTag, queue };
}
