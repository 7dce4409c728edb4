/**
 * Where the members of a JSON object lie in its bytes, found without making a value of any of them: a body of megabytes is one
 * search for a quote, and what is written again keeps to the octet what is not changed.
 *
 * What is skipped is checked as far as its end depends on it: strings, brackets, commas. Whoever parses it sees the rest.
 */
import { type Buffer, isUtf8 } from 'node:buffer';
import { DecodeError } from '../errors.js';

/** As deep as AMQP's header tables may be nested. */
export const MAX_DEPTH = 64;

const QUOTE = 34;
const COMMA = 44;
const COLON = 58;
const OPEN_ARRAY = 91;
const BACKSLASH = 92;
const CLOSE_ARRAY = 93;
const OPEN_OBJECT = 123;
const CLOSE_OBJECT = 125;

const BODY = '"body"';

/** So many octets of a string are looked at one by one; a longer one is worth a search. */
const NEAR = 48;

/** Octets of a value: [start, end). */
export interface Place {
  readonly start: number;
  readonly end: number;
}

/** The end of every reader here that meets what is no JSON; nothing of the text is quoted. */
function notJson(bytes: Buffer, at: number): never {
  const where = at < bytes.length ? `at byte ${at}` : 'at its end';
  throw new DecodeError(`envelope: not valid JSON ${where} (${bytes.length} bytes)`);
}

/** The first octet at or behind `at` that is no white space; `bytes.length` at the end. */
function skipSpace(bytes: Buffer, at: number): number {
  for (let next = at; ; next++) {
    const octet = bytes[next];
    if (octet !== 32 && octet !== 10 && octet !== 13 && octet !== 9) return next;
  }
}

/** The closing quote of the string whose first octet is at `from`. Takes linear time, whatever is escaped. */
function endOfString(bytes: Buffer, from: number): number {
  const end = bytes.length;
  let at = from;
  for (;;) {
    const near = Math.min(end, at + NEAR);
    while (at < near) {
      const octet = bytes[at];
      if (octet === QUOTE) return at;
      at += octet === BACKSLASH ? 2 : 1;
    }
    const quote = at < end ? bytes.indexOf(QUOTE, at) : -1;
    if (quote < 0) notJson(bytes, end);
    let escapes = quote;
    while (escapes > at && bytes[escapes - 1] === BACKSLASH) escapes--;
    if (((quote - escapes) & 1) === 0) return quote;
    at = quote + 1;
  }
}

/** Behind the list or object that opens at `from`. */
function endOfNested(bytes: Buffer, from: number): number {
  let depth = 0;
  for (let at = from; at < bytes.length; at++) {
    const octet = bytes[at];
    if (octet === QUOTE) at = endOfString(bytes, at + 1);
    else if (octet === OPEN_OBJECT || octet === OPEN_ARRAY) {
      if (++depth > MAX_DEPTH) throw new DecodeError(`envelope: nested more than ${MAX_DEPTH} deep at byte ${at}`);
    } else if ((octet === CLOSE_OBJECT || octet === CLOSE_ARRAY) && --depth === 0) return at + 1;
  }
  return notJson(bytes, bytes.length);
}

/** Behind the value that begins at `from`. */
function endOfValue(bytes: Buffer, from: number): number {
  const first = bytes[from];
  if (first === QUOTE) return endOfString(bytes, from + 1) + 1;
  if (first === OPEN_OBJECT || first === OPEN_ARRAY) return endOfNested(bytes, from);
  if (kindOf(bytes, from) === undefined) notJson(bytes, from);
  for (let at = from + 1; ; at++) {
    const octet = bytes[at];
    // Letters, digits, point and signs are its own; what else there is ends the word.
    if (octet === undefined || octet <= 42 || octet === COMMA || octet === COLON) return at;
    if ((octet >= OPEN_ARRAY && octet <= 94) || octet >= OPEN_OBJECT) return at;
  }
}

/** What a value is, by its first octet, with its article; undefined: JSON has no such value, Python's neither. */
export function kindOf(bytes: Buffer, at: number): string | undefined {
  const octet = bytes[at];
  switch (octet) {
    case QUOTE:
      return 'text';
    case OPEN_OBJECT:
      return 'an object';
    case OPEN_ARRAY:
      return 'a list';
    case 0x74: // t
    case 0x66: // f
      return 'true or false';
    case 0x6e: // n
      return 'null';
    case 0x2d: // -
    case 0x4e: // N
    case 0x49: // I
      return 'a number';
  }
  return octet !== undefined && octet >= 48 && octet <= 57 ? 'a number' : undefined;
}

/** UTF-8 as text. Throws `DecodeError`. */
export function readUtf8(bytes: Buffer, start: number, end: number): string {
  const text = bytes.utf8Slice(start, end);
  // What is not UTF-8 becomes U+FFFD, so only a text that has one needs a second look.
  if (text.includes('\ufffd') && !isUtf8(bytes.subarray(start, end))) {
    throw new DecodeError(`envelope: not valid UTF-8 in the bytes ${start} to ${end} (${bytes.length} bytes)`);
  }
  return text;
}

/** The string that stands, without its quotes, in [start, end). Throws `DecodeError`. */
export function readText(bytes: Buffer, start: number, end: number): string {
  const text = readUtf8(bytes, start, end);
  if (!text.includes('\\')) return text;
  try {
    return JSON.parse(`"${text}"`) as string;
  } catch {
    // The engine's own words quote the text.
    return notJson(bytes, start);
  }
}

/** A walk over the members of an object. Throws `DecodeError` where the object is none. */
export class Members {
  readonly #bytes: Buffer;
  #at: number;
  #isFirst = true;
  /** No escapes and nothing but ASCII in the key. */
  #isPlain = true;
  /** The key without its quotes. */
  keyStart = 0;
  keyEnd = 0;
  start = 0;
  end = 0;

  /** `at`: the object's bracket. */
  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes;
    this.#at = at + 1;
  }

  /** Goes to the next member; false behind the last. */
  next(): boolean {
    const bytes = this.#bytes;
    let at = skipSpace(bytes, this.#at);
    if (bytes[at] === CLOSE_OBJECT) {
      this.#at = at + 1;
      return false;
    }
    if (this.#isFirst) {
      this.#isFirst = false;
    } else {
      if (bytes[at] !== COMMA) notJson(bytes, at);
      at = skipSpace(bytes, at + 1);
    }
    if (bytes[at] !== QUOTE) notJson(bytes, at);
    at = this.#key(at + 1);
    at = skipSpace(bytes, at);
    if (bytes[at] !== COLON) notJson(bytes, at);
    this.start = skipSpace(bytes, at + 1);
    this.end = endOfValue(bytes, this.start);
    this.#at = this.end;
    return true;
  }

  #key(from: number): number {
    const bytes = this.#bytes;
    let plain = true;
    let at = from;
    for (; ; at++) {
      const octet = bytes[at];
      if (octet === QUOTE) break;
      if (octet === undefined) notJson(bytes, at);
      if (octet === BACKSLASH) {
        plain = false;
        at++;
      } else if (octet >= 0x80) plain = false;
    }
    this.#isPlain = plain;
    this.keyStart = from;
    this.keyEnd = at;
    return at + 1;
  }

  /** Behind the object, once `next` said that there is nothing more. */
  get behind(): number {
    return this.#at;
  }

  get place(): Place {
    return { start: this.start, end: this.end };
  }

  get key(): string {
    return readText(this.#bytes, this.keyStart, this.keyEnd);
  }

  /** Whether the key says this. */
  is(name: string): boolean {
    if (!this.#isPlain) return this.key === name;
    const bytes = this.#bytes;
    const start = this.keyStart;
    const length = this.keyEnd - start;
    if (length !== name.length) return false;
    for (let i = 0; i < length; i++) if (bytes[start + i] !== name.charCodeAt(i)) return false;
    return true;
  }
}

/** The text of the first member of the object at `start`, without its quotes, if that is `body` and text. */
export function leadingBody(bytes: Buffer, start: number): Place | undefined {
  let at = skipSpace(bytes, start + 1);
  for (let i = 0; i < BODY.length; i++) if (bytes[at + i] !== BODY.charCodeAt(i)) return undefined;
  at = skipSpace(bytes, at + BODY.length);
  if (bytes[at] !== COLON) return undefined;
  at = skipSpace(bytes, at + 1);
  return bytes[at] === QUOTE ? { start: at + 1, end: endOfString(bytes, at + 1) } : undefined;
}

/** The bracket of the object that the bytes are. Throws `DecodeError`. */
export function startOfObject(bytes: Buffer): number {
  const at = skipSpace(bytes, bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0);
  if (bytes[at] === OPEN_OBJECT) return at;
  const kind = kindOf(bytes, at);
  if (kind === undefined) notJson(bytes, at);
  throw new DecodeError(`envelope: it must be an object, not ${kind} (${bytes.length} bytes)`);
}

/** Throws `DecodeError` if there is more behind the object than white space. */
export function nothingBehind(bytes: Buffer, at: number): void {
  const next = skipSpace(bytes, at);
  if (next < bytes.length) notJson(bytes, next);
}
