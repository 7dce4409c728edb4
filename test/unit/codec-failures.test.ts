/** What arrives broken, or under a wrong name: an error that says codec, content type and size, and nothing else. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compress, names } from '#src/codec/compression';
import { type BodyInfo, decodePayload } from '#src/codec/decode';
import { dumps, prepareAcceptContent } from '#src/codec/serialization';
import { DecodeError } from '#src/errors';
import { DecodeCase } from '../support/decode-case.js';

const SERIALIZERS = ['json', 'msgpack', 'yaml', 'text'];
const COMPRESSIONS = [undefined, ...new Set(names().map((name) => compress(Buffer.from('x'), name).contentType))];
const limits = { accept: prepareAcceptContent([...SERIALIZERS, 'raw']), maxDecodedBytes: 1 << 24 };

const value = (serializer: string): unknown =>
  serializer === 'text'
    ? 'kelp broth '.repeat(40)
    : { id: 7, list: [1.5, null, true], text: 'kelp broth '.repeat(20), deep: { er: {} } };

function sent(serializer: string, compression: string | undefined): { info: BodyInfo; body: Buffer } {
  const { contentType, contentEncoding, body } = dumps(value(serializer), serializer);
  const packed = compression === undefined ? body : compress(body, compression).body;
  return { info: { contentType, contentEncoding, compression }, body: packed };
}

/** Decodes to something, or to an error of ours that tells what it was. */
function decodeOrTell(body: Buffer, info: BodyInfo): 'decoded' | 'refused' {
  try {
    decodePayload(body, info, limits);
    return 'decoded';
  } catch (error) {
    assert.ok(error instanceof DecodeError, String(error));
    assert.equal(error.details.bytes, body.length);
    assert.equal(error.details.contentType, info.contentType);
    assert.equal(error.details.compression, info.compression);
    assert.match(error.message, new RegExp(`${body.length} bytes`));
    assert.ok(error.message.includes(String(info.contentType)), error.message);
    if (info.compression !== undefined) assert.ok(error.message.includes(info.compression), error.message);
    return 'refused';
  }
}

for (const serializer of SERIALIZERS) {
  for (const compression of COMPRESSIONS) {
    const name = compression === undefined ? serializer : `${serializer} in ${compression}`;

    test(`${name}: damaged and cut off bodies are told apart or refused, and good ones decode as before`, () => {
      const { info, body } = sent(serializer, compression);
      const random = new DecodeCase(body.length);
      let refused = 0;
      for (let i = 0; i < 300; i++) if (decodeOrTell(random.mutate(body), info) === 'refused') refused++;
      for (let length = 0; length < body.length; length += 7) decodeOrTell(body.subarray(0, length), info);
      if (compression !== undefined) assert.ok(refused > 200, `${refused} of 300 refused`);
      assert.deepEqual(decodePayload(body, info, limits), value(serializer));
    });
  }
}

test('a body under the wrong compression is refused', () => {
  for (const written of COMPRESSIONS) {
    const { info, body } = sent('json', written);
    for (const compression of COMPRESSIONS) {
      if (compression === written) continue;
      assert.equal(decodeOrTell(body, { ...info, compression }), 'refused', `${written} read as ${compression}`);
    }
  }
});

test('a body under the wrong content type is refused, or is what it says', () => {
  for (const written of SERIALIZERS) {
    for (const read of SERIALIZERS) {
      const { body } = sent(written, undefined);
      const { contentType, contentEncoding } = dumps('', read);
      decodeOrTell(body, { contentType, contentEncoding });
    }
  }
  assert.equal(decodeOrTell(sent('msgpack', undefined).body, { contentType: 'application/json' }), 'refused');
});

test('an empty body is not decoded; one that should be compressed is cut off', () => {
  const empty = Buffer.alloc(0);
  for (const serializer of SERIALIZERS) {
    for (const compression of COMPRESSIONS) {
      const { info } = sent(serializer, compression);
      if (compression !== undefined) assert.equal(decodeOrTell(empty, info), 'refused', compression);
      else assert.deepEqual(decodePayload(empty, info, limits), serializer === 'msgpack' ? empty : '');
    }
  }
});

test('an empty payload, compressed, is as empty as before', () => {
  for (const compression of COMPRESSIONS) {
    if (compression === undefined) continue;
    const body = compress(Buffer.alloc(0), compression).body;
    const info = { contentType: 'application/data', contentEncoding: 'binary', compression };
    assert.deepEqual(decodePayload(body, info, limits), Buffer.alloc(0), compression);
  }
});

test('an unknown compression is named with what there is', () => {
  const info = { contentType: 'application/json', compression: 'application/x-snappy' };
  assert.equal(decodeOrTell(Buffer.from('{}'), info), 'refused');
});

test('fifty megabytes go through every codec that main or a worker may meet', () => {
  const body = Buffer.alloc(50_000_000, `${'{"id":1234567,"name":"kelp","tags":["a","b"]},'.repeat(40)}\n`);
  const roomy = { ...limits, maxDecodedBytes: body.length };
  for (const compression of ['zlib', 'zstd', 'lz4']) {
    const info = { contentType: 'application/data', contentEncoding: 'binary', compression };
    const packed = compress(body, compression).body;
    assert.ok((decodePayload(packed, info, roomy) as Buffer).equals(body), compression);
    assert.throws(() => decodePayload(packed, info, { ...limits, maxDecodedBytes: body.length - 1 }), DecodeError);
  }
  const text = JSON.stringify(Array.from({ length: 500_000 }, (_, i) => `${i} ${'x'.repeat(90)}`));
  const large = { ...limits, maxDecodedBytes: 64_000_000 };
  assert.equal(
    (decodePayload(Buffer.from(text), { contentType: 'application/json' }, large) as unknown[]).length,
    500_000,
  );
});
