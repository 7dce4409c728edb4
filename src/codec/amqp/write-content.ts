/**
 * Writes what `frames.ts` and `properties.ts` read: a content header's properties, and whole deliveries. A delivery is one
 * method frame, one header frame and at most one body frame; AMQP's limit on frames is for the wire, and readers of memory take
 * the size word as it is.
 *
 *   ┌ prefix: differs by delivery ────────────────────────┐┌ rest: the same for every delivery of a message ────────────┐
 *   method frame: head, basic.deliver, consumer tag, tag, │ exchange, routing key, 0xCE │ header frame │ body frame      │
 *                 redelivered                             │
 */
import {
  BASIC_DELIVER,
  BASIC_PUBLISH,
  CLASS_BASIC,
  FRAME_BODY,
  FRAME_END,
  FRAME_HEAD,
  FRAME_HEADER,
  FRAME_METHOD,
  FRAME_OVERHEAD,
} from './frames.js';
import { writeShortString, writeTable } from './write-table.js';

/** As in amqplib's options of `publish`, ready to be written. */
export interface WritableProperties {
  readonly contentType?: unknown;
  readonly contentEncoding?: unknown;
  /** A table, or one that is encoded already, its length word included. */
  readonly headers?: object | Buffer | undefined;
  readonly deliveryMode?: unknown;
  readonly priority?: unknown;
  readonly correlationId?: unknown;
  readonly replyTo?: unknown;
  readonly expiration?: unknown;
  readonly messageId?: unknown;
  readonly timestamp?: unknown;
  readonly type?: unknown;
  readonly userId?: unknown;
  readonly appId?: unknown;
}

/** What is to be published. */
export interface WritablePublish {
  readonly exchange: string;
  readonly routingKey: string;
  readonly properties: WritableProperties & { readonly mandatory?: boolean | undefined };
  readonly body: Uint8Array;
}

function number(value: unknown, field: string): number {
  if (typeof value === 'number' && !Number.isNaN(value)) return value;
  throw new TypeError(`Field '${field}' is the wrong type; must be a number (but not NaN)`);
}

const TEXTS_BEHIND_PRIORITY = [
  ['correlationId', 0x0400],
  ['replyTo', 0x0200],
  ['expiration', 0x0100],
  ['messageId', 0x0080],
] as const;
const LAST_TEXTS = [
  ['type', 0x0020],
  ['userId', 0x0010],
  ['appId', 0x0008],
] as const;

/** amqplib's limit for a table, bytes. */
const MOST_HEADERS = 64 * 1024;

/** Flags and property list. Null counts as absent, as in amqplib. Throws `TypeError` with amqplib's words. */
export function writeProperties(out: Buffer, properties: WritableProperties, at: number): number {
  let flags = 0;
  let end = at + 2;
  const { contentType, contentEncoding, headers, deliveryMode, priority, timestamp } = properties;
  if (contentType != null) {
    flags |= 0x8000;
    end = writeShortString(out, contentType, end, 'contentType');
  }
  if (contentEncoding != null) {
    flags |= 0x4000;
    end = writeShortString(out, contentEncoding, end, 'contentEncoding');
  }
  if (headers != null) {
    if (typeof headers !== 'object') throw new TypeError("Field 'headers' is the wrong type; must be an object");
    flags |= 0x2000;
    const table = end;
    if (Buffer.isBuffer(headers)) {
      if (headers.length > out.length - end) throw new RangeError('a field table exceeds the encoding buffer');
      end += headers.copy(out, end);
    } else {
      end = writeTable(out, headers, end);
      if (end - table > MOST_HEADERS) throw new RangeError('a field table exceeds the encoding buffer');
    }
  }
  if (deliveryMode != null) {
    flags |= 0x1000;
    end = out.writeUInt8(number(deliveryMode, 'deliveryMode'), end);
  }
  if (priority != null) {
    flags |= 0x0800;
    end = out.writeUInt8(number(priority, 'priority'), end);
  }
  for (const [field, flag] of TEXTS_BEHIND_PRIORITY) {
    if (properties[field] == null) continue;
    flags |= flag;
    end = writeShortString(out, properties[field], end, field);
  }
  if (timestamp != null) {
    flags |= 0x0040;
    end = out.writeBigUInt64BE(BigInt(number(timestamp, 'timestamp')), end);
  }
  for (const [field, flag] of LAST_TEXTS) {
    if (properties[field] == null) continue;
    flags |= flag;
    end = writeShortString(out, properties[field], end, field);
  }
  out.writeUInt16BE(flags, at);
  return end;
}

/** Every delivery made here is of this channel: frames of others do not lie between. */
const CHANNEL = 1;

function writeHead(out: Buffer, type: number, size: number, at: number, channel = CHANNEL): void {
  out[at] = type;
  out.writeUInt16BE(channel, at + 1);
  out.writeUInt32BE(size, at + 3);
}

/** The rest of a delivery, and where things are in it. */
export interface DeliveryRest {
  readonly bytes: Buffer;
  /** Where the flags word of the properties is. */
  readonly propertiesAt: number;
  readonly propertiesEnd: number;
  readonly bodyAt: number;
}

/** Room for everything but the table: eleven short strings, heads, numbers. */
const BESIDE_HEADERS = 4096;
const SCRATCH = Buffer.allocUnsafeSlow(MOST_HEADERS + BESIDE_HEADERS);

/** A table that is encoded already may be larger: a message that died has more to say than its publisher had. */
function scratchFor(headers: WritableProperties['headers']): Buffer {
  if (!Buffer.isBuffer(headers) || headers.length <= MOST_HEADERS) return SCRATCH;
  return Buffer.allocUnsafe(headers.length + BESIDE_HEADERS);
}

function writeHeaderFrame(
  out: Buffer,
  properties: WritableProperties,
  bodySize: number,
  at: number,
  channel: number,
): number {
  const end = writeProperties(out, properties, at + FRAME_HEAD + 12);
  writeHead(out, FRAME_HEADER, end - at - FRAME_HEAD, at, channel);
  out.writeUInt32BE(CLASS_BASIC << 16, at + FRAME_HEAD);
  out.writeUInt32BE(Math.floor(bodySize / 2 ** 32), at + FRAME_HEAD + 4);
  out.writeUInt32BE(bodySize >>> 0, at + FRAME_HEAD + 8);
  out[end] = FRAME_END;
  return end + 1;
}

/** Bytes that the frames of a publish need at most, up to its body. */
export const MOST_PUBLISH_HEAD = MOST_HEADERS + BESIDE_HEADERS;

/**
 * The frames of a publish up to its body: basic.publish and the content header. Needs room for `MOST_PUBLISH_HEAD`. Throws
 * `TypeError` and `RangeError` for what AMQP cannot carry.
 */
export function writePublishHead(
  out: Buffer,
  start: number,
  channel: number,
  { exchange, routingKey, properties, body }: WritablePublish,
): number {
  out.writeInt32BE(BASIC_PUBLISH, start + FRAME_HEAD);
  // A number of the past, which nobody reads.
  out.writeUInt16BE(0, start + FRAME_HEAD + 4);
  let at = writeShortString(out, exchange, start + FRAME_HEAD + 6, 'exchange');
  at = writeShortString(out, routingKey, at, 'routingKey');
  out[at++] = properties.mandatory === true ? 1 : 0;
  out[at] = FRAME_END;
  writeHead(out, FRAME_METHOD, at - start - FRAME_HEAD, start, channel);
  const end = writeHeaderFrame(out, properties, body.length, at + 1, channel);
  if (end - start > MOST_PUBLISH_HEAD) throw new RangeError('a field table exceeds the encoding buffer');
  return end;
}

/** What comes before a body, or a part of one. */
export function writeBodyHead(out: Buffer, at: number, channel: number, size: number): number {
  writeHead(out, FRAME_BODY, size, at, channel);
  return at + FRAME_HEAD;
}

/** One body frame. */
export function writeBodyFrame(out: Buffer, at: number, channel: number, body: Uint8Array): number {
  const start = writeBodyHead(out, at, channel, body.length);
  out.set(body, start);
  out[start + body.length] = FRAME_END;
  return start + body.length + 1;
}

/** Exchange, routing key, header and body in memory of its own, which begins at a multiple of eight. */
export function writeRest(
  exchange: unknown,
  routingKey: unknown,
  properties: WritableProperties,
  body: Uint8Array,
): DeliveryRest {
  const out = scratchFor(properties.headers);
  let at = writeShortString(out, exchange, 0, 'exchange');
  at = writeShortString(out, routingKey, at, 'routingKey');
  out[at++] = FRAME_END;
  const propertiesAt = at + FRAME_HEAD + 12;
  at = writeHeaderFrame(out, properties, body.length, at, CHANNEL);
  const propertiesEnd = at - 1;
  if (body.length > 0) {
    writeHead(out, FRAME_BODY, body.length, at);
    at += FRAME_HEAD;
  }
  const bytes = Buffer.allocUnsafe(at + (body.length > 0 ? body.length + 1 : 0));
  out.copy(bytes, 0, 0, at);
  if (body.length > 0) {
    bytes.set(body, at);
    bytes[at + body.length] = FRAME_END;
  }
  return { bytes, propertiesAt, propertiesEnd, bodyAt: at };
}

/** What opens each delivery to one consumer: all of the prefix but the tag, the redelivered bit and the frame's size. */
export function deliveryPrefix(consumerTag: string): Buffer {
  const tag = Buffer.from(consumerTag, 'utf8');
  const prefix = Buffer.alloc(FRAME_HEAD + 4 + 1 + tag.length + 9);
  writeHead(prefix, FRAME_METHOD, 0, 0);
  prefix.writeInt32BE(BASIC_DELIVER, FRAME_HEAD);
  prefix[FRAME_HEAD + 4] = tag.length;
  tag.copy(prefix, FRAME_HEAD + 5);
  return prefix;
}

/**
 * Writes a delivery at `at`; returns the offset behind it. The copy of the rest is fast only if `at` plus the prefix's length is
 * equal to the rest's `byteOffset` modulo 8 (shared memory on Node 20: ten times).
 */
export function writeDelivery(
  out: Buffer,
  at: number,
  prefix: Buffer,
  rest: DeliveryRest,
  tag: number,
  redelivered: boolean,
): number {
  const length = prefix.length;
  for (let i = 0; i < length; i++) out[at + i] = prefix[i]!;
  const behind = at + length;
  // Up to the end octet of the method frame: the flags are behind header frame's head and 12 bytes.
  const size = length + rest.propertiesAt - 12 - FRAME_HEAD - FRAME_OVERHEAD;
  out[at + 5] = size >>> 8;
  out[at + 6] = size;
  const high = Math.floor(tag / 2 ** 32);
  out[behind - 9] = high >>> 24;
  out[behind - 8] = high >>> 16;
  out[behind - 7] = high >>> 8;
  out[behind - 6] = high;
  out[behind - 5] = tag >>> 24;
  out[behind - 4] = tag >>> 16;
  out[behind - 3] = tag >>> 8;
  out[behind - 2] = tag;
  out[behind - 1] = redelivered ? 1 : 0;
  out.set(rest.bytes, behind);
  return behind + rest.bytes.length;
}
