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
});

test('what cannot be encoded is an EncodeError, and the next value is encoded all the same', () => {
  const circular: unknown[] = [];
  circular.push(circular);
  const angry = {
    toJSON() {
      throw new TypeError('no');
    },
  };
  for (const value of [2n ** 64n, -(2n ** 63n) - 1n, circular, { a: Symbol('s') }, angry]) {
    assert.throws(() => packMsgpack(value), EncodeError);
    assert.equal(hex({ a: 1 }), '81a16101');
  }
  assert.equal(hex(new Date(Number.NaN)), 'c0');
});
