/**
 * What we encode, Python's kombu decodes, on every backend there is. Extended JSON types need kombu 5.3 or later there,
 * msgpack, yaml, brotli, zstd and lz4 their modules; what is missing is skipped by name. kombu itself has no lz4: it is
 * registered as docs/codecs.md says.
 */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import type { TestContext } from 'node:test';
import { compress, decompress } from '#src/codec/compression';
import { encodeLz4 } from '#src/codec/compressions/lz4';
import { lz4Backends } from '#src/codec/compressions/lz4-backend';
import { zstdBackends } from '#src/codec/compressions/zstd-backend';
import { decodePayload } from '#src/codec/decode';
import { dumps, prepareAcceptContent } from '#src/codec/serialization';
import { kombuFacts, kombuTest, runPython } from '../support/kombu.js';

/** Reads cases from standard input and prints each decoded value, with types that JSON has no word for marked. */
const reader = `
import base64, datetime, json, sys
from kombu.compression import decompress, register
try:
    import lz4.frame
    register(lz4.frame.compress, lz4.frame.decompress, 'application/x-lz4', aliases=['lz4'])
except ImportError: pass
from kombu.serialization import loads
def mark(value):
    if isinstance(value, dict): return {key: mark(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)): return [mark(item) for item in value]
    if isinstance(value, bytes): return {'bytes': value.hex()}
    if isinstance(value, datetime.datetime): return {'datetime': value.isoformat()}
    if isinstance(value, int) and not isinstance(value, bool): return {'int': str(value)}
    return value
for case in json.load(sys.stdin):
    body = base64.b64decode(case['body'])
    if case['compression']: body = decompress(body, case['compression'])
    print(json.dumps(mark(loads(body, case['contentType'], case['contentEncoding'], accept={case['contentType']}))))
`;

async function decodedInPython(python: string, value: unknown, serializer?: string, compression?: string) {
  const { contentType, contentEncoding, body } = dumps(value, serializer);
  const sent = compression === undefined ? { body, contentType: '' } : compress(body, compression);
  const input = [{ contentType, contentEncoding, compression: sent.contentType, body: sent.body.toString('base64') }];
  return JSON.parse(await runPython(python, reader, [], JSON.stringify(input))) as unknown;
}

/** Skips, by name, where this Python lacks a module. */
function needs(context: TestContext, python: string, module: string): boolean {
  const has = kombuFacts(python).modules.includes(module);
  if (!has) context.skip(`no ${module} in this Python`);
  return has;
}

const value = {
  text: 'é 消息 🐙 \u0000 \u2028',
  ok: true,
  none: null,
  pi: 3.25,
  list: [[], {}, [1]],
  n: -7,
  ms: 1_700_000_000_123,
};
const marked = { ...value, list: [[], {}, [{ int: '1' }]], n: { int: '-7' }, ms: { int: '1700000000123' } };

kombuTest('Python decodes our JSON', async (python) => {
  assert.deepEqual(await decodedInPython(python, value, 'json'), marked);
  assert.deepEqual(await decodedInPython(python, [2n ** 80n], 'json'), [{ int: String(2n ** 80n) }]);
});

kombuTest('Python decodes our text and raw bodies', async (python) => {
  assert.equal(await decodedInPython(python, 'é 消息'), 'é 消息');
  assert.deepEqual(await decodedInPython(python, Buffer.of(0, 255)), { bytes: '00ff' });
  assert.equal(await decodedInPython(python, 'é', 'raw'), 'é');
});

kombuTest('Python decompresses our zlib', async (python) => {
  for (const name of ['zlib', 'gzip']) assert.deepEqual(await decodedInPython(python, value, 'json', name), marked);
});

kombuTest('Python decompresses our brotli', async (python, context) => {
  if (!needs(context, python, 'brotli')) return;
  assert.deepEqual(await decodedInPython(python, value, 'json', 'brotli'), marked);
});

kombuTest('Python decodes our extended types', async (python, context) => {
  const [major, minor] = kombuFacts(python).version;
  if (major === 5 && minor < 3) return context.skip('kombu older than 5.3 has no extended types');
  const special = { at: new Date('2024-01-02T03:04:05.678Z'), text: Buffer.from('é'), bytes: Buffer.of(255) };
  assert.deepEqual(await decodedInPython(python, special, 'json'), {
    at: { datetime: '2024-01-02T03:04:05.678000+00:00' },
    text: { bytes: 'c3a9' },
    bytes: { bytes: 'ff' },
  });
});

kombuTest('Python decodes our msgpack', async (python, context) => {
  if (!needs(context, python, 'msgpack')) return;
  assert.deepEqual(await decodedInPython(python, value, 'msgpack'), marked);
  assert.deepEqual(await decodedInPython(python, [Buffer.of(255), undefined, 2n ** 64n - 1n], 'msgpack'), [
    { bytes: 'ff' },
    null,
    { int: String(2n ** 64n - 1n) },
  ]);
});

kombuTest('Python decodes our YAML', async (python, context) => {
  if (!needs(context, python, 'yaml')) return;
  const words = [
    'y',
    'yes',
    '1e5',
    '12:30',
    '=',
    '<<',
    '~',
    '',
    '010',
    '2024-01-02',
    'a: b',
    '\u2028',
    '\x85',
    '\ufeffx',
    "'\u2028\n",
    'a\tb',
    '\t',
  ];
  assert.deepEqual(await decodedInPython(python, { ...value, words, floats: [1e21, 1e-7] }, 'yaml'), {
    ...marked,
    words,
    floats: [1e21, 1e-7],
  });
  assert.deepEqual(await decodedInPython(python, { bytes: Buffer.of(0, 255), at: new Date(0) }, 'yaml'), {
    bytes: { bytes: '00ff' },
    at: { datetime: '1970-01-01T00:00:00+00:00' },
  });
});

/** Bodies that take every turn of an encoder: empty, short, runs, noise, text, more than a block of each format. */
const bodies = [
  Buffer.alloc(0),
  Buffer.from('x'),
  Buffer.alloc(1_300_000),
  randomBytes(150_000),
  Buffer.from(JSON.stringify(Array.from({ length: 20_000 }, (_, i) => ({ id: i * 7919, name: `kelp ${i % 91}` })))),
];
const hasher = `
import base64, hashlib, json, sys
from kombu.compression import compress, decompress, register
try:
    import lz4.frame
    register(lz4.frame.compress, lz4.frame.decompress, 'application/x-lz4', aliases=['lz4'])
except ImportError: pass
cases = json.load(sys.stdin)
print(json.dumps([hashlib.sha256(decompress(base64.b64decode(case['body']), case['type'])).hexdigest() for case in cases]))
`;
const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

async function digestsInPython(python: string, type: string, packed: readonly Uint8Array[]): Promise<unknown> {
  const cases = packed.map((body) => ({ type, body: Buffer.from(body).toString('base64') }));
  return JSON.parse(await runPython(python, hasher, [], JSON.stringify(cases)));
}

for (const [name, module] of [
  ['zlib', undefined],
  ['bzip2', undefined],
  ['lzma', undefined],
  ['brotli', 'brotli'],
] as const) {
  kombuTest(`Python decompresses our ${name}, bodies of every kind`, async (python, context) => {
    if (module !== undefined && !needs(context, python, module)) return;
    const packed = bodies.map((body) => compress(body, name));
    const got = await digestsInPython(
      python,
      packed[0]!.contentType,
      packed.map(({ body }) => body),
    );
    assert.deepEqual(got, bodies.map(digest));
  });
}

for (const { name, found } of zstdBackends()) {
  kombuTest(`Python decompresses the zstd of ${name}, bodies of every kind`, async (python, context) => {
    if (!('value' in found)) return context.skip(found.missing);
    if (!needs(context, python, 'zstandard')) return;
    // kombu calls the one-shot function, which wants the content size in the frame
    const got = await digestsInPython(
      python,
      'application/zstd',
      bodies.map((body) => found.value.encode(body)),
    );
    assert.deepEqual(got, bodies.map(digest));
  });
}

for (const { name, found } of lz4Backends()) {
  kombuTest(`Python decompresses the lz4 of ${name}, bodies of every kind`, async (python, context) => {
    if (!('value' in found)) return context.skip(found.missing);
    if (!needs(context, python, 'lz4')) return;
    const got = await digestsInPython(
      python,
      'application/x-lz4',
      bodies.map((body) => encodeLz4(found.value, body)),
    );
    assert.deepEqual(got, bodies.map(digest));
  });
}

const compressor = `
import base64, json, sys
from kombu.compression import compress, register
try:
    import lz4.frame
    register(lz4.frame.compress, lz4.frame.decompress, 'application/x-lz4', aliases=['lz4'])
except ImportError: pass
case = json.load(sys.stdin)
print(json.dumps([base64.b64encode(compress(base64.b64decode(body), case['name'])[0]).decode() for body in case['bodies']]))
`;

for (const [name, module] of [
  ['zlib', undefined],
  ['bzip2', undefined],
  ['lzma', undefined],
  ['brotli', 'brotli'],
  ['zstd', 'zstandard'],
  ['lz4', 'lz4'],
] as const) {
  kombuTest(`we decompress Python's ${name}, bodies of every kind`, async (python, context) => {
    if (module !== undefined && !needs(context, python, module)) return;
    const input = JSON.stringify({ name, bodies: bodies.map((body) => body.toString('base64')) });
    const packed = JSON.parse(await runPython(python, compressor, [], input)) as string[];
    for (const [i, body] of bodies.entries()) {
      const got = decompress(Buffer.from(packed[i]!, 'base64'), name, { maxBytes: body.length });
      assert.ok(got.equals(body), `${body.length} bytes`);
    }
  });
}

const jsonWriter = `
import base64, json, sys
from kombu.serialization import dumps
values = [float('nan'), float('inf'), -float('inf'), 2**53, 2**53 + 1, -2**64, 2**200, '\\ud800', 'a\\udfffb', 1e308, 5e-324, 0.1, -0.0]
print(json.dumps([base64.b64encode(dumps(value, serializer='json')[2].encode()).decode() for value in values]))
`;

kombuTest('we read the JSON that Python writes beyond JSON', async (python) => {
  const written = JSON.parse(await runPython(python, jsonWriter)) as string[];
  const limits = { accept: prepareAcceptContent(['json']), maxDecodedBytes: 10_000 };
  const info = { contentType: 'application/json', contentEncoding: 'utf-8' };
  assert.deepEqual(
    written.map((body) => decodePayload(Buffer.from(body, 'base64'), info, limits)),
    [
      Number.NaN,
      Number.POSITIVE_INFINITY,
      Number.NEGATIVE_INFINITY,
      2n ** 53n,
      2n ** 53n + 1n,
      -(2n ** 64n),
      2n ** 200n,
      '\ud800',
      'a\udfffb',
      1e308,
      5e-324,
      0.1,
      -0,
    ],
  );
});
