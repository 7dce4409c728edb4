/**
 * The registry of compressions, under kombu's names: `zlib` and `gzip` (one and the same in kombu: a zlib stream, sent
 * as application/x-gzip) and `brotli`.
 *
 * Decoders are synchronous and must stop at the limit they are given: a small body must not be able to fill the memory.
 * A stream that is cut off, damaged, or followed by other bytes is an error, never a shorter result.
 */
import { Buffer } from 'node:buffer';
import zlib from 'node:zlib';
import { DecodeError, EncodeError, KombuError, MessageTooLarge } from '../errors.js';

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
 * with the message. Either function may be null: then that direction is an error.
 */
export function register(
  encoder: Compressor | null,
  decoder: Decompressor | null,
  contentType: string,
  aliases: readonly string[] = [],
): void {
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

/** Compresses a body by name or content type. Throws `EncodeError`, also for an unknown name. */
export function compress(body: Uint8Array, name: string): Compressed {
  const method = methods.get(name);
  if (method === undefined) throw new EncodeError(`compression: unknown name '${name}'; ${known()}`);
  if (method.encode === null) throw new EncodeError(`compression: '${name}' has no encoder`);
  try {
    return { body: bufferOf(method.encode(bufferOf(body))), contentType: method.contentType };
  } catch (error) {
    if (error instanceof KombuError) throw error;
    throw new EncodeError(`compression: '${name}' failed: ${textOf(error)}`, { cause: error });
  }
}

/**
 * Decompresses a body by content type or name.
 * `maxBytes`: how long the result may be, in bytes; default 256 MiB. Throws `MessageTooLarge` past it, and `DecodeError`
 * for an unknown name, a stream that is cut off or damaged, and bytes behind its end.
 */
export function decompress(body: Buffer, nameOrType: string, options: { readonly maxBytes?: number } = {}): Buffer {
  const { maxBytes = DEFAULT_MAX_DECODED_BYTES } = options;
  const method = methods.get(nameOrType);
  if (method === undefined) {
    throw new DecodeError(`compression: nothing here decompresses '${nameOrType}'; ${known()}`, {
      details: { compression: nameOrType },
    });
  }
  if (method.decode === null) throw new DecodeError(`compression: '${nameOrType}' has no decoder`);
  let result: Buffer;
  try {
    result = bufferOf(method.decode(body, maxBytes));
  } catch (error) {
    if (error instanceof KombuError) throw error;
    if ((error as { code?: unknown } | undefined)?.code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge(maxBytes, error);
    throw new DecodeError(`compression: '${nameOrType}' failed: ${textOf(error)}`, { cause: error });
  }
  if (result.length > maxBytes) throw tooLarge(maxBytes);
  return result;
}

function tooLarge(maxBytes: number, cause?: unknown): MessageTooLarge {
  return new MessageTooLarge(`the body decompresses to more than maxDecodedBytes allows (${maxBytes} bytes)`, {
    cause,
    details: { limit: 'maxDecodedBytes', maxBytes },
  });
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** What zlib's one-shot functions return with `info: true`, which the type declarations do not cover. */
interface Inflated {
  readonly buffer: Buffer;
  /** `bytesWritten` counts the input that was used up: less than all of it means that something follows the stream. */
  readonly engine: { readonly bytesWritten: number };
}

type OneShot = (body: Buffer, options: zlib.ZlibOptions & zlib.BrotliOptions) => unknown;

function inflateWith(oneShot: OneShot): Decompressor {
  return (body, maxBytes) => {
    // One piece holds the whole result for most bodies: collecting 16 KiB pieces costs a third more from 64 KiB on.
    const chunkSize = Math.min(Math.max(body.length * 4, 1024), 256 * 1024);
    const result = oneShot(body, { info: true, maxOutputLength: Math.max(maxBytes, 1), chunkSize }) as Inflated;
    if (result.engine.bytesWritten !== body.length) {
      throw new DecodeError(
        `compression: ${body.length - result.engine.bytesWritten} bytes follow the end of the stream`,
      );
    }
    return result.buffer;
  };
}

// What kombu calls gzip is a zlib stream; others send what RFC 1952 calls gzip under this type. unzip tells them apart.
register((body) => zlib.deflateSync(body), inflateWith(zlib.unzipSync as OneShot), 'application/x-gzip', [
  'gzip',
  'zlib',
]);

register(
  // Quality 11, the default, takes 60 times as long for a fifth less, on a thread that has other things to do.
  (body) =>
    zlib.brotliCompressSync(body, {
      params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 4, [zlib.constants.BROTLI_PARAM_SIZE_HINT]: body.length },
    }),
  inflateWith(zlib.brotliDecompressSync as OneShot),
  'application/x-brotli',
  ['brotli'],
);
