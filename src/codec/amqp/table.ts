/**
 * AMQP field tables to plain values. Tables come from strangers: keys cannot reach a prototype, nesting and sizes are
 * checked, and what is not understood is an error instead of a guess.
 *
 * Types as RabbitMQ and py-amqp write them (RabbitMQ's errata differ from the specification: 's' is i16, 'l' is i64).
 */
import { DecodeError } from '../../errors.js';

/** An AMQP decimal: unscaled × 10^-scale, as text, since a double cannot hold it. */
function decimal(scale: number, unscaled: number): string {
  if (scale === 0) return String(unscaled);
  const digits = String(Math.abs(unscaled)).padStart(scale + 1, '0');
  return `${unscaled < 0 ? '-' : ''}${digits.slice(0, -scale)}.${digits.slice(-scale)}`;
}

const MAX_DEPTH = 64;

class Reader {
  constructor(
    readonly bytes: Buffer,
    public at: number,
    readonly end: number,
  ) {}

  need(count: number): number {
    const at = this.at;
    if (count < 0 || at + count > this.end) {
      throw new DecodeError(`a header table ends early: ${count} bytes wanted at ${at}, the table ends at ${this.end}`);
    }
    this.at = at + count;
    return at;
  }

  u8(): number {
    return this.bytes[this.need(1)]!;
  }

  u32(): number {
    return this.bytes.readUInt32BE(this.need(4));
  }

  shortString(): string {
    const length = this.u8();
    const at = this.need(length);
    return this.bytes.toString('utf8', at, at + length);
  }

  longString(): string {
    const length = this.u32();
    const at = this.need(length);
    return this.bytes.toString('utf8', at, at + length);
  }

  int64(signed: boolean): number | bigint {
    const at = this.need(8);
    const value = signed ? this.bytes.readBigInt64BE(at) : this.bytes.readBigUInt64BE(at);
    return value >= -9007199254740991n && value <= 9007199254740991n ? Number(value) : value;
  }

  value(depth: number): unknown {
    const type = this.u8();
    switch (type) {
      case 0x53: // S: long string
        return this.longString();
      case 0x49: // I: i32
        return this.bytes.readInt32BE(this.need(4));
      case 0x74: // t: boolean
        return this.u8() !== 0;
      case 0x6c: // l: i64
      case 0x4c: // L: i64
        return this.int64(true);
      case 0x64: // d: double
        return this.bytes.readDoubleBE(this.need(8));
      case 0x46: // F: table
        return this.table(depth + 1);
      case 0x41: // A: array
        return this.array(depth + 1);
      case 0x56: // V: void
        return null;
      case 0x54: // T: seconds since 1970
        return new Date(Number(this.int64(false)) * 1000);
      case 0x78: {
        // x: bytes
        const length = this.u32();
        const at = this.need(length);
        return Buffer.from(this.bytes.subarray(at, at + length));
      }
      case 0x62: // b: i8
        return this.bytes.readInt8(this.need(1));
      case 0x42: // B: u8
        return this.u8();
      case 0x73: // s: i16
        return this.bytes.readInt16BE(this.need(2));
      case 0x75: // u: u16
        return this.bytes.readUInt16BE(this.need(2));
      case 0x69: // i: u32
        return this.u32();
      case 0x66: // f: float
        return this.bytes.readFloatBE(this.need(4));
      case 0x44: {
        // D: decimal
        const scale = this.u8();
        return decimal(scale, this.bytes.readInt32BE(this.need(4)));
      }
      default:
        throw new DecodeError(
          `a header table has a value of the unknown type 0x${type.toString(16)} at ${this.at - 1}`,
        );
    }
  }

  inner(depth: number): Reader {
    if (depth > MAX_DEPTH) throw new DecodeError(`a header table is nested more than ${MAX_DEPTH} deep`);
    const length = this.u32();
    const at = this.need(length);
    return new Reader(this.bytes, at, at + length);
  }

  table(depth: number): Record<string, unknown> {
    const inner = this.inner(depth);
    const table: Record<string, unknown> = Object.create(null);
    while (inner.at < inner.end) {
      const key = inner.shortString();
      table[key] = inner.value(depth);
    }
    return table;
  }

  array(depth: number): unknown[] {
    const inner = this.inner(depth);
    const list: unknown[] = [];
    while (inner.at < inner.end) list.push(inner.value(depth));
    return list;
  }
}

/** True for a table that is nothing but its length word. One that is cut off is not empty: reading it says so. */
export function isEmptyTable(bytes: Buffer, at: number, end: number): boolean {
  return at + 4 <= end && bytes[at] === 0 && bytes[at + 1] === 0 && bytes[at + 2] === 0 && bytes[at + 3] === 0;
}

/** Decodes the table whose length word stands at `at`. Throws `DecodeError`. */
export function readTable(bytes: Buffer, at: number, end: number): Record<string, unknown> {
  return new Reader(bytes, at, end).table(0);
}

/** A reader that stands at the type of the value of `key`; undefined if the table has no such key. Decodes as little as it can. */
function seek(bytes: Buffer, at: number, end: number, key: string): Reader | undefined {
  const reader = new Reader(bytes, at, end).inner(0);
  while (reader.at < reader.end) {
    const length = reader.u8();
    const start = reader.need(length);
    // Nearly every key is plain ASCII, and latin1 the cheapest way to look at it.
    if (length === key.length && bytes.latin1Slice(start, start + length) === key) return reader;
    if (length > key.length && bytes.utf8Slice(start, start + length) === key) return reader;
    if (reader.at < reader.end && bytes[reader.at] === 0x53) {
      reader.u8();
      reader.need(reader.u32());
    } else {
      reader.value(0);
    }
  }
  return undefined;
}

/**
 * One string value of a table without decoding the rest of it; undefined if the key is absent or no string.
 * The worker needs `compression` of each message, and most messages have few headers.
 */
export function findString(bytes: Buffer, at: number, end: number, key: string): string | undefined {
  const reader = seek(bytes, at, end, key);
  if (reader === undefined || bytes[reader.at] !== 0x53) return undefined;
  reader.u8();
  return reader.longString();
}

/** One value of a table, decoded; undefined if the key is absent. */
export function findValue(bytes: Buffer, at: number, end: number, key: string): unknown {
  return seek(bytes, at, end, key)?.value(0);
}

/** Where one value of a table lies, its type included; undefined if the key is absent. */
export function findField(
  bytes: Buffer,
  at: number,
  end: number,
  key: string,
): { readonly start: number; readonly end: number } | undefined {
  const reader = seek(bytes, at, end, key);
  if (reader === undefined) return undefined;
  const start = reader.at;
  reader.value(0);
  return { start, end: reader.at };
}
