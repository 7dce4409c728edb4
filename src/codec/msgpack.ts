/**
 * MessagePack as Python's msgpack reads and writes it: plain maps, real integers, no extension but timestamps. msgpackr
 * writes it; why it does not read it is said in `msgpack-reader.ts`.
 *
 * It must not hand out memory that msgpackr shares between messages.
 */
import { Buffer } from 'node:buffer';
import { types } from 'node:util';
import { Packr } from 'msgpackr';
import { DecodeError, EncodeError } from '../errors.js';
import { bufferOf, formless, messageOf } from './bytes.js';
import { readMsgpack } from './msgpack-reader.js';

const options = {
  useRecords: false, // records are an extension only msgpackr reads
  mapsAsObjects: true,
  variableMapSize: true,
  encodeUndefinedAsNil: true,
  onInvalidDate: () => null, // as JSON has it; msgpackr's own mark for one is unreadable elsewhere
} as const;

const packr = new Packr(options as unknown as ConstructorParameters<typeof Packr>[0]);

/**
 * Encodes a value; `undefined` becomes nil, a `Date` a timestamp, a `Buffer`, typed array or `ArrayBuffer` the bytes it
 * holds (bin). The result has memory of its own. Throws `EncodeError`: a BigInt over 64 bits, a symbol, a function, an
 * object without a form (a Promise, an Error), half a surrogate pair, too deep or containing itself.
 */
export function packMsgpack(value: unknown): Buffer {
  try {
    return Buffer.from(packr.pack(widen(value)));
  } catch (error) {
    if (error instanceof EncodeError) throw error;
    if (error instanceof RangeError && error.message.includes('call stack')) {
      throw new EncodeError('msgpack: the value is nested too deeply, or contains itself', { cause: error });
    }
    throw new EncodeError(`msgpack: ${messageOf(error)}`, { cause: error });
  }
}

/**
 * Decodes one value that fills the body exactly. Maps become objects, their keys text (whole numbers, true, nil: as
 * JavaScript writes them), integers beyond ±(2^53 - 1) BigInt, bin a `Buffer` copy, timestamps a `Date`, to the
 * millisecond. Throws `DecodeError`, which names the type of an extension that is no timestamp.
 */
export function unpackMsgpack(body: Buffer): unknown {
  try {
    return readMsgpack(body);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    // The other RangeError is a number that reaches over the end of the body.
    const deep = error.message.includes('call stack');
    throw new DecodeError(`msgpack: the body is ${deep ? 'nested too deeply' : 'cut off'}`, { cause: error });
  }
}

/**
 * msgpackr writes whole numbers of more than 32 bits as floats, and Python then has 1.7e12 where an integer was meant
 * (every time in milliseconds). It writes a BigInt as an integer, so those become one, in copies of what holds them.
 * Text that is not well formed, which it would write as bytes that nobody reads, is refused on the way, and so is what it
 * would write as nil, or in a form of its own.
 */
function widen(value: unknown): unknown {
  if (typeof value === 'number') {
    return (value > 0xffffffff || value < -0x80000000) && Number.isSafeInteger(value) ? BigInt(value) : value;
  }
  if (typeof value === 'string') return checked(value);
  if (typeof value === 'function') throw new EncodeError('msgpack: a function cannot be encoded');
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) {
    let copy: unknown[] | undefined;
    for (let i = 0; i < value.length; i++) {
      const item: unknown = value[i];
      const wide = widen(item);
      if (wide === item) continue;
      copy ??= value.slice();
      copy[i] = wide;
    }
    return copy ?? value;
  }
  if (value instanceof Date || value instanceof Uint8Array) return value;
  // Of any other view it takes the length in bytes and the elements one by one: what it writes is memory of its own.
  if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (types.isAnyArrayBuffer(value)) return bufferOf(new Uint8Array(value));
  if (types.isBoxedPrimitive(value)) return widen(value.valueOf());
  if (value instanceof Set) return widen([...value]);
  if (value instanceof Map) return new Map(Array.from(value, ([key, item]) => [widen(key), widen(item)]));
  const { toJSON } = value as { toJSON?: unknown };
  if (typeof toJSON === 'function') return widen(toJSON.call(value));
  const kind = formless(value);
  if (kind !== undefined) throw new EncodeError(`msgpack: ${kind} cannot be encoded`);
  let copy: Record<string, unknown> | undefined;
  for (const key of Object.keys(value)) {
    checked(key);
    const item = (value as Record<string, unknown>)[key];
    const wide = widen(item);
    if (wide === item || Number.isNaN(item)) continue;
    copy ??= { ...value };
    copy[key] = wide;
  }
  return copy ?? value;
}

function checked(text: string): string {
  if (text.isWellFormed()) return text;
  throw new EncodeError('msgpack: a text has half of a surrogate pair, which UTF-8 cannot say');
}
