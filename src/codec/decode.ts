/**
 * From the bytes of a body to its payload: may it be decoded at all, then decompress, then deserialize. This is the
 * path every message takes on a worker thread; it must not allocate anything of its own for a plain body.
 */
import type { Buffer } from 'node:buffer';
import { decompress } from './compression.js';
import { inContext } from './context.js';
import type { ExtendedTypes } from './extended-types.js';
import { decodeBody, findDecoder } from './serialization.js';

/** What the message's properties and headers say about its body. */
export interface BodyInfo {
  readonly contentType?: string | undefined;
  readonly contentEncoding?: string | undefined;
  /** The header `compression`: a content type, or a name. */
  readonly compression?: string | undefined;
}

export interface DecodeLimits {
  /** From `prepareAcceptContent`. */
  readonly accept: ReadonlySet<string>;
  /** How many bytes a body may have once it is decompressed. */
  readonly maxDecodedBytes: number;
  /** What kombu's extended types of JSON become. Default: `plain`. */
  readonly types?: ExtendedTypes | undefined;
}

/**
 * Decodes a body. The result shares no memory with it, so `body` may be a view of shared memory that is used again.
 * Throws `ContentDisallowed` before it looks at the body, then `MessageTooLarge`, `DecodeError`, or
 * `SerializerNotInstalled` where a type is accepted that nothing here decodes. Empty bodies: see `loads`.
 */
export function decodePayload(body: Buffer, info: BodyInfo, limits: DecodeLimits): unknown {
  const { contentType, contentEncoding, compression } = info;
  const { accept, maxDecodedBytes, types } = limits;
  const decoder = findDecoder(contentType, accept);
  let decompressedBytes: number | undefined;
  try {
    if (!compression) return decodeBody(decoder, body, contentType, contentEncoding, maxDecodedBytes, false, types);
    const plain = decompress(body, compression, { maxBytes: maxDecodedBytes });
    decompressedBytes = plain.length;
    // A compression of the user's may hand back the very bytes it was given.
    const owned = plain.buffer !== body.buffer;
    return decodeBody(decoder, plain, contentType, contentEncoding, maxDecodedBytes, owned, types);
  } catch (error) {
    const serializer = decoder.name;
    const bytes = body.length;
    throw inContext(error, { serializer, contentType, contentEncoding, compression, bytes, decompressedBytes });
  }
}
