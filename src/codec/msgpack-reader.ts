/**
 * Reads MessagePack, every byte of it by the specification. Written here because msgpackr, which writes it, also reads
 * extensions of its own (records, structures that contain themselves, typed arrays, errors), takes the byte 0xc1 for a
 * value, and turns damaged text into U+FFFD. Its list of extensions is one for the whole process, so they cannot be taken
 * away without taking them from an application that uses the package too.
 *
 * Nothing that is returned shares memory with the body, nor keeps it alive.
 */
import { Buffer, isUtf8 } from 'node:buffer';
import { DecodeError } from '../errors.js';

const bad = (why: string): DecodeError => new DecodeError(`msgpack: ${why}`);
const cutOff = (): DecodeError => bad('the body is cut off');

/** Text below this length is put together here: the call into the engine's own decoder costs more. */
const SHORT = 16;
/** Short texts that were read before: bodies repeat them (names above all), and one that is known is not made again. */
const words = new Array<string>(4096).fill('');

// The body that is being read. There is one at a time, and variables are a tenth faster than fields of an object.
const NOTHING: Buffer = Buffer.alloc(0);
const NO_VIEW: DataView = new DataView(new ArrayBuffer(0));
let bytes = NOTHING;
let view = NO_VIEW;
let at = 0;
let end = 0;
/** How many items lists and maps may still claim: each takes a byte at least, so no header makes more than the body has. */
let items = 0;

/** Decodes the one value of a body. Throws `DecodeError`, and `RangeError` where the stack does not suffice. */
export function readMsgpack(body: Buffer): unknown {
  bytes = body;
  view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  at = 0;
  end = body.length;
  items = body.length;
  try {
    const value = read();
    if (at < end) throw bad(`${end - at} bytes are left behind the value`);
    return value;
  } finally {
    bytes = NOTHING;
    view = NO_VIEW;
  }
}

function read(): unknown {
  const token = bytes[at++]!;
  if (token < 0xc0) {
    if (token < 0x80) return token;
    if (token < 0x90) return readMap(token & 15);
    return token < 0xa0 ? readList(token & 15) : readText(token & 31);
  }
  switch (token) {
    case 0xc0:
      return null;
    case 0xc2:
      return false;
    case 0xc3:
      return true;
    case 0xc4:
      return readBytes(bytes[take(1)]!);
    case 0xc5:
      return readBytes(view.getUint16(take(2)));
    case 0xc6:
      return readBytes(view.getUint32(take(4)));
    case 0xc7:
      return readExtension(bytes[take(1)]!);
    case 0xc8:
      return readExtension(view.getUint16(take(2)));
    case 0xc9:
      return readExtension(view.getUint32(take(4)));
    case 0xca:
      at += 4;
      return view.getFloat32(at - 4);
    case 0xcb:
      at += 8;
      return view.getFloat64(at - 8);
    case 0xcc:
      return view.getUint8(at++);
    case 0xcd:
      at += 2;
      return view.getUint16(at - 2);
    case 0xce:
      at += 4;
      return view.getUint32(at - 4);
    case 0xcf:
      return readWide(take(8), true);
    case 0xd0:
      at += 1;
      return view.getInt8(at - 1);
    case 0xd1:
      at += 2;
      return view.getInt16(at - 2);
    case 0xd2:
      at += 4;
      return view.getInt32(at - 4);
    case 0xd3:
      return readWide(take(8), false);
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
      return readExtension(1 << (token - 0xd4));
    case 0xd9:
      return readText(bytes[take(1)]!);
    case 0xda:
      return readText(view.getUint16(take(2)));
    case 0xdb:
      return readText(view.getUint32(take(4)));
    case 0xdc:
      return readList(view.getUint16(take(2)));
    case 0xdd:
      return readList(view.getUint32(take(4)));
    case 0xde:
      return readMap(view.getUint16(take(2)));
    case 0xdf:
      return readMap(view.getUint32(take(4)));
    case 0xc1:
      throw bad(`the byte 0xc1 at ${at - 1} is no value`);
    default:
      if (token >= 0xe0) return token - 0x100;
      throw cutOff();
  }
}

/** Steps over `count` bytes; gives where they start. */
function take(count: number): number {
  const start = at;
  if (count > end - start) throw cutOff();
  at = start + count;
  return start;
}

/** An integer of 64 bits: a Number where that holds it. */
function readWide(start: number, unsigned: boolean): number | bigint {
  const upper = unsigned ? view.getUint32(start) : view.getInt32(start);
  const value = upper * 2 ** 32 + view.getUint32(start + 4);
  if (Number.isSafeInteger(value)) return value;
  return unsigned ? view.getBigUint64(start) : view.getBigInt64(start);
}

function readBytes(length: number): Buffer {
  const start = take(length);
  // Of Uint8Array: it copies, where Buffer's own makes a view.
  return Uint8Array.prototype.slice.call(bytes, start, start + length) as Buffer;
}

function readText(length: number): string {
  const start = take(length);
  if (length < SHORT) {
    const short = readShort(start, length);
    if (short !== undefined) return short;
  }
  const text = bytes.utf8Slice(start, at);
  // What is not UTF-8 becomes U+FFFD, so only a text that has one needs a second look.
  if (text.includes('\ufffd') && !isUtf8(bytes.subarray(start, at))) throw bad('a text is not valid UTF-8');
  return text;
}

/** A short text of ASCII; undefined: it is not ASCII. */
function readShort(start: number, length: number): string | undefined {
  if (length === 0) return '';
  const stop = start + length;
  const place =
    (length * 337 +
      bytes[start]! * 31 +
      bytes[stop - 1]! * 171 +
      bytes[stop - 2]! * 7 +
      bytes[start + (length >> 1)]!) &
    4095;
  const known = words[place]!;
  if (known.length === length) {
    let i = 0;
    while (i < length && known.charCodeAt(i) === bytes[start + i]) i++;
    if (i === length) return known;
  }
  for (let i = start; i < stop; i++) if (bytes[i]! >= 0x80) return undefined;
  const text = bytes.latin1Slice(start, stop);
  words[place] = text;
  return text;
}

function claim(count: number): void {
  items -= count;
  if (items < 0) throw cutOff();
}

function readList(length: number): unknown[] {
  if (length > 15) claim(length);
  const list = new Array<unknown>(length);
  for (let i = 0; i < length; i++) list[i] = read();
  return list;
}

function readMap(length: number): Record<string, unknown> {
  if (length > 15) claim(length);
  const map: Record<string, unknown> = {};
  for (let i = 0; i < length; i++) {
    const name = readName();
    // Assigning would set the prototype.
    if (name === '__proto__') {
      Object.defineProperty(map, name, { value: read(), writable: true, enumerable: true, configurable: true });
    } else {
      map[name] = read();
    }
  }
  return map;
}

function readName(): string {
  const name = read();
  if (typeof name === 'string') return name;
  if (typeof name === 'object' && name !== null) throw bad('a map has a key that is neither text nor a number');
  return String(name);
}

function readExtension(length: number): Date {
  const type = view.getInt8(take(1));
  const start = take(length);
  if (type !== -1) {
    throw new DecodeError(
      `msgpack: extension type ${type} (${length} bytes) has a meaning that only its sender knows`,
      {
        details: { extensionType: type },
      },
    );
  }
  let seconds: number;
  let nanoseconds = 0;
  if (length === 4) {
    seconds = view.getUint32(start);
  } else if (length === 8) {
    const upper = view.getUint32(start);
    nanoseconds = upper >>> 2;
    seconds = (upper & 3) * 2 ** 32 + view.getUint32(start + 4);
  } else if (length === 12) {
    nanoseconds = view.getUint32(start);
    seconds = view.getInt32(start + 4) * 2 ** 32 + view.getUint32(start + 8);
  } else {
    throw bad(`a timestamp has ${length} bytes, not 4, 8 or 12`);
  }
  const date = new Date(seconds * 1000 + Math.floor(nanoseconds / 1_000_000));
  if (nanoseconds > 999_999_999 || Number.isNaN(date.getTime()))
    throw bad('a timestamp is outside of what a Date holds');
  return date;
}
