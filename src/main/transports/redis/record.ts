/** A record of `unacked`: the JSON list `[envelope, exchange, routing key]`. The envelope's bytes are not touched. */
import { DecodeError } from '../../../errors.js';

export interface UnackedRecord {
  readonly envelope: Buffer;
  /** Empty in ours: then the routing key is the queue it was taken from. Python's have what it was published with. */
  readonly exchange: string;
  readonly routingKey: string;
}

const [QUOTE, BACKSLASH, OPEN, CLOSE, OPEN_LIST] = [0x22, 0x5c, 0x7b, 0x7d, 0x5b];

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

/** The end of ours, whatever is before it: what was in a queue need not be JSON. */
const OUR_END = /, "", ("(?:[^"\\]|\\.)*")\]$/;

function readOurs(record: Buffer): UnackedRecord | undefined {
  const found = OUR_END.exec(record.toString('latin1'));
  if (found === null || record[0] !== OPEN_LIST) return undefined;
  const name = record.subarray(found.index + ', "", '.length, record.length - 1).toString();
  try {
    return { envelope: record.subarray(1, found.index), exchange: '', routingKey: JSON.parse(name) as string };
  } catch (error) {
    // Not as we write it.
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Throws `DecodeError` for what is no such list. */
export function readRecord(record: Buffer): UnackedRecord {
  const start = record.indexOf(OPEN);
  const end = start < 0 ? -1 : endOfObject(record, start);
  let rest: unknown;
  try {
    if (end > 0 && record.subarray(0, start).toString().trim() === '[') {
      rest = JSON.parse(`[null${record.subarray(end).toString()}`);
    }
  } catch {
    // Told below.
  }
  if (!Array.isArray(rest) || rest.length !== 3 || typeof rest[1] !== 'string' || typeof rest[2] !== 'string') {
    const ours = readOurs(record);
    if (ours !== undefined) return ours;
    throw new DecodeError('a record of deliveries is not a list of envelope, exchange and routing key');
  }
  return { envelope: record.subarray(start, end), exchange: rest[1], routingKey: rest[2] };
}

/** What follows the envelope in a record of ours. */
export function recordEnd(queue: string): string {
  return `, "", ${JSON.stringify(queue)}]`;
}
