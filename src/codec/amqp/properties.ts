/**
 * The property block of a content header frame. The hot path wants two short strings and where the headers table lies;
 * everything else is read when somebody asks.
 *
 * Order and flag bits: content-type 0x8000, content-encoding 0x4000, headers 0x2000, delivery-mode 0x1000, priority
 * 0x0800, correlation-id 0x0400, reply-to 0x0200, expiration 0x0100, message-id 0x0080, timestamp 0x0040, type 0x0020,
 * user-id 0x0010, app-id 0x0008, cluster-id 0x0004 (AMQP 0-9-1, class basic).
 */
import { DecodeError } from '../../errors.js';

/** All properties as they are on the wire; the header table is left out, see `skipToHeaders`. */
export interface WireProperties {
  contentType?: string;
  contentEncoding?: string;
  deliveryMode?: number;
  priority?: number;
  correlationId?: string;
  replyTo?: string;
  expiration?: string;
  messageId?: string;
  timestamp?: number;
  type?: string;
  userId?: string;
  appId?: string;
}

/** Their names, in the order of the wire. */
export const PROPERTY_NAMES = [
  'contentType',
  'contentEncoding',
  'deliveryMode',
  'priority',
  'correlationId',
  'replyTo',
  'expiration',
  'messageId',
  'timestamp',
  'type',
  'userId',
  'appId',
] as const satisfies readonly (keyof WireProperties)[];

function bound(at: number, count: number, end: number): void {
  if (at + count > end)
    throw new DecodeError(`a content header ends early: ${count} bytes wanted at ${at}, it ends at ${end}`);
}

/** End of the short string at `at`. */
export function skipShortString(bytes: Buffer, at: number, end: number): number {
  bound(at, 1, end);
  const next = at + 1 + bytes[at]!;
  bound(at, next - at, end);
  return next;
}

/** The flags word. Only 14 properties exist, so a continued one is not a header of class basic. */
export function readFlags(bytes: Buffer, at: number, end: number): number {
  bound(at, 2, end);
  const flags = bytes.readUInt16BE(at);
  if (flags & 1) throw new DecodeError('a content header continues its flags; no class of AMQP 0-9-1 has that many');
  return flags;
}

/** `at` is the flags word of the property block, `end` the end of the header payload. */
export function readProperties(bytes: Buffer, at: number, end: number): WireProperties {
  const flags = readFlags(bytes, at, end);
  let p = at + 2;
  const short = (): string => {
    const next = skipShortString(bytes, p, end);
    const text = bytes.toString('utf8', p + 1, next);
    p = next;
    return text;
  };
  const u8 = (): number => {
    bound(p, 1, end);
    return bytes[p++]!;
  };
  const properties: WireProperties = {};
  if (flags & 0x8000) properties.contentType = short();
  if (flags & 0x4000) properties.contentEncoding = short();
  if (flags & 0x2000) {
    bound(p, 4, end);
    p += 4 + bytes.readUInt32BE(p);
    bound(p, 0, end);
  }
  if (flags & 0x1000) properties.deliveryMode = u8();
  if (flags & 0x0800) properties.priority = u8();
  if (flags & 0x0400) properties.correlationId = short();
  if (flags & 0x0200) properties.replyTo = short();
  if (flags & 0x0100) properties.expiration = short();
  if (flags & 0x0080) properties.messageId = short();
  if (flags & 0x0040) {
    bound(p, 8, end);
    properties.timestamp = bytes.readUInt32BE(p) * 2 ** 32 + bytes.readUInt32BE(p + 4);
    p += 8;
  }
  if (flags & 0x0020) properties.type = short();
  if (flags & 0x0010) properties.userId = short();
  if (flags & 0x0008) properties.appId = short();
  return properties;
}

/** Offset of the headers table's length word, or -1 if the message has none. */
export function findHeaders(bytes: Buffer, at: number, end: number): number {
  const flags = readFlags(bytes, at, end);
  if ((flags & 0x2000) === 0) return -1;
  let p = at + 2;
  if (flags & 0x8000) p = skipShortString(bytes, p, end);
  if (flags & 0x4000) p = skipShortString(bytes, p, end);
  bound(p, 4, end);
  bound(p, 4 + bytes.readUInt32BE(p), end);
  return p;
}
