/** Field tables against an encoder of the test's own: every type, any nesting, and bytes that are cut or wrong anywhere. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { findString, readTable } from '#src/codec/amqp/table';
import { DecodeError } from '#src/errors';
import { type Fields, table, type Value } from '../support/amqp-bytes.js';

function decimalText(scale: number, unscaled: number): string {
  const sign = unscaled < 0 ? '-' : '';
  const digits = BigInt(Math.abs(unscaled));
  if (scale === 0) return `${sign}${digits}`;
  const unit = 10n ** BigInt(scale);
  return `${sign}${digits / unit}.${(digits % unit).toString().padStart(scale, '0')}`;
}

/** What a value must become. */
function plain(value: Value): unknown {
  switch (value[0]) {
    case 'f':
      return Math.fround(value[1]);
    case 'l':
    case 'L':
      return BigInt(Number(value[1])) === value[1] && Number.isSafeInteger(Number(value[1]))
        ? Number(value[1])
        : value[1];
    case 'T':
      return new Date(Number(value[1]) * 1000);
    case 'V':
      return null;
    case 'D':
      return decimalText(value[1], value[2]);
    case 'F':
      return plainTable(value[1]);
    case 'A':
      return value[1].map(plain);
    default:
      return value[1];
  }
}

function plainTable(fields: Fields): Record<string, unknown> {
  const result: Record<string, unknown> = Object.create(null);
  for (const [key, value] of fields) result[key] = plain(value);
  return result;
}

const text = fc.string({ unit: 'grapheme', maxLength: 40 });
const key = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 12 }).filter((name) => Buffer.byteLength(name) < 256),
  fc.constantFrom('__proto__', 'constructor', 'toString', 'compression', '', 'x'.repeat(255)),
);
const between = (min: number, max: number): fc.Arbitrary<number> => fc.integer({ min, max });
const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
const leaf: fc.Arbitrary<Value> = fc.oneof(
  text.map((value): Value => ['S', value]),
  between(-(2 ** 31), 2 ** 31 - 1).map((value): Value => ['I', value]),
  between(0, 2 ** 32 - 1).map((value): Value => ['i', value]),
  between(-128, 127).map((value): Value => ['b', value]),
  between(0, 255).map((value): Value => ['B', value]),
  between(-32_768, 32_767).map((value): Value => ['s', value]),
  between(0, 65_535).map((value): Value => ['u', value]),
  fc.double().map((value): Value => ['d', value]),
  fc.float().map((value): Value => ['f', value]),
  fc
    .oneof(int64, fc.constantFrom(2n ** 53n, 2n ** 53n - 1n, -(2n ** 53n), -(2n ** 53n) + 1n))
    .map((value): Value => ['l', value]),
  int64.map((value): Value => ['L', value]),
  fc.bigInt({ min: 0n, max: 8_640_000_000_000n }).map((value): Value => ['T', value]),
  fc.boolean().map((value): Value => ['t', value]),
  fc.constant<Value>(['V']),
  fc.uint8Array({ maxLength: 30 }).map((value): Value => ['x', Buffer.from(value)]),
  fc.tuple(between(0, 255), between(-(2 ** 31), 2 ** 31 - 1)).map(([scale, value]): Value => ['D', scale, value]),
);
const { fields } = fc.letrec<{ value: Value; fields: Fields }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    leaf,
    tie('fields').map((value): Value => ['F', value]),
    fc.array(tie('value'), { maxLength: 5 }).map((value): Value => ['A', value]),
  ),
  fields: fc.uniqueArray(fc.tuple(key, tie('value')), { maxLength: 8, selector: ([name]) => name }),
}));

const small = fields.filter((written) => table(written).length < 250);

/** A table of one key holding arrays (or tables) inside each other, `depth` of them. */
function nested(depth: number, kind: 'A' | 'F'): Buffer {
  const head = Buffer.from(kind === 'A' ? 'A' : '\x01kF', 'latin1');
  const size = head.length + 4;
  // What an array holds is a value, what a table holds is a key and a value.
  const levels = Array.from({ length: depth }, (_, level) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE((depth - level - 1) * size);
    return Buffer.concat([level === 0 ? Buffer.from(`\x04deep${kind}`, 'latin1') : head, length]);
  });
  const inside = Buffer.concat(levels);
  const total = Buffer.alloc(4);
  total.writeUInt32BE(inside.length);
  return Buffer.concat([total, inside]);
}

describe('a field table', () => {
  it('of any types and nesting is read as it was written', () => {
    fc.assert(
      fc.property(fields, fc.nat(20), (written, before) => {
        const bytes = Buffer.concat([Buffer.alloc(before, 0xff), table(written), Buffer.alloc(9, 0xff)]);
        assert.deepEqual(readTable(bytes, before, bytes.length - 9), plainTable(written));
      }),
      { numRuns: 500 },
    );
  });

  it('cut at any byte is a DecodeError, whatever lies behind the cut', () => {
    fc.assert(
      fc.property(small, (written) => {
        const bytes = table(written);
        for (let cut = 0; cut < bytes.length; cut++) {
          assert.throws(() => readTable(bytes, 0, cut), DecodeError);
          assert.throws(() => readTable(Buffer.from(bytes.subarray(0, cut)), 0, cut), DecodeError);
          assert.throws(() => findString(Buffer.from(bytes.subarray(0, cut)), 0, cut, 'absent'), DecodeError);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('whose length is too short ends between two fields or is a DecodeError', () => {
    fc.assert(
      fc.property(small, (written) => {
        const bytes = table(written);
        const ends = new Map(written.map((_, count) => [table(written.slice(0, count)).length, count]));
        for (let cut = 4; cut < bytes.length; cut++) {
          const short = Buffer.from(bytes.subarray(0, cut));
          short.writeUInt32BE(cut - 4);
          const whole = ends.get(cut);
          if (whole === undefined) assert.throws(() => readTable(short, 0, cut), DecodeError);
          else assert.deepEqual(readTable(short, 0, cut), plainTable(written.slice(0, whole)));
        }
      }),
      { numRuns: 60 },
    );
  });

  it('with any wrong byte is read or refused with a DecodeError, never anything else', () => {
    fc.assert(
      fc.property(fields, fc.nat(), fc.nat(255), (written, place, value) => {
        const bytes = table(written);
        bytes[place % bytes.length] = value;
        for (const read of [
          () => readTable(bytes, 0, bytes.length),
          () => findString(bytes, 0, bytes.length, 'compression'),
        ]) {
          try {
            read();
          } catch (error) {
            assert.ok(error instanceof DecodeError, String(error));
          }
        }
      }),
      { numRuns: 3000 },
    );
  });

  it('made of noise is read or refused with a DecodeError', () => {
    const types = [...'SIbBsuidflLTtVxDFA\x00\xff'].map((type) => type.charCodeAt(0));
    const noise = fc.array(fc.oneof(fc.constantFrom(...types), fc.constantFrom(0, 0, 0, 1, 2, 5), fc.nat(255)), {
      maxLength: 80,
    });
    fc.assert(
      fc.property(noise, (bytes) => {
        const framed = Buffer.from([0, 0, 0, bytes.length, ...bytes]);
        try {
          readTable(framed, 0, framed.length);
        } catch (error) {
          assert.ok(error instanceof DecodeError, String(error));
        }
      }),
      { numRuns: 5000 },
    );
  });

  it('nested 64 deep is read, deeper is a DecodeError, however deep', () => {
    for (const kind of ['A', 'F'] as const) {
      const bytes = nested(64, kind);
      assert.doesNotThrow(() => readTable(bytes, 0, bytes.length));
      for (const depth of [65, 100_000]) {
        const deep = nested(depth, kind);
        assert.throws(() => readTable(deep, 0, deep.length), { name: 'DecodeError', message: /64 deep/ });
        assert.throws(() => findString(deep, 0, deep.length, 'absent'), { name: 'DecodeError', message: /64 deep/ });
      }
    }
  });

  it('has keys that cannot reach a prototype', () => {
    const bytes = table([
      ['__proto__', ['F', [['polluted', ['t', true]]]]],
      ['inner', ['F', [['__proto__', ['S', 'x']]]]],
    ]);
    const read = readTable(bytes, 0, bytes.length);
    assert.equal(Object.getPrototypeOf(read), null);
    assert.deepEqual(Object.keys(read), ['__proto__', 'inner']);
    assert.equal(({} as Record<string, unknown>).polluted, undefined);
    assert.equal(Reflect.get(read.inner as object, '__proto__'), 'x');
    assert.equal(read.toString, undefined);
  });

  it('of an unknown type is a DecodeError that names it', () => {
    const bytes = table([['k', ['V']]]);
    bytes[6] = 0x7a;
    assert.throws(() => readTable(bytes, 0, bytes.length), { name: 'DecodeError', message: /unknown type 0x7a at 6/ });
  });

  it('gives bytes that are copies', () => {
    const bytes = table([['k', ['x', Buffer.from('abc')]]]);
    const read = readTable(bytes, 0, bytes.length);
    bytes.fill(0);
    assert.deepEqual(read.k, Buffer.from('abc'));
  });
});

describe('findString', () => {
  it('finds what readTable has under that key, and nothing where that is no string', () => {
    const ascii = fc.string({ maxLength: 12 });
    const value = fc.oneof(
      leaf,
      fields.map((inner): Value => ['F', inner]),
    );
    const list = fc.uniqueArray(fc.tuple(ascii, value), { maxLength: 10, selector: ([name]) => name });
    fc.assert(
      fc.property(list, ascii, (written, other) => {
        const bytes = table(written);
        const read = readTable(bytes, 0, bytes.length);
        for (const name of [...written.map(([known]) => known), other, 'compression']) {
          const wanted = typeof read[name] === 'string' && written.some(([k, v]) => k === name && v[0] === 'S');
          assert.equal(findString(bytes, 0, bytes.length, name), wanted ? read[name] : undefined);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('does not take a key that only begins or ends alike', () => {
    const bytes = table([
      ['compressio', ['S', 'a']],
      ['compression ', ['S', 'b']],
      ['Compression', ['S', 'c']],
    ]);
    assert.equal(findString(bytes, 0, bytes.length, 'compression'), undefined);
  });
});
