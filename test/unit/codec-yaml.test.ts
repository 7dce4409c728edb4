/** YAML as PyYAML has it: words without quotes, tags, aliases, and text that PyYAML would read as something else. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseYaml, stringifyYaml } from '#src/codec/yaml';
import { DecodeError, EncodeError } from '#src/errors';

test('a word without quotes is what PyYAML takes it for', () => {
  const words: Record<string, unknown> = {
    y: 'y',
    n: 'n',
    yes: true,
    No: false,
    ON: true,
    off: false,
    '~': null,
    null: null,
    '1e5': '1e5',
    '1.0e+5': 100_000,
    '1.5': 1.5,
    '.5': 0.5,
    '1_000': 1000,
    '010': 8,
    '0x1f': 31,
    '0b11': 3,
    '0o17': '0o17',
    '12:30': 750,
    '-0': -0,
    '9007199254740993': 9007199254740993n,
    '.inf': Number.POSITIVE_INFINITY,
    '-.INF': Number.NEGATIVE_INFINITY,
    '.nan': Number.NaN,
    '2024-01-02': '2024-01-02',
    '2024-01-02 03:04:05': new Date('2024-01-02T03:04:05Z'),
    '2024-01-02t03:04:05.678+05:30': new Date('2024-01-01T21:34:05.678Z'),
  };
  for (const [word, value] of Object.entries(words)) {
    const expected = Object.is(value, -0) ? 0 : value;
    assert.deepEqual(parseYaml(`- ${word}`), [expected], word);
    if (typeof value === 'string') assert.deepEqual(parseYaml(`${word}: 1`), { [word]: 1 });
  }
});

test('any JSON value survives', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 4 }), (value) => {
      const plain: unknown = JSON.parse(JSON.stringify(value), (_, item: unknown) => (Object.is(item, -0) ? 0 : item));
      assert.deepEqual(parseYaml(stringifyYaml(plain)), plain);
    }),
    { numRuns: 150 },
  );
});

test('numbers, dates and bytes survive', () => {
  const value = {
    numbers: [1.5, 1e21, 1e-7, -0, Number.NaN, Number.NEGATIVE_INFINITY, 2n ** 70n, Number.MAX_SAFE_INTEGER],
    at: new Date('2024-01-02T03:04:05.678Z'),
    bytes: Buffer.of(0, 255, 10),
    none: undefined,
  };
  const { none: _none, ...rest } = value; // left out, as in JSON
  assert.deepEqual(parseYaml(stringifyYaml(value)), rest);
  assert.equal(stringifyYaml(undefined), 'null\n');
  assert.equal(parseYaml(stringifyYaml(new Date(Number.NaN))), null);
});

test('tags that construct something are refused, and nothing of them is kept', () => {
  for (const text of [
    '!!python/object/apply:os.system ["true"]',
    '!!python/name:os.system',
    '!!python/tuple [1, 2]',
    '!!js/function "() => 1"',
    '!thing {a: 1}',
    'a: !<tag:example.org,2024:x> 1',
    '!!int "no number"',
  ]) {
    assert.throws(
      () => parseYaml(text),
      (error: unknown) =>
        error instanceof DecodeError &&
        /a tag at character/.test(error.message) &&
        !error.message.includes('os.system'),
      text,
    );
  }
  assert.deepEqual(parseYaml('!!binary "AP8="'), Buffer.of(0, 255));
  assert.deepEqual(parseYaml('!!set {a: null, b: null}'), new Set(['a', 'b']));
});

test('aliases and merge keys are followed, up to a bound', () => {
  assert.deepEqual(parseYaml('a: &x {k: 1}\nb: *x\nc: {<<: *x, z: 2}'), {
    a: { k: 1 },
    b: { k: 1 },
    c: { k: 1, z: 2 },
  });
  const shared = `base: &b {x: 1}\nlist: [${'*b, '.repeat(3000)}]`;
  assert.equal((parseYaml(shared) as { list: unknown[] }).list.length, 3000);
  assert.throws(() => parseYaml(`base: &b {x: 1}\nlist: [${'*b, '.repeat(20_000)}]`), /aliases stand for too much/);
  assert.throws(() => parseYaml('a: *nothing'), DecodeError);
});

test('one document, and all of it', () => {
  assert.deepEqual(parseYaml('---\na: 1\n...\n'), { a: 1 });
  for (const text of ['a: 1\n---\nb: 2', '[1, 2', '{a: 1', 'a: b: c', '"open', '\t- x', '%TAG']) {
    assert.throws(() => parseYaml(text), DecodeError, text);
  }
  assert.throws(
    () => parseYaml('password: "secret\nuser: ['),
    (error: unknown) => error instanceof DecodeError && !error.message.includes('secret'),
  );
});

test('a key __proto__ is a property and sets no prototype', () => {
  const value = parseYaml('__proto__: {admin: true}') as Record<string, unknown>;
  assert.equal(Object.getPrototypeOf(value), Object.prototype);
  assert.equal(value.admin, undefined);
});

test('what YAML cannot say is an EncodeError', () => {
  const circular: unknown[] = [];
  circular.push(circular);
  const formless = [Promise.resolve(1), new Error('x'), /x/, new ArrayBuffer(1), new WeakMap(), () => 1, Symbol('s')];
  const years = ['-000001', '0000', '+010000'].map((year) => new Date(`${year}-01-01T00:00:00Z`));
  for (const value of [circular, ...formless, ...years]) {
    assert.throws(() => stringifyYaml({ value }), EncodeError);
  }
  const told = Object.assign(new Error('x'), { toJSON: () => 'told' });
  assert.equal(stringifyYaml(told), 'told\n');
});

test('text with a tab is in quotes: PyYAML reads none outside of them', () => {
  assert.equal(stringifyYaml(['a\tb', { 'k\t': '\tx' }]), '- "a\\tb"\n- "k\\t": "\\tx"\n');
});

test('integers of any base are read up to the length that Python reads', () => {
  assert.equal(parseYaml('9'.repeat(4300)), BigInt('9'.repeat(4300)));
  // quadratic time: without the bound this takes minutes
  assert.throws(() => parseYaml(`1${':00'.repeat(320_000)}`), /integer of over 4300 characters/);
  for (const text of [`0x${'f'.repeat(4300)}`, `0b${'1'.repeat(4300)}`, `0${'7'.repeat(4300)}`, '9'.repeat(4301)]) {
    assert.throws(() => parseYaml(text), DecodeError);
  }
});

test('the tag ! asks what the text is without quotes, as PyYAML does', () => {
  const cases = { '!': null, '- !': [null], 'a: !': { a: null }, '! 12': 12, '! "12"': 12, '! x': 'x', '! [1]': [1] };
  for (const [text, value] of Object.entries(cases)) assert.deepEqual(parseYaml(text), value, text);
});

test('a key that is no text becomes it', () => {
  assert.deepEqual(parseYaml('{.inf: 1, 010: 2, yes: 3, ~: 4}'), { Infinity: 1, 8: 2, true: 3, '': 4 });
  assert.deepEqual(parseYaml(stringifyYaml({ '.inf': 1, '~': 2 })), { '.inf': 1, '~': 2 }, 'text that looks like one');
});
