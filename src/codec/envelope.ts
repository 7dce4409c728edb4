/**
 * kombu's envelope: what it stores on brokers that are not AMQP, a message as one JSON object. This reads one;
 * `envelope-writer.ts` makes and changes them.
 *
 *   { body, "content-encoding", "content-type", headers,
 *     properties: { correlation_id …, delivery_mode, delivery_info: { exchange, routing_key }, priority, body_encoding, delivery_tag } }
 *
 * It is parsed once, but for its body, which stays bytes where it comes first, as kombu writes it: base64 of megabytes is never
 * text of megabytes among parsed values. What is wrong with a part fails whoever asks for that part, as a `DecodeError` that says
 * what and where, and quotes nothing.
 */
import { Buffer } from 'node:buffer';
import { DecodeError } from '../errors.js';
import type { WireProperties } from './amqp/properties.js';
import { leadingBody, MAX_DEPTH, type Place, readText, readUtf8, startOfObject } from './envelope-members.js';
import { ExactDatetime, ExactValue } from './exact.js';
import { type ExtendedTypes, TYPE } from './extended-types.js';
import { parseOnly, reviveParsed } from './json.js';

export {
  type BodyEncoding,
  type EnvelopeChanges,
  type EnvelopeProperties,
  rewriteEnvelope,
  type WritableEnvelope,
  writeEnvelope,
} from './envelope-writer.js';

/** The names that kombu has for properties, by ours. */
const TEXTS = [
  ['correlationId', 'correlation_id'],
  ['replyTo', 'reply_to'],
  ['expiration', 'expiration'],
  ['messageId', 'message_id'],
  ['type', 'type'],
  ['userId', 'user_id'],
  ['appId', 'app_id'],
] as const;
const NUMBERS = [
  ['deliveryMode', 'delivery_mode'],
  ['priority', 'priority'],
  ['timestamp', 'timestamp'],
] as const;

/** kombu's range, whatever a sender says. */
const MAX_PRIORITY = 9;

const BACKSLASH = 92;

type Values = Readonly<Record<string, unknown>>;

const NOTHING: Values = Object.freeze({});

/** An envelope over the bytes it came in. Getters do their work at each access: keep what you need twice. */
export class Envelope {
  #bytes: Buffer;
  readonly #types: ExtendedTypes;
  readonly #values: Values;
  /** Where the body's text lies, without its quotes; undefined: it is among the values. */
  readonly #body: Place | undefined;
  /** There may be extended types in it. */
  readonly #isExtended: boolean;
  #headers: Record<string, unknown> | undefined;

  /**
   * `types`: what kombu's extended types become, in headers. Throws `DecodeError` for what is no JSON object; what is wrong inside
   * of one, its part says.
   */
  constructor(bytes: Buffer, types: ExtendedTypes = 'plain') {
    this.#bytes = bytes;
    this.#types = types;
    const { values, body, isExtended } = parseEnvelope(bytes);
    this.#values = values;
    this.#body = body;
    this.#isExtended = isExtended;
  }

  /** Goes on with the same bytes at another place. */
  moveTo(bytes: Buffer): void {
    this.#bytes = bytes;
  }

  get contentType(): string | undefined {
    return this.#text(this.#values, 'content-type', 'content-type');
  }

  get contentEncoding(): string | undefined {
    return this.#text(this.#values, 'content-encoding', 'content-encoding');
  }

  /** The header `compression`, if it is text: what the body is compressed with. */
  get compression(): string | undefined {
    const value = this.rawHeader('compression');
    return typeof value === 'string' ? value : undefined;
  }

  /** AMQP's properties that it has, by our names. A text that was sent as a number is its digits, a number sent as text its value. */
  get properties(): WireProperties {
    const values = this.#properties();
    const properties: WireProperties = {};
    const { contentType, contentEncoding } = this;
    if (contentType !== undefined) properties.contentType = contentType;
    if (contentEncoding !== undefined) properties.contentEncoding = contentEncoding;
    for (const [ours, name] of TEXTS) {
      const value = this.#property(values, name);
      if (value !== undefined) properties[ours] = textOf(value, name);
    }
    for (const [ours, name] of NUMBERS) {
      const value = this.#property(values, name);
      if (value !== undefined) properties[ours] = numberOf(value, name);
    }
    return properties;
  }

  /** All headers, in an object without a prototype: the same one at each access. */
  get headers(): Record<string, unknown> {
    if (this.#headers !== undefined) return this.#headers;
    const values = this.#rawHeaders();
    const table: Record<string, unknown> = Object.create(null);
    for (const name of Object.keys(values)) {
      const value = values[name];
      if (typeof value === 'object' && value !== null && !isShallow(value, 1)) {
        this.#fail(`a header is nested more than ${MAX_DEPTH} deep`);
      }
      table[name] = this.#revived(value, 'headers');
    }
    this.#headers = table;
    return table;
  }

  /** Throws `DecodeError` for headers with an extended type that nobody knows, or with a value that is none of it. */
  checkHeaders(): void {
    if (this.#isExtended) void this.headers;
  }

  /** One header as JSON has it, extended types as objects of two keys; undefined if there is none of the name. */
  rawHeader(name: string): unknown {
    return own(this.#rawHeaders(), name);
  }

  /** The exchange that it was published to: '' is the default exchange, or none was said. */
  get exchange(): string {
    return this.#text(this.#deliveryInfo(), 'exchange', 'properties.delivery_info.exchange') ?? '';
  }

  get routingKey(): string {
    return this.#text(this.#deliveryInfo(), 'routing_key', 'properties.delivery_info.routing_key') ?? '';
  }

  /** True if it says so in any of the three places where kombu's transports do. */
  get redelivered(): boolean {
    return (
      this.rawHeader('redelivered') === true ||
      own(this.#deliveryInfo(), 'redelivered') === true ||
      own(this.#values, 'redelivered') === true
    );
  }

  /** 0 to 9, as kombu takes it: beyond that the nearest, and 0 for what is no number. */
  get priority(): number {
    const value = own(this.#properties(), 'priority');
    const number = typeof value === 'string' ? Number(value) : value;
    if (typeof number !== 'number') return 0;
    return Math.min(MAX_PRIORITY, Math.max(0, Math.trunc(number))) || 0;
  }

  /** What its sender called this sending of it: a UUID, from kombu. */
  get deliveryTag(): string {
    const tag = this.#text(this.#properties(), 'delivery_tag', 'properties.delivery_tag');
    return tag ?? this.#fail('properties.delivery_tag is missing');
  }

  /** The body as its sender encoded it (still compressed). May be a view of the envelope's bytes. */
  get body(): Buffer {
    const isBase64 = this.#isBase64();
    if (this.#body !== undefined) {
      const { start, end } = this.#body;
      return isBase64 ? this.#base64(start, end) : this.#verbatim(start, end);
    }
    const body = own(this.#values, 'body');
    if (body == null) this.#fail('body is missing');
    if (typeof body === 'string') return isBase64 ? this.#decodeBase64(body) : this.#encodeText(body);
    // kombu writes bytes as an extended type where it does not encode the body.
    const value = isObject(body) ? this.#revived(body, 'body') : undefined;
    if (!Buffer.isBuffer(value)) this.#wrongKind('body', 'text or bytes', body);
    return isBase64 ? this.#decodeBase64(value.toString('latin1')) : value;
  }

  #verbatim(start: number, end: number): Buffer {
    const bytes = this.#bytes.subarray(start, end);
    return bytes.includes(BACKSLASH) ? this.#encodeText(readText(this.#bytes, start, end)) : bytes;
  }

  #encodeText(text: string): Buffer {
    if (!text.isWellFormed()) this.#fail('body has half of a surrogate pair');
    return Buffer.from(text);
  }

  #base64(start: number, end: number): Buffer {
    const text = this.#bytes.latin1Slice(start, end);
    const body = Buffer.from(text, 'base64');
    // Some JSON writers escape the slash, and some writers of base64 break lines.
    return isWholeBase64(text, body.length) ? body : this.#decodeBase64(readText(this.#bytes, start, end));
  }

  #decodeBase64(given: string): Buffer {
    const text = given.replace(/[\r\n\t ]+/g, '');
    const body = Buffer.from(text, 'base64');
    return isWholeBase64(text, body.length) ? body : this.#fail('body is not base64, or cut off');
  }

  #isBase64(): boolean {
    const encoding = this.#text(this.#properties(), 'body_encoding', 'properties.body_encoding');
    if (encoding === 'base64') return true;
    if (encoding && encoding.toLowerCase() !== 'utf-8') {
      this.#fail(`properties.body_encoding must be base64 or utf-8, not '${encoding.slice(0, 40)}'`);
    }
    return false;
  }

  #properties(): Values {
    const value = own(this.#values, 'properties');
    if (value === undefined) this.#fail('properties is missing');
    return isObject(value) ? value : this.#wrongKind('properties', 'an object', value);
  }

  #property(values: Values, name: string): unknown {
    const value = own(values, name);
    if (value == null) return undefined;
    return isObject(value) ? this.#revived(value, `properties.${name}`) : value;
  }

  #deliveryInfo(): Values {
    return this.#objectIn(this.#properties(), 'delivery_info', 'properties.delivery_info');
  }

  #rawHeaders(): Values {
    return this.#objectIn(this.#values, 'headers', 'headers');
  }

  /** Missing and null are an object with nothing in it, as to kombu. */
  #objectIn(values: Values, name: string, what: string): Values {
    const value = own(values, name) ?? NOTHING;
    return isObject(value) ? value : this.#wrongKind(what, 'an object', value);
  }

  #text(values: Values, name: string, what: string): string | undefined {
    const value = own(values, name) ?? undefined;
    if (value === undefined || typeof value === 'string') return value;
    return this.#wrongKind(what, 'text', value);
  }

  #revived(value: unknown, what: string): unknown {
    if (!this.#isExtended) return value;
    try {
      return reviveParsed(value, this.#types);
    } catch (error) {
      throw error instanceof DecodeError ? failure(this.#bytes, `${what}: ${error.message}`, error) : error;
    }
  }

  #wrongKind(what: string, wanted: string, value: unknown): never {
    return this.#fail(`${what} must be ${wanted}, not ${kindOf(value)}`);
  }

  #fail(text: string): never {
    throw failure(this.#bytes, text);
  }
}

interface Parsed {
  readonly values: Values;
  readonly body: Place | undefined;
  readonly isExtended: boolean;
}

function parseEnvelope(bytes: Buffer): Parsed {
  const start = startOfObject(bytes);
  const body = leadingBody(bytes, start);
  if (body !== undefined) {
    const rest = `{"body":"${readUtf8(bytes, body.end, bytes.length)}`;
    try {
      const values = parseOnly(rest, bytes.subarray(body.end));
      // One that is not empty came behind the first, and counts.
      if (isObject(values) && values.body === '') return { values, body, isExtended: rest.includes(TYPE) };
    } catch (error) {
      // Read as a whole it is refused once more, with the right place in the text.
      if (!(error instanceof DecodeError)) throw error;
    }
  }
  const text = readUtf8(bytes, start, bytes.length);
  let values: unknown;
  try {
    values = parseOnly(text, bytes.subarray(start));
  } catch (error) {
    throw error instanceof DecodeError ? failure(bytes, error.message, error) : error;
  }
  if (!isObject(values)) throw failure(bytes, `it must be an object, not ${kindOf(values)}`);
  return { values, body: undefined, isExtended: text.includes(TYPE) };
}

function failure(bytes: Buffer, text: string, cause?: DecodeError): DecodeError {
  const details = { envelopeBytes: bytes.length };
  return new DecodeError(`envelope: ${text} (${bytes.length} bytes in all)`, { details, ...(cause ? { cause } : {}) });
}

function isObject(value: unknown): value is Values {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  switch (typeof value) {
    case 'object':
      return 'an object';
    case 'string':
      return 'text';
    case 'boolean':
      return 'true or false';
    default:
      return 'a number';
  }
}

/** Whether nothing in it is nested deeper than headers may be. */
function isShallow(value: object, depth: number): boolean {
  if (depth > MAX_DEPTH) return false;
  for (const item of Object.values(value)) {
    if (typeof item === 'object' && item !== null && !isShallow(item, depth + 1)) return false;
  }
  return true;
}

/** The value of the object's own property: what an object inherits was in no envelope. */
function own(values: Record<string, unknown>, name: string): unknown {
  return Object.hasOwn(values, name) ? values[name] : undefined;
}

function textOf(value: unknown, name: string): string {
  if (typeof value === 'string') return value;
  if (value instanceof ExactValue) return value.text;
  if (typeof value === 'number' || typeof value === 'bigint') return String(value);
  throw new DecodeError(`envelope: properties.${name} must be text`);
}

function numberOf(value: unknown, name: string): number {
  // Python's datetime; a timestamp is in seconds.
  if (value instanceof Date) return Math.floor(value.getTime() / 1000);
  if (value instanceof ExactDatetime) return Math.floor(value.toDate().getTime() / 1000);
  const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
  if (typeof number === 'number' && !Number.isNaN(number)) return number;
  throw new DecodeError(`envelope: properties.${name} must be a number`);
}

/**
 * Whether what was decoded is all that the text says. `Buffer.from` skips what it does not know, which makes the result shorter,
 * takes any length, and two characters of the alphabet for URLs.
 */
function isWholeBase64(text: string, decoded: number): boolean {
  const { length } = text;
  if (length % 4 !== 0) return false;
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  return decoded === (length / 4) * 3 - padding && !text.includes('-') && !text.includes('_');
}

/**
 * Opens an envelope; see `Envelope`. Throws `DecodeError` for what is no JSON object; what is wrong inside of one, the part says
 * that is asked for.
 */
export function readEnvelope(bytes: Buffer, types?: ExtendedTypes): Envelope {
  return new Envelope(bytes, types);
}
