// Writes LZ4 frames of every kind, also those that nobody should send. Tests only: our own encoder writes one kind.

import type { Lz4Backend } from '#src/codec/compressions/lz4-backend';
import { xxhash32 } from '#src/codec/compressions/xxhash32';

export interface FrameOptions {
  readonly linked?: boolean;
  readonly contentSize?: boolean;
  readonly blockChecksums?: boolean;
  readonly contentChecksum?: boolean;
  /** The blocks with their lengths in front, in place of those that the body would give. */
  readonly blocks?: readonly Buffer[];
}

const BLOCK = 65_536;

/** A block that is stored, its length in front. */
export function stored(bytes: Buffer): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt32LE((bytes.length | 0x8000_0000) >>> 0);
  return Buffer.concat([head, bytes]);
}

function blockOf(backend: Lz4Backend, bytes: Buffer): Buffer {
  const output = Buffer.alloc(bytes.length * 2 + 100);
  const length = backend.encodeBlock(bytes, output, 4);
  if (length >= bytes.length) return stored(bytes);
  output.writeUInt32LE(length);
  return output.subarray(0, 4 + length);
}

/**
 * A block that copies what equals the block before it from there: a match of the whole length less the last five bytes.
 * Real writers do this wherever they can.
 */
function linkedBlock(previous: Buffer, bytes: Buffer): Buffer | undefined {
  const distance = previous.length;
  if (
    distance > 65_535 ||
    bytes.length < 300 ||
    !bytes.subarray(0, -5).equals(previous.subarray(0, bytes.length - 5))
  ) {
    return undefined;
  }
  let rest = bytes.length - 5 - 4 - 15;
  const lengths: number[] = [];
  for (; rest >= 255; rest -= 255) lengths.push(255);
  const block = Buffer.from([0x0f, distance & 0xff, distance >> 8, ...lengths, rest, 0x50, ...bytes.subarray(-5)]);
  const head = Buffer.alloc(4);
  head.writeUInt32LE(block.length);
  return Buffer.concat([head, block]);
}

export function lz4Frame(backend: Lz4Backend, body: Buffer, options: FrameOptions = {}): Buffer {
  const { linked = false, contentSize = false, blockChecksums = false, contentChecksum = false } = options;
  const flags =
    0x40 | (linked ? 0 : 0x20) | (blockChecksums ? 0x10 : 0) | (contentSize ? 0x08 : 0) | (contentChecksum ? 0x04 : 0);
  const size = Buffer.alloc(contentSize ? 8 : 0);
  if (contentSize) size.writeBigUInt64LE(BigInt(body.length));
  const header = Buffer.concat([Buffer.of(0x04, 0x22, 0x4d, 0x18, flags, 4 << 4), size, Buffer.of(0)]);
  header[header.length - 1] = (xxhash32(header, 4, header.length - 1) >>> 8) & 0xff;
  const parts: Buffer[] = [header];
  const blocks = options.blocks ?? cut(backend, body, linked);
  for (const block of blocks) {
    parts.push(block);
    if (blockChecksums) parts.push(sum(block.subarray(4)));
  }
  parts.push(Buffer.alloc(4));
  if (contentChecksum) parts.push(sum(body));
  return Buffer.concat(parts);
}

function cut(backend: Lz4Backend, body: Buffer, linked: boolean): Buffer[] {
  const step = linked ? BLOCK - 1024 : BLOCK; // within reach of one another
  const blocks: Buffer[] = [];
  for (let at = 0; at < body.length; at += step) {
    const bytes = body.subarray(at, at + step);
    const previous = linked && at > 0 ? linkedBlock(body.subarray(at - step, at), bytes) : undefined;
    blocks.push(previous ?? blockOf(backend, bytes));
  }
  return blocks;
}

function sum(bytes: Buffer): Buffer {
  const result = Buffer.alloc(4);
  result.writeUInt32LE(xxhash32(bytes));
  return result;
}
