/**
 * Who compresses and decompresses single LZ4 blocks: the addon of package `lz4`, which is compiled when it is installed,
 * or that of `lz4-napi`, which comes compiled. Both are optional; the first that works is used.
 *
 * Only their block functions are called. `lz4`'s own `decode` is a stream: hundreds of times slower on small bodies,
 * without an output limit, and a frame that is cut off throws a tick later, where nobody can catch it. `lz4-napi`'s
 * frame functions have no output limit either.
 */
import { Buffer } from 'node:buffer';
import { load, type Optional, once } from '../optional.js';
import { xxhash32 } from './xxhash32.js';

/** Blocks are bounded by the buffers given: whatever a block says, nothing is read or written outside of them. */
export interface Lz4Backend {
  readonly name: 'lz4' | 'lz4-napi';
  /** Decodes `input[start, end)` into `output`; how many bytes it wrote, or less than 0: damaged, or `output` too short. */
  decodeBlock(input: Buffer, start: number, end: number, output: Buffer): number;
  /** Compresses `input` into `output` from `at` on; how many bytes it wrote, or 0: there is no room for it. */
  encodeBlock(input: Buffer, output: Buffer, at: number): number;
  /** xxHash32 of the bytes. */
  hash(bytes: Buffer): number;
}

/** The longest a block of `length` bytes can get. */
export const encodeBound = (length: number): number => length + Math.floor(length / 255) + 16;

interface Addon {
  readonly bindings: {
    uncompress(input: Buffer, output: Buffer, start: number, end: number): number;
    compress(input: Buffer, output: Buffer, start: number, end: number): number;
  };
  blockChecksum(bytes: Buffer): number;
}

/** The crossing into the addon costs more than hashing this many bytes here. */
const HASH_HERE = 256;

const native = once((): Lz4Backend => {
  // Not the package's main module, which loads its streams as well.
  const { bindings, blockChecksum } = load('lz4/lib/utils') as Addon;
  return {
    name: 'lz4',
    decodeBlock: (input, start, end, output) => {
      // The addon does not look at these itself.
      if (start < 0 || start > end || end > input.length) return -1;
      return bindings.uncompress(input, output, start, end);
    },
    encodeBlock: (input, output, at) => bindings.compress(input, output, at, output.length),
    hash: (bytes) => (bytes.length < HASH_HERE ? xxhash32(bytes) : blockChecksum(bytes) >>> 0),
  };
});

interface Napi {
  /** Both know the length of a block from four bytes in front of it. */
  uncompressSync(sized: Buffer): Buffer;
  compressSync(bytes: Buffer): Buffer;
}

const napi = once((): Lz4Backend => {
  const { uncompressSync, compressSync } = load('lz4-napi') as Napi;
  return {
    name: 'lz4-napi',
    decodeBlock: (input, start, end, output) => {
      if (start < 0 || start > end || end > input.length) return -1;
      const sized = Buffer.allocUnsafe(4 + end - start);
      sized.writeUInt32LE(output.length);
      input.copy(sized, 4, start, end);
      let plain: Buffer;
      try {
        plain = uncompressSync(sized);
      } catch {
        return -1; // its text names offsets inside the block; the caller says which block it was
      }
      return plain.length > output.length ? -1 : plain.copy(output);
    },
    encodeBlock: (input, output, at) => {
      const sized = compressSync(input);
      return sized.length - 4 > output.length - at ? 0 : sized.copy(output, at, 4);
    },
    hash: (bytes) => xxhash32(bytes),
  };
});

/** Every backend, the preferred one first: whether it works here, and if not, why. */
export function lz4Backends(): { readonly name: Lz4Backend['name']; readonly found: Optional<Lz4Backend> }[] {
  return [
    { name: 'lz4', found: native() },
    { name: 'lz4-napi', found: napi() },
  ];
}

/** The one that is used, or undefined: neither works here. */
export function lz4Backend(): Lz4Backend | undefined {
  const first = native();
  if ('value' in first) return first.value;
  const second = napi();
  return 'value' in second ? second.value : undefined;
}
