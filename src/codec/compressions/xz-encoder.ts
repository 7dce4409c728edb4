/** Writes one .xz stream of one block, with CRC64: what Python's `lzma.compress` writes, and every reader reads. */
import { Buffer } from 'node:buffer';
import { crc32 } from './crc32.js';
import { crc64 } from './crc64.js';
import { encodeLzma2 } from './lzma-encoder.js';
import { XZ_MAGIC } from './xz.js';

const CRC64 = 4;
const FLAGS = Buffer.of(0, CRC64);
/** As `xz -6` and Python; a reader may keep this much. */
const MAX_DICTIONARY = 8 * 1024 * 1024;

export function encodeXz(body: Buffer): Buffer {
  const header = Buffer.concat([XZ_MAGIC, FLAGS, checksumOf(FLAGS)]);
  if (body.length === 0) {
    const index = withChecksum(Buffer.of(0, 0, 0, 0));
    return Buffer.concat([header, index, footer(index)]);
  }
  let power = 12;
  while (2 ** power < body.length && 2 ** power < MAX_DICTIONARY) power++;
  // one filter, no sizes: LZMA2, one byte of properties: 2^(12 + n / 2)
  const block = withChecksum(Buffer.of(2, 0, 0x21, 1, (power - 12) * 2, 0, 0, 0));
  const chunks = encodeLzma2(body, 2 ** power);
  const check = crc64(body);
  const unpadded = block.length + chunks.length + check.length;
  const records = Buffer.concat([Buffer.of(0, 1), integer(unpadded), integer(body.length)]);
  const index = withChecksum(Buffer.concat([records, padding(records.length)]));
  return Buffer.concat([header, block, chunks, padding(chunks.length), check, index, footer(index)]);
}

function footer(index: Buffer): Buffer {
  const size = Buffer.alloc(4);
  size.writeUInt32LE(index.length / 4 - 1);
  const checked = Buffer.concat([size, FLAGS]);
  return Buffer.concat([checksumOf(checked), checked, Buffer.from('YZ')]);
}

const padding = (length: number): Buffer => Buffer.alloc((4 - (length & 3)) & 3);

function integer(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return Buffer.from([...bytes, rest]);
}

function checksumOf(bytes: Buffer): Buffer {
  const sum = Buffer.alloc(4);
  sum.writeUInt32LE(crc32(bytes));
  return sum;
}

function withChecksum(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, checksumOf(bytes)]);
}
