/** kombu's JSON: agreement with the engine's parser, extended types, exact integers, what Python writes beyond JSON. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseJson, stringifyJson } from '#src/codec/json';
import { DecodeError, EncodeError } from '#src/errors';

const through = (value: unknown): unknown => parseJson(stringifyJson(value));
const typed = (type: unknown, value: unknown): string => JSON.stringify({ __type__: type, __value__: value });

/** JavaScript writes whole Numbers up to 1e21 in digits; whoever reads those cannot know that they were no integers. */
function reread(value: unknown): unknown {
  if (typeof value === 'number')
    return /\d{16}$/.test(String(value)) && Number.isInteger(value) && !Number.isSafeInteger(value)
      ? BigInt(String(value))
      : value;
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(reread);
  const entries = Object.entries(value).map(([key, item]) => [key, reread(item)]);
  return Object.fromEntries(entries);
}

test('any JSON value survives', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      assert.deepEqual(through(value), reread(JSON.parse(JSON.stringify(value))));
    }),
  );
});

test('the tolerant pass reads every JSON text as the engine does', () => {
  fc.assert(
    fc.property(fc.jsonValue({ stringUnit: 'binary' }), fc.constantFrom('', ' ', '\n\t'), (value, indent) => {
      const text = JSON.stringify(value, null, indent);
      assert.deepEqual(parseJson(`[${text},NaN]`), [reread(JSON.parse(text)), Number.NaN]);
    }),
  );
});

test('text that is nearly JSON is read as the engine reads it, or refused with a DecodeError', () => {
  const unit = fc.constantFrom(
    ...'{}[]",:0123456789.eE+-\\ \nabfnrtu\u0000é',
    '__proto__',
    'true',
    'null',
    '"a":',
    '"x"',
  );
  fc.assert(
    fc.property(fc.string({ unit, maxLength: 24 }), (text) => {
      let value: unknown;
      try {
        value = JSON.parse(text);
      } catch {
        assert.throws(() => parseJson(text), DecodeError);
        return;
      }
      if (/\d{16}/.test(text)) return;
      assert.deepEqual(parseJson(text), value);
      assert.deepEqual(parseJson(`[${text},Infinity]`), [value, Number.POSITIVE_INFINITY]);
    }),
    { numRuns: 3000 },
  );
});

test('an integer is exact wherever it stands, a Number where that holds it and a BigInt where not', () => {
  const integer = fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n });
  const near = fc.bigInt({ min: -20n, max: 20n }).map((by) => 2n ** 53n + by);
  fc.assert(
    fc.property(fc.oneof(integer, near), fc.nat(40), fc.nat(40), (n, before, after) => {
      const value = Number.isSafeInteger(Number(n)) ? Number(n) : n;
      assert.deepEqual(parseJson(' '.repeat(before) + n + ' '.repeat(after)), value);
      const text = `{"${'k'.repeat(before)}":[1234567,${n}],"z":0.${'1234567890'.repeat(5).slice(0, after + 1)}}`;
      assert.deepEqual((parseJson(text) as Record<string, unknown[]>)['k'.repeat(before)]?.[1], value);
      assert.deepEqual(through([n]), [value]);
    }),
    { numRuns: 2000 },
  );
});

test('floats with many digits stay Numbers', () => {
  const text = '[0.9391491627785106,12345678901234567.0,12345678901234567e3,1e400,-1234567890123456789E-2]';
  assert.deepEqual(parseJson(text), JSON.parse(text));
});

test('digits inside a string are no integer', () => {
  const value = { card: '41111111111111111111', n: [',12345678901234567890,', ':12345678901234567890'] };
  assert.deepEqual(through(value), value);
});

test('an integer too long to convert in good time is refused', () => {
  assert.equal(parseJson('9'.repeat(4300)), 10n ** 4300n - 1n);
  assert.throws(() => parseJson('9'.repeat(5000)), DecodeError);
});

test('what Python writes for floats that are no numbers is read', () => {
  assert.deepEqual(parseJson('{"a": NaN, "b": [Infinity, -Infinity], "c": "NaN\\n\\"x\\\\"}'), {
    a: Number.NaN,
    b: [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
    c: 'NaN\n"x\\',
  });
});

test('a byte order mark is skipped', () => {
  assert.deepEqual(parseJson('\ufeff{"a":1}'), { a: 1 });
});

test('an error names the place and quotes nothing of the body', () => {
  assert.throws(
    () => parseJson('{"password": "secret", }'),
    (error: unknown) => {
      assert.ok(error instanceof DecodeError);
      assert.match(error.message, /not valid JSON at character 23/);
      assert.doesNotMatch(error.message, /secret/);
      return true;
    },
  );
  assert.throws(() => parseJson('{"a": [1, 2'), /at its end/);
});

test('a key __proto__ is a property and sets no prototype', () => {
  for (const text of [
    '{"__proto__":{"admin":true}}',
    '{"__proto__":{"admin":true},"n":NaN}',
    '{"__proto__":{"admin":true},"d":{"__type__":"date","__value__":"2020-01-01"}}',
  ]) {
    const value = parseJson(text) as Record<string, unknown>;
    assert.equal(Object.getPrototypeOf(value), Object.prototype);
    assert.equal(value.admin, undefined);
    assert.ok(Object.hasOwn(value, '__proto__'));
  }
});

test('nesting without end is a DecodeError or EncodeError', () => {
  const deep = 200_000;
  const text = '['.repeat(deep) + ']'.repeat(deep);
  assert.throws(() => parseJson(text.replace('[]', '[NaN]')), DecodeError);
  assert.throws(() => parseJson(text.replace('[]', `[${typed('date', '2020-01-01')}]`)), DecodeError);
  assert.throws(() => stringifyJson(JSON.parse(text)), EncodeError);
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  assert.throws(() => stringifyJson(circular), EncodeError);
});

test('dates survive, written as Pythons before 3.11 read them', () => {
  const date = fc.date({
    min: new Date('0001-01-01T00:00:00Z'),
    max: new Date('9999-12-31T23:59:59.999Z'),
    noInvalidDate: true,
  });
  fc.assert(
    fc.property(date, (at) => {
      assert.match(stringifyJson(at), /"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00"/);
      assert.deepEqual(through({ at }), { at });
    }),
  );
  assert.throws(() => stringifyJson(new Date(8.64e15)), EncodeError);
  assert.equal(stringifyJson(new Date(Number.NaN)), 'null');
});

test('datetimes of every form that Python writes are read', () => {
  for (const [text, iso] of [
    ['2024-01-02T03:04:05', '2024-01-02T03:04:05.000Z'],
    ['2024-01-02T03:04:05.678901', '2024-01-02T03:04:05.678Z'],
    ['2024-01-02T03:04:05.678901Z', '2024-01-02T03:04:05.678Z'],
    ['2024-01-02T03:04:05+05:30', '2024-01-01T21:34:05.000Z'],
    ['2024-01-02T03:04:05-00:30', '2024-01-02T03:34:05.000Z'],
    ['1900-01-01T00:00:00+00:19:32.130000', '1899-12-31T23:40:27.870Z'],
    ['1969-12-31T23:59:59.999999+00:00', '1969-12-31T23:59:59.999Z'],
    ['0001-01-01T00:00:00', '0001-01-01T00:00:00.000Z'],
  ]) {
    assert.equal((parseJson(typed('datetime', text)) as Date).toISOString(), iso, text);
  }
});

test('extended values that are none are DecodeErrors', () => {
  for (const [type, value] of [
    ['datetime', 'yesterday'],
    ['datetime', '2024-02-30T00:00:00'],
    ['datetime', '2024-01-02T99:00:00'],
    ['datetime', 5],
    ['datetime', '0000-01-01T00:00:00'],
    ['datetime', '2024-01-02T00:00:00+24:00'],
    ['datetime', '2024-01-02T00:00:00+01:60'],
    ['bytes', null],
    ['bytes', 'a\ud800'],
    ['base64', 'YQ'],
    ['base64', 'YQ='],
    ['base64', 'YQ==YQ=='],
    ['base64', '_-8='],
    ['base64', '!!!!'],
    ['uuid', { hex: 'xyz' }],
    ['uuid', null],
    ['decimal', 1.5],
    ['constructor', 'x'],
    ['timedelta', 'x'],
    [['datetime'], 'x'],
    [null, 'x'],
  ]) {
    assert.throws(() => parseJson(typed(type, value)), DecodeError, typed(type, value));
  }
});

test('only an object with exactly the two keys is an extended value', () => {
  for (const value of [
    { __type__: 'date' },
    { __type__: 'date', __value__: '2020-01-01', more: 1 },
    { __type__: 'date', value: '2020-01-01' },
    ['__type__', '__value__'],
    'text with __type__ in it',
  ]) {
    assert.deepEqual(parseJson(JSON.stringify(value)), value);
  }
});

test('uuid, decimal, date and time are strings', () => {
  assert.equal(
    parseJson(typed('uuid', { hex: 'b6febc3a0c6e5973286bef29899918a7', version: 4 })),
    'b6febc3a-0c6e-5973-286b-ef29899918a7',
  );
  assert.equal(parseJson(typed('decimal', '1.10')), '1.10');
  assert.equal(parseJson(typed('date', '2020-01-01')), '2020-01-01');
  assert.equal(parseJson(typed('time', '03:04:05')), '03:04:05');
});

test('bytes survive: as text where they are UTF-8, else base64', () => {
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      assert.deepEqual(through({ bytes }), { bytes: Buffer.from(bytes) });
    }),
  );
  assert.equal(stringifyJson(Buffer.from('é')), '{"__type__":"bytes","__value__":"é"}');
  assert.equal(stringifyJson(Buffer.of(0xff)), '{"__type__":"base64","__value__":"/w=="}');
});

test('a value with something special in it is otherwise written as JSON.stringify writes it', () => {
  class Point {
    x = 1;
    #hidden = 2;
    get hidden(): number {
      return this.#hidden;
    }
  }
  const ordinary = {
    a: undefined,
    b: [undefined, () => 1, Symbol('s'), Number.NaN, -0, undefined, 1],
    c: new Point(),
    e: new Number(3),
    f: new String('s'),
    g: null,
    h: '\ud800"\u2028',
    i: { toJSON: (key: string) => ({ key }) },
    j: new URL('http://x/'),
    k: Object.create(null),
    [Symbol('k')]: 1,
  };
  assert.equal(stringifyJson([ordinary, 5n]), `[${JSON.stringify(ordinary)},5]`);
});

test('what would arrive as an empty object though it holds something is an EncodeError', () => {
  const held = {
    map: new Map([[1, 2]]),
    set: new Set([1]),
    promise: Promise.resolve(1),
    error: new Error('x'),
    pattern: /x/,
    memory: new ArrayBuffer(1),
    view: new DataView(new ArrayBuffer(1)),
    weak: new WeakSet(),
  };
  for (const value of Object.values(held)) {
    for (const given of [value, { value }, [[value]], { first: 5n, value }]) {
      assert.throws(() => stringifyJson(given), EncodeError, value.constructor.name);
    }
  }
  class Empty {}
  assert.equal(stringifyJson([{}, new Empty(), Object.create(null), 5n]), '[{},{},{},5]');
  const told = Object.assign(new Error('x'), { toJSON: () => 'told' });
  assert.equal(stringifyJson([told, Object.assign(new Map(), { toJSON: () => 1 })]), '["told",1]');
});

test('dates and big integers are found in what toJSON returns', () => {
  const at = new Date(0);
  assert.deepEqual(through({ toJSON: () => ({ at, n: 2n ** 70n }) }), { at, n: 2n ** 70n });
});

test('undefined is null; what JSON cannot say is an EncodeError', () => {
  assert.equal(stringifyJson(undefined), 'null');
  for (const value of [() => 1, Symbol('s'), Object(1n)]) assert.throws(() => stringifyJson(value), EncodeError);
  const angry = {
    toJSON() {
      throw new TypeError('no');
    },
  };
  assert.throws(() => stringifyJson(angry), EncodeError);
});
