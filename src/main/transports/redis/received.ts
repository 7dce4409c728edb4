/** A message as amqplib gives it, of an envelope. */
import { readEnvelope } from '../../../codec/envelope.js';
import { DecodeError } from '../../../errors.js';

export interface Received {
  readonly fields: Readonly<Record<string, unknown>>;
  readonly properties: Readonly<Record<string, unknown>>;
  readonly content: Buffer;
}

/** Says what its envelope was broken by; the content is the envelope then. */
export const BROKEN_HEADER = 'x-mozuku-broken-envelope';

/** Never throws: what cannot be read fails its message when it is decoded, for it has a content type that nobody accepts. */
export function received(bytes: Buffer, deliveryTag: number): Received {
  try {
    const envelope = readEnvelope(bytes);
    const { exchange, routingKey, redelivered, headers } = envelope;
    return {
      fields: { deliveryTag, redelivered, exchange, routingKey },
      properties: { ...envelope.properties, headers },
      content: envelope.body,
    };
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    return {
      fields: { deliveryTag, redelivered: false, exchange: '', routingKey: '' },
      properties: { contentType: 'application/x-broken-envelope', headers: { [BROKEN_HEADER]: error.message } },
      content: bytes,
    };
  }
}
