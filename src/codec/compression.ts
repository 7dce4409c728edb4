/**
 * The registry of compressions, under kombu's names: `zlib` and `gzip` (one and the same in kombu: a zlib stream, sent
 * as application/x-gzip), `brotli`, `bzip2`, `lzma` (an .xz stream), `zstd`, and `lz4`, which kombu leaves to its users.
 * How each is read and written is in `compressions/`.
 *
 * Decoders are synchronous and must stop at the limit they are given: a small body must not be able to fill the memory.
 * A stream that is cut off, damaged, or followed by other bytes is an error, never a shorter result.
 */
import type { Buffer } from 'node:buffer';
import { DecodeError, EncodeError, KombuError, MessageTooLarge, OptionError } from '../errors.js';
import { bufferOf, messageOf, settled } from './bytes.js';
import { decodeBzip2 } from './compressions/bzip2-decoder.js';
import { encodeBzip2 } from './compressions/bzip2-encoder.js';
import { tooLarge } from './compressions/limit.js';
import { decodeLz4, encodeLz4 } from './compressions/lz4.js';
import { type Lz4Backend, lz4Backend } from './compressions/lz4-backend.js';
import { decodeXz } from './compressions/xz.js';
import { encodeXz } from './compressions/xz-encoder.js';
import { decodeBrotli, decodeZlib, encodeBrotli, encodeZlib } from './compressions/zlib.js';
import { decodeZstd } from './compressions/zstd.js';
import { type ZstdBackend, zstdBackend } from './compressions/zstd-backend.js';
import { inContext } from './context.js';

/** Compresses one body. */
export type Compressor = (body: Buffer) => Uint8Array;
/** Decompresses one body; must throw, or give up growing, once the output is over `maxBytes` bytes. */
export type Decompressor = (body: Buffer, maxBytes: number) => Uint8Array;

export interface Compressed {
  readonly body: Buffer;
  /** What goes into the header `compression`. */
  readonly contentType: string;
}

/** 256 MiB: `maxDecodedBytes` of a consumer, and what `decompress` allows unless told otherwise. */
export const DEFAULT_MAX_DECODED_BYTES = 256 * 1024 * 1024;

interface Method {
  readonly contentType: string;
  readonly encode: Compressor | null;
  readonly decode: Decompressor | null;
}

const methods = new Map<string, Method>();
const aliasNames = new Set<string>();

/**
 * Adds a compression, or replaces one, for this thread. `aliases` are names for `compress`; the content type travels
 * with the message. Either function may be null: then that direction is an error. Throws `OptionError`.
 */
export function register(
  encoder: Compressor | null,
  decoder: Decompressor | null,
  contentType: string,
  aliases: readonly string[] = [],
): void {
  for (const [part, given] of Object.entries({ encoder, decoder })) {
    if (given !== null && typeof given !== 'function') {
      throw new OptionError(`compression.register: the ${part} must be a function, or null`);
    }
  }
  for (const name of [contentType, ...aliases]) {
    if (typeof name !== 'string' || name === '') {
      throw new OptionError('compression.register: content type and aliases must be strings that are not empty');
    }
  }
  const method: Method = { contentType, encode: encoder, decode: decoder };
  methods.set(contentType, method);
  for (const alias of aliases) {
    methods.set(alias, method);
    aliasNames.add(alias);
  }
}

/** The names that `compress` and `decompress` know, sorted; content types are known besides. */
export function names(): string[] {
  return [...aliasNames].sort();
}

function known(): string {
  return `known are: ${names().join(', ')}`;
}

/** The content types that `compress` knows, sorted. */
export function encoders(): string[] {
  const types = new Set<string>();
  for (const { contentType, encode } of methods.values()) if (encode !== null) types.add(contentType);
  return [...types].sort();
}

/** The encoder of a name or content type, and the content type. Throws `EncodeError` where there is none. */
export function getEncoder(nameOrType: string): { readonly encode: Compressor; readonly contentType: string } {
  const method = methods.get(nameOrType);
  if (method === undefined) throw new EncodeError(`compression: unknown name '${nameOrType}'; ${known()}`);
  if (method.encode === null) throw new EncodeError(`compression: '${nameOrType}' has no encoder`);
  return { encode: method.encode, contentType: method.contentType };
}

/** The decoder of a name or content type. Throws `DecodeError` where there is none. */
export function getDecoder(nameOrType: string): Decompressor {
  const method = methods.get(nameOrType);
  if (method === undefined) throw new DecodeError(`compression: nothing here decompresses '${nameOrType}'; ${known()}`);
  if (method.decode === null) throw new DecodeError(`compression: '${nameOrType}' has no decoder`);
  return method.decode;
}

/** Compresses a body by name or content type. Throws `EncodeError`, also for an unknown name. */
export function compress(body: Uint8Array, name: string): Compressed {
  const { encode, contentType } = getEncoder(name);
  try {
    return { body: bufferOf(settled(encode(bufferOf(body)))), contentType };
  } catch (error) {
    if (error instanceof KombuError) throw error;
    throw new EncodeError(`compression: '${name}' failed: ${messageOf(error)}`, { cause: error });
  }
}

/**
 * Decompresses a body by content type or name.
 * `maxBytes`: how long the result may be, in bytes; default 256 MiB. Throws `MessageTooLarge` past it, and `DecodeError`
 * for an unknown name, a stream that is cut off or damaged, and bytes behind its end. Both name the compression and the
 * body's length, in `details` too.
 */
export function decompress(body: Buffer, nameOrType: string, options: { readonly maxBytes?: number } = {}): Buffer {
  const { maxBytes = DEFAULT_MAX_DECODED_BYTES } = options;
  try {
    const decode = getDecoder(nameOrType);
    const result = bufferOf(settled(decode(body, maxBytes)));
    if (result.length > maxBytes) throw tooLarge(maxBytes);
    return result;
  } catch (error) {
    const facts = { compression: nameOrType, bytes: body.length };
    throw inContext(asDecodeError(error, nameOrType, maxBytes), facts);
  }
}

function asDecodeError(error: unknown, name: string, maxBytes: number): KombuError {
  // A decoder of several streams names what was left of the limit; the user knows the whole of it.
  if (error instanceof MessageTooLarge && error.details.limit === 'maxDecodedBytes')
    return tooLarge(maxBytes, error.cause);
  if (error instanceof KombuError) return error;
  if ((error as { code?: unknown } | undefined)?.code === 'ERR_BUFFER_TOO_LARGE') return tooLarge(maxBytes, error);
  return new DecodeError(`compression: '${name}' failed: ${messageOf(error)}`, { cause: error });
}

// What is there from the start. Optional packages are looked for when a body first needs them.

const NO_LZ4 =
  "lz4: neither package 'lz4' nor 'lz4-napi' works here: npm install lz4-napi (or lz4, which is faster and needs a compiler)";
const NO_ZSTD =
  "zstd: this Node has none, and package 'zstd-codec' does not work here: npm install zstd-codec, or Node 22.15";

function lz4(ErrorClass: typeof DecodeError | typeof EncodeError): Lz4Backend {
  const backend = lz4Backend();
  if (backend === undefined) throw new ErrorClass(NO_LZ4);
  return backend;
}

function zstd(ErrorClass: typeof DecodeError | typeof EncodeError): ZstdBackend {
  const backend = zstdBackend();
  if (backend === undefined) throw new ErrorClass(NO_ZSTD);
  return backend;
}

register(encodeZlib, decodeZlib, 'application/x-gzip', ['gzip', 'zlib']);
register(encodeBrotli, decodeBrotli, 'application/x-brotli', ['brotli']);
register(encodeBzip2, decodeBzip2, 'application/x-bz2', ['bzip2', 'bzip']);
register(encodeXz, decodeXz, 'application/x-lzma', ['lzma', 'xz']);
register(
  (body) => zstd(EncodeError).encode(body),
  (body, maxBytes) => decodeZstd(zstd(DecodeError), body, maxBytes),
  'application/zstd',
  ['zstd', 'zstandard'],
);
register(
  (body) => encodeLz4(lz4(EncodeError), body),
  (body, maxBytes) => decodeLz4(lz4(DecodeError), body, maxBytes),
  'application/x-lz4',
  ['lz4'],
);
