/**
 * The registry of serializers: a name, a content type, an encoder and a decoder each. Which body may be decoded is
 * settled here, by its content type alone, before anything looks at its bytes.
 *
 * Nothing returned by a decoder shares memory with the body it was made from, which may be a slot that is used again.
 * Python's pickle is refused by name: reading it runs code of the sender's choice.
 */
import { Buffer } from 'node:buffer';
import {
  ContentDisallowed,
  DecodeError,
  EncodeError,
  KombuError,
  MessageTooLarge,
  OptionError,
  SerializerNotInstalled,
} from '../errors.js';
import { kinds, type OptionTable, readOptions } from '../options.js';
import { bufferOf, messageOf, settled } from './bytes.js';
import { decodeText, decodeUtf8, encodeText, encodingOf, isBinary, isUtf8Name } from './charset.js';
import { inContext } from './context.js';
import type { ExtendedTypes } from './extended-types.js';
import { parseJson, stringifyJson } from './json.js';
import { packMsgpack, unpackMsgpack } from './msgpack.js';
import { parseYaml, stringifyYaml } from './yaml.js';

export { ExactDate, ExactDatetime, ExactDecimal, ExactTime, ExactUuid, ExactValue } from './exact.js';
export { type Class, type ExtendedTypes, registerType } from './extended-types.js';

/** Encodes one value. Text is sent in the charset the serializer was registered with, as UTF-8 if that is `binary`. */
export type Encoder = (value: unknown) => string | Uint8Array;
/**
 * Decodes one body. `body` is the decoder's own; `contentEncoding` is in lower case, `utf-8` if the sender named none;
 * `types`: what the reader wants of kombu's extended types, for decoders that know some.
 */
export type Decoder = (body: Buffer, contentEncoding: string, types: ExtendedTypes) => unknown;

export interface Serialized {
  readonly contentType: string;
  readonly contentEncoding: string;
  /** Raw payloads (bytes given to `dumps`) are not copied. */
  readonly body: Buffer;
}

export interface LoadsOptions {
  /** Content types or aliases that may be decoded. Default: what is enabled; that is json, text, raw from the start. */
  readonly accept?: ReadonlySet<string> | readonly string[];
  /** Without `accept`: decode what is not enabled too. Pickle is refused all the same. Default: false. */
  readonly force?: boolean;
  /** A longer body is not decoded, in bytes. Default: no limit. */
  readonly maxBytes?: number;
  /** `exact`: JSON's dates, times, decimals and uuids as `Exact…` values, which lose nothing. Default: `plain`. */
  readonly types?: ExtendedTypes;
}

const LOADS_OPTIONS: OptionTable<LoadsOptions> = {
  accept: {
    kind: kinds.custom<ReadonlySet<string> | readonly string[]>(
      'a list or set of content types and aliases',
      (value) => value instanceof Set || kinds.strings.test(value),
    ),
    defaultWords: 'what is enabled: json, text, raw',
    doc: 'Content types or aliases that may be decoded.',
  },
  force: { kind: kinds.boolean, default: false, doc: 'Without `accept`: decode what is not enabled too.' },
  maxBytes: {
    kind: kinds.custom<number>('a number of bytes', (value) => typeof value === 'number' && value >= 0),
    default: Number.POSITIVE_INFINITY,
    doc: 'A longer body is not decoded.',
  },
  types: { kind: kinds.oneOf('plain', 'exact'), default: 'plain', doc: "What JSON's extended types become." },
};

/** A decoder as it is kept. `owned`: the body's memory belongs to nobody else, so it need not be copied. */
export interface BodyDecoder {
  readonly name: string;
  readonly decode: ((body: Buffer, contentEncoding: string, owned: boolean, types: ExtendedTypes) => unknown) | null;
}

interface Serializer {
  readonly contentType: string;
  readonly contentEncoding: string;
  readonly encode: Encoder | null;
}

const RAW = 'application/data';
const PICKLE = 'application/x-python-serialize';
/** Always passed, as in kombu: bytes and text are handed on as they are, nothing is built from them. */
const TRUSTED: ReadonlySet<string> = new Set([RAW, 'application/text']);

/** What `loads` decodes that is given no `accept`. */
const enabled = new Set(['application/json', 'text/plain', RAW]);

const serializers = new Map<string, Serializer>();
const decoders = new Map<string, BodyDecoder>();

/**
 * Adds a serializer, or replaces one, for this thread (worker threads: from the handler module).
 * Either function may be null: then that direction is an error. Throws `SerializerNotInstalled` for pickle, `OptionError`.
 */
export function register(
  name: string,
  encoder: Encoder | null,
  decoder: Decoder | null,
  contentType: string,
  contentEncoding = 'utf-8',
): void {
  for (const [part, given] of Object.entries({ encoder, decoder })) {
    if (given !== null && typeof given !== 'function') {
      throw new OptionError(`serialization.register: the ${part} must be a function, or null`);
    }
  }
  // `accept` tells names from types by the slash.
  if (typeof name !== 'string' || name === '' || name.includes('/')) {
    throw new OptionError("serialization.register: the name must be a string that is not empty and has no '/'");
  }
  if (typeof contentType !== 'string' || !contentType.includes('/')) {
    throw new OptionError("serialization.register: the content type must be a string like 'application/x-own'");
  }
  const type = bareType(contentType);
  if (name === 'pickle' || type === PICKLE) throw pickleRefused(SerializerNotInstalled);
  serializers.set(name, { contentType: type, contentEncoding, encode: encoder });
  decoders.set(type, {
    name,
    decode:
      decoder === null
        ? null
        : (body, encoding, owned, types) => settled(decoder(owned ? body : Buffer.from(body), encoding, types)),
  });
}

/** Removes a serializer of this thread. Throws `SerializerNotInstalled` if there is none of this name. */
export function unregister(name: string): void {
  const serializer = serializers.get(name);
  if (serializer === undefined) throw unknownName(name);
  serializers.delete(name);
  if (decoders.get(serializer.contentType)?.name === name) decoders.delete(serializer.contentType);
}

/**
 * Encodes a value. Without a serializer: bytes are sent raw, a string as text/plain, anything else as JSON.
 * Throws `EncodeError`, and `SerializerNotInstalled` for an unknown name.
 */
export function dumps(value: unknown, serializer?: string): Serialized {
  const name = serializer ?? (value instanceof Uint8Array ? 'raw' : typeof value === 'string' ? 'text' : 'json');
  if (name === 'raw') return dumpRaw(value);
  const entry = serializers.get(name);
  if (entry === undefined) throw name === 'pickle' ? pickleRefused(SerializerNotInstalled) : unknownName(name);
  const { contentType, contentEncoding, encode } = entry;
  if (encode === null) throw new SerializerNotInstalled(`serializer '${name}' is registered without an encoder`);
  try {
    const encoded = settled(encode(value));
    return {
      contentType,
      contentEncoding,
      body:
        typeof encoded === 'string'
          ? encodeText(encoded, isBinary(contentEncoding) ? 'utf-8' : contentEncoding)
          : bufferOf(encoded),
    };
  } catch (error) {
    if (error instanceof KombuError) throw error;
    throw new EncodeError(`serializer '${name}' failed: ${messageOf(error)}`, { cause: error });
  }
}

/**
 * Decodes a body whose content type `accept` names. A body without a content type counts as application/data: text in
 * its charset, or a copy of the bytes where the encoding is `binary`. An empty body is not decoded, whatever its type:
 * it is '', or an empty `Buffer` where the encoding is `binary`.
 * Throws `ContentDisallowed`, `MessageTooLarge`, `DecodeError`, `SerializerNotInstalled` for a type without decoder, and
 * `OptionError`.
 */
export function loads(
  body: Uint8Array,
  contentType?: string,
  contentEncoding?: string,
  options: LoadsOptions = {},
): unknown {
  const { accept, force, maxBytes, types } = readOptions('loads', LOADS_OPTIONS, options);
  if (!(body instanceof Uint8Array)) {
    throw new OptionError(
      `loads: the body must be bytes (a Buffer or Uint8Array), not ${body === null ? 'null' : `a ${typeof body}`}`,
    );
  }
  // Before `accept` is asked: whoever names pickle there is told of the message, too.
  if (contentType !== undefined && bareType(contentType) === PICKLE) throw pickleRefused(ContentDisallowed);
  const forced = force ? new Set([bareType(contentType || RAW)]) : enabled;
  const decoder = findDecoder(contentType, accept === undefined ? forced : prepareAcceptContent(accept));
  try {
    return decodeBody(decoder, bufferOf(body), contentType, contentEncoding, maxBytes!, false, types);
  } catch (error) {
    throw inContext(error, { serializer: decoder.name, contentType, contentEncoding, bytes: body.length });
  }
}

/**
 * Turns aliases and content types (whatever has a '/') into the set of content types that `loads` asks.
 * Throws `SerializerNotInstalled` for an unknown alias and for pickle.
 */
export function prepareAcceptContent(accept: Iterable<string>): ReadonlySet<string> {
  const types = new Set<string>();
  for (const item of accept) {
    const type = item.includes('/') ? bareType(item) : serializers.get(item)?.contentType;
    if (item === 'pickle' || type === PICKLE) throw pickleRefused(SerializerNotInstalled);
    if (type === undefined) throw unknownName(item);
    types.add(type);
  }
  return types;
}

/**
 * Lets `loads` without `accept` decode this content type or alias, on this thread. What has an `accept` (every consumer) is
 * not touched: there it alone counts. Throws `SerializerNotInstalled` for an unknown alias and for pickle.
 */
export function enable(nameOrType: string): void {
  for (const type of prepareAcceptContent([nameOrType])) enabled.add(type);
}

/** Takes back what `enable` does, for json, text and raw too. Throws `SerializerNotInstalled` for an unknown alias. */
export function disable(nameOrType: string): void {
  // What is refused anyway may be disabled: programs that come from kombu do it.
  if (nameOrType === 'pickle' || nameOrType === PICKLE) return;
  for (const type of prepareAcceptContent([nameOrType])) enabled.delete(type);
}

/**
 * Enables several: kombu's `enable_insecure_serializers`, by default yaml and msgpack. Here neither builds anything but
 * data, so the name is a habit. Throws `SerializerNotInstalled` for an unknown name, and for pickle.
 */
export function enableInsecureSerializers(choices: readonly string[] = ['yaml', 'msgpack']): void {
  for (const choice of choices) enable(choice);
}

/** From now on `loads` without `accept` decodes these only. Throws `SerializerNotInstalled` for an unknown name. */
export function disableInsecureSerializers(allowed: readonly string[] = ['json']): void {
  const types = prepareAcceptContent(allowed);
  enabled.clear();
  for (const type of types) enabled.add(type);
}

/** The decoder for a content type, if it may be used. Reads nothing of the body. Throws as `loads` does. */
export function findDecoder(contentType: string | undefined, accept: ReadonlySet<string>): BodyDecoder {
  if (contentType !== undefined && accept.has(contentType)) {
    const decoder = decoders.get(contentType);
    if (decoder !== undefined) return decoder;
  }
  const type = bareType(contentType || RAW);
  if (type === PICKLE) throw pickleRefused(ContentDisallowed);
  if (!accept.has(type) && !TRUSTED.has(type)) {
    throw new ContentDisallowed(
      `content type '${type}' is not accepted; accepted are: ${[...accept].join(', ') || 'none'}`,
      {
        details: { contentType: type, accept: [...accept] },
      },
    );
  }
  const decoder = decoders.get(type);
  if (decoder !== undefined) return decoder;
  throw new SerializerNotInstalled(
    `content type '${type}' is accepted, but no decoder is registered for it on this thread: register one ` +
      '(serialization.register; for worker threads, in the handler module)',
    { details: { contentType: type } },
  );
}

/**
 * Runs a decoder. `owned`: nobody else uses the body's memory. Throws `DecodeError`, `MessageTooLarge`, which do not say yet
 * what arrived: the caller knows that.
 */
export function decodeBody(
  decoder: BodyDecoder,
  body: Buffer,
  contentType: string | undefined,
  contentEncoding: string | undefined,
  maxBytes: number,
  owned: boolean,
  types: ExtendedTypes = 'plain',
): unknown {
  if (decoder.decode === null) {
    throw new SerializerNotInstalled(`serializer '${decoder.name}' is registered without a decoder`);
  }
  if (body.length > maxBytes) {
    throw new MessageTooLarge(`the body has ${body.length} bytes, more than maxDecodedBytes allows (${maxBytes})`, {
      details: { limit: 'maxDecodedBytes', maxBytes },
    });
  }
  const encoding = contentEncoding === 'utf-8' ? contentEncoding : encodingOf(contentType, contentEncoding);
  if (body.length === 0) return isBinary(encoding) ? Buffer.alloc(0) : '';
  try {
    return decoder.decode(body, encoding, owned, types);
  } catch (error) {
    if (error instanceof KombuError) throw error;
    throw new DecodeError(`serializer '${decoder.name}' failed: ${messageOf(error)}`, { cause: error });
  }
}

// Names and types

function bareType(contentType: string): string {
  const end = contentType.indexOf(';');
  return (end === -1 ? contentType : contentType.slice(0, end)).trim().toLowerCase();
}

function pickleRefused(ErrorClass: typeof SerializerNotInstalled): SerializerNotInstalled {
  return new ErrorClass(
    "pickle is never read or written here, because reading it runs code of the sender's choice: let the Python side " +
      "send JSON (kombu: serializer='json'; Celery: task_serializer = 'json')",
    { details: { contentType: PICKLE } },
  );
}

function unknownName(name: string): SerializerNotInstalled {
  const names = [...serializers.keys()];
  const near = names.find((known) => isNear(name.toLowerCase(), known));
  const hint = near === undefined ? `known are: ${names.join(', ')}` : `did you mean '${near}'?`;
  return new SerializerNotInstalled(`no serializer is named '${name}'; ${hint}`, { details: { name } });
}

/** Whether one word becomes the other by adding, dropping or changing at most two letters. */
function isNear(a: string, b: string, left = 2): boolean {
  if (left < 0) return false;
  if (a === '' || b === '') return a.length + b.length <= left;
  if (a[0] === b[0]) return isNear(a.slice(1), b.slice(1), left);
  return isNear(a.slice(1), b.slice(1), left - 1) || isNear(a.slice(1), b, left - 1) || isNear(a, b.slice(1), left - 1);
}

// What is there from the start

function dumpRaw(value: unknown): Serialized {
  if (typeof value === 'string')
    return { contentType: RAW, contentEncoding: 'utf-8', body: encodeText(value, 'utf-8') };
  if (value instanceof Uint8Array) return { contentType: RAW, contentEncoding: 'binary', body: bufferOf(value) };
  throw new EncodeError(
    `serializer 'raw' takes bytes or a string, not ${value === null ? 'null' : `a value of type ${typeof value}`}`,
  );
}

const plain = (body: Buffer, encoding: string, owned: boolean): unknown => {
  if (isBinary(encoding)) return owned ? body : Buffer.from(body);
  return decodeText(body, encoding);
};

const decodeJson = (body: Buffer, encoding: string, _owned: boolean, types: ExtendedTypes): unknown =>
  // Python's JSON is ASCII whatever it claims to be, and it never asks: binary counts as UTF-8.
  encoding === 'utf-8' || isUtf8Name(encoding) || isBinary(encoding)
    ? parseJson(decodeUtf8(body), body, types)
    : parseJson(decodeText(body, encoding), undefined, types);

const decodeYaml = (body: Buffer, encoding: string): unknown =>
  parseYaml(isBinary(encoding) ? decodeUtf8(body) : decodeText(body, encoding));

function encodePlainText(value: unknown): string {
  if (typeof value === 'string') return value;
  throw new EncodeError(
    `serializer 'text' takes a string, not ${value === null ? 'null' : `a value of type ${typeof value}`}`,
  );
}

// Not through register(): these take care themselves of what they share with the body, so no copy is made for them.
serializers.set('json', { contentType: 'application/json', contentEncoding: 'utf-8', encode: stringifyJson });
serializers.set('msgpack', { contentType: 'application/x-msgpack', contentEncoding: 'binary', encode: packMsgpack });
serializers.set('text', { contentType: 'text/plain', contentEncoding: 'utf-8', encode: encodePlainText });
serializers.set('raw', { contentType: RAW, contentEncoding: 'binary', encode: null });
decoders.set('application/json', { name: 'json', decode: decodeJson });
decoders.set('application/x-msgpack', { name: 'msgpack', decode: unpackMsgpack });
serializers.set('yaml', { contentType: 'application/x-yaml', contentEncoding: 'utf-8', encode: stringifyYaml });
decoders.set('application/x-yaml', { name: 'yaml', decode: decodeYaml });
decoders.set('text/plain', { name: 'text', decode: plain });
decoders.set('application/text', { name: 'text', decode: plain });
decoders.set(RAW, { name: 'raw', decode: plain });
