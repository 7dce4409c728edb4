/**
 * A delivery as AMQP's frames: see `delivery.ts`. Behind basic.deliver the content header and body frames, and perhaps frames
 * of other channels between them, which are skipped.
 */
import { FRAME_HEAD, FRAME_OVERHEAD } from '../codec/amqp/frames.js';
import { findHeaders, readFlags, readProperties, skipShortString } from '../codec/amqp/properties.js';
import { findString, findValue, isEmptyTable, readTable } from '../codec/amqp/table.js';
import { type DecodeLimits, decodePayload } from '../codec/decode.js';
import { LastSeen } from '../codec/last-seen.js';
import type { DeliveryInfo, MessageProperties } from '../message.js';
import { type Delivery, type QueueLookup, RETRIES_HEADER, readDeliver } from './delivery.js';

/** Bytes of a content header's payload before its flags: class, weight, body size. */
const FLAGS_AT = 12;

const contentTypes = new LastSeen();
const contentEncodings = new LastSeen();

export class AmqpDelivery implements Delivery {
  #bytes: Buffer;
  #start: number;
  #header: number;
  #headerEnd: number;
  readonly #length: number;
  readonly #queues: QueueLookup;
  readonly #limits: DecodeLimits;

  /** `behind`: the frame that follows basic.deliver, of whatever channel. */
  constructor(bytes: Buffer, start: number, length: number, behind: number, queues: QueueLookup, limits: DecodeLimits) {
    this.#bytes = bytes;
    this.#start = start;
    this.#length = length;
    this.#queues = queues;
    this.#limits = limits;
    const header = this.#frame(behind);
    this.#header = header + FRAME_HEAD;
    this.#headerEnd = this.#header + this.#sizeAt(header);
  }

  own(): void {
    const copy = Buffer.allocUnsafeSlow(this.#length);
    copy.set(this.#bytes.subarray(this.#start, this.#start + this.#length));
    this.#header -= this.#start;
    this.#headerEnd -= this.#start;
    this.#start = 0;
    this.#bytes = copy;
  }

  readProperties(): MessageProperties {
    return readProperties(this.#bytes, this.#header + FLAGS_AT, this.#headerEnd);
  }

  readHeaders(): Record<string, unknown> {
    const at = findHeaders(this.#bytes, this.#header + FLAGS_AT, this.#headerEnd);
    return at < 0 ? Object.create(null) : readTable(this.#bytes, at, this.#headerEnd);
  }

  readRetries(): number {
    const at = findHeaders(this.#bytes, this.#header + FLAGS_AT, this.#headerEnd);
    if (at < 0 || isEmptyTable(this.#bytes, at, this.#headerEnd)) return 0;
    const found = findValue(this.#bytes, at, this.#headerEnd, RETRIES_HEADER);
    return typeof found === 'number' && Number.isSafeInteger(found) && found > 0 ? found : 0;
  }

  readDeliveryInfo(): DeliveryInfo {
    return readDeliver(this.#bytes, this.#start, this.#queues);
  }

  readAccept(): ReadonlySet<string> {
    return this.#limits.accept;
  }

  readBody(): Buffer {
    return Buffer.from(this.#body());
  }

  /** A body of frames can always be read. */
  readRaw(): Buffer {
    return this.readBody();
  }

  decode(): unknown {
    const bytes = this.#bytes;
    const at = this.#header + FLAGS_AT;
    const end = this.#headerEnd;
    const flags = readFlags(bytes, at, end);
    let next = at + 2;
    let contentType: string | undefined;
    let contentEncoding: string | undefined;
    let compression: string | undefined;
    if (flags & 0x8000) {
      const after = skipShortString(bytes, next, end);
      contentType = contentTypes.read(bytes, next + 1, after);
      next = after;
    }
    if (flags & 0x4000) {
      const after = skipShortString(bytes, next, end);
      contentEncoding = contentEncodings.read(bytes, next + 1, after);
      next = after;
    }
    // An empty table is its length word: most messages of most senders have nothing in it.
    if (flags & 0x2000 && !isEmptyTable(bytes, next, end)) compression = findString(bytes, next, end, 'compression');
    return decodePayload(this.#body(), { contentType, contentEncoding, compression }, this.#limits);
  }

  /** The body: a view where it lies in one frame, gathered in new memory where it does not. */
  #body(): Buffer {
    const size = this.#bytes.readUInt32BE(this.#header + 4) * 2 ** 32 + this.#bytes.readUInt32BE(this.#header + 8);
    if (size === 0) return Buffer.alloc(0);
    let frame = this.#frame(this.#headerEnd + 1);
    const first = this.#sizeAt(frame);
    if (first === size) return this.#bytes.subarray(frame + FRAME_HEAD, frame + FRAME_HEAD + size);
    const whole = Buffer.allocUnsafeSlow(size);
    for (let filled = 0; filled < size; ) {
      const part = this.#sizeAt(frame);
      whole.set(this.#bytes.subarray(frame + FRAME_HEAD, frame + FRAME_HEAD + part), filled);
      filled += part;
      if (filled < size) frame = this.#frame(frame + part + FRAME_OVERHEAD);
    }
    return whole;
  }

  #sizeAt(frame: number): number {
    return this.#bytes.readUInt32BE(frame + 3);
  }

  /** The first frame of this delivery's channel at or after `frame`. */
  #frame(frame: number): number {
    const bytes = this.#bytes;
    const high = bytes[this.#start + 1];
    const low = bytes[this.#start + 2];
    let at = frame;
    while (bytes[at + 1] !== high || bytes[at + 2] !== low) at += this.#sizeAt(at) + FRAME_OVERHEAD;
    return at;
  }
}
