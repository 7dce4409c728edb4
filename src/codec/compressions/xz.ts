/**
 * The .xz container (what Python's `lzma.compress` writes) and the .lzma one, which Python reads under the same name.
 * Streams in a row, stream padding, several blocks, and the checks none, CRC32, CRC64 and SHA-256 are read; filters
 * besides LZMA2 (delta, executables) are not.
 *
 * LZMA2 says in front of each chunk how long it gets, so a block is walked before it is decoded: the output is as long
 * as the chunks are together, and never longer than the limit. The dictionary's size, which the header claims, allocates
 * nothing at all: the output is the dictionary.
 *
 * Written here because no package does this: those with compiled code know no limit for the output, `@napi-rs/lzma` for
 * Node 20 stores instead of compressing and reads neither SHA-256 nor two streams, `node-liblzma` is LGPL, and the rest
 * is asynchronous.
 */
import { Buffer } from 'node:buffer';
import { createHash } from 'node:crypto';
import { crc32 } from './crc32.js';
import { crc64 } from './crc64.js';
import { damageOf } from './damage.js';
import { tooLarge } from './limit.js';
import { decodeAlone, isAlone } from './lzma-alone.js';
import { decodeLzma2, walkLzma2 } from './lzma2.js';

export const XZ_MAGIC = Buffer.of(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00);
const FOOTER_MAGIC = Buffer.from('YZ');
const HEADER_BYTES = 12;
const LZMA2 = 0x21;
/** The filter's one byte of properties. */
const MAX_DICTIONARY_PROPERTY = 40;

/** How long each kind of check is, by its number. */
const CHECK_BYTES = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64];
const CHECKS = new Map<number, (bytes: Buffer) => Buffer>([
  [0, () => Buffer.alloc(0)],
  [1, crc32Bytes],
  [4, crc64],
  [10, (bytes) => createHash('sha256').update(bytes).digest()],
]);

const { bad, damaged, cutOff, follow } = damageOf('xz', 'stream');

/** Decodes all streams of a body. Throws `DecodeError`, `MessageTooLarge` past `maxBytes`. */
export function decodeXz(body: Buffer, maxBytes: number): Buffer {
  if (body.length < HEADER_BYTES) throw cutOff();
  if (isAlone(body)) return decodeAlone(body, maxBytes);
  const parts: Buffer[] = [];
  let length = 0;
  let at = 0;
  while (at < body.length) {
    // Streams may be padded with zeros, in fours.
    if (at > 0 && body.length - at >= 4 && body.readUInt32LE(at) === 0) {
      at += 4;
      continue;
    }
    if (!body.subarray(at, at + 6).equals(XZ_MAGIC)) {
      throw at === 0 ? bad('this is no xz stream') : follow(body.length - at);
    }
    at = decodeStream(
      body,
      at,
      (output) => {
        length += output.length;
        parts.push(output);
      },
      (size) => {
        if (size > maxBytes - length) throw tooLarge(maxBytes);
      },
    );
  }
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts, length);
}

function decodeStream(
  body: Buffer,
  start: number,
  take: (output: Buffer) => void,
  check: (size: number) => void,
): number {
  if (start + HEADER_BYTES > body.length) throw cutOff();
  const flags = body.subarray(start + 6, start + 8);
  if (crc32(flags) !== body.readUInt32LE(start + 8)) throw bad('the header does not have its checksum');
  const kind = flags[1]!;
  const checksum = CHECKS.get(kind);
  if (flags[0] !== 0 || checksum === undefined) throw bad('the header has an unknown kind of check');
  const records: [unpadded: number, size: number][] = [];
  let at = start + HEADER_BYTES;
  for (;;) {
    if (at >= body.length) throw cutOff();
    if (body[at] === 0) break;
    const data = readBlockHeader(body, at);
    const { size, end } = walkLzma2(body, data.at);
    if (data.size >= 0 && data.size !== size) throw bad('a block is not as long as its header claims');
    if (data.packed >= 0 && data.packed !== end - data.at) throw bad('a block is not as long as its header claims');
    check(size);
    const output = decodeLzma2(body, data.at, size);
    const padded = end + ((4 - ((end - data.at) & 3)) & 3);
    const checkBytes = CHECK_BYTES[kind]!;
    if (padded + checkBytes > body.length) throw cutOff();
    if (!isZero(body, end, padded)) throw damaged('the padding of a block');
    if (!checksum(output).equals(body.subarray(padded, padded + checkBytes)))
      throw bad('a block does not have its checksum');
    records.push([end - at + checkBytes, size]);
    take(output);
    at = padded + checkBytes;
  }
  const indexEnd = readIndex(body, at, records);
  const end = indexEnd + HEADER_BYTES;
  if (end > body.length) throw cutOff();
  const footer = body.subarray(indexEnd, end);
  if (
    crc32(footer.subarray(4, 10)) !== footer.readUInt32LE(0) ||
    (footer.readUInt32LE(4) + 1) * 4 !== indexEnd - at ||
    !footer.subarray(8, 10).equals(flags) ||
    !footer.subarray(10).equals(FOOTER_MAGIC)
  ) {
    throw damaged('the footer');
  }
  return end;
}

function readBlockHeader(body: Buffer, start: number): { at: number; packed: number; size: number } {
  const end = start + (body[start]! + 1) * 4;
  if (end > body.length) throw cutOff();
  if (crc32(body.subarray(start, end - 4)) !== body.readUInt32LE(end - 4))
    throw bad('a block header does not have its checksum');
  const flags = body[start + 1]!;
  const fields = new Integers(body, start + 2, end - 4);
  const packed = flags & 0x40 ? fields.next() : -1;
  const size = flags & 0x80 ? fields.next() : -1;
  if ((flags & 0x3f) !== 0 || fields.next() !== LZMA2 || fields.next() !== 1) {
    throw bad('the stream uses filters besides LZMA2, which are not read');
  }
  // 2^12 to 2^32 bytes; nothing is allocated by it, but a value past that has no meaning
  if (fields.next() > MAX_DICTIONARY_PROPERTY) throw bad('a block header claims a dictionary of a size that is not');
  if (!isZero(body, fields.at, end - 4)) throw damaged('the padding of a block header');
  return { at: end, packed, size };
}

/** The index must say what the blocks were; gives the position behind it. */
function readIndex(body: Buffer, start: number, records: readonly (readonly [number, number])[]): number {
  const fields = new Integers(body, start + 1, body.length);
  let same = fields.next() === records.length;
  for (const [unpadded, size] of records) same = same && fields.next() === unpadded && fields.next() === size;
  const end = fields.at + ((4 - ((fields.at - start) & 3)) & 3);
  if (end + 4 > body.length) throw cutOff();
  if (!same || !isZero(body, fields.at, end) || crc32(body.subarray(start, end)) !== body.readUInt32LE(end))
    throw damaged('the index');
  return end + 4;
}

function isZero(bytes: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if (bytes[at] !== 0) return false;
  return true;
}

/** Integers of variable length: seven bits a byte, the lowest first. */
class Integers {
  at: number;

  constructor(
    private readonly bytes: Buffer,
    start: number,
    private readonly end: number,
  ) {
    this.at = start;
  }

  next(): number {
    let value = 0;
    for (let scale = 1; scale < 2 ** 63; scale *= 128) {
      if (this.at >= this.end) throw cutOff();
      const byte = this.bytes[this.at++]!;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    throw bad('an integer is too long');
  }
}

function crc32Bytes(bytes: Buffer): Buffer {
  const result = Buffer.alloc(4);
  result.writeUInt32LE(crc32(bytes));
  return result;
}
