/** A record of `unacked`: the JSON list `[envelope, exchange, routing key]`. The envelope's bytes are not touched. */
import { DecodeError } from '../../../errors.js';

export interface UnackedRecord {
  readonly envelope: Buffer;
  /** Empty in ours: then the routing key is the queue it was taken from. Python's have what it was published with. */
  readonly exchange: string;
  readonly routingKey: string;
}

const [QUOTE, BACKSLASH, OPEN, CLOSE, LIST] = [0x22, 0x5c, 0x7b, 0x7d, 0x5b];

/** Where the JSON object that begins at `start` ends; -1: nowhere. */
function endOfObject(bytes: Buffer, start: number): number {
  let depth = 0;
  for (let at = start; at < bytes.length; at++) {
    const byte = bytes[at];
    if (byte === QUOTE) {
      at = bytes.indexOf(QUOTE, at + 1);
      while (at >= 0 && isEscaped(bytes, at)) at = bytes.indexOf(QUOTE, at + 1);
      if (at < 0) return -1;
    } else if (byte === OPEN) {
      depth++;
    } else if (byte === CLOSE && --depth === 0) {
      return at + 1;
    }
  }
  return -1;
}

function isEscaped(bytes: Buffer, at: number): boolean {
  let before = at;
  while (bytes[before - 1] === BACKSLASH) before--;
  return (at - before) % 2 === 1;
}

/** Two texts and the end of the list: what is before them is the envelope, whatever it is. */
const END = /, ?("(?:[^"\\]|\\.)*"), ?("(?:[^"\\]|\\.)*")\]\s*$/;
/** Characters of the longest end of one. */
const LONGEST_END = 4096;

function texts(json: string): [exchange: string, routingKey: string] | undefined {
  try {
    const found: unknown = JSON.parse(json);
    if (!Array.isArray(found) || found.length !== 2) return undefined;
    const [exchange, routingKey] = found as unknown[];
    return typeof exchange === 'string' && typeof routingKey === 'string' ? [exchange, routingKey] : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Throws `DecodeError` for what is no such list. An envelope that is no JSON object is found by what follows it. */
export function readRecord(record: Buffer): UnackedRecord {
  const start = record.indexOf(OPEN);
  const isList = record.subarray(0, Math.max(0, start)).toString().trim() === '[';
  const end = isList ? endOfObject(record, start) : -1;
  if (end > 0) {
    const rest = record.subarray(end).toString();
    const found = rest.trimStart().startsWith(',') ? texts(`[${rest.trimStart().slice(1)}`) : undefined;
    if (found !== undefined) {
      return { envelope: record.subarray(start, end), exchange: found[0], routingKey: found[1] };
    }
  }
  const tail = record.latin1Slice(Math.max(0, record.length - LONGEST_END), record.length);
  const match = END.exec(tail);
  if (match !== null && record[0] === LIST) {
    const at = record.length - tail.length + match.index;
    // Two texts of UTF-8, read as bytes above.
    const found = texts(`[${Buffer.from(`${match[1]},${match[2]}`, 'latin1').toString()}]`);
    if (found !== undefined) return { envelope: record.subarray(1, at), exchange: found[0], routingKey: found[1] };
  }
  throw new DecodeError('a record of deliveries is not a list of envelope, exchange and routing key');
}

/** What follows the envelope in a record of ours. */
export function recordEnd(queue: string): string {
  return `, "", ${JSON.stringify(queue)}]`;
}
