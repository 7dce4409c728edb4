/** xz, .lzma and bzip2, which are written and read here: against what Python wrote, and against damage. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeBzip2 } from '#src/codec/compressions/bzip2-decoder';
import { encodeBzip2 } from '#src/codec/compressions/bzip2-encoder';
import { crc32 } from '#src/codec/compressions/crc32';
import { crc64 } from '#src/codec/compressions/crc64';
import { decodeXz } from '#src/codec/compressions/xz';
import { encodeXz } from '#src/codec/compressions/xz-encoder';
import { DecodeError, MessageTooLarge } from '#src/errors';

const MAX = 1 << 26;
const text = (length: number): Buffer => Buffer.alloc(length, 'one kelp, two kelp, a broth of kelp; ');
const mixed = Buffer.concat([
  text(70_000),
  randomBytes(150_000),
  text(10),
  Buffer.alloc(300_000),
  randomBytes(66_000),
  text(5000),
]);

test('CRC-64 is what xz computes', () => {
  assert.equal(crc64(Buffer.from('123456789')).readBigUInt64LE(), 0x995dc9bbdf1939fan);
});

// 'mozuku broth ' * 9, by Python's lzma and bz2 modules
const plain = Buffer.from('mozuku broth '.repeat(9));
const PYTHON = {
  'lzma.compress(d)':
    '/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4AB0ABRdADaby7wlGtpFvmZ62yiH4r934AAAAKv6dy1Zu28GAAEwdWsGr98ftvN9AQAAAAAEWVo=',
  'lzma.compress(d, check=lzma.CHECK_NONE)':
    '/Td6WFoAAAD/EtlBAgAhARYAAAB0L+Wj4AB0ABRdADaby7wlGtpFvmZ62yiH4r934AAAAAABKHUynrRdBnKeegEAAAAAAFla',
  'lzma.compress(d, check=lzma.CHECK_CRC32)':
    '/Td6WFoAAAFpIt42AgAhARYAAAB0L+Wj4AB0ABRdADaby7wlGtpFvmZ62yiH4r934AAAAHUn8p4AASx1NlvYOZBCmQ0BAAAAAAFZWg==',
  'lzma.compress(d, check=lzma.CHECK_SHA256)':
    '/Td6WFoAAArh+wyhAgAhARYAAAB0L+Wj4AB0ABRdADaby7wlGtpFvmZ62yiH4r934AAAAP7WOruQBgWkqJxk4wBwb57PhMxhzvsugMu7SosiTkeJAAFIdZX1STgYm0uaAQAAAAAKWVo=',
  'lzma.compress(d, preset=9)':
    '/Td6WFoAAATm1rRGAgAhARwAAAAQz1jM4AB0ABRdADaby7wlGtpFvmZ62yiH4r934AAAAKv6dy1Zu28GAAEwdWsGr98ftvN9AQAAAAAEWVo=',
  'lzma.compress(d, filters=[{"id": lzma.FILTER_LZMA2, "lc": 0, "lp": 2, "pb": 0}])':
    '/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4AB0ABQSADacqrpwAC+5cwIq0JRx0PtrEgAAAKv6dy1Zu28GAAEwdWsGr98ftvN9AQAAAAAEWVo=',
  'lzma.compress(d, format=lzma.FORMAT_ALONE)': 'XQAAgAD//////////wA2m8u8JRraRb5metsoh+K/gIUF///776AA',
};
const DELTA =
  '/Td6WFoAAATm1rRGAgEDAQAhARZ5IMTu4AB0ABZdADaAfW9gbLLCiAa04Dgndobd3IXAAAAAAACr+nctWbtvBgABMnXpZJntH7bzfQEAAAAABFla';
const BZ2 = 'QlpoOTFBWSZTWSy5UUwAABqRgEAAEEqWECAAQFKpk0eoIAYZG41GRuNRkex5GRkfRqPxdyRThQkCy5UUwA==';
const BZ2_LEVEL_1 = 'QlpoMTFBWSZTWSy5UUwAABqRgEAAEEqWECAAQFKpk0eoIAYZG41GRuNRkex5GRkfRqPxdyRThQkCy5UUwA==';

for (const [how, bytes] of Object.entries(PYTHON)) {
  test(`xz: Python's ${how} is read`, () => {
    const body = Buffer.from(bytes, 'base64');
    assert.deepEqual(decodeXz(body, plain.length), plain);
    assert.throws(() => decodeXz(body, plain.length - 1), MessageTooLarge);
    for (let length = 0; length < body.length; length++) {
      assert.throws(() => decodeXz(body.subarray(0, length), MAX), DecodeError, `cut to ${length}`);
    }
    assert.throws(() => decodeXz(Buffer.concat([body, Buffer.from('tail')]), MAX), /4 bytes follow/);
  });
}

test('xz: streams in a row, with padding between them, are one body', () => {
  const [a, b] = [encodeXz(text(100)), Buffer.from(PYTHON['lzma.compress(d)'], 'base64')];
  const both = Buffer.concat([text(100), plain]);
  assert.deepEqual(decodeXz(Buffer.concat([a, b]), MAX), both);
  assert.deepEqual(decodeXz(Buffer.concat([a, Buffer.alloc(8), b, Buffer.alloc(4)]), MAX), both);
  assert.throws(() => decodeXz(Buffer.concat([a, Buffer.alloc(3)]), MAX), /3 bytes follow/);
  assert.throws(() => decodeXz(Buffer.concat([a, b]), both.length - 1), MessageTooLarge);
});

test('xz: filters that are not read are named as the reason', () => {
  assert.throws(() => decodeXz(Buffer.from(DELTA, 'base64'), MAX), /filters besides LZMA2/);
});

test('xz: a wrong check, index or footer is damage', () => {
  const good = encodeXz(text(1000));
  for (let i = 1; i <= 36; i++) {
    const bytes = Buffer.from(good);
    bytes[bytes.length - i]! ^= 4;
    assert.throws(() => decodeXz(bytes, MAX), DecodeError, `${i} bytes before the end`);
  }
});

for (const [name, encode, decode] of [
  ['xz', encodeXz, decodeXz],
  ['bzip2', encodeBzip2, decodeBzip2],
] as const) {
  test(`${name}: what is repeated, what is noise, and both by turns survive`, () => {
    for (const body of [
      text(3),
      Buffer.alloc(255),
      Buffer.alloc(259),
      Buffer.alloc(260),
      Buffer.alloc(1_300_000),
      mixed,
    ]) {
      assert.ok(decode(encode(body), body.length).equals(body), `${body.length} bytes`);
    }
    const runs = fc.array(fc.record({ byte: fc.nat(3), length: fc.nat(600) }), { maxLength: 30 });
    fc.assert(
      fc.property(runs, (list) => {
        const body = Buffer.concat(list.map(({ byte, length }) => Buffer.alloc(length, byte)));
        assert.ok(decode(encode(body), body.length).equals(body));
      }),
      { numRuns: 60 },
    );
  });

  test(`${name}: more than one block or chunk survives`, () => {
    const noise = randomBytes(200_000);
    const body = Buffer.concat([noise, text(900_000), noise, text(1_500_000)]);
    assert.ok(decode(encode(body), body.length).equals(body));
  });

  test(`${name}: reads from shared memory, and keeps nothing of it`, () => {
    const bytes = encode(text(5000));
    const slot = Buffer.from(new SharedArrayBuffer(bytes.length + 3), 3);
    slot.set(bytes);
    const decoded = decode(slot, MAX);
    slot.fill(0);
    assert.ok(text(5000).equals(decoded));
  });
}

test('bzip2: what Python writes is read, one stream or several', () => {
  for (const bytes of [BZ2, BZ2_LEVEL_1]) {
    const body = Buffer.from(bytes, 'base64');
    assert.deepEqual(decodeBzip2(body, plain.length), plain);
    assert.throws(() => decodeBzip2(body, plain.length - 1), MessageTooLarge);
    assert.deepEqual(decodeBzip2(Buffer.concat([body, body]), MAX), Buffer.concat([plain, plain]));
    assert.throws(() => decodeBzip2(Buffer.concat([body, Buffer.from('tail')]), MAX), /4 bytes follow/);
  }
});

test('bzip2: a wrong checksum, of a block or of the stream, is damage', () => {
  const good = encodeBzip2(text(1000));
  for (const at of [10, 11, 12, 13, good.length - 2, good.length - 3]) {
    const bytes = Buffer.from(good);
    bytes[at]! ^= 4;
    assert.throws(() => decodeBzip2(bytes, MAX), DecodeError);
  }
});

/** A stream by the specification, of one block whose chunks, header and index padding are given. */
function xzOf(chunks: Buffer, size: number, { filter = [0x21, 1, 0], padding = 0, indexPadding = 0 } = {}): Buffer {
  const sum = (bytes: Buffer): Buffer => {
    const result = Buffer.alloc(4);
    result.writeUInt32LE(crc32(bytes));
    return Buffer.concat([bytes, result]);
  };
  const flags = Buffer.of(0, 0);
  const blockHeader = sum(Buffer.of(2, 0, ...filter, 0, 0, padding));
  const unpadded = blockHeader.length + chunks.length;
  const records = Buffer.of(0, 1, ...varint(unpadded), ...varint(size));
  const fill = Buffer.alloc((4 - (records.length & 3)) & 3, indexPadding);
  const index = sum(Buffer.concat([records, fill]));
  const footer = Buffer.concat([Buffer.of(index.length / 4 - 1, 0, 0, 0), flags]);
  return Buffer.concat([
    Buffer.of(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0),
    sum(flags),
    blockHeader,
    chunks,
    Buffer.alloc((4 - (chunks.length & 3)) & 3),
    index,
    sum(footer).subarray(6),
    footer,
    Buffer.from('YZ'),
  ]);
}

const varint = (value: number): number[] => (value < 128 ? [value] : [(value & 127) | 128, ...varint(value >> 7)]);
const storedChunk = (control: number, bytes: Buffer): Buffer =>
  Buffer.concat([Buffer.of(control, (bytes.length - 1) >> 8, (bytes.length - 1) & 255), bytes]);

test('xz: padding is zero, and the dictionary a size that is', () => {
  const chunks = Buffer.concat([storedChunk(1, text(200)), Buffer.of(0)]);
  const build = (how: Parameters<typeof xzOf>[2]): Buffer => decodeXz(xzOf(chunks, 200, how), MAX);
  assert.deepEqual(build({}), text(200));
  assert.deepEqual(build({ filter: [0x21, 1, 40] }), text(200));
  assert.throws(() => build({ filter: [0x21, 1, 41] }), /dictionary of a size that is not/);
  assert.throws(() => build({ padding: 1 }), /padding of a block header/);
  assert.throws(() => build({ indexPadding: 1 }), /index is damaged/);
});

test('xz: what starts a dictionary anew names its properties anew', () => {
  // the LZMA chunk that our encoder writes for this text: with a dictionary (3), with properties (2), with neither (1)
  const stream = encodeXz(text(500));
  const control = stream.indexOf(0xe0, 24);
  const packed = stream.readUInt16BE(control + 3) + 1;
  const body = stream.subarray(control + 6, control + 6 + packed);
  const [head, properties] = [stream.subarray(control + 1, control + 5), stream[control + 5]!];
  const chunk = (reset: number): Buffer =>
    Buffer.concat([Buffer.of(0x80 | (reset << 5)), head, Buffer.from(reset > 1 ? [properties] : []), body]);
  const read = (...chunks: Buffer[]): Buffer => decodeXz(xzOf(Buffer.concat([...chunks, Buffer.of(0)]), 1052), MAX);
  // As long as the contexts of LZMA repeat, and of a byte that says as little as none: the chunk behind it reads the same.
  const between = Buffer.alloc(52, 10);
  const whole = Buffer.concat([text(500), between, text(500)]);
  assert.deepEqual(read(chunk(3), storedChunk(1, between), chunk(2)), whole);
  assert.deepEqual(read(chunk(3), storedChunk(2, between), chunk(3)), whole);
  assert.throws(() => read(chunk(3), storedChunk(1, between), chunk(1)), /has no properties/);
});
