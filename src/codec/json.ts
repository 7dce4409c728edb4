/**
 * kombu's JSON, both ways, from and to text: plain JSON at the speed of the engine's own parser, plus what Python writes
 * beyond it (extended types, integers of any size, NaN and infinities).
 *
 * It must not know about charsets, content types or registries, and must not run a reviver or a replacer over every
 * message: each extra is looked for cheaply and paid for only by the bodies that have it.
 */
import { Buffer, isUtf8 } from 'node:buffer';
import { DecodeError, EncodeError } from '../errors.js';

const TYPE = '__type__';
const VALUE = '__value__';

/** Longest integer that is decoded. Converting takes more than linear time; Python refuses longer ones as well. */
const MAX_INTEGER_DIGITS = 4300;

/**
 * Parses JSON text. Objects with exactly the keys `__type__` and `__value__` become what they stand for: datetime a
 * `Date` (naive: UTC; to the millisecond), bytes and base64 a `Buffer`, uuid, decimal, date and time strings. Integers
 * beyond ±(2^53 - 1) become BigInt; `NaN`, `Infinity`, `-Infinity` and a leading byte order mark are understood.
 *
 * `bytes` is what `text` was decoded from, in a charset that contains ASCII: it is scanned in place of the text, at
 * twice the speed. Throws `DecodeError`; its text never quotes the body.
 */
export function parseJson(text: string, bytes: Uint8Array = Buffer.from(text)): unknown {
  let value: unknown;
  if (mayHoldBigInteger(bytes)) {
    value = parseTolerantly(text);
  } else {
    try {
      value = JSON.parse(text);
    } catch (error) {
      value = parseTolerantly(text, error);
    }
  }
  if (!text.includes(TYPE)) return value;
  try {
    return revive(value);
  } catch (error) {
    throw error instanceof RangeError ? tooDeep(error) : error;
  }
}

/**
 * Writes a value as JSON text, as `JSON.stringify` does, but: a `Date` becomes kombu's datetime (six fraction digits and
 * `+00:00`: Pythons before 3.11 read nothing else), a `Buffer` or `Uint8Array` its bytes (as text if it is UTF-8, else
 * base64), a BigInt an integer, and `undefined` null. Throws `EncodeError`.
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
    throw new EncodeError(`json: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

function tooDeep(cause: unknown): DecodeError {
  return new DecodeError('json: the body is nested too deeply', { cause });
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

// Extended types

function revive(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const item: unknown = value[i];
      if (typeof item === 'object' && item !== null) value[i] = revive(item);
    }
    return value;
  }
  const object = value as Record<string, unknown>;
  const keys = Object.keys(object);
  for (const key of keys) {
    const item = object[key];
    // Every key is an own property already, `__proto__` too, so this writes that property and sets no prototype.
    if (typeof item === 'object' && item !== null) object[key] = revive(item);
  }
  if (keys.length !== 2 || !Object.hasOwn(object, TYPE) || !Object.hasOwn(object, VALUE)) return value;
  return readExtended(object[TYPE], object[VALUE]);
}

function readExtended(type: unknown, value: unknown): unknown {
  switch (type) {
    case 'datetime':
      return readDatetime(textOf(type, value));
    case 'bytes':
      return Buffer.from(textOf(type, value), 'utf8');
    case 'base64':
      return Buffer.from(textOf(type, value), 'base64');
    case 'uuid': {
      const hex = typeof value === 'object' && value !== null ? (value as { hex?: unknown }).hex : value;
      const digits = textOf(type, hex).replaceAll('-', '').toLowerCase();
      if (!/^[0-9a-f]{32}$/.test(digits)) throw new DecodeError('json: a uuid must have 32 hexadecimal digits');
      return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
    }
    case 'decimal':
    case 'date':
    case 'time':
      return textOf(type, value);
    default:
      throw new DecodeError(
        `json: unknown extended type ${typeof type === 'string' ? `'${type.slice(0, 40)}'` : `(a ${typeof type})`}`,
      );
  }
}

function textOf(type: string, value: unknown): string {
  if (typeof value === 'string') return value;
  throw new DecodeError(`json: the value of a ${type} must be text`);
}

const ISO =
  /^(\d{4}-\d\d-(\d\d))(?:[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9}))?(Z|([+-])(\d\d):?(\d\d)(?::?(\d\d)(?:\.\d+)?)?)?)?$/;

/** What Python's isoformat writes; microseconds are cut to milliseconds, which is all a Date can hold. */
function readDatetime(text: string): Date {
  const match = ISO.exec(text);
  if (match === null) throw new DecodeError('json: a datetime must look like 2024-01-02T03:04:05.678901+00:00');
  const [, date, day, time = '00:00', fraction = '', , sign, hours = '0', minutes = '0', seconds = '0'] = match;
  const local = new Date(`${date}T${time.length === 5 ? `${time}:00` : time}.${fraction.padEnd(3, '0').slice(0, 3)}Z`);
  // Date rolls the 30th of February over to March; Python does not write such a day.
  if (local.getUTCDate() !== Number(day)) throw new DecodeError('json: a datetime names a day or time that is not');
  if (sign === undefined) return local;
  const offset = (Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds)) * 1000;
  return new Date(local.getTime() + (sign === '-' ? offset : -offset));
}

function extended(type: string, value: string): string {
  return `{"${TYPE}":"${type}","${VALUE}":${JSON.stringify(value)}}`;
}

function writeDate(date: Date): string {
  if (Number.isNaN(date.getTime())) return 'null';
  const year = date.getUTCFullYear();
  if (year < 1 || year > 9999)
    throw new EncodeError('json: a Date outside the years 1 to 9999 has no form Python reads');
  return extended('datetime', date.toISOString().replace('Z', '000+00:00'));
}

function writeBytes(value: Uint8Array): string {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return isUtf8(bytes) ? extended('bytes', bytes.toString('utf8')) : extended('base64', bytes.toString('base64'));
}

// Encoding

/** Whether anything in the value needs our writer. A tenth of the time of JSON.stringify, where a replacer doubles it. */
function hasSpecial(value: unknown): boolean {
  if (typeof value === 'bigint') return true;
  if (typeof value !== 'object' || value === null) return false;
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const item: unknown = value[i];
      if (typeof item === 'bigint' || (typeof item === 'object' && item !== null && hasSpecial(item))) return true;
    }
    return false;
  }
  // A toJSON may return dates and bytes that the walk cannot see.
  if (value instanceof Uint8Array || typeof (value as { toJSON?: unknown }).toJSON === 'function') return true;
  for (const key in value) {
    const item = (value as Record<string, unknown>)[key];
    if (typeof item === 'bigint' || (typeof item === 'object' && item !== null && hasSpecial(item))) return true;
  }
  return false;
}

/** JSON.stringify in our own words, because no hook of it can write a bare big integer. Undefined: leave it out. */
function write(given: unknown, key: string): string | undefined {
  let value = given;
  if (typeof value === 'object' && value !== null && !(value instanceof Date) && !(value instanceof Uint8Array)) {
    const { toJSON } = value as { toJSON?: unknown };
    if (typeof toJSON === 'function') value = toJSON.call(value, key);
  }
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  if (value instanceof Date) return writeDate(value);
  if (value instanceof Uint8Array) return writeBytes(value);
  if (Array.isArray(value)) return `[${Array.from(value, (item, i) => write(item, String(i)) ?? 'null').join(',')}]`;
  if (value instanceof Number || value instanceof String || value instanceof Boolean) return JSON.stringify(value);
  const members: string[] = [];
  for (const [name, item] of Object.entries(value)) {
    const text = write(item, name);
    if (text !== undefined) members.push(`${JSON.stringify(name)}:${text}`);
  }
  return `{${members.join(',')}}`;
}

// The tolerant second pass

/** `cause` is what the engine's parser threw, if it has been asked. */
function parseTolerantly(text: string, cause?: unknown): unknown {
  try {
    return new TolerantParser(text).parse();
  } catch (error) {
    if (error instanceof RangeError) throw tooDeep(error);
    throw error instanceof DecodeError && cause !== undefined ? new DecodeError(error.message, { cause }) : error;
  }
}

const NUMBER = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const QUOTE = 34;
const COMMA = 44;
const MINUS = 45;
const NINE = 57;
const COLON = 58;
const OPEN_ARRAY = 91;
const BACKSLASH = 92;
const CLOSE_ARRAY = 93;
const OPEN_OBJECT = 123;
const CLOSE_OBJECT = 125;

/** JSON as RFC 8259 has it, plus the three words that Python writes for floats, plus exact integers. */
class TolerantParser {
  readonly #text: string;
  #at: number;

  constructor(text: string) {
    this.#text = text;
    this.#at = text.charCodeAt(0) === 0xfeff ? 1 : 0;
  }

  parse(): unknown {
    const value = this.#value();
    this.#space();
    if (this.#at < this.#text.length) this.#fail();
    return value;
  }

  #fail(): never {
    const where = this.#at < this.#text.length ? `at character ${this.#at}` : 'at its end';
    throw new DecodeError(`json: not valid JSON ${where} (length ${this.#text.length})`);
  }

  #space(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 32 && code !== 10 && code !== 13 && code !== 9) return;
      this.#at++;
    }
  }

  #value(): unknown {
    this.#space();
    const first = this.#text.charCodeAt(this.#at);
    if (first === QUOTE) return this.#string();
    if (first <= NINE && first !== MINUS) return this.#number();
    if (first === OPEN_OBJECT) return this.#object();
    if (first === OPEN_ARRAY) return this.#array();
    switch (this.#text[this.#at]) {
      case 't':
        return this.#word('true', true);
      case 'f':
        return this.#word('false', false);
      case 'n':
        return this.#word('null', null);
      case 'N':
        return this.#word('NaN', Number.NaN);
      case 'I':
        return this.#word('Infinity', Number.POSITIVE_INFINITY);
      case '-':
        if (this.#text[this.#at + 1] === 'I') return this.#word('-Infinity', Number.NEGATIVE_INFINITY);
    }
    return this.#number();
  }

  #word<T>(word: string, value: T): T {
    if (!this.#text.startsWith(word, this.#at)) this.#fail();
    this.#at += word.length;
    return value;
  }

  #number(): number | bigint {
    NUMBER.lastIndex = this.#at;
    const match = NUMBER.exec(this.#text);
    if (match === null) this.#fail();
    const digits = match[0];
    const value = Number(digits);
    if (match[1] === undefined && match[2] === undefined && !Number.isSafeInteger(value)) {
      if (digits.length > MAX_INTEGER_DIGITS) {
        throw new DecodeError(`json: an integer of over ${MAX_INTEGER_DIGITS} digits at character ${this.#at}`);
      }
      this.#at = NUMBER.lastIndex;
      return BigInt(digits);
    }
    this.#at = NUMBER.lastIndex;
    return value;
  }

  #string(): string {
    const text = this.#text;
    const start = this.#at;
    let end = start + 1;
    let escaped = false;
    for (; ; end++) {
      const code = text.charCodeAt(end);
      if (code === QUOTE) break;
      if (code === BACKSLASH) {
        escaped = true;
        end++;
      } else if (!(code >= 32)) {
        this.#at = end; // a control character, or (NaN) the end of the text
        this.#fail();
      }
    }
    this.#at = end + 1;
    // A longer slice would keep the whole body's text in memory for as long as it lives; what the parser makes does not.
    if (!escaped && end - start <= 13) return text.slice(start + 1, end);
    try {
      return JSON.parse(text.slice(start, end + 1)) as string;
    } catch {
      this.#at = start;
      return this.#fail();
    }
  }

  #array(): unknown[] {
    const items: unknown[] = [];
    this.#at++;
    this.#space();
    if (this.#took(CLOSE_ARRAY)) return items;
    for (;;) {
      items.push(this.#value());
      this.#space();
      if (this.#took(CLOSE_ARRAY)) return items;
      if (!this.#took(COMMA)) this.#fail();
    }
  }

  #object(): Record<string, unknown> {
    const object: Record<string, unknown> = {};
    this.#at++;
    this.#space();
    if (this.#took(CLOSE_OBJECT)) return object;
    for (;;) {
      this.#space();
      if (this.#text.charCodeAt(this.#at) !== QUOTE) this.#fail();
      const key = this.#string();
      this.#space();
      if (!this.#took(COLON)) this.#fail();
      const value = this.#value();
      if (key === '__proto__') {
        // Assigning would set the prototype; JSON.parse makes a property of it too.
        Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
      } else {
        object[key] = value;
      }
      this.#space();
      if (this.#took(CLOSE_OBJECT)) return object;
      if (!this.#took(COMMA)) this.#fail();
    }
  }

  #took(mark: number): boolean {
    if (this.#text.charCodeAt(this.#at) !== mark) return false;
    this.#at++;
    return true;
  }
}
