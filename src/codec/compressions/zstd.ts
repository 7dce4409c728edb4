/**
 * zstd bodies: frames in a row, held to the limit before a backend sees them, so that what a header claims allocates
 * nothing. What is damaged, cut off, or followed by other bytes is an error, whichever backend decodes.
 */
import { Buffer } from 'node:buffer';
import { DecodeError } from '../../errors.js';
import { tooLarge } from './limit.js';
import type { ZstdBackend } from './zstd-backend.js';
import { zstdFrames } from './zstd-frames.js';

/** Decodes all frames of a body. Throws `DecodeError`, `MessageTooLarge` past `maxBytes`. */
export function decodeZstd(backend: ZstdBackend, body: Buffer, maxBytes: number): Uint8Array {
  const frames = zstdFrames(body);
  const parts: Uint8Array[] = [];
  let left = maxBytes;
  for (const frame of frames) {
    const { start, end, contentSize, possible } = frame;
    if (contentSize > left) throw tooLarge(maxBytes);
    if (contentSize > possible) throw new DecodeError('zstd: the header claims more bytes than the blocks can hold');
    const bytes = start === 0 && end === body.length ? body : body.subarray(start, end);
    const part = backend.decode(bytes, frame, contentSize < 0 ? left : contentSize);
    if (contentSize >= 0 && part.length !== contentSize) {
      throw new DecodeError('zstd: the content is not as long as the header claims');
    }
    left -= part.length;
    if (frames.length === 1) return part;
    parts.push(part);
  }
  return Buffer.concat(parts);
}
