/**
 * Writes kombu's envelopes: a new one for each publish, and a changed one for what goes back to its queue. See `envelope.ts`.
 *
 * A new one is one string, joined of pieces: JSON.stringify over the whole would look at every character of the body's base64.
 */
import { Buffer, isUtf8 } from 'node:buffer';
import { DecodeError, EncodeError } from '../errors.js';
import type { WritableProperties } from './amqp/write-content.js';
import { encodingOf, isUtf8Name } from './charset.js';
import { kindOf, MAX_DEPTH, Members, nothingBehind, type Place, startOfObject } from './envelope-members.js';
import { envelope as extended, writeBytes, writeDate } from './extended-types.js';
import { stringifyJson } from './json.js';

/** How the body stands in the envelope. kombu's default is base64; Pythons before 5.3 read nothing else. */
export type BodyEncoding = 'base64' | 'utf-8';

/** Properties as amqplib takes them, headers with its typed fields; null counts as absent. */
export type EnvelopeProperties = Omit<WritableProperties, 'headers'> & { readonly headers?: object | undefined };

export interface WritableEnvelope {
  readonly exchange: string;
  readonly routingKey: string;
  readonly body: Buffer;
  readonly properties: EnvelopeProperties;
  /** Another one for each sending: kombu's are UUIDs. */
  readonly deliveryTag: string;
  readonly bodyEncoding: BodyEncoding;
}

const INT53 = Number.MAX_SAFE_INTEGER;

/** Up to this length a look at every character costs less than a call of the engine. */
const SHORT = 48;

/** The text as JSON has it. */
function quoted(text: string): string {
  if (text.length > SHORT) return JSON.stringify(text);
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    // Control characters, the quote, the backslash, and what may be half of a pair.
    if (code < 32 || code === 34 || code === 92 || code >= 0xd800) return JSON.stringify(text);
  }
  return `"${text}"`;
}

/** A text or number that hardly ever changes from message to message, as JSON. */
class LastQuoted {
  #value: unknown;
  #json = 'null';

  of(value: unknown): string {
    if (value === this.#value) return this.#json;
    this.#json = JSON.stringify(value ?? null);
    this.#value = value;
    return this.#json;
  }
}

const contentTypes = new LastQuoted();
const contentEncodings = new LastQuoted();
const exchanges = new LastQuoted();
const routingKeys = new LastQuoted();

const BODY = Buffer.from('{"body":"');

/**
 * The envelope of a publish, with the members that kombu writes. `properties` are as `preparePublication` makes them. Under
 * 'utf-8' a body that is text by its content encoding and not compressed stands there as it is, and other bytes as kombu's
 * extended type. Throws `EncodeError` for headers that JSON cannot hold.
 */
export function writeEnvelope({
  exchange,
  routingKey,
  body,
  properties,
  deliveryTag,
  bodyEncoding,
}: WritableEnvelope): Buffer {
  const { contentType, contentEncoding, headers, deliveryMode, priority } = properties;
  let json = `"content-encoding":${contentEncodings.of(contentEncoding)},"content-type":${contentTypes.of(contentType)},"headers":`;
  json += headers == null ? '{}' : writeTable(headers, 'headers', 0);
  json += ',"properties":{';
  const { correlationId, replyTo, messageId, timestamp, type, userId, appId, expiration } = properties;
  if (correlationId != null) json += `"correlation_id":${quoted(correlationId as string)},`;
  if (replyTo != null) json += `"reply_to":${quoted(replyTo as string)},`;
  if (messageId != null) json += `"message_id":${quoted(messageId as string)},`;
  if (timestamp != null) json += `"timestamp":${Number(timestamp)},`;
  if (type != null) json += `"type":${quoted(type as string)},`;
  if (userId != null) json += `"user_id":${quoted(userId as string)},`;
  if (appId != null) json += `"app_id":${quoted(appId as string)},`;
  json += `"delivery_mode":${Number(deliveryMode ?? 2)},`;
  if (expiration != null) json += `"expiration":${quoted(String(expiration))},`;
  json += `"delivery_info":{"exchange":${exchanges.of(exchange)},"routing_key":${routingKeys.of(routingKey)}},`;
  json += `"priority":${Number(priority ?? 0)},"body_encoding":"${bodyEncoding}","delivery_tag":${quoted(deliveryTag)}}}`;
  if (bodyEncoding === 'utf-8') return Buffer.from(`{"body":${writeText(body, properties)},${json}`);
  const text = body.base64Slice(0, body.length);
  const start = BODY.length;
  const end = start + text.length;
  json = `",${json}`;
  // Written piece by piece: joined first, a large body would be copied twice.
  const out = Buffer.allocUnsafe(end + Buffer.byteLength(json));
  out.set(BODY);
  out.latin1Write(text, start, text.length);
  out.utf8Write(json, end, out.length - end);
  return out;
}

function writeText(body: Buffer, { contentType, contentEncoding, headers }: EnvelopeProperties): string {
  const encoding = encodingOf(contentType as string | undefined, contentEncoding as string | undefined);
  const isCompressed = headers != null && Object.hasOwn(headers, 'compression');
  // By the same name others read it; what calls itself UTF-8 and is not, they get as bytes.
  return isUtf8Name(encoding) && !isCompressed && isUtf8(body) ? quoted(body.toString()) : writeBytes(body);
}

/** A table of amqplib's as JSON. */
function writeTable(table: object, path: string, depth: number): string {
  if (depth > MAX_DEPTH) throw new EncodeError(`${path}: nested deeper than ${MAX_DEPTH}, or in a circle`);
  let json = '{';
  for (const key of Object.keys(table)) {
    const value = (table as Record<string, unknown>)[key];
    if (value === undefined) continue;
    if (json.length > 1) json += ',';
    json += `${quoted(key)}:${writeField(value, path, depth)}`;
  }
  return `${json}}`;
}

function writeField(value: unknown, path: string, depth: number): string {
  switch (typeof value) {
    case 'string':
      return quoted(value);
    case 'boolean':
      return value ? 'true' : 'false';
    case 'number':
      return writeNumber(value);
    case 'bigint':
      return String(value);
    case 'object':
      break;
    default:
      throw new EncodeError(`${path}: a ${typeof value} cannot go into an envelope`);
  }
  if (value === null) return 'null';
  if (Buffer.isBuffer(value)) return writeBytes(value);
  if (Array.isArray(value)) {
    if (depth >= MAX_DEPTH) throw new EncodeError(`${path}: nested deeper than ${MAX_DEPTH}, or in a circle`);
    return `[${value.map((item: unknown) => writeField(item ?? null, path, depth + 1)).join(',')}]`;
  }
  if (!Object.hasOwn(value, '!')) return writeTable(value, path, depth + 1);
  // amqplib's way to give a value's type.
  const { '!': type, value: typed } = value as { '!': unknown; value: unknown };
  if (type === 'double' && typeof typed === 'number') return writeDouble(typed);
  if (type === 'timestamp' && typeof typed === 'number') return writeDate(new Date(typed * 1000));
  if (type === 'decimal') return writeDecimal(typed, path);
  if (typeof typed === 'object' && typed !== null && Object.hasOwn(typed, '!')) {
    return writeTable(typed, path, depth + 1);
  }
  return writeField(typed, path, depth);
}

/** Python's words for what JSON has none for: every kombu reads them. */
function writeNumber(value: number): string {
  return Object.is(value, -0) ? '-0.0' : String(value);
}

/** A whole number that is too large to be exact was no integer, so readers must not take it for one. */
function writeDouble(value: number): string {
  return Number.isInteger(value) && Math.abs(value) > INT53 ? value.toExponential() : writeNumber(value);
}

function writeDecimal(value: unknown, path: string): string {
  const { places, digits } = (value ?? {}) as { places?: unknown; digits?: unknown };
  if (typeof places !== 'number' || typeof digits !== 'number') {
    throw new EncodeError(`${path}: a decimal needs places and digits`);
  }
  const text = String(Math.abs(digits)).padStart(places + 1, '0');
  const whole = text.slice(0, text.length - places);
  const sign = digits < 0 ? '-' : '';
  return extended('decimal', quoted(places === 0 ? sign + text : `${sign}${whole}.${text.slice(-places)}`));
}

/** What `rewriteEnvelope` changes. */
export interface EnvelopeChanges {
  /** Says in the headers and in the delivery's info that it was delivered before, as kombu does. */
  readonly redelivered?: true;
  /** Headers to set, values as kombu's JSON writes them; undefined takes one away. The others stay. */
  readonly headers?: Readonly<Record<string, unknown>>;
}

/**
 * The envelope with these changes: what a restore or a retry pushes again. Everything else keeps its octets (numbers of any size,
 * unknown members, the body), but for the white space between members. Throws `DecodeError` if the envelope, its headers or its
 * properties are no objects, `EncodeError` for a header that JSON cannot hold.
 */
export function rewriteEnvelope(bytes: Buffer, { redelivered, headers }: EnvelopeChanges): Buffer {
  const start = startOfObject(bytes);
  const whole = new Members(bytes, start);
  let headersAt: Place | undefined;
  let propertiesAt: Place | undefined;
  while (whole.next()) {
    if (whole.is('headers')) headersAt = whole.place;
    else if (whole.is('properties')) propertiesAt = whole.place;
  }
  nothingBehind(bytes, whole.behind);
  const changes: Changes = new Map();
  const ours: Changes = new Map();
  for (const [name, value] of Object.entries(headers ?? {})) {
    ours.set(name, value === undefined ? undefined : Buffer.from(stringifyJson(value)));
  }
  if (redelivered) ours.set('redelivered', TRUE);
  if (ours.size > 0) changes.set('headers', changed(bytes, headersAt, ours, 'headers'));
  if (redelivered) changes.set('properties', markedProperties(bytes, propertiesAt));
  return changed(bytes, { start, end: whole.behind }, changes, 'envelope');
}

/** Values by the names of members; undefined: the member goes. */
type Changes = Map<string, Buffer | undefined>;

const TRUE = Buffer.from('true');
const COMMA = Buffer.from(', ');
const OPEN = Buffer.from('{');
const CLOSE = Buffer.from('}');

function markedProperties(bytes: Buffer, place: Place | undefined): Buffer {
  if (place === undefined || kindOf(bytes, place.start) === 'null') {
    throw new DecodeError(`envelope: properties is missing (${bytes.length} bytes in all)`);
  }
  let info: Place | undefined;
  if (kindOf(bytes, place.start) === 'an object') {
    const members = new Members(bytes, place.start);
    while (members.next()) if (members.is('delivery_info')) info = members.place;
  }
  const marked = changed(bytes, info, new Map([['redelivered', TRUE]]), 'properties.delivery_info');
  return changed(bytes, place, new Map([['delivery_info', marked]]), 'properties');
}

/** The object at `place` with other values for some of its members. Missing or null: an object of these alone. */
function changed(bytes: Buffer, place: Place | undefined, changes: Changes, what: string): Buffer {
  const pieces: Buffer[] = [];
  const left = new Map(changes);
  const kind = place === undefined ? 'null' : kindOf(bytes, place.start);
  if (place !== undefined && kind !== 'null') {
    if (kind !== 'an object') {
      throw new DecodeError(`envelope: ${what} must be an object, not ${kind} (at byte ${place.start})`);
    }
    const members = new Members(bytes, place.start);
    while (members.next()) {
      const name = members.key;
      if (!changes.has(name)) {
        pieces.push(COMMA, bytes.subarray(members.keyStart - 1, members.end));
        continue;
      }
      // Where a name comes twice, one is left.
      const value = left.get(name);
      left.delete(name);
      if (value !== undefined) pieces.push(COMMA, bytes.subarray(members.keyStart - 1, members.start), value);
    }
  }
  for (const [name, value] of left)
    if (value !== undefined) pieces.push(COMMA, Buffer.from(`${quoted(name)}: `), value);
  pieces.shift();
  return Buffer.concat([OPEN, ...pieces, CLOSE]);
}
