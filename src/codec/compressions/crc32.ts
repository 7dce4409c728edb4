/** CRC-32, both ways round: reflected for xz, straight for bzip2. */
import zlib from 'node:zlib';

/** The reflected one, as an unsigned number. @types/node for Node 20 lacks it; Node has it from 20.15 on. */
export const crc32 = (bytes: Uint8Array): number =>
  (zlib as unknown as { crc32(bytes: Uint8Array): number }).crc32(bytes);

/** Table of the straight one: the highest bit first. */
export const CRC32_STRAIGHT = new Int32Array(256);
for (let i = 0; i < 256; i++) {
  let value = i << 24;
  for (let bit = 0; bit < 8; bit++) value = (value << 1) ^ (value < 0 ? 0x04c11db7 : 0);
  CRC32_STRAIGHT[i] = value;
}
