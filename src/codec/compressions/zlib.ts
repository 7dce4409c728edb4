/**
 * zlib, gzip and brotli: `node:zlib`'s one-shot functions, held to a limit, and strict about what follows the stream.
 */
import { type Buffer, constants } from 'node:buffer';
import zlib from 'node:zlib';
import { DecodeError } from '../../errors.js';

/** What zlib's one-shot functions return with `info: true`, which the type declarations do not cover. */
interface Inflated {
  readonly buffer: Buffer;
  /** `bytesWritten` counts the input that was used up: less than all of it means that something follows the stream. */
  readonly engine: { readonly bytesWritten: number };
}

type OneShot = (body: Buffer, options: zlib.ZlibOptions & zlib.BrotliOptions) => unknown;

function inflateWith(oneShot: OneShot): (body: Buffer, maxBytes: number) => Buffer {
  return (body, maxBytes) => {
    // One piece holds the whole result for most bodies: collecting 16 KiB pieces costs a third more from 64 KiB on, and two
    // pieces in place of one a fifth more at 4 KiB (JSON shrinks to a fourth or fifth).
    const chunkSize = Math.min(Math.max(body.length * 8, 1024), 256 * 1024);
    // Node refuses a limit over what one Buffer can hold.
    const maxOutputLength = Math.min(Math.max(maxBytes, 1), constants.MAX_LENGTH);
    const result = oneShot(body, { info: true, maxOutputLength, chunkSize }) as Inflated;
    if (result.engine.bytesWritten !== body.length) {
      throw new DecodeError(`${body.length - result.engine.bytesWritten} bytes follow the end of the stream`);
    }
    return result.buffer;
  };
}

/** What kombu calls gzip is a zlib stream; others send what RFC 1952 calls gzip under this type. unzip tells them apart. */
export const decodeZlib = inflateWith(zlib.unzipSync as OneShot);
export const encodeZlib = (body: Buffer): Buffer => zlib.deflateSync(body);

export const decodeBrotli = inflateWith(zlib.brotliDecompressSync as OneShot);
/** Quality 11, the default, takes 60 times as long for a fifth less, on a thread that has other things to do. */
export const encodeBrotli = (body: Buffer): Buffer =>
  zlib.brotliCompressSync(body, {
    params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 4, [zlib.constants.BROTLI_PARAM_SIZE_HINT]: body.length },
  });
