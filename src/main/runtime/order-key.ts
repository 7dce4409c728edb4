/**
 * The key of a delivery for `orderBy`, read where it lies: a hash of the routing key, of the consumer tag (which is the queue)
 * or of one header's value. Of AMQP's frames it makes no object: it runs once a message on the main thread. An envelope is parsed
 * here, but for its body, for a routing key or a header.
 */
import { FRAME_ENVELOPE, FRAME_HEAD, FRAME_OVERHEAD } from '../../codec/amqp/frames.js';
import { findHeaders } from '../../codec/amqp/properties.js';
import { findField } from '../../codec/amqp/table.js';
import { type Envelope, readEnvelope } from '../../codec/envelope.js';
import { stringifyJson } from '../../codec/json.js';
import { KombuError } from '../../errors.js';
import { NO_KEY } from './key-order.js';

export type OrderBy = 'routingKey' | 'queue' | { readonly header: string };

/** Reads the key of the delivery at [start, start + length). A message without the header has none. */
export type KeyReader = (bytes: Buffer, start: number, length: number) => number;

/** FNV-1a over a range of bytes, without the sign bit: NO_KEY is no hash. */
function hash(bytes: Uint8Array, from: number, to: number): number {
  let value = 0x811c9dc5;
  for (let at = from; at < to; at++) value = Math.imul(value ^ bytes[at]!, 0x01000193);
  return value & 0x7fffffff;
}

/** Class and method before the arguments of basic.deliver. */
const ARGUMENTS = FRAME_HEAD + 4;
/** Class, weight and body size before the flags of a content header. */
const FLAGS = FRAME_HEAD + 12;

const DASH = 0x2d;

/** Consumer tags end with the queue's place and a number that is another one after each loss: `prefix-place-number`. */
function queueKey(bytes: Buffer, start: number): number {
  const tag = start + ARGUMENTS;
  let end = tag + bytes[tag]!;
  while (end > tag + 1 && bytes[end] !== DASH) end--;
  return hash(bytes, tag + 1, end);
}

/** Behind basic.deliver. */
const secondFrame = (bytes: Buffer, start: number): number => start + bytes.readUInt32BE(start + 3) + FRAME_OVERHEAD;

/** The key that `read` finds in the envelope whose frame is at `frame`; undefined: it has none. */
function envelopeKey(bytes: Buffer, frame: number, read: (envelope: Envelope) => string | undefined): number {
  const envelope = bytes.subarray(frame + FRAME_HEAD, frame + FRAME_HEAD + bytes.readUInt32BE(frame + 3));
  let key: string | undefined;
  try {
    key = read(readEnvelope(envelope));
  } catch (error) {
    // What cannot be read fails its message, on the worker; it is ordered behind none.
    if (!(error instanceof KombuError)) throw error;
  }
  if (key === undefined) return NO_KEY;
  const octets = Buffer.from(key);
  return hash(octets, 0, octets.length);
}

const envelopeRoutingKey = (envelope: Envelope): string => envelope.routingKey;

function routingKey(bytes: Buffer, start: number): number {
  const frame = secondFrame(bytes, start);
  if (bytes[frame] === FRAME_ENVELOPE) return envelopeKey(bytes, frame, envelopeRoutingKey);
  const tag = start + ARGUMENTS;
  // Behind the consumer tag: the delivery tag, a flag, the exchange's name.
  const exchange = tag + 1 + bytes[tag]! + 9;
  const key = exchange + 1 + bytes[exchange]!;
  return hash(bytes, key + 1, key + 1 + bytes[key]!);
}

/** The content header follows basic.deliver, frames of other channels between them. `second`: the frame behind it. */
function headerFrame(bytes: Buffer, start: number, second: number): number {
  let at = second;
  while (bytes[at + 1] !== bytes[start + 1] || bytes[at + 2] !== bytes[start + 2]) {
    at += bytes.readUInt32BE(at + 3) + FRAME_OVERHEAD;
  }
  return at;
}

function headerKey(name: string): KeyReader {
  const read = (envelope: Envelope): string | undefined => {
    const value = envelope.rawHeader(name);
    // As text, so that it is the same however its sender has spaced or escaped it.
    return value === undefined || typeof value === 'string' ? value : stringifyJson(value);
  };
  return (bytes, start) => {
    const second = secondFrame(bytes, start);
    if (bytes[second] === FRAME_ENVELOPE) return envelopeKey(bytes, second, read);
    const frame = headerFrame(bytes, start, second);
    const end = frame + FRAME_HEAD + bytes.readUInt32BE(frame + 3);
    try {
      const table = findHeaders(bytes, frame + FLAGS, end);
      if (table < 0) return NO_KEY;
      const field = findField(bytes, table, end, name);
      return field === undefined ? NO_KEY : hash(bytes, field.start, field.end);
    } catch {
      // A header that cannot be read fails its message, on the worker; it is ordered behind none.
      return NO_KEY;
    }
  };
}

export function keyReader(orderBy: OrderBy): KeyReader {
  if (orderBy === 'queue') return queueKey;
  if (orderBy === 'routingKey') return routingKey;
  return headerKey(orderBy.header);
}
