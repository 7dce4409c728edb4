/**
 * The LZ4 frame format, both ways, over a backend that knows single blocks only: linked and independent blocks, stored
 * blocks, block and content checksums, content sizes, skippable frames, and several frames in a row, as the
 * specification has it (they decode to one body). Not read: frames that need a dictionary, the legacy format of 2011.
 *
 * A frame is walked before anything is decoded, so the output is allocated once, is as long as the frame's blocks can
 * fill, and never longer than the limit.
 */
import { Buffer } from 'node:buffer';
import { EncodeError } from '../../errors.js';
import { damageOf, skippableEnd } from './damage.js';
import { tooLarge } from './limit.js';
import { encodeBound, type Lz4Backend } from './lz4-backend.js';
import { decodeLinked, HEADROOM, measureBlock } from './lz4-block.js';
import { xxhash32 } from './xxhash32.js';

const MAGIC = 0x184d2204;
const LEGACY_MAGIC = 0x184c2102;

// FLG
const VERSION = 0b0100_0000;
const INDEPENDENT = 0b0010_0000;
const BLOCK_CHECKSUMS = 0b0001_0000;
const CONTENT_SIZE = 0b0000_1000;
const CONTENT_CHECKSUM = 0b0000_0100;
const RESERVED = 0b0000_0010;
const DICTIONARY = 0b0000_0001;

/** In a block's length: the block is stored, not compressed. */
const STORED = 0x8000_0000;
/** No byte of a block stands for more bytes of output. */
const MAX_RATIO = 255;
/** BD's numbers 4 to 7. */
const BLOCK_SIZES = [1 << 16, 1 << 18, 1 << 20, 1 << 22] as const;
const HEADER_BYTES = 15;

interface Frame {
  readonly flags: number;
  readonly blockSize: number;
  /** -1: the header does not say. */
  readonly contentSize: number;
  /** Where its blocks start. */
  readonly blocks: number;
}

const damage = damageOf('lz4', 'frame');
const { bad, cutOff, damaged } = damage;

/** Decodes all frames of a body. Throws `DecodeError`, `MessageTooLarge` past `maxBytes`. */
export function decodeLz4(backend: Lz4Backend, body: Buffer, maxBytes: number): Buffer {
  const parts: Buffer[] = [];
  let total = 0;
  let at = 0;
  do {
    if (at + 4 > body.length) throw cutOff();
    const skipped = skippableEnd(body, at, damage);
    if (skipped !== undefined) {
      at = skipped;
      continue;
    }
    const magic = body.readUInt32LE(at);
    if (magic === LEGACY_MAGIC)
      throw bad("this is the legacy format, which is not read: write frames ('lz4', not 'lz4 -l')");
    if (magic !== MAGIC) throw at === 0 ? bad('this is no LZ4 frame') : damage.follow(body.length - at);
    const frame = readHeader(body, at + 4);
    const outline = walkBlocks(body, frame);
    const { end } = outline;
    const part = decodeFrame(backend, body, frame, outline, maxBytes, total);
    if (frame.flags & CONTENT_CHECKSUM) {
      if (end + 4 > body.length) throw cutOff();
      if (backend.hash(part) !== body.readUInt32LE(end)) throw bad('the content does not have the checksum it claims');
    }
    at = end + (frame.flags & CONTENT_CHECKSUM ? 4 : 0);
    total += part.length;
    parts.push(part);
  } while (at < body.length);
  if (parts.length === 0) throw bad('there are only skippable frames');
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts, total);
}

function readHeader(body: Buffer, start: number): Frame {
  if (start + 3 > body.length) throw cutOff();
  const flags = body[start]!;
  const descriptor = body[start + 1]!;
  if ((flags & 0b1100_0000) !== VERSION) throw bad('the frame has an unknown version');
  if ((flags & RESERVED) !== 0 || (descriptor & 0b1000_1111) !== 0) throw bad('reserved bits of the header are set');
  const blockSize = BLOCK_SIZES[(descriptor >> 4) - 4];
  if (blockSize === undefined) throw bad('the header has an unknown block size');
  let at = start + 2;
  let contentSize = -1;
  if (flags & CONTENT_SIZE) {
    if (at + 8 > body.length) throw cutOff();
    // May be past 2^53: it is compared with smaller numbers only.
    contentSize = body.readUInt32LE(at) + body.readUInt32LE(at + 4) * 2 ** 32;
    at += 8;
  }
  if (flags & DICTIONARY) at += 4;
  if (at >= body.length) throw cutOff();
  if (body[at] !== ((xxhash32(body, start, at) >>> 8) & 0xff)) throw bad('the header does not have its checksum');
  if (flags & DICTIONARY) throw bad('the frame needs a dictionary, and there is none');
  return { flags, blockSize, contentSize, blocks: at + 1 };
}

interface Outline {
  /** The position behind the end mark. */
  readonly end: number;
  readonly count: number;
  /** How long the content can be at most; exact where the header does not say how long it is. */
  readonly possible: number;
}

/** Walks the blocks to the end mark. Makes sure that all of them lie within the body. */
function walkBlocks(body: Buffer, { flags, blockSize, contentSize, blocks }: Frame): Outline {
  const trailer = flags & BLOCK_CHECKSUMS ? 4 : 0;
  let at = blocks;
  let possible = 0;
  for (let count = 0; ; count++) {
    if (at + 4 > body.length) throw cutOff();
    const head = body.readUInt32LE(at);
    at += 4;
    if (head === 0) return { end: at, count, possible };
    const length = head & ~STORED;
    if (length > blockSize) throw bad('a block is longer than the header allows');
    const end = at + length;
    if (end + trailer > body.length) throw cutOff();
    let size = length;
    if (head < STORED) {
      const history = flags & INDEPENDENT ? 0 : possible;
      size = contentSize < 0 ? measureBlock(body, at, end, history) : Math.min(length * MAX_RATIO, blockSize);
      if (size < 0 || size > blockSize) throw damaged('a block');
    }
    possible += size;
    at = end + trailer;
  }
}

function decodeFrame(
  backend: Lz4Backend,
  body: Buffer,
  { flags, blockSize, contentSize, blocks }: Frame,
  { count, possible }: Outline,
  maxBytes: number,
  before: number,
): Buffer {
  const size = contentSize < 0 ? possible : contentSize;
  if (size > maxBytes - before) throw tooLarge(maxBytes);
  if (size > possible) throw bad('the header claims more bytes than the blocks can hold');
  const checksums = (flags & BLOCK_CHECKSUMS) !== 0;
  const linked = (flags & INDEPENDENT) === 0 && count > 1;
  const origin = linked ? HEADROOM : 0;
  const output = Buffer.allocUnsafe(origin + size);
  let at = blocks;
  let filled = origin;
  for (let i = 0; i < count; i++) {
    const head = body.readUInt32LE(at);
    at += 4;
    const end = at + (head & ~STORED);
    if (checksums && backend.hash(body.subarray(at, end)) !== body.readUInt32LE(end)) {
      throw bad('a block does not have the checksum it claims');
    }
    const limit = Math.min(filled + blockSize, output.length);
    let written: number;
    if (head >= STORED) written = end - at > limit - filled ? -1 : body.copy(output, filled, at, end);
    else if (linked) written = decodeLinked(backend, body, at, end, output, filled, limit);
    else if (count === 1 && limit === output.length) written = backend.decodeBlock(body, at, end, output);
    else written = backend.decodeBlock(body, at, end, output.subarray(filled, limit));
    if (written < 0) throw bad('a block is damaged, or longer than the header allows');
    filled += written;
    at = end + (checksums ? 4 : 0);
  }
  if (filled !== output.length) throw bad('the content is shorter than the header claims');
  return linked ? output.subarray(origin) : output;
}

/**
 * Writes one frame: independent blocks, as large as the format has them, so that a body of up to 4 MiB is one block and
 * no reader has to carry a window; with content size, and a checksum, since a damaged body may still be valid JSON.
 */
export function encodeLz4(backend: Lz4Backend, body: Buffer): Buffer {
  const number = BLOCK_SIZES.findIndex((size) => body.length <= size);
  const code = number === -1 ? BLOCK_SIZES.length - 1 : number;
  const blockSize = BLOCK_SIZES[code]!;
  const blocks = Math.ceil(body.length / blockSize);
  const output = Buffer.allocUnsafe(
    HEADER_BYTES + blocks * 4 + encodeBound(Math.min(blockSize, body.length)) + body.length + 8,
  );
  output.writeUInt32LE(MAGIC);
  output[4] = VERSION | INDEPENDENT | CONTENT_SIZE | CONTENT_CHECKSUM;
  output[5] = (code + 4) << 4;
  output.writeUInt32LE(body.length % 2 ** 32, 6);
  output.writeUInt32LE(Math.floor(body.length / 2 ** 32), 10);
  output[14] = (xxhash32(output, 4, 14) >>> 8) & 0xff;
  let at = HEADER_BYTES;
  for (let start = 0; start < body.length; start += blockSize) {
    const block = body.subarray(start, start + blockSize);
    const length = backend.encodeBlock(block, output, at + 4);
    if (length < 0) throw new EncodeError('lz4: the block encoder failed');
    if (length === 0 || length >= block.length) {
      output.writeUInt32LE((STORED | block.length) >>> 0, at);
      at += 4 + block.copy(output, at + 4);
    } else {
      output.writeUInt32LE(length, at);
      at += 4 + length;
    }
  }
  output.writeUInt32LE(0, at);
  output.writeUInt32LE(backend.hash(body), at + 4);
  return output.subarray(0, at + 8);
}
