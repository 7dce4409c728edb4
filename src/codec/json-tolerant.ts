/**
 * A second parser of JSON for the bodies that the engine's refuses or rounds: NaN and infinities, which Python writes, and
 * integers that a Number cannot hold.
 */
import { DecodeError } from '../errors.js';

/** Longest integer that is decoded. Converting takes more than linear time; Python refuses longer ones as well. */
const MAX_INTEGER_DIGITS = 4300;

export function tooDeep(cause: unknown): DecodeError {
  return new DecodeError('json: the body is nested too deeply', { cause });
}

/** `cause` is what the engine's parser threw, if it has been asked. Throws `DecodeError`. */
export function parseTolerantly(text: string, cause?: unknown): unknown {
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
