/**
 * Two things about single LZ4 blocks that no backend offers: how long a block gets, without decoding it, and decoding a
 * block that refers to the 64 KiB in front of it ("linked", what Python writes).
 *
 * A block is a row of sequences: a token (two lengths of 4 bits, each continued in bytes of 255), literals, then two
 * bytes that say how far back to copy from. The last sequence ends after its literals.
 */
import { Buffer } from 'node:buffer';
import type { Lz4Backend } from './lz4-backend.js';

/** How far back a block can refer. */
const REACH = 65_535;
/** Bytes that must lie in front of the output of `decodeLinked`. */
export const HEADROOM = 8;

/**
 * How many bytes the block `input[start, end)` decodes to, or -1: it is no block, or refers to more than the `history`
 * bytes in front of it. Looks at the tokens only.
 */
export function measureBlock(input: Uint8Array, start: number, end: number, history: number): number {
  let at = start;
  let size = 0;
  while (at < end) {
    const token = input[at++]!;
    let literals = token >> 4;
    if (literals === 15) {
      let more = 255;
      while (more === 255 && at < end) literals += more = input[at++]!;
      if (more === 255) return -1;
    }
    at += literals;
    size += literals;
    if (at === end) return size;
    if (at + 2 > end) return -1;
    const offset = input[at]! | (input[at + 1]! << 8);
    if (offset === 0 || offset > history + size) return -1;
    at += 2;
    let match = token & 15;
    if (match === 15) {
      let more = 255;
      while (more === 255 && at < end) match += more = input[at++]!;
      if (more === 255) return -1;
    }
    size += match + 4;
  }
  return -1; // the last sequence has a match, or there is none
}

/**
 * Decodes the linked block `input[start, end)` to `output` at `at`, up to `limit`; how many bytes it wrote, or -1.
 *
 * No backend can be told what precedes a block, so the block is given a first sequence that says it. With H for the last
 * n bytes of the output (n at most 65535, what a block can refer to), that sequence has n literals, the last four
 * bytes of H and then H without them, and a match of four bytes at distance n, which are the last four of H again:
 *
 *     literals: H[n-4, n) H[0, n-4)   match: H[n-4, n)   then the block's own sequences
 *               ^ at - n - 4          ^ at - 4           ^ at
 *
 * So the decoder writes H over itself, four other bytes in front of it, which are put back afterwards, and the block
 * behind it, in place. It stays the bounds-checked decoder it is; the price is to copy 64 KiB twice for each block.
 *
 * A block without a match is copied here: after a match the decoders want more literals than such a block may have.
 */
export function decodeLinked(
  backend: Lz4Backend,
  input: Buffer,
  start: number,
  end: number,
  output: Buffer,
  at: number,
  limit: number,
): number {
  const history = at - HEADROOM;
  if (history === 0) return backend.decodeBlock(input, start, end, output.subarray(at, limit));
  const literals = literalsOf(input, start, end);
  if (literals >= 0) return literals > limit - at ? -1 : input.copy(output, at, end - literals, end);
  // Later blocks cannot reach further than what is there. Early ones must not see the four bytes, nor, since a match is
  // four bytes long, what is made up where there are fewer.
  if (history < REACH && measureBlock(input, start, end, history) < 0) return -1;
  const n = Math.min(Math.max(history, 4), REACH);
  const from = at - n;
  const sequence = Buffer.allocUnsafe(1 + Math.ceil(n / 255) + n + 2 + end - start);
  sequence[0] = Math.min(n, 15) << 4;
  let length = 1;
  if (n >= 15) {
    let rest = n - 15;
    for (; rest >= 255; rest -= 255) sequence[length++] = 255;
    sequence[length++] = rest;
  }
  length += output.copy(sequence, length, at - 4, at);
  length += output.copy(sequence, length, from, at - 4);
  sequence.writeUInt16LE(n, length);
  length += 2;
  length += input.copy(sequence, length, start, end);
  const kept = output.readUInt32LE(from - 4);
  const written = backend.decodeBlock(sequence, 0, length, output.subarray(from - 4, limit));
  output.writeUInt32LE(kept, from - 4);
  return written < n + 4 ? -1 : written - n - 4;
}

/** How many literals the block has, if it has nothing else, or -1. */
function literalsOf(input: Uint8Array, start: number, end: number): number {
  let at = start;
  const token = input[at++]!;
  let literals = token >> 4;
  if (literals === 15) {
    let more = 255;
    while (more === 255 && at < end) literals += more = input[at++]!;
    if (more === 255) return -1;
  }
  return at + literals === end ? literals : -1;
}
