/**
 * MessagePack as Python's msgpack reads and writes it: plain maps, real integers, no record extension.
 *
 * It must not hand out memory that msgpackr shares between messages, nor views of the bytes that it decoded.
 */
import { Buffer } from 'node:buffer';
import { Packr } from 'msgpackr';
import { DecodeError, EncodeError } from '../errors.js';

const options = {
  useRecords: false, // records are an extension only msgpackr reads
  mapsAsObjects: true,
  variableMapSize: true,
  int64AsType: 'auto', // BigInt only where a Number would round; the shipped types do not know this value
  copyBuffers: true, // bin values would be views of a slot that is used again
  encodeUndefinedAsNil: true,
  onInvalidDate: () => null, // as JSON has it; msgpackr's own mark for one is unreadable elsewhere
} as const;

const packr = new Packr(options as unknown as ConstructorParameters<typeof Packr>[0]);

/**
 * Encodes a value; `undefined` becomes nil, a `Date` a timestamp, a `Buffer` or typed array bin. The result has memory
 * of its own. Throws `EncodeError`: a BigInt over 64 bits, a symbol, too deep or containing itself.
 */
export function packMsgpack(value: unknown): Buffer {
  try {
    return Buffer.from(packr.pack(widen(value)));
  } catch (error) {
    if (error instanceof RangeError && error.message.includes('call stack')) {
      throw new EncodeError('msgpack: the value is nested too deeply, or contains itself', { cause: error });
    }
    throw new EncodeError(`msgpack: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

/**
 * Decodes one value that fills the body exactly. Maps become objects (a key `__proto__` becomes `__proto_`), integers
 * beyond ±2^53 BigInt, bin a `Buffer` copy, timestamps a `Date`. Throws `DecodeError`.
 */
export function unpackMsgpack(body: Buffer): unknown {
  try {
    // msgpackr hangs a property on the object it reads: on a view of our own, not on the caller's.
    return packr.unpack(body.subarray());
  } catch (error) {
    if (error instanceof RangeError && error.message.includes('call stack')) {
      throw new DecodeError('msgpack: the body is nested too deeply', { cause: error });
    }
    // msgpackr's text for bytes left over quotes the value: the cause keeps it, our text does not.
    const text = error instanceof Error ? error.message : String(error);
    const why = text.startsWith('Data read') ? 'bytes are left behind the value' : text;
    throw new DecodeError(`msgpack: ${why}`, { cause: error });
  }
}

/**
 * msgpackr writes whole numbers of more than 32 bits as floats, and Python then has 1.7e12 where an integer was meant
 * (every time in milliseconds). It writes a BigInt as an integer, so those become one, in copies of what holds them.
 */
function widen(value: unknown): unknown {
  if (typeof value === 'number') {
    return (value > 0xffffffff || value < -0x80000000) && Number.isSafeInteger(value) ? BigInt(value) : value;
  }
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
  if (value instanceof Date || ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return value;
  if (value instanceof Set) return widen([...value]);
  if (value instanceof Map) return new Map(Array.from(value, ([key, item]) => [widen(key), widen(item)]));
  const { toJSON } = value as { toJSON?: unknown };
  if (typeof toJSON === 'function') return widen(toJSON.call(value));
  let copy: Record<string, unknown> | undefined;
  for (const key of Object.keys(value)) {
    const item = (value as Record<string, unknown>)[key];
    const wide = widen(item);
    if (wide === item || Number.isNaN(item)) continue;
    copy ??= { ...value };
    copy[key] = wide;
  }
  return copy ?? value;
}
