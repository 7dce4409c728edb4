/**
 * Reads bzip2: streams in a row, with their checksums, into an output that grows up to a limit and never past it (a
 * block of 40 bytes can stand for 45 MB).
 *
 * Written here, because the packages that do it are of no use: seek-bzip drops bytes that follow the stream and prints a
 * deprecation warning, unbzip2-stream is asynchronous, and none writes. Not read: the "randomised" blocks that bzip2 stopped writing
 * in 1999.
 */
import { Buffer } from 'node:buffer';
import { CRC32_STRAIGHT } from './crc32.js';
import { damageOf } from './damage.js';
import { tooLarge } from './limit.js';

const BLOCK_MAGIC = 0x314159265359;
const END_MAGIC = 0x177245385090;
const RUN_A = 0;
const RUN_B = 1;
const GROUP = 50;
const MAX_CODE = 20;

const { bad, cutOff, damaged, follow } = damageOf('bzip2', 'stream');

/** Decodes all streams of a body. Throws `DecodeError`, `MessageTooLarge` past `maxBytes`. */
export function decodeBzip2(body: Buffer, maxBytes: number): Buffer {
  const output = new Output(maxBytes);
  const bits = new Bits(body);
  do {
    const magic = body.subarray(bits.byte, bits.byte + 4);
    if (magic.length < 4 || magic.toString('latin1', 0, 3) !== 'BZh' || magic[3]! < 49 || magic[3]! > 57) {
      if (bits.byte > 0) throw follow(body.length - bits.byte);
      throw magic.length < 4 ? cutOff() : bad('this is no bzip2 stream');
    }
    bits.byte += 4;
    decodeStream(bits, (magic[3]! - 48) * 100_000, output);
  } while (bits.byte < body.length);
  return output.finish();
}

function decodeStream(bits: Bits, blockSize: number, output: Output): void {
  let combined = 0;
  for (;;) {
    const magic = bits.read(24) * 2 ** 24 + bits.read(24);
    const checksum = (bits.read(16) << 16) | bits.read(16);
    if (magic === END_MAGIC) {
      if (checksum !== combined) throw bad('the stream does not have its checksum');
      bits.align();
      return;
    }
    if (magic !== BLOCK_MAGIC) throw damaged('a block');
    const places = placesFor(blockSize);
    const { length, origin } = readBlock(bits, places);
    const found = writeBlock(places, length, origin, output);
    if (found !== checksum) throw bad('a block does not have its checksum');
    combined = ((combined << 1) | (combined >>> 31)) ^ checksum;
  }
}

let kept = new Uint32Array(0);

/** Room for a block, kept for the next body: nearly every stream announces blocks of 900 kB, however short it is. */
function placesFor(blockSize: number): Uint32Array {
  if (kept.length < blockSize) kept = new Uint32Array(blockSize);
  return kept.length === blockSize ? kept : kept.subarray(0, blockSize);
}

/** Reads the block's bytes, still sorted, into the low octets of `places`. */
function readBlock(bits: Bits, places: Uint32Array): { length: number; origin: number } {
  if (bits.read(1) === 1) throw bad('the block is randomised, which is not read');
  const origin = bits.read(24);
  const symbols = readAlphabet(bits);
  const endOfBlock = symbols.length + 1;
  const codeCount = bits.read(3);
  if (codeCount < 2 || codeCount > 6) throw damaged('a block');
  const selectors = readSelectors(bits, codeCount);
  const codes = Array.from({ length: codeCount }, () => readCode(bits, endOfBlock + 1));
  let length = 0;
  let group = 0;
  let left = 0;
  let code: Code | undefined;
  let run = 0;
  let runBit = 1;
  for (;;) {
    if (left === 0) {
      code = codes[selectors[group++] ?? -1];
      left = GROUP;
    }
    left--;
    if (code === undefined) throw damaged('a block');
    const symbol = readSymbol(bits, code);
    if (symbol <= RUN_B) {
      // A run's length in digits 1 and 2, the lowest first.
      run += runBit << (symbol === RUN_A ? 0 : 1);
      runBit <<= 1;
      if (run > places.length) throw bad('a block is longer than its stream allows');
      continue;
    }
    if (run > 0) {
      if (run > places.length - length) throw bad('a block is longer than its stream allows');
      places.fill(symbols[0]!, length, length + run);
      length += run;
      run = 0;
      runBit = 1;
    }
    if (symbol === endOfBlock) break;
    if (length === places.length) throw bad('a block is longer than its stream allows');
    const byte = symbols[symbol - 1]!;
    symbols.copyWithin(1, 0, symbol - 1);
    symbols[0] = byte;
    places[length++] = byte;
  }
  if (origin >= length) throw damaged('a block');
  return { length, origin };
}

/** The bytes that occur, two levels of 16 bits. */
function readAlphabet(bits: Bits): Uint8Array {
  const used = bits.read(16);
  const symbols: number[] = [];
  for (let high = 0; high < 16; high++) {
    if ((used & (0x8000 >> high)) === 0) continue;
    const row = bits.read(16);
    for (let low = 0; low < 16; low++) if ((row & (0x8000 >> low)) !== 0) symbols.push(high * 16 + low);
  }
  if (symbols.length === 0) throw damaged('a block');
  return Uint8Array.from(symbols);
}

/** Which code each group of 50 symbols is written in. */
function readSelectors(bits: Bits, codeCount: number): Uint8Array {
  const count = bits.read(15);
  if (count === 0) throw damaged('a block');
  const recent = Array.from({ length: codeCount }, (_, i) => i);
  const selectors = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    let place = 0;
    while (bits.read(1) === 1) if (++place >= codeCount) throw damaged('a block');
    const [selector] = recent.splice(place, 1);
    recent.unshift(selector!);
    selectors[i] = selector!;
  }
  return selectors;
}

/** A Huffman code: for each length, the last code word of it and what to take off a word to find its symbol. */
interface Code {
  readonly last: Int32Array;
  readonly base: Int32Array;
  readonly symbols: Uint16Array;
}

function readCode(bits: Bits, count: number): Code {
  const lengths = new Uint8Array(count);
  let length = bits.read(5);
  for (let i = 0; i < count; i++) {
    for (;;) {
      if (length < 1 || length > MAX_CODE) throw damaged('a block');
      if (bits.read(1) === 0) break;
      length += bits.read(1) === 0 ? 1 : -1;
    }
    lengths[i] = length;
  }
  const last = new Int32Array(MAX_CODE + 1).fill(-1);
  const base = new Int32Array(MAX_CODE + 1);
  const symbols = new Uint16Array(count);
  let word = 0;
  let placed = 0;
  for (let size = 1; size <= MAX_CODE; size++) {
    base[size] = word - placed;
    for (let symbol = 0; symbol < count; symbol++) {
      if (lengths[symbol] !== size) continue;
      symbols[placed++] = symbol;
      word++;
    }
    last[size] = word - 1;
    word <<= 1;
  }
  return { last, base, symbols };
}

function readSymbol(bits: Bits, { last, base, symbols }: Code): number {
  let word = 0;
  for (let size = 1; size <= MAX_CODE; size++) {
    word = (word << 1) | bits.read(1);
    if (word <= last[size]!) {
      const symbol = symbols[word - base[size]!];
      if (symbol === undefined) break;
      return symbol;
    }
  }
  throw damaged('a block');
}

/** Undoes the sorting, then the runs of four equal bytes and a count; the checksum of what it wrote. */
function writeBlock(places: Uint32Array, length: number, origin: number, output: Output): number {
  const starts = new Uint32Array(256);
  for (let i = 0; i < length; i++) starts[places[i]! & 0xff]!++;
  let sum = 0;
  for (let byte = 0; byte < 256; byte++) {
    const count = starts[byte]!;
    starts[byte] = sum;
    sum += count;
  }
  for (let i = 0; i < length; i++) {
    const byte = places[i]! & 0xff;
    places[starts[byte]!]! |= i << 8;
    starts[byte]!++;
  }
  let place = places[origin]! >>> 8;
  let checksum = -1;
  let previous = -1;
  let equal = 0;
  for (let i = 0; i < length; i++) {
    const entry = places[place]!;
    const byte = entry & 0xff;
    place = entry >>> 8;
    if (equal === 4) {
      checksum = output.repeat(previous, byte, checksum);
      equal = 0;
      previous = -1;
      continue;
    }
    equal = byte === previous ? equal + 1 : 1;
    previous = byte;
    output.push(byte);
    checksum = (checksum << 8) ^ CRC32_STRAIGHT[((checksum >>> 24) ^ byte) & 0xff]!;
  }
  return ~checksum;
}

/** Bytes that double their room, up to a limit. */
class Output {
  #bytes = Buffer.allocUnsafe(4096);
  #length = 0;

  constructor(private readonly maxBytes: number) {}

  push(byte: number): void {
    if (this.#length === this.#bytes.length || this.#length === this.maxBytes) this.#grow(1);
    this.#bytes[this.#length++] = byte;
  }

  repeat(byte: number, count: number, checksum: number): number {
    if (this.#length + count > Math.min(this.#bytes.length, this.maxBytes)) this.#grow(count);
    this.#bytes.fill(byte, this.#length, this.#length + count);
    this.#length += count;
    let sum = checksum;
    for (let i = 0; i < count; i++) sum = (sum << 8) ^ CRC32_STRAIGHT[((sum >>> 24) ^ byte) & 0xff]!;
    return sum;
  }

  #grow(by: number): void {
    if (this.#length + by > this.maxBytes) throw tooLarge(this.maxBytes);
    const longer = Buffer.allocUnsafe(Math.min(Math.max(this.#bytes.length * 2, this.#length + by), this.maxBytes));
    this.#bytes.copy(longer, 0, 0, this.#length);
    this.#bytes = longer;
  }

  finish(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }
}

/** Reads bits, the highest first. */
class Bits {
  /** The next byte to take up; where `align` was called before, the next byte of the stream. */
  byte = 0;
  #held = 0;
  #count = 0;

  constructor(private readonly bytes: Buffer) {}

  /** Up to 24 bits. */
  read(count: number): number {
    while (this.#count < count) {
      if (this.byte >= this.bytes.length) throw cutOff();
      this.#held = ((this.#held << 8) | this.bytes[this.byte++]!) & 0xffffffff;
      this.#count += 8;
    }
    this.#count -= count;
    return (this.#held >>> this.#count) & ((1 << count) - 1);
  }

  /** Drops what is left of the byte. */
  align(): void {
    this.#count = 0;
  }
}
