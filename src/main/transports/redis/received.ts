/** A message as amqplib gives it, of an envelope. */
import { readEnvelope } from '../../../codec/envelope.js';
import { DecodeError } from '../../../errors.js';
import { BROKEN } from '../../entities/delivery.js';

export interface Received {
  readonly fields: Readonly<Record<string, unknown>>;
  readonly properties: Readonly<Record<string, unknown>>;
  readonly content: Buffer;
  readonly [BROKEN]?: DecodeError;
}

/** Never throws: what cannot be read fails its message when it is decoded; its content is the envelope then. */
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
      properties: { headers: {} },
      content: bytes,
      [BROKEN]: error,
    };
  }
}
