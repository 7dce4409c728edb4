/**
 * Writes bzip2 with blocks of 900 kB, as Python does by default. Every block has one Huffman code (the format wants two,
 * so it is sent twice) where bzip2 fits up to six: a few per cent longer, and far simpler. It is for senders whose
 * receivers want bzip2; who is free to choose takes zstd.
 */
import { Buffer } from 'node:buffer';
import { CRC32_STRAIGHT } from './crc32.js';

/** 19 bytes are left, as bzip2 leaves them. */
const BLOCK = 900_000 - 19;
const GROUP = 50;
const MAX_CODE = 17;
const MAX_RUN = 255 + 4;

export function encodeBzip2(body: Buffer): Buffer {
  const bits = new BitWriter(body.length);
  for (const byte of Buffer.from('BZh9')) bits.write(byte, 8);
  let combined = 0;
  let at = 0;
  while (at < body.length) {
    const { block, end, checksum } = takeBlock(body, at);
    combined = ((combined << 1) | (combined >>> 31)) ^ checksum;
    bits.write(0x314159, 24);
    bits.write(0x265359, 24);
    bits.write32(checksum);
    writeBlock(bits, block);
    at = end;
  }
  bits.write(0x177245, 24);
  bits.write(0x385090, 24);
  bits.write32(combined);
  return bits.finish();
}

/** The next block, where runs of 4 to 259 equal bytes are four of them and a count. */
function takeBlock(body: Buffer, start: number): { block: Uint8Array; end: number; checksum: number } {
  const block = new Uint8Array(Math.min(BLOCK, Math.ceil((body.length - start) * 1.25) + 5));
  let length = 0;
  let at = start;
  let checksum = -1;
  while (at < body.length && length + 5 <= block.length) {
    const byte = body[at]!;
    let run = 1;
    while (run < MAX_RUN && body[at + run] === byte) run++;
    at += run;
    for (let i = 0; i < run; i++) checksum = (checksum << 8) ^ CRC32_STRAIGHT[((checksum >>> 24) ^ byte) & 0xff]!;
    for (let i = 0; i < Math.min(run, 4); i++) block[length++] = byte;
    if (run >= 4) block[length++] = run - 4;
  }
  return { block: block.subarray(0, length), end: at, checksum: ~checksum };
}

function writeBlock(bits: BitWriter, block: Uint8Array): void {
  const { sorted, origin } = sortRotations(block);
  const used = Array.from({ length: 256 }, () => false);
  for (const byte of block) used[byte] = true;
  bits.write(0, 1);
  bits.write(origin, 24);
  const alphabet = used.flatMap((is, byte) => (is ? [byte] : []));
  writeAlphabet(bits, used);
  const symbols = moveToFront(sorted, alphabet);
  const size = alphabet.length + 2;
  const counts = new Array<number>(size).fill(0);
  for (const symbol of symbols) counts[symbol]!++;
  const lengths = codeLengths(counts);
  const groups = Math.ceil(symbols.length / GROUP);
  bits.write(2, 3);
  bits.write(groups, 15);
  for (let i = 0; i < groups; i++) bits.write(0, 1);
  for (let i = 0; i < 2; i++) writeLengths(bits, lengths);
  const words = codeWords(lengths);
  for (const symbol of symbols) bits.write(words[symbol]!, lengths[symbol]!);
}

/**
 * Sorts all rotations of the block; the last bytes of them in that order, and where the block itself is. By doubling:
 * rotations sorted by their first k bytes sort by 2k with two keys each, which are ranks found before. So text that
 * repeats itself takes a few more rounds and not forever.
 */
function sortRotations(block: Uint8Array): { sorted: Uint8Array; origin: number } {
  const n = block.length;
  const order = new Int32Array(n);
  let spare = new Int32Array(n);
  let rank = new Int32Array(n);
  let nextRank = new Int32Array(n);
  const counts = new Int32Array(Math.max(n, 256) + 1);
  for (let i = 0; i < n; i++) counts[block[i]! + 1]!++;
  for (let i = 0; i < 256; i++) counts[i + 1]! += counts[i]!;
  const starts = counts.slice(0, 256);
  for (let i = 0; i < n; i++) {
    rank[i] = starts[block[i]!]!;
    order[counts[block[i]!]!++] = i;
  }
  for (let k = 1, classes = 0; k < n && classes < n; k *= 2) {
    // By the second key they are in order already: it is the first key, k places on.
    for (let i = 0; i < n; i++) spare[i] = order[i]! >= k ? order[i]! - k : order[i]! - k + n;
    counts.fill(0);
    // A rank is the place of the first of its class, so it is where that class starts.
    for (let i = 0; i < n; i++) {
      const rotation = spare[i]!;
      const first = rank[rotation]!;
      order[first + counts[first]!++] = rotation;
    }
    classes = 0;
    let start = 0;
    for (let i = 0; i < n; i++) {
      const [here, before] = [order[i]!, order[i - 1] ?? -1];
      if (
        before < 0 ||
        rank[here] !== rank[before] ||
        rank[here + k >= n ? here + k - n : here + k] !== rank[before + k >= n ? before + k - n : before + k]
      ) {
        start = i;
        classes++;
      }
      nextRank[here] = start;
    }
    [rank, nextRank] = [nextRank, rank];
  }
  spare = order;
  const sorted = new Uint8Array(n);
  let origin = 0;
  for (let i = 0; i < n; i++) {
    const rotation = spare[i]!;
    if (rotation === 0) origin = i;
    sorted[i] = block[rotation === 0 ? n - 1 : rotation - 1]!;
  }
  return { sorted, origin };
}

/** Each byte as its place among those seen last; runs of place 0 as their length in digits 1 and 2. */
function moveToFront(sorted: Uint8Array, alphabet: readonly number[]): Uint16Array {
  const recent = Uint8Array.from(alphabet);
  const symbols = new Uint16Array(sorted.length + 1);
  let length = 0;
  let run = 0;
  const flush = (): void => {
    for (; run > 0; run = (run - 1) >> 1) symbols[length++] = (run - 1) & 1;
  };
  for (const byte of sorted) {
    const place = recent.indexOf(byte);
    if (place === 0) {
      run++;
      continue;
    }
    flush();
    recent.copyWithin(1, 0, place);
    recent[0] = byte;
    symbols[length++] = place + 1;
  }
  flush();
  symbols[length++] = alphabet.length + 1;
  return symbols.subarray(0, length);
}

/** Huffman code lengths, none over 17: rare symbols are counted as less rare until that holds. */
function codeLengths(counts: readonly number[]): number[] {
  let weights = counts.map((count) => Math.max(count, 1));
  for (;;) {
    const lengths = huffman(weights);
    if (Math.max(...lengths) <= MAX_CODE) return lengths;
    weights = weights.map((weight) => (weight >> 1) + 1);
  }
}

function huffman(weights: readonly number[]): number[] {
  const parents: number[] = [];
  const heap = weights.map((weight, node) => ({ weight, node })).sort((a, b) => a.weight - b.weight);
  let next = weights.length;
  // Two queues: what was joined comes in order of weight by itself.
  const joined: { weight: number; node: number }[] = [];
  const lightest = (): { weight: number; node: number } => {
    const [a, b] = [heap[0], joined[0]];
    return (b === undefined || (a !== undefined && a.weight <= b.weight) ? heap.shift() : joined.shift())!;
  };
  while (heap.length + joined.length > 1) {
    const [a, b] = [lightest(), lightest()];
    parents[a.node] = parents[b.node] = next;
    joined.push({ weight: a.weight + b.weight, node: next++ });
  }
  return weights.map((_, node) => {
    let depth = 0;
    for (let at = parents[node]; at !== undefined; at = parents[at]) depth++;
    return depth;
  });
}

function codeWords(lengths: readonly number[]): number[] {
  const words: number[] = [];
  let word = 0;
  for (let size = 1; size <= MAX_CODE; size++) {
    for (let symbol = 0; symbol < lengths.length; symbol++) if (lengths[symbol] === size) words[symbol] = word++;
    word <<= 1;
  }
  return words;
}

function writeAlphabet(bits: BitWriter, used: readonly boolean[]): void {
  const rows = Array.from({ length: 16 }, (_, high) => used.slice(high * 16, high * 16 + 16));
  for (const row of rows) bits.write(row.includes(true) ? 1 : 0, 1);
  for (const row of rows) if (row.includes(true)) for (const is of row) bits.write(is ? 1 : 0, 1);
}

function writeLengths(bits: BitWriter, lengths: readonly number[]): void {
  let current = lengths[0]!;
  bits.write(current, 5);
  for (const length of lengths) {
    for (; current < length; current++) bits.write(0b10, 2);
    for (; current > length; current--) bits.write(0b11, 2);
    bits.write(0, 1);
  }
}

/** Writes bits, the highest first. */
class BitWriter {
  #bytes: Buffer;
  #length = 0;
  #held = 0;
  #count = 0;

  constructor(expected: number) {
    this.#bytes = Buffer.allocUnsafe(Math.max(256, expected));
  }

  /** Up to 24 bits. */
  write(value: number, count: number): void {
    this.#held = (this.#held << count) | value;
    this.#count += count;
    while (this.#count >= 8) {
      this.#count -= 8;
      if (this.#length === this.#bytes.length) this.#bytes = Buffer.concat([this.#bytes], this.#length * 2);
      this.#bytes[this.#length++] = this.#held >>> this.#count;
    }
    this.#held &= (1 << this.#count) - 1;
  }

  write32(value: number): void {
    this.write(value >>> 16, 16);
    this.write(value & 0xffff, 16);
  }

  finish(): Buffer {
    if (this.#count > 0) this.write(0, 8 - this.#count);
    return Buffer.from(this.#bytes.subarray(0, this.#length));
  }
}
