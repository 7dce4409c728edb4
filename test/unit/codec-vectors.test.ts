/** What Python's kombu puts on the wire decodes to what was sent, also out of shared memory that is then overwritten. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { compress } from '#src/codec/compression';
import { type BodyInfo, decodePayload } from '#src/codec/decode';
import { dumps, loads, prepareAcceptContent } from '#src/codec/serialization';
import { kombuFacts, kombuTest, runPython } from '../support/kombu.js';

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

interface Envelope {
  readonly name: string;
  readonly value: unknown;
  /** JSON: what kombu's transports that are not AMQP store. */
  readonly envelope: string;
}

const read = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../../../test/vectors/${name}`, import.meta.url), 'utf8'));
const { vectors } = read('codec.json') as { vectors: Vector[] };
const { envelopes } = read('envelopes.json') as { envelopes: Envelope[] };
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

  if (/\/(datetime|date|time|decimal|uuid|bytes)/.test(vector.name) && vector.serializer === 'json') {
    test(`kombu's ${vector.name}, read exactly, is written as it was`, () => {
      const { content_type: contentType, content_encoding: contentEncoding, headers } = vector;
      const info = { contentType, contentEncoding, compression: headers.compression };
      const value = decodePayload(Buffer.from(vector.body_base64, 'base64'), info, { ...limits, types: 'exact' });
      const original = vectors.find(({ name }) => name === vector.name.replace('+zlib', ''))!.body_base64;
      const written = JSON.parse(dumps(value, 'json').body.toString()) as unknown;
      assert.deepEqual(written, JSON.parse(Buffer.from(original, 'base64').toString()));
    });
  }

  test(`kombu's ${vector.name} survives being sent on`, () => {
    const value = expected(vector.value);
    const sent = dumps(value, vector.serializer ?? undefined);
    assert.equal(sent.contentType, vector.content_type);
    assert.equal(sent.contentEncoding, vector.content_encoding);
    assert.deepEqual(loads(sent.body, sent.contentType, sent.contentEncoding, { accept: limits.accept }), value);
    if (vector.compression === null) return;
    const [compression = ''] = vector.compression.split('-'); // behind it: how the writer was set
    const { body, contentType } = compress(sent.body, compression);
    assert.equal(contentType, vector.headers.compression);
    assert.deepEqual(decodePayload(body, { ...sent, compression: contentType }, limits), value);
  });
}

interface Parsed {
  readonly body: string;
  readonly 'content-type': string;
  readonly 'content-encoding': string;
  readonly headers: { readonly compression?: string };
  readonly properties: { readonly body_encoding: string };
}

for (const { name, value, envelope } of envelopes) {
  test(`the body of kombu's envelope ${name} decodes, and survives being sent on`, () => {
    const { body, headers, properties, ...info } = JSON.parse(envelope) as Parsed;
    assert.equal(properties.body_encoding, 'base64');
    const [contentType, contentEncoding] = [info['content-type'], info['content-encoding']];
    const bytes = Buffer.from(body, 'base64');
    const facts = { contentType, contentEncoding, compression: headers.compression };
    assert.deepEqual(decodePayload(bytes, facts, limits), expected(value));
    const [serializer = ''] = name.split(/[+/]/);
    const again = dumps(decodePayload(bytes, facts, { ...limits, types: 'exact' }), serializer);
    assert.deepEqual([again.contentType, again.contentEncoding], [contentType, contentEncoding]);
    assert.deepEqual(decodePayload(again.body, again, limits), expected(value));
  });
}

/** Whether a re-encoded body is, to Python, what the original is. Without extended types (before 5.3) it compares envelopes. */
const comparer = `
import base64, json, sys
from kombu.compression import decompress, register
from kombu.serialization import loads
try:
    import lz4.frame
    register(lz4.frame.compress, lz4.frame.decompress, 'application/x-lz4', aliases=['lz4'])
except ImportError: pass
def read(case):
    body = base64.b64decode(case['body'])
    if case['compression']: body = decompress(body, case['compression'])
    return loads(body, case['contentType'], case['contentEncoding'], accept={case['contentType']})
wrong = []
for name, ours, theirs in json.load(sys.stdin):
    a, b = read(ours), read(theirs)
    if a != b or type(a) is not type(b): wrong.append([name, repr(a), repr(b)])
print(json.dumps(wrong))
`;

kombuTest('Python decodes every body that was read exactly and written again as what it was', async (python) => {
  const { modules } = kombuFacts(python);
  const needs = { msgpack: 'msgpack', yaml: 'yaml', brotli: 'brotli', zstd: 'zstandard', lz4: 'lz4' };
  const missing = Object.entries(needs).filter(([, module]) => !modules.includes(module));
  const cases: unknown[] = [];
  const add = (name: string, bytes: Buffer, info: BodyInfo, original: object): void => {
    if (missing.some(([codec]) => name.includes(codec))) return;
    const [serializer = '', compression] = name.split('/')[0]!.split('+');
    const value = decodePayload(bytes, info, { ...limits, types: 'exact' });
    const sent = dumps(value, serializer);
    const packed = compression === undefined ? undefined : compress(sent.body, compression.split('-')[0]!);
    const body = (packed?.body ?? sent.body).toString('base64');
    cases.push([name, { ...sent, body, compression: packed?.contentType ?? null }, original]);
  };
  for (const vector of vectors) {
    const { name, content_type: contentType, content_encoding: contentEncoding, headers, body_base64 } = vector;
    const info = { contentType, contentEncoding, compression: headers.compression };
    // Uncompressed: Python's own functions do not read all that Python's writers can be made to write.
    const plain = vectors.find((other) => other.name === name.replace(/\+[^/]*/, ''))!;
    const original = { contentType, contentEncoding, compression: null, body: plain.body_base64 };
    add(name, Buffer.from(body_base64, 'base64'), info, original);
  }
  for (const { name, envelope } of envelopes) {
    const { body, headers, ...rest } = JSON.parse(envelope) as Parsed;
    const compression = headers.compression;
    const info = { contentType: rest['content-type'], contentEncoding: rest['content-encoding'], compression };
    add(name, Buffer.from(body, 'base64'), info, { ...info, compression: compression ?? null, body });
  }
  if (missing.length === 0) assert.equal(cases.length, 145 + 39);
  assert.deepEqual(JSON.parse(await runPython(python, comparer, [], JSON.stringify(cases))), []);
});

test('the file has vectors of every kind this test is for', () => {
  const kinds = new Set(vectors.map((vector) => vector.name.split('/')[0]));
  const wanted = ['json', 'msgpack'].flatMap((name) =>
    ['', '+brotli', '+bzip2', '+lzma', '+zlib'].map((compression) => name + compression),
  );
  const lz4 = ['', '-hc', '-independent', '-linked-64k-checksums'].map((how) => `json+lz4${how}`);
  const zstd = ['', '-checksum', '-nosize'].map((how) => `json+zstd${how}`);
  assert.deepEqual([...kinds].sort(), [...wanted, ...lz4, ...zstd, 'raw', 'yaml'].sort());
});
