/** MessagePack as Python reads it: real integers, no extensions of msgpackr, no memory shared with anything. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { packMsgpack, unpackMsgpack } from '#src/codec/msgpack';
import { DecodeError, EncodeError } from '#src/errors';

const hex = (value: unknown): string => packMsgpack(value).toString('hex');
const through = (value: unknown): unknown => unpackMsgpack(packMsgpack(value));

test('values survive', () => {
  const leaf = fc.oneof(
    fc.jsonValue({ maxDepth: 0 }).map((value) => (Object.is(value, -0) ? 0 : value)),
    fc.maxSafeInteger(),
    fc.date({ noInvalidDate: true, min: new Date('1900-01-01'), max: new Date('2200-01-01') }),
    fc.uint8Array().map((bytes) => Buffer.from(bytes)),
    fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }).filter((n) => n > 2n ** 53n || n < -(2n ** 53n)),
  );
  const key = fc.string().filter((text) => text !== '__proto__');
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof(
      { depthSize: 'small' },
      leaf,
      fc.array(tie('tree')),
      fc.dictionary(key, tie('tree'), { noNullPrototype: true }),
    ),
  }));
  fc.assert(
    fc.property(tree, (value) => {
      assert.deepEqual(through(value), value);
    }),
  );
});

test('maps are plain, and whole numbers integers of the size they need', () => {
  assert.equal(hex({ a: 1 }), '81a16101');
  assert.equal(hex(2 ** 32 - 1), 'ceffffffff');
  assert.equal(hex(2 ** 32), 'd30000000100000000');
  assert.equal(hex(-(2 ** 31) - 1), 'd3ffffffff7fffffff');
  assert.equal(hex(1.5), 'cb3ff8000000000000');
  assert.equal(
    hex(1e300),
    `cb${Buffer.from(new Float64Array([1e300]).buffer)
      .reverse()
      .toString('hex')}`,
  );
  assert.equal(hex(undefined), 'c0');
  assert.equal(hex({ a: undefined }), '81a161c0');
});

test('large whole numbers are integers inside lists, maps, sets and what toJSON returns; the value is left as it was', () => {
  const big = 1_700_000_000_000;
  const value = Object.freeze({ list: Object.freeze([1, big]), map: new Map([[big, { big }]]), nan: Number.NaN });
  const text = hex([value, new Set([big]), { toJSON: () => big }]);
  assert.equal(text.split('d30000018bcfe56800').length - 1, 5);
  assert.equal(value.list[1], big);
});

test('an encoded body keeps its bytes when others are encoded after it, and keeps no other memory', () => {
  const first = packMsgpack({ a: 'first' });
  for (let i = 0; i < 100; i++) packMsgpack({ b: `other ${i}` });
  assert.deepEqual(unpackMsgpack(first), { a: 'first' });
  packMsgpack('x'.repeat(1_000_000));
  // Node 26 makes its pool a little longer than it says.
  assert.ok(packMsgpack(1).buffer.byteLength < 2 * Buffer.poolSize, "a small body holds msgpackr's large buffer");
});

test('bytes decoded out of shared memory are copies, and the body gets no property', () => {
  const value = { bytes: Buffer.from('abc'), long: Buffer.alloc(300, 1), text: 'x'.repeat(500) };
  const packed = packMsgpack(value);
  const slot = Buffer.from(new SharedArrayBuffer(packed.length + 5), 5);
  slot.set(packed);
  const decoded = unpackMsgpack(slot) as typeof value;
  slot.fill(0xc1);
  assert.deepEqual(decoded, value);
  assert.ok(Buffer.isBuffer(decoded.bytes) && !(decoded.bytes.buffer instanceof SharedArrayBuffer));
  assert.equal(Object.hasOwn(slot, 'dataView'), false);
});

test('every view of bytes is written as the bytes it shows, and as no others', () => {
  const buffer = Uint8Array.from([9, 0, 0, 0, 0, 0, 248, 63, 7, 7, 7, 7, 7, 7, 7, 7]).buffer;
  const shared = new SharedArrayBuffer(8);
  new Uint8Array(shared).fill(5);
  const views = [
    new Float64Array([1.5]),
    new Uint16Array([1, 2]),
    new Int32Array(buffer, 4, 2),
    new Uint8ClampedArray(buffer, 1, 3),
    new BigInt64Array([-1n]),
    new DataView(buffer, 6, 4),
    Buffer.from(buffer, 7, 2),
    new Uint8Array(buffer, 6, 2),
  ];
  for (const view of views) {
    const bytes = Buffer.from(view.buffer, view.byteOffset, view.byteLength);
    assert.deepEqual(through([view]), [Buffer.from(bytes)], view.constructor.name);
  }
  assert.deepEqual(through({ buffer, shared }), { buffer: Buffer.from(buffer), shared: Buffer.alloc(8, 5) });
});

test('objects around a number, text or truth are what they hold', () => {
  assert.deepEqual(through([Object(5), Object('s'), Object(false), Object(2n ** 60n)]), [5, 's', false, 2n ** 60n]);
});

test('damaged bodies are DecodeErrors', () => {
  const body = packMsgpack({ name: 'worker', list: [1, 2, 3], at: new Date(0), big: 2n ** 60n });
  for (let length = 1; length < body.length; length++) {
    assert.throws(() => unpackMsgpack(body.subarray(0, length)), DecodeError, `cut to ${length}`);
  }
  assert.throws(() => unpackMsgpack(Buffer.concat([body, Buffer.of(0)])), /left behind/);
  assert.throws(() => unpackMsgpack(Buffer.from('ddffffffff', 'hex')), DecodeError);
  assert.throws(() => unpackMsgpack(Buffer.alloc(500_000, 0x91)), DecodeError);
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1 }), (bytes) => {
      try {
        unpackMsgpack(Buffer.from(bytes));
      } catch (error) {
        assert.ok(error instanceof DecodeError);
      }
    }),
    { numRuns: 2000 },
  );
});

test('a key __proto__ sets no prototype', () => {
  const value = unpackMsgpack(Buffer.from('81a95f5f70726f746f5f5f81a161c3', 'hex')) as Record<string, unknown>;
  assert.equal(Object.getPrototypeOf(value), Object.prototype);
  assert.equal(value.a, undefined);
  assert.deepEqual(Object.keys(value), ['__proto__']);
});

test('what cannot be encoded is an EncodeError, and the next value is encoded all the same', () => {
  const circular: unknown[] = [];
  circular.push(circular);
  const angry = {
    toJSON() {
      throw new TypeError('no');
    },
  };
  const formless = [Promise.resolve(1), new Error('x'), /x/, new WeakMap(), () => 1, { method: () => 1 }];
  for (const value of [2n ** 64n, -(2n ** 63n) - 1n, circular, { a: Symbol('s') }, angry, ...formless]) {
    assert.throws(() => packMsgpack(value), EncodeError);
    assert.equal(hex({ a: 1 }), '81a16101');
  }
  assert.equal(hex(new Date(Number.NaN)), 'c0');
});

const read = (bytes: string): unknown => unpackMsgpack(Buffer.from(bytes, 'hex'));

test('every kind of value is read, at its limits', () => {
  const cases: Record<string, unknown> = {
    '7f': 127,
    e0: -32,
    ff: -1,
    ccff: 255,
    cdffff: 65_535,
    ceffffffff: 2 ** 32 - 1,
    cf001fffffffffffff: Number.MAX_SAFE_INTEGER,
    cf0020000000000000: 2n ** 53n,
    cfffffffffffffffff: 2n ** 64n - 1n,
    d080: -128,
    d18000: -32_768,
    d280000000: -(2 ** 31),
    d3ffe0000000000001: Number.MIN_SAFE_INTEGER,
    d3ffe0000000000000: -(2n ** 53n),
    d38000000000000000: -(2n ** 63n),
    ca3fc00000: 1.5,
    cb3ff8000000000000: 1.5,
    d90161: 'a',
    da000161: 'a',
    db0000000161: 'a',
    c40107: Buffer.of(7),
    c5000107: Buffer.of(7),
    c60000000107: Buffer.of(7),
    dc000107: [7],
    dd0000000107: [7],
    de0001a16107: { a: 7 },
    df00000001a16107: { a: 7 },
    '84c001c302ccc803cb3ff800000000000004': { null: 1, true: 2, 200: 3, '1.5': 4 },
    d6ff00000001: new Date(1000),
    d7ff0000000100000002: new Date(2 ** 34 * 0 + 4294967296000 + 2000),
    d7ffee6b27fc00000001: new Date(1999),
    c70cff00000001ffffffffffffffff: new Date(-1000),
  };
  for (const [bytes, value] of Object.entries(cases)) assert.deepEqual(read(bytes), value, bytes);
});

test('what the specification does not have is a DecodeError, the extensions of msgpackr above all', () => {
  const refused: Record<string, RegExp> = {
    c1: /0xc1 at 0 is no value/,
    '91c1': /0xc1 at 1/,
    d4720191a16107: /extension type 114/, // a record
    d669000000009100: /extension type 105/, // a structure that may contain itself
    d57000017f: /extension type 112/,
    d54200017f: /extension type 66/, // a BigInt
    d57400017f: /extension type 116/, // a typed array
    d40000: /extension type 0/, // undefined
    d40500: /extension type 5/,
    d480aa: /extension type -128/,
    c70005: /extension type 5 \(0 bytes\)/,
    d4ff00: /timestamp has 1 bytes/,
    c700ff: /timestamp has 0 bytes/,
    c705ff0000000000: /timestamp has 5 bytes/,
    d7ffffffffff00000000: /outside of what a Date holds/, // over a thousand million nanoseconds
    c70cff000000007fffffffffffffff: /outside of what a Date holds/,
    '81c40161c0': /key that is neither text nor a number/,
    '819000': /key that is neither/,
  };
  for (const [bytes, why] of Object.entries(refused)) {
    assert.throws(
      () => read(bytes),
      (error: unknown) => error instanceof DecodeError && why.test(error.message),
      bytes,
    );
  }
  assert.throws(
    () => read('d40500'),
    (error: unknown) => error instanceof DecodeError && error.details.extensionType === 5,
  );
});

test('text is UTF-8 or an error, short or long, value or key', () => {
  for (const bytes of ['a1ff', 'a3eda080', `d940${'61'.repeat(63)}ff`, '81a1ff01', 'a2c3', 'a4f8888080']) {
    assert.throws(() => read(bytes), /not valid UTF-8|cut off/, bytes);
  }
  for (const text of ['\ufffd', 'é', '消息', '🐙', `${'x'.repeat(70)}\ufffd`, '']) assert.equal(through(text), text);
  for (const value of ['\ud800', ['a\udfff'], { '\ud800': 1 }, new Map([['\ud800', 1]])]) {
    assert.throws(() => packMsgpack(value), EncodeError);
  }
});

test('words that look alike to the cache of short texts stay themselves', () => {
  const words = Array.from({ length: 20_000 }, (_, i) => (i * 7919).toString(36));
  for (let round = 0; round < 2; round++) assert.deepEqual(through(words), words);
});

test('lengths that a body cannot hold allocate nothing', () => {
  // the last would be 8 GB of lists
  for (const bytes of ['ddffffffff', 'dfffffffff', 'c6ffffffff', 'dbffffffff', 'dd00ffffff'.repeat(64)]) {
    assert.throws(() => read(bytes), /cut off/, bytes);
  }
});
