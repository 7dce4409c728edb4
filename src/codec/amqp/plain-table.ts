/**
 * Header and argument tables between plain values and what amqplib encodes. Left to itself amqplib writes small integers as
 * 's' and 'b', which py-amqp reads as something else; so every number goes out with the type that both sides agree on.
 */
import { EncodeError } from '../../errors.js';

const INT32 = 0x80000000;

/** amqplib encodes a table into a buffer of 64 KiB that method arguments share. */
const MAX_TABLE_BYTES = 65_000;
const MAX_DEPTH = 64;

function toField(value: unknown, path: string, depth: number): unknown {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value;
    case 'number':
      if (!Number.isSafeInteger(value) || Object.is(value, -0)) return { '!': 'double', value };
      // A double: py-amqp takes an 'l' for unsigned, and its own 'L' amqplib cannot write.
      if (value < -INT32) return { '!': 'double', value };
      return value < INT32 ? { '!': 'int', value } : { '!': 'long', value };
    case 'bigint':
      if (BigInt.asIntN(64, value) === value) return { '!': 'long', value };
      throw new EncodeError(`${path}: the integer does not fit into 64 bits`);
    case 'object':
      break;
    default:
      throw new EncodeError(`${path}: a ${typeof value} cannot go into an AMQP table`);
  }
  if (value === null || Buffer.isBuffer(value)) return value;
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (value instanceof Date) {
    const seconds = Math.floor(value.getTime() / 1000);
    if (!(seconds >= 0)) throw new EncodeError(`${path}: AMQP has no dates before 1970, nor invalid ones`);
    return { '!': 'timestamp', value: seconds };
  }
  if (depth >= MAX_DEPTH) throw new EncodeError(`${path}: nested deeper than ${MAX_DEPTH}, or in a circle`);
  if (Array.isArray(value)) return value.map((item, index) => toField(item, `${path}[${index}]`, depth + 1));
  if (value instanceof Map || value instanceof Set) {
    throw new EncodeError(`${path}: a ${value.constructor.name} cannot go into an AMQP table`);
  }
  const table = fieldsOf(value, path, depth + 1);
  // To amqplib a key '!' gives the type of the value beside it.
  return Object.hasOwn(table, '!') ? { '!': 'object', value: table } : table;
}

function fieldsOf(values: object, path: string, depth: number): Record<string, unknown> {
  const table: Record<string, unknown> = Object.create(null);
  for (const [key, value] of Object.entries(values)) {
    if (value === undefined) continue;
    if (Buffer.byteLength(key) > 255) throw new EncodeError(`${path}: a key is over 255 bytes`);
    table[key] = toField(value, `${path}.${key}`, depth);
  }
  return table;
}

/** Bytes that amqplib will need for what `toTable` made, at most. */
export function tableBytes(field: unknown): number {
  if (typeof field === 'string') return 5 + Buffer.byteLength(field);
  if (typeof field !== 'object' || field === null) return 9;
  if (Buffer.isBuffer(field)) return 5 + field.length;
  let size = 9;
  if (Array.isArray(field)) for (const item of field) size += tableBytes(item);
  else for (const [key, item] of Object.entries(field)) size += 1 + Buffer.byteLength(key) + tableBytes(item);
  return size;
}

/**
 * A table for amqplib: strings, booleans, numbers (integers beyond 32 bits below zero become doubles), bigints of 64 bits,
 * dates (whole seconds), bytes, null, lists and objects; undefined is left out. Throws `EncodeError` with the key's path, also
 * for what is over 65,000 bytes or nested deeper than 64.
 */
export function toTable(values: object, path: string): Record<string, unknown> {
  const table = fieldsOf(values, path, 0);
  const size = tableBytes(table);
  if (size > MAX_TABLE_BYTES) throw new EncodeError(`${path}: ${size} bytes; at most ${MAX_TABLE_BYTES} can be sent`);
  return table;
}

function decimal({ places, digits }: { places: number; digits: number }): string {
  const signed = digits | 0;
  if (places === 0) return String(signed);
  const text = String(Math.abs(signed)).padStart(places + 1, '0');
  return `${signed < 0 ? '-' : ''}${text.slice(0, -places)}.${text.slice(-places)}`;
}

function isDecimal(value: unknown): value is { places: number; digits: number } {
  const { places, digits } = (value ?? {}) as Partial<Record<'places' | 'digits', unknown>>;
  return typeof places === 'number' && typeof digits === 'number';
}

function fromField(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || value instanceof Date) return value;
  if (Buffer.isBuffer(value)) return Buffer.from(value);
  if (Array.isArray(value)) return value.map(fromField);
  const typed = value as { '!'?: unknown; value?: unknown };
  if (typed['!'] === 'timestamp' && typeof typed.value === 'number') return new Date(typed.value * 1000);
  if (typed['!'] === 'decimal' && isDecimal(typed.value)) return decimal(typed.value);
  return fromTable(value);
}

/** What amqplib decoded, as plain values without a prototype: times become `Date`, decimals text, bytes a copy. */
export function fromTable(values: object | undefined): Record<string, unknown> {
  const table: Record<string, unknown> = Object.create(null);
  for (const [key, value] of Object.entries(values ?? {})) table[key] = fromField(value);
  return table;
}
