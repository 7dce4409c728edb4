/** Codecs are per thread: what a module registers at its top level counts on the thread that loaded it, and only there. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { compress, decompress, names } from '#src/codec/compression';
import { dumps } from '#src/codec/serialization';
import { DecodeError, SerializerNotInstalled } from '#src/errors';

/** Decodes what it is sent in a worker whose module registers a serializer and a compression of its own. */
const module = new URL('../support/codec-worker.js', import.meta.url);

interface Answer {
  readonly names: readonly string[];
  readonly payloads: readonly unknown[];
}

async function inWorker(bodies: readonly object[]): Promise<Answer> {
  const worker = new Worker(module, { workerData: bodies });
  try {
    return await new Promise<Answer>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
    });
  } finally {
    await worker.terminate();
  }
}

function shared(bytes: Buffer): Uint8Array {
  const view = new Uint8Array(new SharedArrayBuffer(bytes.length));
  view.set(bytes);
  return view;
}

test('every compression and serializer decodes on a worker thread, from shared memory', async () => {
  const value = { id: 1, text: 'kelp '.repeat(100) };
  const cases = ['json', 'msgpack', 'yaml'].flatMap((serializer) =>
    [undefined, ...names()].map((compression) => {
      const { contentType, contentEncoding, body } = dumps(value, serializer);
      const packed = compression === undefined ? body : compress(body, compression).body;
      return { body: shared(packed), info: { contentType, contentEncoding, compression } };
    }),
  );
  const { payloads } = await inWorker(cases);
  for (const payload of payloads) assert.deepEqual(payload, value);
});

test('two workers at once have addons of their own', async () => {
  const { contentType, contentEncoding, body } = dumps(['kelp'], 'json');
  const cases = ['lz4', 'zstd'].map((compression) => ({
    body: shared(compress(body, compression).body),
    info: { contentType, contentEncoding, compression },
  }));
  const answers = await Promise.all([inWorker(cases), inWorker(cases)]);
  for (const { payloads } of answers) assert.deepEqual(payloads, [['kelp'], ['kelp']]);
});

test('what a worker registers works there, and is unknown here', async () => {
  const body = Buffer.from('01-02-ff').reverse();
  const info = { contentType: 'application/x-dashed', contentEncoding: 'utf-8', compression: 'application/x-mirror' };
  const { names: there, payloads } = await inWorker([{ body: shared(body), info }]);
  assert.deepEqual(payloads, [[1, 2, 255]]);
  assert.deepEqual(there, [...names(), 'mirror'].sort());
  assert.ok(!names().includes('mirror'));
  assert.throws(() => decompress(body, 'mirror'), DecodeError);
  assert.throws(() => dumps([1], 'dashed'), SerializerNotInstalled);
});
