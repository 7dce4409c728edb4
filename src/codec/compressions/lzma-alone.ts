/**
 * The .lzma format ("alone"), older than .xz: 13 bytes of header, then one LZMA stream, which ends at the length the
 * header names or at an end marker. Python reads it under the same name; nothing here writes it.
 */
import { Buffer } from 'node:buffer';
import { damageOf } from './damage.js';
import { tooLarge } from './limit.js';
import { LzmaDecoder, MAX_MATCH } from './lzma-decoder.js';
import { readProperties } from './lzma-model.js';

const { bad, damaged, follow } = damageOf('lzma', 'stream');
const HEADER_BYTES = 13;
const FIRST_OUTPUT = 64 * 1024;

/**
 * Whether this may be a .lzma header. It has no magic number: like Python and `xz`, this wants properties and sizes that
 * a writer can have meant.
 */
export function isAlone(body: Buffer): boolean {
  if (body.length < HEADER_BYTES || readProperties(body[0]!) === undefined) return false;
  const dictionary = body.readUInt32LE(1);
  const [low, high] = [body.readUInt32LE(5), body.readUInt32LE(9)];
  const unknown = low === 0xffffffff && high === 0xffffffff;
  // 2^n or 2^n + 2^(n-1), as every writer chooses it
  const power = 2 ** Math.floor(Math.log2(Math.max(dictionary, 1)));
  const usual = dictionary === power || dictionary === power * 1.5 || dictionary === 0xffffffff;
  return usual && (unknown || high < 64);
}

/** Decodes the stream. Throws `DecodeError`, `MessageTooLarge` past `maxBytes`. */
export function decodeAlone(body: Buffer, maxBytes: number): Buffer {
  const properties = readProperties(body[0]!);
  if (properties === undefined || properties.lc + properties.lp > 4) {
    throw bad('the header has unknown properties');
  }
  const low = body.readUInt32LE(5);
  const high = body.readUInt32LE(9);
  const size = low === 0xffffffff && high === 0xffffffff ? -1 : low + high * 2 ** 32;
  if (size > maxBytes) throw tooLarge(maxBytes);
  const decoder = new LzmaDecoder(body, properties);
  decoder.start(HEADER_BYTES, body.length);
  // Not by what the header claims: the output grows with what is there.
  let output = Buffer.allocUnsafe(Math.min(size < 0 ? FIRST_OUTPUT : size, FIRST_OUTPUT) + MAX_MATCH);
  let filled = 0;
  while (!decoder.ended && (size < 0 || filled < size)) {
    if (filled > maxBytes) throw tooLarge(maxBytes);
    if (output.length - filled <= MAX_MATCH) {
      const longer = Buffer.allocUnsafe(Math.min(output.length * 2, maxBytes + 2 * MAX_MATCH));
      output.copy(longer, 0, 0, filled);
      output = longer;
    }
    const room = output.length - MAX_MATCH;
    filled = decoder.decode(output, 0, filled, size < 0 ? room : Math.min(room, size), output.length);
  }
  if (filled > maxBytes) throw tooLarge(maxBytes);
  if (size >= 0 && filled !== size) throw bad('the content is not as long as the header claims');
  // A writer that knows the length may put an end marker behind it all the same.
  if (size >= 0 && !decoder.ended && !decoder.finish().clean) decoder.decode(output, 0, filled, filled + 1, filled);
  const { at, clean } = decoder.finish();
  if (!clean) throw damaged('the stream');
  if (at !== body.length) throw follow(body.length - at);
  return output.subarray(0, filled);
}
