// AMQP 0-9-1 frames made by hand: first whole exchanges for the tests of the trace, then single frames for the reader's.

/** An unsigned number in so many bytes. */
export function uint(value: number, bytes: 1 | 2 | 4 | 8): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64BE(BigInt(value));
  return buffer.subarray(8 - bytes);
}

export function shortString(text: string): Buffer {
  return Buffer.concat([uint(Buffer.byteLength(text), 1), Buffer.from(text)]);
}

export function frame(type: number, channel: number, payload: Buffer): Buffer {
  return Buffer.concat([uint(type, 1), uint(channel, 2), uint(payload.length, 4), payload, uint(0xce, 1)]);
}

export function method(channel: number, classId: number, methodId: number, ...fields: Buffer[]): Buffer {
  return frame(1, channel, Buffer.concat([uint(classId, 2), uint(methodId, 2), ...fields]));
}

export const protocolHeader = Buffer.from('AMQP\x00\x00\x09\x01', 'latin1');
export const heartbeat = frame(8, 0, Buffer.alloc(0));

export const channelOpen = (channel: number) => method(channel, 20, 10, shortString(''));
export const channelCloseOk = (channel: number) => method(channel, 20, 41);

/** channel.close and connection.close have the same fields. */
export const channelClose = (channel: number) =>
  method(channel, 20, 40, uint(406, 2), shortString('PRECONDITION_FAILED'), uint(60, 2), uint(80, 2));
export const connectionClose = () => method(0, 10, 50, uint(200, 2), shortString('bye'), uint(0, 2), uint(0, 2));

export const basicConsume = (channel: number, consumerTag: string, noAck: boolean) =>
  method(channel, 60, 20, uint(0, 2), shortString('q'), shortString(consumerTag), uint(noAck ? 2 : 0, 1), uint(0, 4));
export const basicConsumeOk = (channel: number, consumerTag: string) =>
  method(channel, 60, 21, shortString(consumerTag));

const header = (channel: number, body: string, messageId: string) =>
  frame(
    2,
    channel,
    Buffer.concat([
      uint(60, 2),
      uint(0, 2),
      uint(Buffer.byteLength(body), 8),
      // content-type, headers, delivery-mode and message-id
      uint((1 << 15) | (1 << 13) | (1 << 12) | (1 << 7), 2),
      shortString('text/plain'),
      uint(4, 4),
      shortString('k'),
      Buffer.from('t\x01'),
      uint(2, 1),
      shortString(messageId),
    ]),
  );

/** A content header and the body, in frames of at most three bytes each. */
export function content(channel: number, body: string, messageId: string): Buffer {
  const bytes = Buffer.from(body);
  const frames = [header(channel, body, messageId)];
  for (let at = 0; at < bytes.length; at += 3) frames.push(frame(3, channel, bytes.subarray(at, at + 3)));
  return Buffer.concat(frames);
}

export function deliver(channel: number, tag: number, body = 'hello', consumerTag = 'c'): Buffer {
  const fields = [shortString(consumerTag), uint(tag, 8), uint(0, 1), shortString('x'), shortString('key')];
  return Buffer.concat([method(channel, 60, 60, ...fields), content(channel, body, `m${tag}`)]);
}

export const basicGet = (channel: number, noAck: boolean) =>
  method(channel, 60, 70, uint(0, 2), shortString('q'), uint(noAck ? 1 : 0, 1));
export const getOk = (channel: number, tag: number) =>
  Buffer.concat([
    method(channel, 60, 71, uint(tag, 8), uint(1, 1), shortString('x'), shortString('key'), uint(0, 4)),
    content(channel, 'got', `m${tag}`),
  ]);

export const ack = (channel: number, tag: number, multiple = false) =>
  method(channel, 60, 80, uint(tag, 8), uint(multiple ? 1 : 0, 1));
export const nack = (channel: number, tag: number, multiple = false, requeue = true) =>
  method(channel, 60, 120, uint(tag, 8), uint((multiple ? 1 : 0) | (requeue ? 2 : 0), 1));
export const reject = (channel: number, tag: number, requeue = false) =>
  method(channel, 60, 90, uint(tag, 8), uint(requeue ? 1 : 0, 1));

// What a broker sends, field by field, for the tests of the runtime's own reader. Written from the specification (2.3, 4.2)
// and RabbitMQ's errata without a look at that reader, so that the two can disagree.

const END = 0xce;

function u64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}

/** A frame whose size word or end octet may lie. */
export function brokenFrame(type: number, channel: number, payload: Buffer, size: number, end = END): Buffer {
  return Buffer.concat([Buffer.from([type]), uint(channel, 2), uint(size, 4), payload, Buffer.from([end])]);
}

export const channelOpenOk = (channel: number): Buffer => method(channel, 20, 11, uint(0, 4));
function longString(bytes: Buffer): Buffer {
  return Buffer.concat([uint(bytes.length, 4), bytes]);
}

export interface DeliverFields {
  consumerTag?: string;
  tag?: bigint;
  redelivered?: boolean;
  exchange?: string;
  routingKey?: string;
}

export function deliverMethod(channel: number, fields: DeliverFields = {}): Buffer {
  const { consumerTag = 'ctag', tag = 1n, redelivered = false, exchange = '', routingKey = 'queue' } = fields;
  return method(
    channel,
    60,
    60,
    shortString(consumerTag),
    u64(tag),
    Buffer.from([redelivered ? 1 : 0]),
    shortString(exchange),
    shortString(routingKey),
  );
}

export const returned = (channel: number): Buffer =>
  method(channel, 60, 50, uint(312, 2), shortString('NO_ROUTE'), shortString(''), shortString('nowhere'));
export const getOkMethod = (channel: number, tag: bigint): Buffer =>
  method(channel, 60, 71, u64(tag), Buffer.from([0]), shortString(''), shortString('key'), uint(0, 4));

type Texts = 'contentType' | 'contentEncoding' | 'correlationId' | 'replyTo' | 'expiration' | 'messageId' | 'type';
export type HeaderFields = { [Key in Texts | 'userId' | 'appId' | 'clusterId']?: string } & {
  headers?: Fields;
  deliveryMode?: number;
  priority?: number;
  timestamp?: bigint;
};

/** Flags word and property list, in the order of class basic. */
export function properties(fields: HeaderFields): Buffer {
  const { headers, deliveryMode, priority, timestamp } = fields;
  const octet = (value?: number): Buffer | undefined => (value === undefined ? undefined : Buffer.from([value]));
  const text = (value?: string): Buffer | undefined => (value === undefined ? undefined : shortString(value));
  const list: (Buffer | undefined)[] = [
    text(fields.contentType),
    text(fields.contentEncoding),
    headers === undefined ? undefined : table(headers),
    octet(deliveryMode),
    octet(priority),
    text(fields.correlationId),
    text(fields.replyTo),
    text(fields.expiration),
    text(fields.messageId),
    timestamp === undefined ? undefined : u64(timestamp),
    text(fields.type),
    text(fields.userId),
    text(fields.appId),
    text(fields.clusterId),
  ];
  let flags = 0;
  for (const [place, field] of list.entries()) if (field !== undefined) flags |= 1 << (15 - place);
  return Buffer.concat([uint(flags, 2), ...list.filter((field) => field !== undefined)]);
}

/** A content header whose property block is given as bytes. */
export function rawHeader(channel: number, bodySize: bigint, block: Buffer, classId = 60): Buffer {
  return frame(2, channel, Buffer.concat([uint(classId, 2), uint(0, 2), u64(bodySize), block]));
}

export function contentHeader(channel: number, bodySize: number, fields: HeaderFields = {}): Buffer {
  return rawHeader(channel, BigInt(bodySize), properties(fields));
}

/** The body in frames of at most `frameMax` bytes, overhead included; none for an empty one. */
export function bodyFrames(channel: number, body: Buffer, frameMax: number): Buffer[] {
  const frames: Buffer[] = [];
  for (let at = 0; at < body.length; at += frameMax - 8) {
    frames.push(frame(3, channel, body.subarray(at, at + frameMax - 8)));
  }
  return frames;
}

/** The frames of a whole delivery. */
export function delivery(
  channel: number,
  tag: bigint,
  body: Buffer,
  { frameMax = 131_072, ...fields }: DeliverFields & HeaderFields & { frameMax?: number } = {},
): Buffer[] {
  return [
    deliverMethod(channel, { ...fields, tag }),
    contentHeader(channel, body.length, fields),
    ...bodyFrames(channel, body, frameMax),
  ];
}

/** `count` bytes that depend on `seed` and on their place, so that a shifted or foreign byte shows. */
export function pattern(seed: number, count: number): Buffer {
  const bytes = Buffer.allocUnsafe(count);
  let value = (seed * 2_654_435_761) | 1;
  for (let i = 0; i < count; i++) {
    value = (Math.imul(value, 1_103_515_245) + 12_345) | 0;
    bytes[i] = value >>> 16;
  }
  return bytes;
}

export type Value =
  | readonly ['S', string]
  | readonly ['I' | 'b' | 'B' | 's' | 'u' | 'i' | 'd' | 'f', number]
  | readonly ['l' | 'L' | 'T', bigint]
  | readonly ['t', boolean]
  | readonly ['V']
  | readonly ['x', Buffer]
  | readonly ['D', number, number]
  | readonly ['F', Fields]
  | readonly ['A', readonly Value[]];
export type Fields = readonly (readonly [key: string, value: Value])[];

const NUMBERS = {
  I: [4, 'writeInt32BE'],
  b: [1, 'writeInt8'],
  B: [1, 'writeUInt8'],
  s: [2, 'writeInt16BE'],
  u: [2, 'writeUInt16BE'],
  i: [4, 'writeUInt32BE'],
  d: [8, 'writeDoubleBE'],
  f: [4, 'writeFloatBE'],
} as const;

function payloadOf(value: Value): Buffer {
  switch (value[0]) {
    case 'S':
      return longString(Buffer.from(value[1], 'utf8'));
    case 'x':
      return longString(value[1]);
    case 't':
      return Buffer.from([value[1] ? 1 : 0]);
    case 'V':
      return Buffer.alloc(0);
    case 'T':
      return u64(value[1]);
    case 'l':
    case 'L':
      return u64(BigInt.asUintN(64, value[1]));
    case 'D': {
      const bytes = Buffer.alloc(5);
      bytes.writeUInt8(value[1]);
      bytes.writeInt32BE(value[2], 1);
      return bytes;
    }
    case 'F':
      return table(value[1]);
    case 'A':
      return longString(Buffer.concat(value[1].map(tagged)));
    default: {
      const [size, write] = NUMBERS[value[0]];
      const bytes = Buffer.alloc(size);
      bytes[write](value[1], 0);
      return bytes;
    }
  }
}

function tagged(value: Value): Buffer {
  return Buffer.concat([Buffer.from(value[0], 'latin1'), payloadOf(value)]);
}

/** A field table, its length word first. */
export function table(fields: Fields): Buffer {
  return longString(Buffer.concat(fields.flatMap(([key, value]) => [shortString(key), tagged(value)])));
}

export interface ReadFrame {
  readonly type: number;
  readonly channel: number;
  readonly payload: Buffer;
  readonly bytes: Buffer;
}

/** Cuts whole frames; throws if the bytes are anything else. */
export function splitFrames(bytes: Buffer): ReadFrame[] {
  const frames: ReadFrame[] = [];
  for (let at = 0; at < bytes.length; ) {
    const next = at + 8 + bytes.readUInt32BE(at + 3);
    if (next > bytes.length || bytes[next - 1] !== END) throw new Error(`no whole frame at ${at}`);
    frames.push({
      type: bytes[at]!,
      channel: bytes.readUInt16BE(at + 1),
      payload: bytes.subarray(at + 7, next - 1),
      bytes: bytes.subarray(at, next),
    });
    at = next;
  }
  return frames;
}
