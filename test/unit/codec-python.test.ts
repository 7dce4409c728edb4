/**
 * What we encode, Python's kombu decodes. Extended JSON types need kombu 5.3 or later there, msgpack and brotli their modules; what is missing is skipped by name.
 */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { compress } from '#src/codec/compression';
import { dumps } from '#src/codec/serialization';
import { kombuFacts, kombuTest, runPython } from '../support/kombu.js';

/** Reads cases from standard input and prints each decoded value, with types that JSON has no word for marked. */
const reader = `
import base64, datetime, json, sys
from kombu.compression import decompress
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
