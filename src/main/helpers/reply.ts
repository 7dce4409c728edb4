/** Answering a message that says where its answer goes. */
import { findDecoder, prepareAcceptContent } from '../../codec/serialization.js';
import { OptionError } from '../../errors.js';
import { Message } from '../../message.js';
import type { PublishOptions } from '../../pool/publication.js';
import type { Exchange } from '../entities/exchange.js';

/** A `Producer`, or what publishes as one. */
export interface Publisher {
  publish(body: unknown, options?: PublishOptions): Promise<void>;
}

export interface SendReplyOptions extends PublishOptions {
  readonly producer: Publisher;
}

/**
 * Publishes `message` to the `replyTo` of `request` with its correlation id and its serializer; `options` go over these. `exchange`:
 * '' for a queue that `replyTo` names. Throws `OptionError` for a request without `replyTo`, `SerializerNotInstalled` if its
 * content type is not known, and what `publish` throws.
 */
export async function sendReply(
  exchange: Exchange | string,
  request: Message,
  message: unknown,
  options: SendReplyOptions,
): Promise<void> {
  const { producer, ...props } = options ?? {};
  if (typeof producer?.publish !== 'function') throw new OptionError('sendReply: the option producer is required');
  if (!(request instanceof Message)) throw new OptionError('sendReply: the second argument must be a Message');
  const { replyTo, correlationId, contentType } = request.properties;
  if (replyTo === undefined) throw new OptionError('sendReply: the request has no replyTo');
  const encoded = props.serializer !== undefined || props.contentType !== undefined;
  await producer.publish(message, {
    exchange,
    routingKey: replyTo,
    ...(correlationId === undefined ? {} : { correlationId }),
    ...(encoded || contentType === undefined ? {} : { serializer: serializerOf(contentType) }),
    ...props,
  });
}

function serializerOf(contentType: string): string {
  return findDecoder(contentType, prepareAcceptContent([contentType])).name;
}
