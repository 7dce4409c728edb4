/** What Python's kombu puts on the wire decodes to what was sent, also out of shared memory that is then overwritten. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { compress } from '#src/codec/compression';
import { decodePayload } from '#src/codec/decode';
import { dumps, loads, prepareAcceptContent } from '#src/codec/serialization';

interface Vector {
  readonly name: string;
  readonly serializer: string | null;
  readonly compression: string | null;
  readonly value: unknown;
  readonly content_type: string;
  readonly content_encoding: string;
  readonly headers: { readonly compression?: string };
  readonly body_base64: string;
}

const file = new URL('../../../test/vectors/codec.json', import.meta.url);
const { vectors } = JSON.parse(readFileSync(file, 'utf8')) as { vectors: Vector[] };
const limits = { accept: prepareAcceptContent(['json', 'text', 'raw', 'msgpack', 'yaml']), maxDecodedBytes: 1 << 20 };

/** The file's `{ "$type": text }` as the values they become here. */
function expected(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(expected);
  const [entry, ...others] = Object.entries(value);
  if (entry !== undefined && others.length === 0 && typeof entry[1] === 'string') {
    const [key, text] = entry;
    if (key === '$datetime') return new Date(/[+-]\d\d:\d\d$/.test(text) ? text : `${text}Z`);
    if (key === '$bytes') return Buffer.from(text, 'base64');
    if (key.startsWith('$')) return text;
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, expected(item)]));
}

function shared(bytes: Buffer, offset: number): Buffer {
  const view = Buffer.from(new SharedArrayBuffer(offset + bytes.length + 8), offset, bytes.length);
  view.set(bytes);
  return view;
}

for (const vector of vectors) {
  test(`kombu's ${vector.name} decodes`, () => {
    const info = {
      contentType: vector.content_type,
      contentEncoding: vector.content_encoding,
      compression: vector.headers.compression,
    };
    const bytes = Buffer.from(vector.body_base64, 'base64');
    const value = expected(vector.value);
    assert.deepEqual(decodePayload(bytes, info, limits), value);
    for (const offset of [0, 3]) {
      const slot = shared(bytes, offset);
      const decoded = decodePayload(slot, info, limits);
      slot.fill(0x5a);
      assert.deepEqual(decoded, value, 'the payload changed with the slot it was decoded from');
    }
  });

  test(`kombu's ${vector.name} survives being sent on`, () => {
    const value = expected(vector.value);
    const sent = dumps(value, vector.serializer ?? undefined);
    assert.equal(sent.contentType, vector.content_type);
    assert.equal(sent.contentEncoding, vector.content_encoding);
    assert.deepEqual(loads(sent.body, sent.contentType, sent.contentEncoding, limits), value);
    if (vector.compression === null) return;
    const [compression = ''] = vector.compression.split('-'); // behind it: how the writer was set
    const { body, contentType } = compress(sent.body, compression);
    assert.equal(contentType, vector.headers.compression);
    assert.deepEqual(decodePayload(body, { ...sent, compression: contentType }, limits), value);
  });
}

test('the file has vectors of every kind this test is for', () => {
  const kinds = new Set(vectors.map((vector) => vector.name.split('/')[0]));
  const wanted = ['json', 'msgpack'].flatMap((name) =>
    ['', '+brotli', '+bzip2', '+lzma', '+zlib'].map((compression) => name + compression),
  );
  const lz4 = ['', '-hc', '-independent', '-linked-64k-checksums'].map((how) => `json+lz4${how}`);
  const zstd = ['', '-checksum', '-nosize'].map((how) => `json+zstd${how}`);
  assert.deepEqual([...kinds].sort(), [...wanted, ...lz4, ...zstd, 'raw', 'yaml'].sort());
});
