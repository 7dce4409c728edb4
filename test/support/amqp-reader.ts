// Reads an AMQP 0-9-1 byte stream into frames and methods for amqp-trace.ts. It shares nothing with the library, so that a
// mistake in the library's reader is not repeated here: plain, slow and checked at every step.

export interface Frame {
  type: number;
  channel: number;
  payload: Buffer;
}

export const FRAME_METHOD = 1;
export const FRAME_HEADER = 2;
export const FRAME_BODY = 3;
const FRAME_HEARTBEAT = 8;
const FRAME_END = 0xce;
const PROTOCOL_HEADER = Buffer.from('AMQP\x00\x00\x09\x01', 'latin1');

/** Cuts one direction of a connection into frames. Throws at the first byte that cannot be AMQP. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0);
  #protocolHeader: boolean;

  constructor(direction: 'toServer' | 'toClient') {
    this.#protocolHeader = direction === 'toServer';
  }

  push(bytes: Buffer): Frame[] {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    const frames: Frame[] = [];
    if (this.#protocolHeader) {
      if (this.#rest.length < 8) return frames;
      if (!this.#rest.subarray(0, 8).equals(PROTOCOL_HEADER)) throw new Error('no AMQP 0-9-1 protocol header');
      this.#rest = this.#rest.subarray(8);
      this.#protocolHeader = false;
    }
    while (this.#rest.length >= 7) {
      const type = this.#rest.readUInt8(0);
      if (![FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT].includes(type)) {
        throw new Error(`frame type ${type}`);
      }
      const size = this.#rest.readUInt32BE(3);
      if (this.#rest.length < 7 + size + 1) break;
      if (this.#rest.readUInt8(7 + size) !== FRAME_END) throw new Error('a frame without its end octet');
      frames.push({ type, channel: this.#rest.readUInt16BE(1), payload: this.#rest.subarray(7, 7 + size) });
      this.#rest = this.#rest.subarray(7 + size + 1);
    }
    return frames;
  }
}

/** Reads the fields of a payload one after another. */
export class Fields {
  #at = 0;

  constructor(readonly bytes: Buffer) {}

  octet(): number {
    return this.bytes.readUInt8(this.#skip(1));
  }

  short(): number {
    return this.bytes.readUInt16BE(this.#skip(2));
  }

  long(): number {
    return this.bytes.readUInt32BE(this.#skip(4));
  }

  longlong(): number {
    const value = Number(this.bytes.readBigUInt64BE(this.#skip(8)));
    if (!Number.isSafeInteger(value)) throw new Error(`a number beyond 2^53: ${value}`);
    return value;
  }

  shortString(): string {
    const length = this.octet();
    const at = this.#skip(length);
    return this.bytes.toString('utf8', at, at + length);
  }

  skipTable(): void {
    this.#skip(this.long());
  }

  #skip(length: number): number {
    const at = this.#at;
    if (at + length > this.bytes.length) throw new Error('a field past the end of its frame');
    this.#at += length;
    return at;
  }
}

export interface ContentHeader {
  bodySize: number;
  messageId: string | undefined;
}

/** The content header of a message: its size, and its message id if it has one. */
export function readContentHeader(payload: Buffer): ContentHeader {
  const fields = new Fields(payload);
  fields.short();
  fields.short();
  const bodySize = fields.longlong();
  const flags = fields.short();
  const has = (bit: number) => (flags & (1 << bit)) !== 0;
  // the properties before message-id, in the order of the wire
  if (has(15)) fields.shortString(); // content-type
  if (has(14)) fields.shortString(); // content-encoding
  if (has(13)) fields.skipTable(); // headers
  if (has(12)) fields.octet(); // delivery-mode
  if (has(11)) fields.octet(); // priority
  if (has(10)) fields.shortString(); // correlation-id
  if (has(9)) fields.shortString(); // reply-to
  if (has(8)) fields.shortString(); // expiration
  return { bodySize, messageId: has(7) ? fields.shortString() : undefined };
}
