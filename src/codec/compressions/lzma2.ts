/**
 * LZMA2: LZMA in chunks, each with its lengths in front of it, so that the length of the whole is known before anything
 * is decoded. This file reads it; `lzma-encoder.ts` writes it.
 *
 *     0x00                   the end
 *     0x01, 0x02             a stored chunk (0x01: the dictionary starts anew), 16 bits of length - 1
 *     0x80 | reset << 5 | n  an LZMA chunk: n and 16 bits of length - 1, 16 bits of packed length - 1, properties if
 *                            reset > 1; reset 1: the state starts anew, 2: with new properties, 3: and the dictionary
 */
import { Buffer } from 'node:buffer';
import { damageOf } from './damage.js';
import { LzmaDecoder } from './lzma-decoder.js';
import { readProperties } from './lzma-model.js';

const { bad, cutOff, damaged } = damageOf('lzma2', 'stream');

/** How many bytes the chunks from `start` on decode to, and where they end. Makes sure that they lie within the body. */
export function walkLzma2(body: Buffer, start: number): { readonly size: number; readonly end: number } {
  let at = start;
  let size = 0;
  for (;;) {
    const control = body[at];
    if (control === 0) return { size, end: at + 1 };
    if (control === undefined || at + 6 > body.length) throw cutOff();
    if (control >= 0x80) {
      size += ((control & 0x1f) << 16) + body.readUInt16BE(at + 1) + 1;
      at += 5 + (control >= 0xc0 ? 1 : 0) + body.readUInt16BE(at + 3) + 1;
    } else if (control <= 2) {
      const length = body.readUInt16BE(at + 1) + 1;
      size += length;
      at += 3 + length;
    } else {
      throw bad('a chunk has an unknown kind');
    }
  }
}

/** Decodes chunks that `walkLzma2` has walked. */
export function decodeLzma2(body: Buffer, start: number, size: number): Buffer {
  const output = Buffer.allocUnsafe(size);
  let decoder: LzmaDecoder | undefined;
  let dictionary = -1;
  let needsProperties = true;
  let filled = 0;
  let at = start;
  for (;;) {
    const control = body[at]!;
    if (control === 0) return output;
    if (control === 1 || control >= 0xe0) {
      dictionary = filled;
      // What starts a dictionary anew wants properties again before the next LZMA chunk.
      needsProperties = true;
    }
    if (dictionary === -1) throw bad('the first chunk does not start a dictionary');
    if (control < 0x80) {
      const length = body.readUInt16BE(at + 1) + 1;
      body.copy(output, filled, at + 3, at + 3 + length);
      filled += length;
      at += 3 + length;
      continue;
    }
    const length = ((control & 0x1f) << 16) + body.readUInt16BE(at + 1) + 1;
    const packed = body.readUInt16BE(at + 3) + 1;
    at += 5;
    if (control >= 0xc0) {
      const properties = readProperties(body[at++]!);
      if (properties === undefined || properties.lc + properties.lp > 4) throw bad('a chunk has unknown properties');
      if (decoder === undefined) decoder = new LzmaDecoder(body, properties);
      else decoder.setProperties(properties);
      needsProperties = false;
    } else if (control >= 0xa0) {
      decoder?.resetState();
    }
    if (decoder === undefined || needsProperties) throw bad('the first chunk of a dictionary has no properties');
    decoder.start(at, at + packed);
    const end = filled + length;
    filled = decoder.decode(output, dictionary, filled, end, end);
    const finished = decoder.finish();
    if (decoder.ended || !finished.clean || finished.at !== at + packed) throw damaged('a chunk');
    at += packed;
  }
}
