/**
 * The outline of a zstd body (RFC 8878): where its frames start and end, and what their headers claim. Nothing is
 * decompressed. The backends disagree about several frames in a row, skippable frames and what follows the last frame
 * (Node 24 drops the second frame in silence); here that is settled for all of them.
 */
import { Buffer } from 'node:buffer';
import { damageOf, skippableEnd } from './damage.js';

export interface ZstdFrame {
  readonly start: number;
  readonly end: number;
  /** -1: the header does not say. Not to be trusted before it was compared with `possible`. */
  readonly contentSize: number;
  /** How much memory a decoder needs at least, in bytes. */
  readonly windowSize: number;
  /** The most that the frame's blocks can hold. */
  readonly possible: number;
  /** Where the frame can be cut, ascending, so that no piece of it holds more than `STRIDE` bytes. Its end is the last. */
  readonly cuts: readonly number[];
}

/** See `ZstdFrame.cuts`. */
const STRIDE = 4 * 1024 * 1024;

const MAGIC = 0xfd2fb528;
const SINGLE_SEGMENT = 0b0010_0000;
const CHECKSUM = 0b0000_0100;
const MAX_BLOCK = 128 * 1024;

const damage = damageOf('zstd', 'frame');
const { bad, cutOff, follow } = damage;

/** All frames of a body but skippable ones, in order. Throws `DecodeError`: cut off, no frame, or bytes behind the last. */
export function zstdFrames(body: Buffer): ZstdFrame[] {
  const frames: ZstdFrame[] = [];
  let at = 0;
  do {
    if (at + 4 > body.length) throw at === 0 ? cutOff() : follow(body.length - at);
    const skipped = skippableEnd(body, at, damage);
    if (skipped !== undefined) {
      at = skipped;
    } else if (body.readUInt32LE(at) === MAGIC) {
      const frame = outline(body, at);
      frames.push(frame);
      at = frame.end;
    } else {
      throw at === 0 ? bad('this is no zstd frame') : follow(body.length - at);
    }
  } while (at < body.length);
  if (frames.length === 0) throw bad('there are only skippable frames');
  return frames;
}

function outline(body: Buffer, start: number): ZstdFrame {
  const descriptor = body[start + 4];
  if (descriptor === undefined) throw cutOff();
  if ((descriptor & 0b0000_1000) !== 0) throw bad('reserved bits of the header are set');
  const single = (descriptor & SINGLE_SEGMENT) !== 0;
  const sizeBytes = [single ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  const header = start + 5 + (single ? 0 : 1) + dictionaryBytes + sizeBytes;
  if (header > body.length) throw cutOff();
  if (body.subarray(header - sizeBytes - dictionaryBytes, header - sizeBytes).some((byte) => byte !== 0)) {
    throw bad('the frame needs a dictionary, and there is none');
  }
  const contentSize = readSize(body, header - sizeBytes, sizeBytes);
  const windowSize = single ? contentSize : windowOf(body[start + 5]!);
  const { end, possible, cuts } = walkBlocks(body, header, Math.min(windowSize, MAX_BLOCK));
  const frameEnd = end + (descriptor & CHECKSUM ? 4 : 0);
  if (frameEnd > body.length) throw cutOff();
  return { start, end: frameEnd, contentSize, windowSize, possible, cuts: [...cuts, frameEnd] };
}

function readSize(body: Buffer, at: number, bytes: number): number {
  if (bytes === 0) return -1;
  if (bytes === 1) return body[at]!;
  if (bytes === 2) return body.readUInt16LE(at) + 256;
  // Eight bytes may be past 2^53: the size is compared with smaller numbers only.
  return body.readUInt32LE(at) + (bytes === 8 ? body.readUInt32LE(at + 4) * 2 ** 32 : 0);
}

function windowOf(byte: number): number {
  const base = 2 ** (10 + (byte >> 3));
  return base + (base / 8) * (byte & 7);
}

function walkBlocks(body: Buffer, start: number, maxBlock: number): Pick<ZstdFrame, 'end' | 'possible' | 'cuts'> {
  let at = start;
  let possible = 0;
  const cuts: number[] = [];
  for (let cutAt = STRIDE; ; ) {
    if (at + 3 > body.length) throw cutOff();
    const head = body.readUIntLE(at, 3);
    at += 3;
    const size = head >> 3;
    const type = (head >> 1) & 3;
    if (type === 3) throw bad('a block has an unknown type');
    if (size > maxBlock) throw bad('a block is longer than its frame allows');
    possible += type === 2 ? maxBlock : size;
    if (possible > cutAt) {
      cuts.push(at - 3);
      cutAt = possible + STRIDE - maxBlock;
    }
    at += type === 1 ? 1 : size; // type 1: one byte that is repeated
    if (at > body.length) throw cutOff();
    if (head & 1) return { end: at, possible, cuts };
  }
}

/**
 * The frame with its content size in the header. Writers that do not know it in advance leave it out, and then Python's
 * one-shot function, which kombu calls, refuses the frame.
 */
export function withContentSize(frame: Buffer, size: number): Buffer {
  const descriptor = frame[4]!;
  if (descriptor >> 6 !== 0 || (descriptor & SINGLE_SEGMENT) !== 0) return frame;
  const at = 6 + [0, 1, 2, 4][descriptor & 3]!;
  const field = Buffer.alloc(8);
  field.writeBigUInt64LE(BigInt(size));
  const result = Buffer.concat([frame.subarray(0, at), field, frame.subarray(at)]);
  result[4] = descriptor | 0b1100_0000;
  return result;
}
