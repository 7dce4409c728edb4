/** A message as amqplib delivers it, made into our `Message`. Inline consumers and `queue.get()` use it; the runtime does not. */

import type * as amqplib from 'amqplib';
import { fromTable } from '../../codec/amqp/plain-table.js';
import { PROPERTY_NAMES } from '../../codec/amqp/properties.js';
import { DEFAULT_MAX_DECODED_BYTES } from '../../codec/compression.js';
import { decodePayload } from '../../codec/decode.js';
import type { ExtendedTypes } from '../../codec/extended-types.js';
import { prepareAcceptContent } from '../../codec/serialization.js';
import type { DecodeError } from '../../errors.js';
import { Message, type MessageProperties, type MessageTraits, type Settle } from '../../message.js';
import type { Channel } from './channel.js';

/** On a message of a transport that could not read it: what `decode()` throws. */
export const BROKEN: unique symbol = Symbol('broken');

export const DEFAULT_ACCEPT: readonly string[] = Object.freeze(['json', 'text', 'raw']);

export interface Decoding {
  readonly accept: ReadonlySet<string>;
  readonly maxDecodedBytes?: number;
  readonly types?: ExtendedTypes;
}

/** Content types for `accept`'s names. Throws `SerializerNotInstalled` for one that is not known. */
export function acceptSet(accept: readonly string[]): ReadonlySet<string> {
  return prepareAcceptContent(accept);
}

function propertiesOf(given: amqplib.MessageProperties): MessageProperties {
  const result: Record<string, unknown> = {};
  for (const key of PROPERTY_NAMES) if (given[key] !== undefined) result[key] = given[key];
  return result;
}

/** Our message around amqplib's. `queue`: the name it was consumed from. */
export function messageFrom(
  raw: amqplib.Message,
  queue: string,
  decoding: Decoding,
  settle: Settle,
  traits?: MessageTraits,
): Message {
  const { fields, properties, content } = raw;
  return new Message(
    {
      readProperties: () => propertiesOf(properties),
      readHeaders: () => fromTable(properties.headers),
      readDeliveryInfo: () => ({
        exchange: fields.exchange,
        routingKey: fields.routingKey,
        redelivered: fields.redelivered,
        consumerTag: fields.consumerTag ?? '',
        deliveryTag: fields.deliveryTag,
        queue,
      }),
      readAccept: () => decoding.accept,
      // amqplib's content is a view into the bytes of a whole read from the socket.
      readBody: () => Buffer.from(content),
      decode: () => {
        const broken = (raw as { readonly [BROKEN]?: DecodeError })[BROKEN];
        if (broken !== undefined) throw broken;
        const compression: unknown = properties.headers?.compression;
        return decodePayload(
          content,
          {
            contentType: properties.contentType,
            contentEncoding: properties.contentEncoding,
            compression: typeof compression === 'string' ? compression : undefined,
          },
          { ...decoding, maxDecodedBytes: decoding.maxDecodedBytes ?? DEFAULT_MAX_DECODED_BYTES },
        );
      },
    },
    settle,
    traits,
  );
}

/** What the broker knows of a delivery without being told of it. */
export function traitsOn(channel: Channel, raw: amqplib.Message, noAck: boolean): MessageTraits {
  return { noAck, settledAlong: () => raw.fields.deliveryTag <= channel.settledUpTo };
}

/**
 * Takes a message's outcome to the channel it came through. On a channel that is gone it does nothing but call `stale`: the
 * broker has given the message to somebody else. Without acks there is nothing to settle, and nothing is sent.
 */
export function settleOn(channel: Channel, raw: amqplib.Message, noAck: boolean, stale?: () => void): Settle {
  return (outcome, multiple) => {
    if (noAck) return;
    if (channel.closed) {
      stale?.();
    } else if (outcome === 'ack') {
      channel.raw.ack(raw, multiple);
      if (multiple) channel.settleUpTo(raw.fields.deliveryTag);
    } else {
      channel.raw.reject(raw, outcome === 'requeue');
    }
  };
}
