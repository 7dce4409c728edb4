/**
 * Headers exchanges: does a message's headers table match the arguments of a binding? Integers of any size are equal if their
 * values are, so are floats; all else is compared as it is encoded. A binding's argument of no value (null) asks only for the key.
 */
import { readField } from '../../../codec/amqp/amqplib-values.js';
import { preconditionFailed, Refusal } from './refusal.js';

const VOID = 0x56;
const LONG_STRING = 0x53;
const KINDS = ['all', 'any', 'all-with-x', 'any-with-x'];

/** Names of the types as RabbitMQ's texts have them. */
const TYPE_NAMES: Readonly<Record<string, string>> = {
  S: 'longstr',
  b: 'byte',
  B: 'unsignedbyte',
  s: 'short',
  u: 'unsignedshort',
  I: 'signedint',
  i: 'unsignedint',
  l: 'long',
  d: 'double',
  f: 'float',
  t: 'bool',
  T: 'timestamp',
  D: 'decimal',
  F: 'table',
  A: 'array',
  x: 'binary',
  V: 'void',
};

export function typeName(field: Buffer): string {
  return TYPE_NAMES[String.fromCharCode(field[0]!)] ?? 'unknown';
}

export const INTEGERS = /^(unsigned)?(byte|short|int|long)$|^signedint$/;
const FLOATS = /^(double|float)$/;

function isSame(a: Buffer, b: Buffer): boolean {
  if (a.equals(b)) return true;
  const [one, other] = [typeName(a), typeName(b)];
  const numbers = (INTEGERS.test(one) && INTEGERS.test(other)) || (FLOATS.test(one) && FLOATS.test(other));
  return numbers && readField(a) === readField(b);
}

export interface HeadersPattern {
  readonly any: boolean;
  readonly wanted: readonly (readonly [key: string, value: Buffer])[];
}

/** Throws the refusal of an `x-match` that is none. */
export function headersPattern(args: ReadonlyMap<string, Buffer>): HeadersPattern {
  const kind = args.get('x-match');
  let match = 'all';
  if (kind !== undefined) {
    const value = readField(kind);
    if (kind[0] !== LONG_STRING) {
      throw preconditionFailed(
        `Invalid x-match field type ${typeName(kind)} (value ${String(value)}); expected longstr`,
      );
    }
    match = value as string;
  }
  if (!KINDS.includes(match)) {
    throw new Refusal(406, `Invalid x-match field value <<"${match}">>; expected all, any, all-with-x, or any-with-x`);
  }
  const withX = match.endsWith('-with-x');
  const wanted = [...args].filter(([key]) => key !== 'x-match' && (withX || !key.startsWith('x-')));
  return { any: match.startsWith('any'), wanted };
}

export function matchesHeaders({ any, wanted }: HeadersPattern, headers: ReadonlyMap<string, Buffer>): boolean {
  const matches = ([key, value]: readonly [string, Buffer]): boolean => {
    const found = headers.get(key);
    return found !== undefined && (value[0] === VOID || isSame(value, found));
  };
  return any ? wanted.some(matches) : wanted.every(matches);
}
