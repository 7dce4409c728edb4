/**
 * Field tables and properties as amqplib decodes them: times stay `{ '!': 'timestamp', value }`, integers of 64 bits become
 * numbers, every property is there, undefined where the message has none. For what stands in for amqplib; `table.ts` makes the
 * values that users see. Reads only what `write-content.ts` wrote, so it checks nothing.
 */
import { behindField, splitTable } from './field-bytes.js';
import { PROPERTY_NAMES, readProperties } from './properties.js';

function items(bytes: Buffer): unknown[] {
  const list: unknown[] = [];
  const end = 5 + bytes.readUInt32BE(1);
  for (let at = 5; at < end; ) {
    const next = behindField(bytes, at);
    list.push(readField(bytes.subarray(at, next)));
    at = next;
  }
  return list;
}

/** The value whose type letter is the first of `bytes`. */
export function readField(bytes: Buffer): unknown {
  switch (String.fromCharCode(bytes[0]!)) {
    case 'b':
      return bytes.readInt8(1);
    case 'B':
      return bytes.readUInt8(1);
    case 's':
      return bytes.readInt16BE(1);
    case 'u':
      return bytes.readUInt16BE(1);
    case 'I':
      return bytes.readInt32BE(1);
    case 'i':
      return bytes.readUInt32BE(1);
    case 'l':
    case 'L':
      return Number(bytes.readBigInt64BE(1));
    case 'd':
      return bytes.readDoubleBE(1);
    case 'f':
      return bytes.readFloatBE(1);
    case 't':
      return bytes[1] !== 0;
    case 'S':
      return bytes.toString('utf8', 5);
    case 'x':
      return Buffer.from(bytes.subarray(5));
    case 'T':
      return { '!': 'timestamp', value: Number(bytes.readBigUInt64BE(1)) };
    case 'D':
      return { '!': 'decimal', value: { places: bytes[1]!, digits: bytes.readUInt32BE(2) } };
    case 'F':
      return readFields(bytes, 1);
    case 'A':
      return items(bytes);
    default:
      return null;
  }
}

/** The table whose length word stands at `at`. */
export function readFields(bytes: Buffer, at = 0): Record<string, unknown> {
  const table: Record<string, unknown> = {};
  for (const [key, value] of splitTable(bytes, at)) {
    // Not by assignment, which a key '__proto__' would turn against us.
    Object.defineProperty(table, key, {
      value: readField(value),
      enumerable: true,
      writable: true,
      configurable: true,
    });
  }
  return table;
}

const NAMES = [...PROPERTY_NAMES, 'headers', 'clusterId'] as const;

/** All properties, `headers` among them: `at` is the flags word, `end` the end of the header's payload. */
export function readAmqplibProperties(
  bytes: Buffer,
  at: number,
  end: number,
  headersAt: number,
): Record<(typeof NAMES)[number], unknown> {
  const given: Readonly<Record<string, unknown>> = { ...readProperties(bytes, at, end) };
  const result = {} as Record<(typeof NAMES)[number], unknown>;
  for (const name of NAMES) {
    result[name] = name === 'headers' && headersAt >= 0 ? readFields(bytes, headersAt) : given[name];
  }
  return result;
}
