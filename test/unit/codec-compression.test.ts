/** Compression: kombu's names, streams of other writers, and bodies made to do harm. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import zlib from 'node:zlib';
import fc from 'fast-check';
import { compress, decompress, encoders, getDecoder, getEncoder, names, register } from '#src/codec/compression';
import { DecodeError, EncodeError, MessageTooLarge, OptionError } from '#src/errors';

const text = Buffer.from('worker broth 消息 '.repeat(500));

test("names and content types are kombu's", () => {
  const types = Object.fromEntries(names().map((name) => [name, compress(text, name).contentType]));
  assert.deepEqual(types, {
    brotli: 'application/x-brotli',
    bzip: 'application/x-bz2',
    bzip2: 'application/x-bz2',
    gzip: 'application/x-gzip',
    lz4: 'application/x-lz4',
    lzma: 'application/x-lzma',
    xz: 'application/x-lzma',
    zlib: 'application/x-gzip',
    zstandard: 'application/zstd',
    zstd: 'application/zstd',
  });
  assert.deepEqual(zlib.inflateSync(compress(text, 'gzip').body), text, 'gzip is a zlib stream, as in kombu');
});

/** Their formats let streams follow one another, and they decode to one body. */
const CONCATENATED = ['bzip2', 'lzma', 'zstd', 'lz4'];

for (const name of ['zlib', 'gzip', 'brotli', ...CONCATENATED]) {
  test(`${name}: any body survives, by name and by content type`, () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 3000 }), (bytes) => {
        const { body, contentType } = compress(bytes, name);
        assert.deepEqual(decompress(body, name), Buffer.from(bytes));
        assert.deepEqual(decompress(body, contentType), Buffer.from(bytes));
      }),
    );
    const large = Buffer.alloc(1_000_000, 'mozuku');
    assert.ok(decompress(compress(large, name).body, name).equals(large));
  });

  test(`${name}: a stream that is cut off anywhere is a DecodeError`, () => {
    const { body } = compress(text, name);
    for (let length = 0; length < body.length; length++) {
      assert.throws(() => decompress(body.subarray(0, length), name), DecodeError, `cut to ${length}`);
    }
  });

  test(`${name}: bytes behind the end of the stream are a DecodeError`, () => {
    const { body } = compress(text, name);
    for (const tail of [Buffer.of(0), Buffer.from('more'), Buffer.alloc(1000, 7), body.subarray(0, -1)]) {
      assert.throws(() => decompress(Buffer.concat([body, tail]), name), DecodeError);
    }
    const twice = Buffer.concat([body, body]);
    if (CONCATENATED.includes(name)) assert.deepEqual(decompress(twice, name), Buffer.concat([text, text]));
    else assert.throws(() => decompress(twice, name), DecodeError);
  });

  test(`${name}: garbage is a DecodeError, or what it happens to say`, () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        try {
          decompress(Buffer.from(bytes), name);
        } catch (error) {
          assert.ok(error instanceof DecodeError);
        }
      }),
      { numRuns: 500 },
    );
  });

  test(`${name}: the limit is exact, and named`, () => {
    const { body } = compress(text, name);
    assert.deepEqual(decompress(body, name, { maxBytes: text.length }), text);
    assert.throws(
      () => decompress(body, name, { maxBytes: text.length - 1 }),
      (error: unknown) => {
        assert.ok(error instanceof MessageTooLarge);
        assert.match(error.message, new RegExp(`maxDecodedBytes.*${text.length - 1}`));
        assert.equal(error.details.maxBytes, text.length - 1);
        return true;
      },
    );
    assert.throws(() => decompress(body, name, { maxBytes: 0 }), MessageTooLarge);
    assert.equal(decompress(compress(Buffer.alloc(0), name).body, name, { maxBytes: 0 }).length, 0);
  });
}

test('real gzip streams, of one member or several, are read under the same type', () => {
  assert.deepEqual(decompress(zlib.gzipSync(text), 'application/x-gzip'), text);
  const two = Buffer.concat([zlib.gzipSync(text), zlib.gzipSync(text)]);
  assert.deepEqual(decompress(two, 'gzip'), Buffer.concat([text, text]));
  assert.throws(() => decompress(Buffer.concat([zlib.gzipSync(text), Buffer.from('tail')]), 'gzip'), DecodeError);
  const wrongSum = zlib.gzipSync(text);
  wrongSum.writeUInt8(wrongSum.readUInt8(wrongSum.length - 5) ^ 1, wrongSum.length - 5);
  assert.throws(() => decompress(wrongSum, 'gzip'), DecodeError);
});

test('a limit over what a Buffer can hold is a limit all the same', () => {
  for (const name of names()) {
    const { body } = compress(text, name);
    for (const maxBytes of [5 * 2 ** 30, Number.MAX_SAFE_INTEGER, Number.POSITIVE_INFINITY]) {
      assert.deepEqual(decompress(body, name, { maxBytes }), text, `${name} ${maxBytes}`);
    }
  }
});

test('an unknown compression is named, with those that are there', () => {
  assert.throws(() => decompress(text, 'application/x-snappy'), /'application\/x-snappy'.*brotli, bzip, .*10000 bytes/);
  assert.throws(() => decompress(text, 'constructor'), DecodeError);
  assert.throws(() => compress(text, 'snappy'), EncodeError);
});

test('an error names the compression and the length of the body, in its details too', () => {
  for (const name of names()) {
    assert.throws(
      () => decompress(Buffer.from('not compressed at all, and long enough'), name),
      (error: unknown) => {
        assert.ok(error instanceof DecodeError);
        assert.match(error.message, new RegExp(`compression '${name}', 38 bytes`));
        assert.doesNotMatch(error.message, /long enough/);
        assert.deepEqual({ ...error.details }, { compression: name, bytes: 38 });
        return true;
      },
      name,
    );
  }
});

test('a compression of the user is used; what it throws is wrapped, and its output is held to the limit', () => {
  const flip = (body: Buffer): Buffer => Buffer.from(body).reverse();
  register(flip, flip, 'application/x-flip', ['flip']);
  const { body, contentType } = compress(text, 'flip');
  assert.equal(contentType, 'application/x-flip');
  assert.deepEqual(decompress(body, contentType), text);
  assert.throws(() => decompress(body, 'flip', { maxBytes: 10 }), MessageTooLarge);
  const fail = (): Buffer => {
    throw 'a string';
  };
  register(fail, fail, 'application/x-fail', ['fail']);
  assert.throws(() => compress(text, 'fail'), EncodeError);
  assert.throws(() => decompress(text, 'fail'), DecodeError);
  register(null, null, 'application/x-none', ['none']);
  assert.throws(() => compress(text, 'none'), EncodeError);
  assert.throws(() => decompress(text, 'none'), DecodeError);
});

test('register refuses what it could not use; a compression that gives a promise is an error at once', async () => {
  const type = 'application/x-odd';
  assert.throws(() => register('zlib' as never, null, type), /the encoder must be a function/);
  assert.throws(() => register(null, 5 as never, type), /the decoder must be a function/);
  assert.throws(() => register(null, null, ''), OptionError);
  assert.throws(() => register(null, null, type, ['']), OptionError);
  const late = async (): Promise<never> => {
    throw new Error('late');
  };
  register(late as never, late as never, type, ['odd']);
  assert.throws(() => compress(text, 'odd'), /'odd' failed: it gave a promise/);
  assert.throws(() => decompress(text, 'odd'), DecodeError);
  // An unhandled rejection would be told, and fail this test, before the next turn of the loop.
  await new Promise((resolve) => setImmediate(resolve));
});

test('the registry answers as kombu does: content types, an encoder with its type, a decoder', () => {
  const types = [
    'application/x-gzip',
    'application/x-brotli',
    'application/x-bz2',
    'application/x-lzma',
    'application/zstd',
  ];
  for (const type of [...types, 'application/x-lz4']) assert.ok(encoders().includes(type), type);
  for (const [alias, type] of Object.entries({ zlib: types[0], bzip: types[2], xz: types[3], zstandard: types[4] })) {
    const { encode, contentType } = getEncoder(alias);
    assert.equal(contentType, type);
    assert.deepEqual(getDecoder(alias)(Buffer.from(encode(text)), text.length), text);
    assert.equal(getDecoder(alias), getDecoder(contentType));
  }
  assert.throws(() => getEncoder('snappy'), EncodeError);
  assert.throws(() => getDecoder('snappy'), DecodeError);
});
