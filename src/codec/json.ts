/**
 * kombu's JSON, both ways, from and to text: plain JSON at the speed of the engine's own parser, plus what Python writes
 * beyond it (extended types, integers of any size, NaN and infinities).
 *
 * It must not know about charsets, content types or registries, and must not run a reviver or a replacer over every
 * message: each extra is looked for cheaply and paid for only by the bodies that have it.
 */
import { Buffer } from 'node:buffer';
import { types as kinds } from 'node:util';
import { EncodeError } from '../errors.js';
import { formless, messageOf } from './bytes.js';
import { ExactValue } from './exact.js';
import {
  type ExtendedTypes,
  envelope,
  registeredFor,
  revive,
  TYPE,
  writeBytes,
  writeDate,
  writeExact,
} from './extended-types.js';
import { parseTolerantly, tooDeep } from './json-tolerant.js';

/**
 * Parses JSON text. Objects with exactly the keys `__type__` and `__value__` become what they stand for, as `types` says.
 * Integers beyond ±(2^53 - 1) become BigInt; `NaN`, `Infinity`, `-Infinity` and a leading byte order mark are understood.
 *
 * `bytes` is what `text` was decoded from, in a charset that contains ASCII: it is scanned in place of the text, at
 * twice the speed. Throws `DecodeError`; its text never quotes the body.
 */
export function parseJson(
  text: string,
  bytes: Uint8Array = Buffer.from(text),
  types: ExtendedTypes = 'plain',
): unknown {
  const value = parseOnly(text, bytes);
  return text.includes(TYPE) ? reviveParsed(value, types) : value;
}

/** As `parseJson`, but extended types stay objects of two keys. */
export function parseOnly(text: string, bytes: Uint8Array): unknown {
  if (mayHoldBigInteger(bytes)) return parseTolerantly(text);
  try {
    return JSON.parse(text);
  } catch (error) {
    return parseTolerantly(text, error);
  }
}

/** What `parseOnly` gave, with extended types as what they stand for; changes it in place. Throws `DecodeError`. */
export function reviveParsed(value: unknown, types: ExtendedTypes): unknown {
  try {
    return revive(value, types);
  } catch (error) {
    throw error instanceof RangeError ? tooDeep(error) : error;
  }
}

/**
 * Writes a value as JSON text, as `JSON.stringify` does, but: a `Date` becomes kombu's datetime, a `Buffer` or
 * `Uint8Array` its bytes, a value of `exact.ts` or of a registered type what that says, a BigInt an integer, and
 * `undefined` null. Throws `EncodeError`, also for what JSON.stringify makes `{}` of though it holds something: a Map, Set,
 * `ArrayBuffer`, Promise, Error.
 */
export function stringifyJson(value: unknown): string {
  try {
    const text = hasSpecial(value) ? write(value, '') : JSON.stringify(value ?? null);
    if (text === undefined) throw new EncodeError(`json: a ${typeof value} cannot be encoded`);
    return text;
  } catch (error) {
    if (error instanceof EncodeError) throw error;
    if (error instanceof RangeError) {
      throw new EncodeError('json: the value is nested too deeply, or contains itself', { cause: error });
    }
    throw new EncodeError(`json: ${messageOf(error)}`, { cause: error });
  }
}

const isDigit = (code: number | undefined): boolean => code !== undefined && code <= 57 && code >= 48;

/**
 * Whether the body has an integer that a Number cannot hold. True may be wrong (digits inside a string), false is not.
 *
 * Such an integer is a run of 16 digits or more, so it covers one of every 16 neighbouring positions, and from there it
 * reaches at least 8 positions to one side: most probes read one byte and none of them walks a long string. A run that
 * follows a point is the fraction of a float, of which Python writes up to 17 digits.
 */
function mayHoldBigInteger(bytes: Uint8Array): boolean {
  const length = bytes.length;
  for (let probe = 15; probe < length; probe += 16) {
    const code = bytes[probe]!;
    if (code > 57 || code < 48) continue;
    if (!isDigit(bytes[probe - 8]) && !(probe + 8 < length && isDigit(bytes[probe + 8]))) continue;
    let start = probe;
    while (start > 0 && isDigit(bytes[start - 1])) start--;
    let end = probe + 1;
    while (end < length && isDigit(bytes[end])) end++;
    if (bytes[start - 1] !== 46 && end - start >= 16 && isBigInteger(bytes, start, end)) return true;
    probe = end; // a run that starts behind `end` is met by the next probe, at end + 16
  }
  return false;
}

function isBigInteger(bytes: Uint8Array, start: number, end: number): boolean {
  const next = bytes[end];
  if (next === 46 || next === 69 || next === 101) return false; // "." "E" "e": a float
  if (end - start > 16) return true;
  let value = 0;
  for (let i = start; i < end; i++) value = value * 10 + (bytes[i]! - 48);
  return value > Number.MAX_SAFE_INTEGER;
}

// Encoding

/** Whether anything in the value needs our writer. A tenth of the time of JSON.stringify, where a replacer doubles it. */
function hasSpecial(value: unknown): boolean {
  if (typeof value === 'bigint') return true;
  if (typeof value !== 'object' || value === null) return false;
  if (Array.isArray(value)) {
    if (registeredFor(value) !== undefined) return true;
    for (let i = 0; i < value.length; i++) {
      const item: unknown = value[i];
      if (typeof item === 'bigint' || (typeof item === 'object' && item !== null && hasSpecial(item))) return true;
    }
    return false;
  }
  // A toJSON may return dates and bytes that the walk cannot see.
  if (value instanceof Uint8Array || typeof (value as { toJSON?: unknown }).toJSON === 'function') return true;
  if (registeredFor(value) !== undefined) return true;
  let empty = true;
  for (const key in value) {
    empty = false;
    const item = (value as Record<string, unknown>)[key];
    if (typeof item === 'bigint' || (typeof item === 'object' && item !== null && hasSpecial(item))) return true;
  }
  if (empty) refuseFormless(value);
  return false;
}

/** `value`: an object without fields. Asking only of those costs the others nothing. */
function refuseFormless(value: object): void {
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null) return;
  const kind = kinds.isMap(value)
    ? 'a Map (send Object.fromEntries of it)'
    : kinds.isSet(value)
      ? 'a Set (send an array of it)'
      : formless(value);
  if (kind !== undefined) throw new EncodeError(`json: ${kind} cannot be encoded`);
}

/** JSON.stringify in our own words, because no hook of it can write a bare big integer. Undefined: leave it out. */
function write(given: unknown, key: string): string | undefined {
  let value = given;
  if (typeof value === 'object' && value !== null && !isOurs(value)) {
    const { toJSON } = value as { toJSON?: unknown };
    if (typeof toJSON === 'function') value = toJSON.call(value, key);
  }
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const type = registeredFor(value);
  if (type !== undefined) {
    const text = write(type.encode(value), key);
    return type.marker === null ? text : envelope(type.marker, text ?? 'null');
  }
  if (value instanceof ExactValue) return writeExact(value);
  if (value instanceof Date) return writeDate(value);
  if (value instanceof Uint8Array) return writeBytes(value);
  if (Array.isArray(value)) return `[${Array.from(value, (item, i) => write(item, String(i)) ?? 'null').join(',')}]`;
  if (value instanceof Number || value instanceof String || value instanceof Boolean) return JSON.stringify(value);
  const members: string[] = [];
  for (const [name, item] of Object.entries(value)) {
    const text = write(item, name);
    if (text !== undefined) members.push(`${JSON.stringify(name)}:${text}`);
  }
  if (members.length === 0) refuseFormless(value);
  return `{${members.join(',')}}`;
}

/** Whether we know better than its `toJSON`, which gives text for a Date and numbers for a Buffer. */
function isOurs(value: object): boolean {
  return (
    value instanceof Date ||
    value instanceof Uint8Array ||
    value instanceof ExactValue ||
    registeredFor(value) !== undefined
  );
}
