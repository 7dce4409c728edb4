/**
 * What we encode, Python's kombu decodes. Needs a Python that has kombu: `MOZUKU_PYTHON`, or one of the usual names.
 * Extended JSON types need kombu 5.3 or later there, msgpack and brotli their modules; what is missing is skipped by name.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { compress } from '#src/codec/compression';
import { dumps } from '#src/codec/serialization';

const probe = `
import importlib.util, json, kombu
has = lambda name: importlib.util.find_spec(name) is not None
print(json.dumps({'version': kombu.VERSION[:2], 'msgpack': has('msgpack'), 'brotli': has('brotli')}))
`;

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

interface Python {
  readonly command: string;
  readonly version: readonly [number, number];
  readonly msgpack: boolean;
  readonly brotli: boolean;
}

function findPython(): Python | undefined {
  for (const command of [process.env.MOZUKU_PYTHON, 'python3', '/usr/bin/python3']) {
    if (!command) continue;
    const { status, stdout } = spawnSync(command, ['-c', probe], { encoding: 'utf8' });
    if (status === 0) return { command, ...(JSON.parse(stdout) as Omit<Python, 'command'>) };
  }
  return undefined;
}

const python = findPython();
const extended = python !== undefined && (python.version[0] > 5 || python.version[1] >= 3);
const noPython = python === undefined && 'SKIPPED: no Python with kombu here (set MOZUKU_PYTHON)';

function decodedInPython(value: unknown, serializer?: string, compression?: string): unknown {
  const { contentType, contentEncoding, body } = dumps(value, serializer);
  const sent = compression === undefined ? { body, contentType: '' } : compress(body, compression);
  const input = [{ contentType, contentEncoding, compression: sent.contentType, body: sent.body.toString('base64') }];
  const { status, stdout, stderr } = spawnSync(python?.command ?? '', ['-c', reader], {
    encoding: 'utf8',
    input: JSON.stringify(input),
  });
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout);
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

test('Python decodes our JSON', { skip: noPython }, () => {
  assert.deepEqual(decodedInPython(value, 'json'), marked);
  assert.deepEqual(decodedInPython([2n ** 80n], 'json'), [{ int: String(2n ** 80n) }]);
});

test('Python decodes our text and raw bodies', { skip: noPython }, () => {
  assert.equal(decodedInPython('é 消息'), 'é 消息');
  assert.deepEqual(decodedInPython(Buffer.of(0, 255)), { bytes: '00ff' });
  assert.equal(decodedInPython('é', 'raw'), 'é');
});

test('Python decompresses our zlib', { skip: noPython }, () => {
  for (const name of ['zlib', 'gzip']) assert.deepEqual(decodedInPython(value, 'json', name), marked);
});

test('Python decompresses our brotli', {
  skip: noPython || (!python?.brotli && 'SKIPPED: no brotli in Python'),
}, () => {
  assert.deepEqual(decodedInPython(value, 'json', 'brotli'), marked);
});

test('Python decodes our extended types', { skip: noPython || (!extended && 'SKIPPED: kombu older than 5.3') }, () => {
  const special = { at: new Date('2024-01-02T03:04:05.678Z'), text: Buffer.from('é'), bytes: Buffer.of(255) };
  assert.deepEqual(decodedInPython(special, 'json'), {
    at: { datetime: '2024-01-02T03:04:05.678000+00:00' },
    text: { bytes: 'c3a9' },
    bytes: { bytes: 'ff' },
  });
});

test('Python decodes our msgpack', { skip: noPython || (!python?.msgpack && 'SKIPPED: no msgpack in Python') }, () => {
  assert.deepEqual(decodedInPython(value, 'msgpack'), marked);
  assert.deepEqual(decodedInPython([Buffer.of(255), undefined, 2n ** 64n - 1n], 'msgpack'), [
    { bytes: 'ff' },
    null,
    { int: String(2n ** 64n - 1n) },
  ]);
});
