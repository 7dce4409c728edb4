import { FRAME_ENVELOPE, FRAME_OVERHEAD } from '../codec/amqp/frames.js';
import type { DecodeLimits } from '../codec/decode.js';
import { AmqpDelivery } from './amqp-delivery.js';
import type { Delivery, QueueLookup } from './delivery.js';
import { EnvelopeDelivery } from './envelope-delivery.js';

/** The delivery at [start, start + length), of whichever form. Looks at the frames' heads and at nothing else. */
export function openDelivery(
  bytes: Buffer,
  start: number,
  length: number,
  queues: QueueLookup,
  limits: DecodeLimits,
): Delivery {
  // Frames of other channels may follow basic.deliver, but never one of this type.
  const behind = start + bytes.readUInt32BE(start + 3) + FRAME_OVERHEAD;
  return bytes[behind] === FRAME_ENVELOPE
    ? new EnvelopeDelivery(bytes, start, length, queues, limits)
    : new AmqpDelivery(bytes, start, length, behind, queues, limits);
}
