/** A delivery whose message is kombu's envelope: see `delivery.ts`. The envelope is parsed at most once. */
import { FRAME_HEAD, FRAME_OVERHEAD } from '../codec/amqp/frames.js';
import { type DecodeLimits, decodePayload } from '../codec/decode.js';
import { type Envelope, readEnvelope } from '../codec/envelope.js';
import { DecodeError } from '../errors.js';
import type { DeliveryInfo, MessageProperties } from '../message.js';
import { type Delivery, type QueueLookup, RETRIES_HEADER, readDeliver } from './delivery.js';

export class EnvelopeDelivery implements Delivery {
  #bytes: Buffer;
  #start: number;
  readonly #length: number;
  readonly #queues: QueueLookup;
  readonly #limits: DecodeLimits;
  #parsed: Envelope | undefined;

  constructor(bytes: Buffer, start: number, length: number, queues: QueueLookup, limits: DecodeLimits) {
    this.#bytes = bytes;
    this.#start = start;
    this.#length = length;
    this.#queues = queues;
    this.#limits = limits;
  }

  own(): void {
    const copy = Buffer.allocUnsafeSlow(this.#length);
    copy.set(this.#bytes.subarray(this.#start, this.#start + this.#length));
    this.#bytes = copy;
    this.#start = 0;
    this.#parsed?.moveTo(this.#envelopeBytes());
  }

  readProperties(): MessageProperties {
    return this.#envelope().properties;
  }

  readHeaders(): Record<string, unknown> {
    return this.#envelope().headers;
  }

  readRetries(): number {
    const found = this.#readable((envelope) => envelope.rawHeader(RETRIES_HEADER));
    return typeof found === 'number' && Number.isSafeInteger(found) && found > 0 ? found : 0;
  }

  /** Of an envelope that cannot be read: no exchange, no routing key. Its queue and its tag are known of any delivery. */
  readDeliveryInfo(): DeliveryInfo {
    const deliver = readDeliver(this.#bytes, this.#start, this.#queues);
    return {
      ...deliver,
      exchange: this.#readable((envelope) => envelope.exchange) ?? '',
      routingKey: this.#readable((envelope) => envelope.routingKey) ?? '',
      redelivered: deliver.redelivered || this.#readable((envelope) => envelope.redelivered) === true,
    };
  }

  readAccept(): ReadonlySet<string> {
    return this.#limits.accept;
  }

  readBody(): Buffer {
    const { body } = this.#envelope();
    return body.buffer === this.#bytes.buffer ? Buffer.from(body) : body;
  }

  readRaw(): Buffer {
    return Buffer.from(this.#envelopeBytes());
  }

  decode(): unknown {
    const envelope = this.#envelope();
    // kombu reads all of an envelope or nothing: what it would refuse does not run here.
    envelope.checkHeaders();
    const { contentType, contentEncoding, compression, body } = envelope;
    return decodePayload(body, { contentType, contentEncoding, compression }, this.#limits);
  }

  /** What is wrong with the envelope is told by whoever decodes it; those who ask here go on without. */
  #readable<T>(read: (envelope: Envelope) => T): T | undefined {
    try {
      return read(this.#envelope());
    } catch (error) {
      if (error instanceof DecodeError) return undefined;
      throw error;
    }
  }

  #envelope(): Envelope {
    this.#parsed ??= readEnvelope(this.#envelopeBytes(), this.#limits.types);
    return this.#parsed;
  }

  #envelopeBytes(): Buffer {
    const frame = this.#start + this.#bytes.readUInt32BE(this.#start + 3) + FRAME_OVERHEAD;
    const start = frame + FRAME_HEAD;
    return this.#bytes.subarray(start, start + this.#bytes.readUInt32BE(frame + 3));
  }
}
