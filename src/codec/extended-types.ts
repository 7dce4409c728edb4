/**
 * kombu's extended types of JSON: objects of exactly the keys `__type__` and `__value__`, and the types that users add
 * (`registerType`), on the thread that adds them.
 */
import { Buffer, isUtf8 } from 'node:buffer';
import { DecodeError, EncodeError, OptionError } from '../errors.js';
import { messageOf } from './bytes.js';
import {
  ExactDate,
  ExactDatetime,
  ExactDecimal,
  ExactTime,
  ExactUuid,
  type ExactValue,
  parseDatetime,
  parseUuid,
} from './exact.js';

export const TYPE = '__type__';
export const VALUE = '__value__';

/**
 * What kombu's types become. `plain`: datetime a `Date` (naive: UTC; to the millisecond), uuid, decimal, date and time
 * strings. `exact`: the classes of `exact.ts`, which lose nothing. Bytes are a `Buffer` either way.
 */
export type ExtendedTypes = 'plain' | 'exact';

/** A class, also an abstract one. */
export type Class<T> = abstract new (...args: never[]) => T;

interface Registered {
  readonly marker: string | null;
  readonly encode: (value: object) => unknown;
}

/** By prototype. */
const registered = new Map<object, Registered>();
const decoders = new Map<string, (value: unknown) => unknown>();

const BASIC: readonly unknown[] = [Object, Array, String, Number, Boolean, BigInt, Symbol, Function];

/**
 * Says how JSON writes and reads a class, subclasses included; the nearest registered class counts. Goes before `toJSON` and
 * before what this library does with a `Date` or bytes. For this thread: on worker threads, from the handler module.
 *
 * `marker`: the name that travels as `__type__`, and Python's `kombu.utils.json.register_type` knows it by; null: `encoder`'s
 * result is written as it is, and nothing is decoded. `encoder` gives what JSON can write, `decoder` takes what it read.
 * Replaces what was registered for the class, and for the marker, kombu's own included. Throws `OptionError`.
 */
export function registerType<T extends object>(
  type: Class<T>,
  marker: string | null,
  encoder: (value: T) => unknown,
  decoder: (value: unknown) => unknown = (value) => value,
): void {
  if (typeof type !== 'function' || typeof type.prototype !== 'object' || BASIC.includes(type)) {
    throw new OptionError('registerType: the type must be a class, and not one that JSON has a form for already');
  }
  if (marker !== null && (typeof marker !== 'string' || marker === '')) {
    throw new OptionError('registerType: the marker must be a string that is not empty, or null');
  }
  if (typeof encoder !== 'function' || typeof decoder !== 'function') {
    throw new OptionError('registerType: encoder and decoder must be functions');
  }
  registered.set(type.prototype as object, { marker, encode: encoder as Registered['encode'] });
  if (marker !== null) decoders.set(marker, decoder);
}

/** How the class of a value was registered; cheap while nothing is. */
export function registeredFor(value: object): Registered | undefined {
  if (registered.size === 0) return undefined;
  for (let at: unknown = Object.getPrototypeOf(value); at !== null; at = Object.getPrototypeOf(at)) {
    const found = registered.get(at as object);
    if (found !== undefined) return found;
  }
  return undefined;
}

// Reading

/** The value with its extended types as what they stand for; changes it in place. Throws `DecodeError`. */
export function revive(value: unknown, types: ExtendedTypes): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const item: unknown = value[i];
      if (typeof item === 'object' && item !== null) value[i] = revive(item, types);
    }
    return value;
  }
  const object = value as Record<string, unknown>;
  const keys = Object.keys(object);
  for (const key of keys) {
    const item = object[key];
    // Every key is an own property already, `__proto__` too, so this writes that property and sets no prototype.
    if (typeof item === 'object' && item !== null) object[key] = revive(item, types);
  }
  if (keys.length !== 2 || !Object.hasOwn(object, TYPE) || !Object.hasOwn(object, VALUE)) return value;
  return readExtended(object[TYPE], object[VALUE], types);
}

function readExtended(type: unknown, value: unknown, types: ExtendedTypes): unknown {
  const decoder = typeof type === 'string' ? decoders.get(type) : undefined;
  if (decoder !== undefined) return readRegistered(type as string, value, decoder);
  const exact = types === 'exact';
  switch (type) {
    case 'datetime': {
      const text = textOf(type, value);
      return exact ? new ExactDatetime(text) : new Date(parseDatetime(text).time);
    }
    case 'bytes':
      return encodedText(textOf(type, value));
    case 'base64':
      return decodedBase64(textOf(type, value));
    case 'uuid': {
      // Python 5.3 and later send an object, which older ones put a version into as well.
      const hex = typeof value === 'object' && value !== null ? (value as { hex?: unknown }).hex : value;
      return exact ? new ExactUuid(textOf(type, hex)) : parseUuid(textOf(type, hex));
    }
    case 'decimal':
      return exact ? new ExactDecimal(textOf(type, value)) : textOf(type, value);
    case 'date':
      return exact ? new ExactDate(textOf(type, value)) : textOf(type, value);
    case 'time':
      return exact ? new ExactTime(textOf(type, value)) : textOf(type, value);
    default:
      throw new DecodeError(
        `json: unknown extended type ${typeof type === 'string' ? `'${type.slice(0, 40)}'` : `(a ${typeof type})`}: ` +
          'serialization.registerType makes it known',
      );
  }
}

function readRegistered(type: string, value: unknown, decoder: (value: unknown) => unknown): unknown {
  try {
    return decoder(value);
  } catch (error) {
    if (error instanceof DecodeError) throw error;
    throw new DecodeError(`json: the decoder of type '${type.slice(0, 40)}' failed: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** Half a surrogate pair has no bytes: `Buffer.from` would put others in its place. */
function encodedText(text: string): Buffer {
  if (!text.isWellFormed()) throw new DecodeError('json: bytes sent as text have half of a surrogate pair');
  return Buffer.from(text, 'utf8');
}

/** `Buffer.from` skips what it does not know and takes any length, so damage would be a shorter value. */
function decodedBase64(text: string): Buffer {
  if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) {
    throw new DecodeError('json: bytes sent as base64 are damaged or cut off');
  }
  return Buffer.from(text, 'base64');
}

function textOf(type: string, value: unknown): string {
  if (typeof value === 'string') return value;
  throw new DecodeError(`json: the value of a ${type} must be text`);
}

// Writing

/** `json`: the value, written already. */
export function envelope(type: string, json: string): string {
  return `{"${TYPE}":${JSON.stringify(type)},"${VALUE}":${json}}`;
}

export function writeExact(value: ExactValue): string {
  return envelope(value.type, JSON.stringify(value.wire));
}

/** Six fraction digits and `+00:00`: Pythons before 3.11 read nothing else. */
export function writeDate(date: Date): string {
  if (Number.isNaN(date.getTime())) return 'null';
  const year = date.getUTCFullYear();
  if (year < 1 || year > 9999)
    throw new EncodeError('json: a Date outside the years 1 to 9999 has no form Python reads');
  return envelope('datetime', `"${date.toISOString().replace('Z', '000+00:00')}"`);
}

/** As text if it is UTF-8, else base64. */
export function writeBytes(value: Uint8Array): string {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return isUtf8(bytes)
    ? envelope('bytes', JSON.stringify(bytes.toString('utf8')))
    : envelope('base64', JSON.stringify(bytes.toString('base64')));
}
