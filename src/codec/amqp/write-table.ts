/**
 * Plain values to AMQP field tables, by amqplib's rules: a number goes out in the smallest type that holds it, and
 * `{ '!': 'timestamp', value }` names a type. What amqplib encodes, this encodes to the same bytes. Writes into a buffer it is
 * given and returns the offset behind what it wrote; the caller sees to the room (`RangeError` where there is none).
 */

const UNKNOWN = 'Unknown type to encode:';

/** True where amqplib takes a double: fractions, and what no signed integer of 64 bits holds. */
function isFloatingPoint(value: number): boolean {
  return value >= 0x8000000000000000 || (Math.abs(value) < 0x4000000000000 && Math.floor(value) !== value);
}

function typeOfNumber(value: number): string {
  if (isFloatingPoint(value)) return 'double';
  if (value < 128 && value >= -128) return 'byte';
  if (value >= -0x8000 && value < 0x8000) return 'short';
  return value >= -0x80000000 && value < 0x80000000 ? 'int' : 'long';
}

/** A name, a key, a routing key: one byte of length. Throws `TypeError` with amqplib's words. */
export function writeShortString(out: Buffer, text: unknown, at: number, field: string): number {
  if (typeof text === 'string') {
    // Most are short and plain: then the length in characters is the length in bytes.
    const length = out.write(text, at + 1, 'utf8');
    if (length < 256 && length >= text.length) {
      out[at] = length;
      return at + 1 + length;
    }
  }
  throw new TypeError(`Field '${field}' is the wrong type; must be a string (up to 255 chars)`);
}

function writeBytes(out: Buffer, type: string, bytes: Uint8Array, at: number): number {
  out.write(type, at, 'latin1');
  out.writeUInt32BE(bytes.length, at + 1);
  if (at + 5 + bytes.length > out.length) throw new RangeError('a field table exceeds the encoding buffer');
  out.set(bytes, at + 5);
  return at + 5 + bytes.length;
}

/** The types with a name of their own: letter, bytes, and how they are written. */
const FIXED: Readonly<Record<string, readonly [string, number, (out: Buffer, value: never, at: number) => unknown]>> = {
  byte: ['b', 1, (out, value: number, at) => out.writeInt8(value, at)],
  unsignedbyte: ['B', 1, (out, value: number, at) => out.writeUInt8(value, at)],
  short: ['s', 2, (out, value: number, at) => out.writeInt16BE(value, at)],
  unsignedshort: ['u', 2, (out, value: number, at) => out.writeUInt16BE(value, at)],
  int: ['I', 4, (out, value: number, at) => out.writeInt32BE(value, at)],
  unsignedint: ['i', 4, (out, value: number, at) => out.writeUInt32BE(value, at)],
  long: ['l', 8, (out, value: number, at) => out.writeBigInt64BE(BigInt(value), at)],
  double: ['d', 8, (out, value: number, at) => out.writeDoubleBE(value, at)],
  float: ['f', 4, (out, value: number, at) => out.writeFloatBE(value, at)],
  timestamp: ['T', 8, (out, value: number, at) => out.writeBigUInt64BE(BigInt(value), at)],
  boolean: ['t', 1, (out, value: boolean, at) => out.writeUInt8(value ? 1 : 0, at)],
  decimal: [
    'D',
    5,
    (out, value: { places: number; digits: number }, at) => {
      if (!(value?.places >= 0 && value.places < 256 && 'digits' in value)) {
        throw new TypeError(`Decimal value must be {'places': 0..255, 'digits': uint32}, got ${JSON.stringify(value)}`);
      }
      out[at] = value.places;
      out.writeUInt32BE(value.digits, at + 1);
    },
  ],
};

const ALIASES: Readonly<Record<string, string>> = {
  int8: 'byte',
  uint8: 'unsignedbyte',
  int16: 'short',
  uint16: 'unsignedshort',
  int32: 'int',
  uint32: 'unsignedint',
  int64: 'long',
  float64: 'double',
};

/** One value with its type letter. Throws `TypeError` for what AMQP has no type for. */
export function writeField(out: Buffer, given: unknown, at: number): number {
  let type: string = typeof given;
  let value = given;
  if (type === 'object' && given !== null && Object.hasOwn(given as object, '!')) {
    const typed = given as { '!': string; value: unknown };
    type = typed['!'];
    value = typed.value;
  }
  if (type === 'number') type = typeOfNumber(value as number);
  const fixed = FIXED[ALIASES[type] ?? type];
  if (fixed !== undefined) {
    const [letter, size, write] = fixed;
    out.writeUInt8(letter.charCodeAt(0), at);
    write(out, value as never, at + 1);
    return at + 1 + size;
  }
  if (type === 'string') {
    const text = value as string;
    const length = Buffer.byteLength(text, 'utf8');
    out.writeUInt8(0x53, at);
    out.writeUInt32BE(length, at + 1);
    if (out.write(text, at + 5, 'utf8') < length) throw new RangeError('a field table exceeds the encoding buffer');
    return at + 5 + length;
  }
  if (type !== 'object') throw new TypeError(`${UNKNOWN} ${type}`);
  if (value === null) {
    out.writeUInt8(0x56, at);
    return at + 1;
  }
  if (Array.isArray(value)) {
    let end = at + 5;
    for (const item of value) end = writeField(out, item, end);
    out.writeUInt8(0x41, at);
    out.writeUInt32BE(end - at - 5, at + 1);
    return end;
  }
  if (Buffer.isBuffer(value)) return writeBytes(out, 'x', value, at);
  out.writeUInt8(0x46, at);
  return writeTable(out, value as object, at + 1);
}

/** A table with its length word; what is undefined is left out. */
export function writeTable(out: Buffer, table: object, at: number): number {
  let end = at + 4;
  // As amqplib: what a prototype holds counts, which is how it lays options over `arguments`.
  for (const key in table) {
    const value = (table as Record<string, unknown>)[key];
    if (value === undefined) continue;
    end = writeShortString(out, key, end, key);
    end = writeField(out, value, end);
  }
  out.writeUInt32BE(end - at - 4, at);
  return end;
}
