/**
 * Field tables as they lie in memory: split into fields without decoding the values, put together again with some of them
 * changed. For a broker, which passes on what it does not look at, type letters included.
 */
import { DecodeError } from '../../errors.js';
import { writeField, writeShortString } from './write-table.js';

/** Bytes that follow each type letter, where their number is fixed. */
export const FIELD_SIZES: Readonly<Record<string, number>> = {
  t: 1,
  b: 1,
  B: 1,
  s: 2,
  u: 2,
  I: 4,
  i: 4,
  f: 4,
  l: 8,
  L: 8,
  d: 8,
  T: 8,
  D: 5,
  V: 0,
};

/** Offset behind the value whose type letter stands at `at`. */
export function behindField(bytes: Buffer, at: number): number {
  const letter = String.fromCharCode(bytes[at]!);
  const size = FIELD_SIZES[letter];
  if (size !== undefined) return at + 1 + size;
  if ('SxAF'.includes(letter)) return at + 5 + bytes.readUInt32BE(at + 1);
  throw new DecodeError(`a field table has a value of the unknown type '${letter}'`);
}

/** The fields of the table whose length word stands at `at`: key to type letter and value, as views. */
export function splitTable(bytes: Buffer, at = 0): Map<string, Buffer> {
  const fields = new Map<string, Buffer>();
  const end = at + 4 + bytes.readUInt32BE(at);
  for (let next = at + 4; next < end; ) {
    const value = next + 1 + bytes[next]!;
    const key = bytes.toString('utf8', next + 1, value);
    next = behindField(bytes, value);
    fields.set(key, bytes.subarray(value, next));
  }
  return fields;
}

/** One value as it goes into a table. */
export function fieldBytes(value: unknown): Buffer {
  for (let size = 1024; ; size *= 4) {
    const out = Buffer.allocUnsafe(size);
    try {
      return out.subarray(0, writeField(out, value, 0));
    } catch (error) {
      if (!(error instanceof RangeError) || size > 2 ** 24) throw error;
    }
  }
}

/** The table with these fields, its length word first. */
export function joinTable(fields: ReadonlyMap<string, Buffer>): Buffer {
  let size = 4;
  for (const [key, value] of fields) size += 1 + Buffer.byteLength(key) + value.length;
  const out = Buffer.allocUnsafe(size);
  out.writeUInt32BE(size - 4, 0);
  let at = 4;
  for (const [key, value] of fields) {
    at = writeShortString(out, key, at, key);
    at += value.copy(out, at);
  }
  return out;
}
