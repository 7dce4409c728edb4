/** Option tables: defaults, errors that name the option and what it may be, hints, and texts that hold no password. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { OptionError } from '#src/errors';
import { Connection } from '#src/main/connection';
import { SHARDED_CONSUMER_OPTIONS } from '#src/main/runtime/options';
import { kinds, nearest, type OptionTable, readOptions } from '#src/options';

interface Sample {
  readonly name: string;
  readonly prefetchCount?: number;
  readonly mode?: 'fast' | 'safe';
  readonly timeout?: number;
  readonly tags?: readonly string[];
  readonly free?: boolean;
}

const TABLE: OptionTable<Sample> = {
  name: { kind: kinds.name, required: true, doc: 'what it is called' },
  prefetchCount: { kind: kinds.integer(1, 65_535), default: 10, doc: 'how many' },
  mode: { kind: kinds.oneOf('fast', 'safe'), default: 'safe', doc: 'how' },
  timeout: { kind: kinds.milliseconds, doc: 'how long' },
  tags: { kind: kinds.strings, default: [], doc: 'labels' },
  free: { kind: kinds.boolean, doc: 'or not' },
};

function textOf(given: unknown, table: OptionTable<Sample> = TABLE): string {
  try {
    readOptions('Sample', table, given);
  } catch (error) {
    assert.ok(error instanceof OptionError, String(error));
    return `${error.message} ${JSON.stringify(error.details)} ${error.stack}`;
  }
  assert.fail('it was accepted');
}

describe('options', () => {
  it('are filled in from the table, and undefined counts as absent', () => {
    assert.deepEqual(readOptions('Sample', TABLE, { name: 'n', mode: undefined, timeout: undefined }), {
      name: 'n',
      prefetchCount: 10,
      mode: 'safe',
      tags: [],
    });
  });

  it('keep what was given, false and 0 too', () => {
    const given = { name: 'n', prefetchCount: 1, mode: 'fast', timeout: 0, tags: ['a'], free: false };
    assert.deepEqual(readOptions('Sample', TABLE, given), given);
  });

  it('may be inherited, and what else is inherited does not count', () => {
    class Given {
      get name() {
        return 'n';
      }
      other = undefined;
    }
    assert.throws(() => readOptions('Sample', TABLE, new Given()), /unknown option 'other'/);
    class Mode extends Object {
      get name() {
        return 'n';
      }
      get mode() {
        return 'fast';
      }
      get nothing() {
        return 1;
      }
    }
    assert.deepEqual(readOptions('Sample', TABLE, new Mode()), {
      ...readOptions('Sample', TABLE, { name: 'n' }),
      mode: 'fast',
    });
    assert.deepEqual(
      readOptions('Sample', TABLE, Object.create({ name: 'n' })),
      readOptions('Sample', TABLE, { name: 'n' }),
    );
  });

  it('of a wrong kind are refused by name, with what they must be', () => {
    const wrong: [key: keyof Sample, values: unknown[], words: string][] = [
      ['name', ['', 7, null, {}], 'a string that is not empty'],
      ['prefetchCount', [0, 65_536, 1.5, Number.NaN, '5', 5n, null], 'a whole number from 1 to 65535'],
      ['mode', ['slow', '', null, ['fast']], "one of 'fast', 'safe'"],
      [
        'timeout',
        [-1, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 31, '1s'],
        'milliseconds: a number from 0 to 2147483647',
      ],
      ['tags', ['a', [1], [null], {}], 'a list of strings'],
      ['free', [0, 1, 'true', null, Symbol('x'), () => true], 'true or false'],
    ];
    for (const [key, values, words] of wrong) {
      for (const value of values) {
        const text = textOf({ name: 'n', [key]: value });
        assert.ok(text.startsWith(`Sample: the option '${key}' must be ${words}, not `), text);
        assert.ok(text.includes(`{"option":"${key}"}`));
      }
    }
  });

  it('that are required and missing are named, with what they are for', () => {
    for (const given of [undefined, {}, { name: undefined }]) {
      assert.match(textOf(given), /^Sample: the option 'name' is required: what it is called/);
    }
  });

  it('must be an object', () => {
    for (const given of [null, 7, 'x', [], true, () => undefined])
      assert.match(textOf(given), /options must be an object, not /);
  });

  it('that are unknown are refused, with the nearest known one if one is near', () => {
    assert.match(
      textOf({ name: 'n', prefetchcount: 5 }),
      /unknown option 'prefetchcount'; did you mean 'prefetchCount'\?/,
    );
    assert.match(textOf({ name: 'n', prefetch_count: 5 }), /did you mean 'prefetchCount'\?/);
    assert.match(textOf({ name: 'n', mod: 'fast' }), /did you mean 'mode'\?/);
    assert.match(textOf({ name: 'n', somethingElse: 1 }), /it knows name, prefetchCount, mode, timeout, tags, free/);
  });

  it('named like a property of every object are unknown too', () => {
    for (const key of ['constructor', 'toString', 'hasOwnProperty', '__proto__']) {
      const given = Object.defineProperty({ name: 'n' }, key, { value: 1, enumerable: true });
      assert.ok(textOf(given).includes(`unknown option '${key}'`));
    }
  });

  it('are hinted at by whoever mistypes one letter of any of them', () => {
    const known = Object.keys(SHARDED_CONSUMER_OPTIONS);
    fc.assert(
      fc.property(
        fc.constantFrom(...known),
        fc.nat(),
        fc.constantFrom('drop', 'double', 'swap', 'replace'),
        (name, at, how) => {
          const place = at % (name.length - 1);
          const pair = name.slice(place, place + 2);
          const middle = {
            drop: pair[1],
            double: `${pair[0]}${pair}`,
            swap: `${pair[1]}${pair[0]}`,
            replace: `#${pair[1]}`,
          }[how];
          const typed = name.slice(0, place) + middle + name.slice(place + 2);
          if (known.includes(typed)) return;
          const hint = nearest(typed, known);
          assert.equal(hint, name, typed);
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('far from every known one get no hint', () => {
    assert.equal(nearest('zzzzzz', ['name', 'mode']), undefined);
    assert.equal(nearest('', ['timeout']), undefined);
    assert.equal(nearest('abc', ['xyz', 'abxyz']), undefined);
    assert.equal(nearest('abc', ['xyz', 'abx', 'abd']), 'abx', 'the first of those equally near');
  });
});

describe('error texts of options', () => {
  const SECRET = 'hunter2';

  it('show no password of a URL, whatever else is in it', () => {
    const noise = fc.string({ unit: fc.constantFrom(':', '@', '/', '?', '#', '%', ';', 'a', '.'), maxLength: 6 });
    const url = fc
      .tuple(fc.constantFrom('amqp://', 'amqps://', 'redis://'), fc.constantFrom('', 'guest', 'me.you'), noise, noise)
      .map(([scheme, user, before, after]) => `${scheme}${user}:${before}${SECRET}${after}@host:5672/vhost`);
    fc.assert(
      fc.property(url, fc.boolean(), (text, list) => {
        const given = list ? `${text};amqp://other` : text;
        assert.ok(!textOf(given).includes(SECRET), `as options: ${given}`);
        assert.ok(!textOf({ name: 'n', mode: given }).includes(SECRET), `as a value: ${given}`);
        assert.ok(!textOf({ name: 'n', tags: given }).includes(SECRET), `as a value: ${given}`);
        assert.ok(!textOf({ name: 'n', timeout: { url: given } }).includes(SECRET), `inside an object: ${given}`);
      }),
      { numRuns: 1000 },
    );
  });

  it('show no value of the option `password`', () => {
    for (const password of [73_317, [`${SECRET}`], { SECRET }]) {
      assert.throws(
        () => new Connection('amqp://h', { password: password as never }),
        (error: unknown) =>
          error instanceof OptionError &&
          /'password' must be a string/.test(error.message) &&
          !/73317|hunter2/.test(error.message),
      );
    }
  });

  it('are short, however long the value', () => {
    assert.ok(textOf({ name: 'n', mode: 'x'.repeat(10_000) }).split('\n')[0]!.length < 400);
  });

  it('can be made of values that resist', () => {
    const hostile = [
      Object.create(null),
      { constructor: null },
      { constructor: undefined },
      new Proxy({}, {}),
      new Date(0),
      /x/,
    ];
    for (const value of hostile) assert.match(textOf({ name: 'n', mode: value }), /'mode' must be/);
  });
});
