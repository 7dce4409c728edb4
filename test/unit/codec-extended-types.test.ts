/** kombu's extended types of JSON, plain and exact, and those that users add. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseJson, stringifyJson } from '#src/codec/json';
import { errors, serialization } from '#src/index';

const { ExactDate, ExactDatetime, ExactDecimal, ExactTime, ExactUuid, registerType } = serialization;
const { DecodeError, EncodeError, OptionError } = errors;

const typed = (type: string, value: unknown): string => JSON.stringify({ __type__: type, __value__: value });
const exact = (text: string): unknown => parseJson(text, undefined, 'exact');

/** What Python's isoformat gives. */
const PYTHON = [
  ['datetime', '2024-01-02T03:04:05.678901+00:00'],
  ['datetime', '2024-01-02T03:04:05'],
  ['datetime', '0001-01-01T00:00:00.000001-23:59'],
  ['datetime', '9999-12-31T23:59:59.999999+05:30'],
  ['datetime', '1883-11-18T12:03:57+00:53:28.000005'],
  ['date', '1999-12-31'],
  ['time', '13:37:00.000005'],
  ['time', '03:04:05+02:00'],
  ['decimal', '12345678901234567890.1234567890'],
  ['decimal', '-0E+3'],
  ['decimal', 'NaN'],
  ['decimal', '-Infinity'],
  ['uuid', { hex: 'b6febc3a0c6e5973286bef29899918a7' }],
] as const;

test('exact values are written back as Python wrote them', () => {
  for (const [type, value] of PYTHON) {
    const text = typed(type, value);
    assert.equal(stringifyJson(exact(text)), text);
    assert.equal(stringifyJson([{ deep: exact(text) }]), `[{"deep":${text}}]`);
  }
});

test('an exact datetime says what a Date cannot', () => {
  const at = exact(typed('datetime', '2020-02-29T01:02:03.000004+05:30')) as InstanceType<typeof ExactDatetime>;
  assert.ok(at instanceof ExactDatetime);
  assert.deepEqual([at.microsecond, at.offset, at.naive], [4, 19_800_000, false]);
  assert.deepEqual(at.toDate(), new Date('2020-02-28T19:32:03.000Z'));
  const naive = new ExactDatetime('2031-12-31 23:59');
  assert.deepEqual([naive.text, naive.offset, naive.naive], ['2031-12-31T23:59:00', undefined, true]);
  assert.deepEqual(naive.toDate(), new Date('2031-12-31T23:59:00Z'));
  assert.equal(
    new ExactDatetime('2024-01-02T03:04:05.6Z').text,
    '2024-01-02T03:04:05.600000+00:00',
    'as old Pythons read',
  );
  assert.equal(new ExactDatetime('2024-01-02T03:04:05,1234567-0330').text, '2024-01-02T03:04:05.123456-03:30');
});

test('exact values are their text everywhere else', () => {
  const values = [
    new ExactDate('2024-01-02'),
    new ExactDecimal('1.50'),
    new ExactUuid('B6FEBC3A0C6E5973286BEF29899918A7'),
  ];
  assert.equal(values.join(), '2024-01-02,1.50,b6febc3a-0c6e-5973-286b-ef29899918a7');
  assert.equal(JSON.stringify(values[0]), '"2024-01-02"');
  for (const name of ['msgpack', 'yaml']) {
    const { body, contentType, contentEncoding } = serialization.dumps({ values }, name);
    assert.deepEqual(serialization.loads(body, contentType, contentEncoding, { accept: [name] }), {
      values: values.map(String),
    });
  }
});

test('what no Python writes is a DecodeError, exact or plain', () => {
  const bad: [string, unknown][] = [
    ['datetime', '2024-02-30T00:00:00'],
    ['datetime', '2024-01-02T25:00:00'],
    ['datetime', 'yesterday'],
    ['datetime', 7],
    ['uuid', { hex: 'xyz' }],
    ['uuid', 'b6febc3a'],
    ['uuid', null],
    ['bytes', 1],
    ['base64', 'YQ'],
    ['datetime', '0000-01-01T00:00:00'],
    ['datetime', '2024-01-02T00:00:00-24:00'],
    ['thing', 'x'],
  ];
  for (const [type, value] of bad) {
    assert.throws(() => parseJson(typed(type, value)), DecodeError, `${type} ${value}`);
    assert.throws(() => exact(typed(type, value)), DecodeError, `${type} ${value}`);
  }
  for (const [type, value] of [
    ['date', '2024-02-30'],
    ['date', '2024-01-02T00:00:00'],
    ['time', '24:00:00'],
    ['time', 'noon'],
    ['time', '01:00:00+24:00'],
    ['date', '0000-01-01'],
    ['decimal', '1,5'],
    ['decimal', ''],
  ] as const) {
    assert.throws(() => exact(typed(type, value)), DecodeError, `${type} ${value}`);
  }
});

test('a Date is written to the microsecond that it has not, and read back', () => {
  const date = fc.date({
    min: new Date('0001-01-01T00:00:00Z'),
    max: new Date('9999-12-31T23:59:59.999Z'),
    noInvalidDate: true,
  });
  fc.assert(
    fc.property(date, (value) => {
      const text = stringifyJson(value);
      assert.match(text, /"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}000\+00:00"/);
      assert.deepEqual(parseJson(text), value);
      assert.deepEqual((exact(text) as InstanceType<typeof ExactDatetime>).toDate(), value);
    }),
  );
});

test('loads takes types, and refuses what it does not know', () => {
  const body = Buffer.from(typed('time', '01:02:03'));
  assert.equal(serialization.loads(body, 'application/json', 'utf-8'), '01:02:03');
  assert.ok(serialization.loads(body, 'application/json', 'utf-8', { types: 'exact' }) instanceof ExactTime);
  const utf16 = Buffer.from(typed('time', '01:02:03'), 'utf16le');
  assert.ok(serialization.loads(utf16, 'application/json', 'utf-16le', { types: 'exact' }) instanceof ExactTime);
  const wrong = { types: 'exactly' } as object;
  assert.throws(
    () => serialization.loads(body, 'application/json', 'utf-8', wrong),
    /'types' must be one of 'plain', 'exact'/,
  );
  assert.throws(
    () => serialization.loads(body, 'application/json', 'utf-8', { type: 'exact' } as object),
    /did you mean 'types'/,
  );
});

class Money {
  constructor(
    readonly amount: bigint,
    readonly currency: string,
  ) {}
}
class Salary extends Money {}
class Point {
  constructor(readonly at: Date) {}
  toJSON(): string {
    return 'not asked';
  }
}

test('a registered class travels under its marker, subclasses too, whatever its toJSON says', () => {
  registerType(
    Money,
    'money',
    ({ amount, currency }) => [amount, currency],
    (value) => {
      const [amount, currency] = value as [number | bigint, string];
      return new Money(BigInt(amount), currency);
    },
  );
  const text = stringifyJson({ pay: [new Money(2n ** 70n, 'JPY')], more: new Salary(1n, 'EUR') });
  assert.equal(
    text,
    `{"pay":[{"__type__":"money","__value__":[${2n ** 70n},"JPY"]}],"more":{"__type__":"money","__value__":[1,"EUR"]}}`,
  );
  const back = parseJson(text) as { pay: Money[]; more: Money };
  assert.deepEqual(back.pay, [new Money(2n ** 70n, 'JPY')]);
  assert.ok(back.more instanceof Money && back.more.amount === 1n);
  // what an encoder gives is written by the same rules, and read before the decoder gets it
  registerType(
    Point,
    'point',
    ({ at }) => ({ at }),
    (value) => new Point((value as { at: Date }).at),
  );
  const point = new Point(new Date(5));
  assert.deepEqual(parseJson(stringifyJson([point])), [point]);
});

test('the nearest registered class counts; without a marker the result is written as it is', () => {
  class Base {}
  class Middle extends Base {}
  class Leaf extends Middle {}
  registerType(Base, 'base', () => 1);
  registerType(Middle, null, () => ({ plain: true }));
  assert.equal(
    stringifyJson([new Base(), new Middle(), new Leaf()]),
    `[${typed('base', 1)},{"plain":true},{"plain":true}]`,
  );
  assert.equal(parseJson(typed('base', 1)), 1, 'no decoder: the value as it is');
});

test('a registered class of lists is written as it was registered, wherever it stands', () => {
  class Pair extends Array<number> {}
  serialization.registerType(Pair, 'pair', (pair) => pair.join('/'));
  const pair = Pair.of(1, 2);
  for (const value of [pair, { pair }, [pair]]) {
    assert.match(JSON.stringify(JSON.parse(stringifyJson(value))), /\{"__type__":"pair","__value__":"1\/2"\}/);
  }
});

test('what encoders and decoders throw is wrapped, and says whose it was', () => {
  class Angry {}
  const fail = (): never => {
    throw new TypeError('no');
  };
  registerType(Angry, 'angry', fail, fail);
  assert.throws(
    () => stringifyJson({ a: new Angry() }),
    (error: unknown) => error instanceof EncodeError && error.cause instanceof TypeError,
  );
  assert.throws(
    () => parseJson(typed('angry', 1)),
    (error: unknown) =>
      error instanceof DecodeError && /'angry' failed: no/.test(error.message) && error.cause instanceof TypeError,
  );
  registerType(Angry, 'angry', (value) => value);
  assert.throws(() => stringifyJson(new Angry()), /nested too deeply, or contains itself/);
});

test('registerType refuses what it could not keep', () => {
  assert.throws(() => registerType(Object, 'o', String), OptionError);
  assert.throws(() => registerType(Array, 'a', String), OptionError);
  assert.throws(() => registerType((() => 0) as never, 'f', String), OptionError);
  assert.throws(() => registerType(Map, '', String), OptionError);
  assert.throws(() => registerType(Map, 'map', 'no function' as never), OptionError);
  assert.throws(() => parseJson(typed('never', 1)), /unknown extended type 'never': serialization.registerType/);
});

test('a type of kombu can be read in another way, and a Date written in one', () => {
  registerType(
    Set,
    'decimal',
    (set) => [...set].join(),
    (value) => new Set([value]),
  );
  assert.deepEqual(parseJson(typed('decimal', '1.5')), new Set(['1.5']));
  registerType(Set, 'decimal', String, (value) => new ExactDecimal(value as string));
  assert.ok(parseJson(typed('decimal', '1.5')) instanceof ExactDecimal);
  class Day extends Date {}
  registerType(Day, 'date', (day) => day.toISOString().slice(0, 10));
  assert.equal(
    stringifyJson([new Day(0), new Date(0)]),
    `[${typed('date', '1970-01-01')},${typed('datetime', '1970-01-01T00:00:00.000000+00:00')}]`,
  );
});
