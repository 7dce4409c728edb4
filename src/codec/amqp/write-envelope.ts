/**
 * Writes deliveries whose message is kombu's envelope: see `FRAME_ENVELOPE`. What differs by consumer is made once, what
 * differs by delivery is at fixed distances from its end.
 *
 *   ┌ prefix ───────────────────────────────────────────────────────────────────────────────┐
 *   method frame: head, basic.deliver, consumer tag, tag, redelivered, "", "", 0xCE │ frame's head │ envelope │ 0xCE
 */
import { BASIC_DELIVER, FRAME_END, FRAME_ENVELOPE, FRAME_HEAD, FRAME_METHOD, FRAME_OVERHEAD } from './frames.js';

/** Every delivery made here is of this channel: frames of others do not lie between. */
const CHANNEL = 1;

/** Behind the redelivered octet: two empty names, the end octet, the head of the next frame. */
const TAIL = 3 + FRAME_HEAD;

/** What opens each delivery to one consumer; of the tag at most 255 bytes. */
export function envelopePrefix(consumerTag: string): Buffer {
  const tag = Buffer.from(consumerTag, 'utf8');
  if (tag.length > 255) throw new RangeError('a consumer tag is over 255 bytes');
  // Class and method, the consumer tag and its length, the tag, redelivered, the two names.
  const size = 4 + 1 + tag.length + 8 + 1 + 2;
  const prefix = Buffer.alloc(size + FRAME_OVERHEAD + FRAME_HEAD);
  prefix[0] = FRAME_METHOD;
  prefix.writeUInt16BE(CHANNEL, 1);
  prefix.writeUInt32BE(size, 3);
  prefix.writeInt32BE(BASIC_DELIVER, FRAME_HEAD);
  prefix[FRAME_HEAD + 4] = tag.length;
  tag.copy(prefix, FRAME_HEAD + 5);
  const frame = size + FRAME_OVERHEAD;
  prefix[frame - 1] = FRAME_END;
  prefix[frame] = FRAME_ENVELOPE;
  prefix.writeUInt16BE(CHANNEL, frame + 1);
  return prefix;
}

/** Bytes that a delivery of the envelope needs. */
export function envelopeDeliveryLength(prefix: Buffer, envelope: Uint8Array): number {
  return prefix.length + envelope.length + 1;
}

/**
 * Writes a delivery at `at`; returns the offset behind it. The copy is fast only if `at` plus the prefix's length is equal to the
 * envelope's `byteOffset` modulo 8 (shared memory on Node 20: ten times), so that is what to choose `at` by:
 * `ArenaWriter.place(length, prefix.length, envelope.byteOffset & 7)`.
 */
export function writeEnvelopeDelivery(
  out: Buffer,
  at: number,
  prefix: Buffer,
  envelope: Uint8Array,
  tag: number,
  redelivered: boolean,
): number {
  const length = prefix.length;
  for (let i = 0; i < length; i++) out[at + i] = prefix[i]!;
  const start = at + length;
  const behindTag = start - TAIL - 1;
  const high = Math.floor(tag / 2 ** 32);
  out[behindTag - 8] = high >>> 24;
  out[behindTag - 7] = high >>> 16;
  out[behindTag - 6] = high >>> 8;
  out[behindTag - 5] = high;
  out[behindTag - 4] = tag >>> 24;
  out[behindTag - 3] = tag >>> 16;
  out[behindTag - 2] = tag >>> 8;
  out[behindTag - 1] = tag;
  out[behindTag] = redelivered ? 1 : 0;
  const size = envelope.length;
  out[start - 4] = size >>> 24;
  out[start - 3] = size >>> 16;
  out[start - 2] = size >>> 8;
  out[start - 1] = size;
  out.set(envelope, start);
  out[start + size] = FRAME_END;
  return start + size + 1;
}
