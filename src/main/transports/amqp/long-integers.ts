/**
 * py-amqp writes integers over 32 bits with the type 'L', which amqplib does not know: one such header would end the connection
 * at every delivery. Its own 'l' is the same eight bytes, so the type is changed before amqplib reads it. Takes the bytes as
 * they arrive; only content headers are looked at, and held back until they are whole.
 */
import { FIELD_SIZES } from '../../../codec/amqp/field-bytes.js';
import { FrameError } from '../../../errors.js';

const LONG = 0x4c;
/** amqplib's own reader is recursive and has no limit: deeper tables would end the process. */
const MAX_DEPTH = 64;
/** A table of so many bytes cannot be nested deep enough to matter. */
const SHALLOW_BYTES = 4096;
const CONTENT_HEADER = 2;
/** A larger content header is left to amqplib to refuse. */
const MAX_HEADER_BYTES = 16 * 1024 * 1024;

export class LongIntegers {
  #held: Buffer | undefined;
  /** Bytes still to come of a frame that is not looked at. */
  #skip = 0;

  /** `chunk` is changed in place; the result is to be passed on. */
  pass(chunk: Buffer): Buffer {
    const data = this.#held === undefined ? chunk : Buffer.concat([this.#held, chunk]);
    this.#held = undefined;
    let at = this.#skip;
    while (at < data.length) {
      if (at + 7 > data.length) return this.#hold(data, at);
      const size = data.readUInt32BE(at + 3);
      const end = at + 8 + size;
      if (data[at] === CONTENT_HEADER && size <= MAX_HEADER_BYTES) {
        if (end > data.length) return this.#hold(data, at);
        rewriteHeader(data, at + 7, end - 1);
      }
      at = end;
    }
    this.#skip = at - data.length;
    return data;
  }

  #hold(data: Buffer, at: number): Buffer {
    this.#skip = 0;
    this.#held = data.subarray(at);
    return data.subarray(0, at);
  }
}

function rewriteHeader(data: Buffer, start: number, end: number): void {
  // Class, weight, body size, flags; then the content type and encoding, where the flags say so, and the headers table.
  if (start + 14 > end) return;
  const flags = data.readUInt16BE(start + 12);
  if ((flags & 0x2001) !== 0x2000) return;
  let at = start + 14;
  for (const flag of [0x8000, 0x4000]) if (flags & flag && at < end) at += 1 + data[at]!;
  if (at + 4 > end) return;
  const tableEnd = at + 4 + data.readUInt32BE(at);
  const found = data.indexOf(LONG, at + 4);
  const hasLong = found >= 0 && found < tableEnd;
  if (tableEnd <= end && (hasLong || tableEnd - at > SHALLOW_BYTES)) rewriteFields(data, at + 4, tableEnd, true, 0);
}

/** Walks a table (with keys) or an array. Stops at what it does not understand; amqplib will say what is wrong. */
function rewriteFields(data: Buffer, from: number, end: number, keys: boolean, depth: number): void {
  if (depth > MAX_DEPTH) {
    throw new FrameError(`a message came whose header tables are nested deeper than ${MAX_DEPTH}`, {
      details: { limit: MAX_DEPTH },
    });
  }
  let at = from;
  while (at < end) {
    if (keys) at += 1 + data[at]!;
    if (at >= end) return;
    const type = data[at]!;
    const name = String.fromCharCode(type);
    if (type === LONG) data[at] = 0x6c;
    at += 1;
    const size = FIELD_SIZES[name];
    if (size !== undefined) at += size;
    else if ('SxAF'.includes(name) && at + 4 <= end) {
      const inside = at + 4;
      at = inside + data.readUInt32BE(at);
      if (name === 'A' || name === 'F') rewriteFields(data, inside, Math.min(at, end), name === 'F', depth + 1);
    } else return;
  }
}
