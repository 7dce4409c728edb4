/**
 * The server's half of AMQP 0-9-1, as far as the replay broker needs it: writing methods and content headers, reading
 * the arguments of a few methods. By hand, so that no peer is measured against its own codec.
 */

export const FRAME = { method: 1, header: 2, body: 3, heartbeat: 8, end: 0xce } as const;

/** Bytes of a frame around its payload: type, channel, size, end octet. */
export const FRAME_OVERHEAD = 8;

/** The largest frame that is agreed upon, its overhead included: what RabbitMQ and amqplib propose. */
export const FRAME_MAX = 131_072;

/** class << 16 | method. */
export const METHOD = {
  connectionStart: 0x000a000a,
  connectionStartOk: 0x000a000b,
  connectionTune: 0x000a001e,
  connectionTuneOk: 0x000a001f,
  connectionOpen: 0x000a0028,
  connectionOpenOk: 0x000a0029,
  connectionClose: 0x000a0032,
  connectionCloseOk: 0x000a0033,
  channelOpen: 0x0014000a,
  channelOpenOk: 0x0014000b,
  channelClose: 0x00140028,
  channelCloseOk: 0x00140029,
  exchangeDeclare: 0x0028000a,
  exchangeDeclareOk: 0x0028000b,
  queueDeclare: 0x0032000a,
  queueDeclareOk: 0x0032000b,
  queueBind: 0x00320014,
  queueBindOk: 0x00320015,
  basicQos: 0x003c000a,
  basicQosOk: 0x003c000b,
  basicConsume: 0x003c0014,
  basicConsumeOk: 0x003c0015,
  basicCancel: 0x003c001e,
  basicCancelOk: 0x003c001f,
  basicDeliver: 0x003c003c,
  basicAck: 0x003c0050,
  basicReject: 0x003c005a,
  basicNack: 0x003c0078,
  confirmSelect: 0x0055000a,
  confirmSelectOk: 0x0055000b,
} as const;

export type TableValue = string | number | boolean | Table;
export interface Table {
  readonly [key: string]: TableValue;
}

/** Collects the parts of a payload. Only templates and handshakes are written with it, so it need not be fast. */
export class Writer {
  #parts: Buffer[] = [];

  octet(value: number): this {
    return this.#add(Buffer.of(value));
  }

  short(value: number): this {
    const part = Buffer.alloc(2);
    part.writeUInt16BE(value);
    return this.#add(part);
  }

  long(value: number): this {
    const part = Buffer.alloc(4);
    part.writeUInt32BE(value);
    return this.#add(part);
  }

  longlong(value: number): this {
    const part = Buffer.alloc(8);
    part.writeBigUInt64BE(BigInt(value));
    return this.#add(part);
  }

  shortString(text: string): this {
    return this.octet(Buffer.byteLength(text)).#add(Buffer.from(text));
  }

  longString(text: string): this {
    return this.long(Buffer.byteLength(text)).#add(Buffer.from(text));
  }

  table(table: Table): this {
    const inner = new Writer();
    for (const [key, value] of Object.entries(table)) inner.shortString(key).#value(value);
    const bytes = inner.bytes();
    return this.long(bytes.length).#add(bytes);
  }

  bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }

  #value(value: TableValue): this {
    // The type letters that py-amqp writes.
    if (typeof value === 'string') return this.#add(Buffer.from('S')).longString(value);
    if (typeof value === 'boolean') return this.#add(Buffer.from('t')).octet(value ? 1 : 0);
    if (typeof value === 'number') return this.#add(Buffer.from('I')).long(value);
    return this.#add(Buffer.from('F')).table(value);
  }

  #add(part: Buffer): this {
    this.#parts.push(part);
    return this;
  }
}

/** Reads the arguments of a method, in their order. */
export class Reader {
  readonly #bytes: Buffer;
  #at: number;

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes;
    this.#at = at;
  }

  octet(): number {
    return this.#bytes.readUInt8(this.#at++);
  }

  short(): number {
    this.#at += 2;
    return this.#bytes.readUInt16BE(this.#at - 2);
  }

  long(): number {
    this.#at += 4;
    return this.#bytes.readUInt32BE(this.#at - 4);
  }

  shortString(): string {
    const length = this.octet();
    this.#at += length;
    return this.#bytes.toString('utf8', this.#at - length, this.#at);
  }
}

export function frame(type: number, channel: number, payload: Buffer): Buffer {
  const out = Buffer.allocUnsafe(payload.length + FRAME_OVERHEAD);
  out.writeUInt8(type, 0);
  out.writeUInt16BE(channel, 1);
  out.writeUInt32BE(payload.length, 3);
  payload.copy(out, 7);
  out.writeUInt8(FRAME.end, payload.length + 7);
  return out;
}

export function methodFrame(channel: number, method: number, args = new Writer()): Buffer {
  return frame(FRAME.method, channel, Buffer.concat([new Writer().long(method).bytes(), args.bytes()]));
}

/** The content header as Python kombu writes it for a JSON message with two headers. */
export function contentHeader(channel: number, bodyBytes: number): Buffer {
  const hasTypeEncodingHeadersModePriority = 0xf800;
  const payload = new Writer()
    .short(60)
    .short(0)
    .longlong(bodyBytes)
    .short(hasTypeEncodingHeadersModePriority)
    .shortString('application/json')
    .shortString('utf-8')
    .table({ origin: 'bench', attempt: 1 })
    .octet(2)
    .octet(0);
  return frame(FRAME.header, channel, payload.bytes());
}

/** The body cut into frames of at most `frameMax` octets, the overhead included. */
export function bodyFrames(channel: number, body: Buffer, frameMax: number): Buffer[] {
  const step = frameMax - FRAME_OVERHEAD;
  const frames: Buffer[] = [];
  for (let at = 0; at < body.length; at += step) frames.push(frame(FRAME.body, channel, body.subarray(at, at + step)));
  return frames;
}
