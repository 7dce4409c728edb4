/** What the decoders say of bytes that they cannot decode, in one wording; and the frames that lz4 and zstd both skip. */
import type { Buffer } from 'node:buffer';
import { DecodeError } from '../../errors.js';

export interface Damage {
  /** With the codec's name in front. */
  readonly bad: (why: string) => DecodeError;
  readonly damaged: (what: string) => DecodeError;
  readonly cutOff: () => DecodeError;
  readonly follow: (count: number) => DecodeError;
}

/** `unit`: what the format calls what a body is made of. */
export function damageOf(codec: string, unit: 'frame' | 'stream'): Damage {
  const bad = (why: string): DecodeError => new DecodeError(`${codec}: ${why}`);
  return {
    bad,
    damaged: (what) => bad(`${what} is damaged`),
    cutOff: () => bad(`the ${unit} is cut off`),
    follow: (count) => bad(`${count} bytes follow the last ${unit}`),
  };
}

/** 16 of them, all but the last four bits. */
const SKIPPABLE_MAGIC = 0x184d2a50;

/** Where the skippable frame at `at` ends; undefined: it is a frame of another kind. Four bytes must be there. */
export function skippableEnd(body: Buffer, at: number, { cutOff }: Damage): number | undefined {
  if ((body.readUInt32LE(at) & ~15) !== SKIPPABLE_MAGIC) return undefined;
  if (at + 8 > body.length) throw cutOff();
  const end = at + 8 + body.readUInt32LE(at + 4);
  if (end > body.length) throw cutOff();
  return end;
}
