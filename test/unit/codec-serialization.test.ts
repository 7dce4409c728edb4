/** The serializer registry: what is chosen, what is let in, charsets, and the whole path from body to payload. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compress, register as registerCompression } from '#src/codec/compression';
import { decodePayload } from '#src/codec/decode';
import {
  disable,
  disableInsecureSerializers,
  dumps,
  enable,
  enableInsecureSerializers,
  type LoadsOptions,
  loads,
  prepareAcceptContent,
  register,
  unregister,
} from '#src/codec/serialization';
import {
  ContentDisallowed,
  DecodeError,
  EncodeError,
  MessageTooLarge,
  OptionError,
  SerializerNotInstalled,
} from '#src/errors';

const PICKLE = 'application/x-python-serialize';
const triple = (value: unknown, serializer?: string): [string, string, string] => {
  const { contentType, contentEncoding, body } = dumps(value, serializer);
  return [contentType, contentEncoding, body.toString()];
};

test('without a serializer bytes are raw, strings text, and all else JSON', () => {
  assert.deepEqual(triple(Buffer.from('b')), ['application/data', 'binary', 'b']);
  assert.deepEqual(triple(new Uint8Array([98])), ['application/data', 'binary', 'b']);
  assert.deepEqual(triple('é'), ['text/plain', 'utf-8', 'é']);
  assert.deepEqual(triple({ a: 1 }), ['application/json', 'utf-8', '{"a":1}']);
  assert.deepEqual(triple(null), ['application/json', 'utf-8', 'null']);
});

test('a named serializer is used whatever the value is', () => {
  assert.deepEqual(triple('é', 'json'), ['application/json', 'utf-8', '"é"']);
  assert.deepEqual(triple('é', 'raw'), ['application/data', 'utf-8', 'é']);
  assert.deepEqual(triple(Buffer.from('b'), 'raw'), ['application/data', 'binary', 'b']);
  assert.deepEqual(triple('é', 'text'), ['text/plain', 'utf-8', 'é']);
  assert.deepEqual(triple('a', 'msgpack').slice(0, 2), ['application/x-msgpack', 'binary']);
  assert.throws(() => dumps({}, 'raw'), EncodeError);
  assert.throws(() => dumps(null, 'text'), EncodeError);
});

test('an unknown serializer is named, with the nearest known', () => {
  assert.throws(() => dumps({}, 'jsno'), /'jsno'; did you mean 'json'/);
  assert.throws(() => dumps({}, 'protobuf'), /'protobuf'; known are: json, msgpack, text, raw, yaml/);
  assert.throws(() => prepareAcceptContent(['json', 'mspack']), /did you mean 'msgpack'/);
  assert.throws(() => prepareAcceptContent(['protobuf']), SerializerNotInstalled);
});

test('accept is a list of aliases and content types', () => {
  assert.deepEqual(
    [...prepareAcceptContent(['json', 'raw', 'Application/X-Thing; v=1'])],
    ['application/json', 'application/data', 'application/x-thing'],
  );
});

test('what accept does not name is refused by its type alone', () => {
  const accept = prepareAcceptContent(['json']);
  assert.throws(() => loads(Buffer.from('not json'), 'text/plain', 'utf-8', { accept }), ContentDisallowed);
  assert.throws(
    () =>
      decodePayload(
        Buffer.from('x'),
        { contentType: 'application/x-msgpack', compression: 'nonsense' },
        { accept, maxDecodedBytes: 0 },
      ),
    /'application\/x-msgpack' is not accepted; accepted are: application\/json/,
  );
  assert.throws(() => loads(Buffer.from('x'), 'application/octet-stream', 'binary', { accept }), ContentDisallowed);
  assert.throws(() => loads(Buffer.from('\x80'), 'application/x-msgpack', 'binary'), ContentDisallowed, 'by default');
});

test('application/data and application/text pass every accept, as in kombu: nothing is built from them', () => {
  const accept = new Set<string>();
  assert.deepEqual(loads(Buffer.from('b'), 'application/data', 'binary', { accept }), Buffer.from('b'));
  assert.equal(loads(Buffer.from('b'), 'application/text', 'utf-8', { accept }), 'b');
  assert.throws(() => loads(Buffer.from('b'), 'text/plain', 'utf-8', { accept }), ContentDisallowed);
});

test('pickle is refused everywhere, with what to do instead', () => {
  const body = Buffer.from('gASVCwAAAAAAAAB9lIwBYZRLAXMu', 'base64');
  for (const accept of [new Set([PICKLE]), prepareAcceptContent(['json'])]) {
    assert.throws(
      () => loads(body, PICKLE, 'binary', { accept }),
      (error: unknown) => error instanceof ContentDisallowed && /serializer='json'/.test(error.message),
    );
  }
  assert.throws(() => prepareAcceptContent(['pickle']), SerializerNotInstalled);
  assert.throws(() => prepareAcceptContent([PICKLE]), SerializerNotInstalled);
  assert.throws(() => dumps({}, 'pickle'), /pickle is never/);
  assert.throws(() => register('pickle', null, (bytes) => bytes, PICKLE), SerializerNotInstalled);
  assert.throws(() => register('brine', null, (bytes) => bytes, PICKLE), SerializerNotInstalled);
});

test('accept may be a set of names as well as a list of them', () => {
  const accept = new Set(['yaml', 'application/json']);
  assert.deepEqual(loads(Buffer.from('a: 1'), 'application/x-yaml', 'utf-8', { accept }), { a: 1 });
  assert.equal(loads(Buffer.from('1'), 'application/json', 'utf-8', { accept }), 1);
  assert.throws(() => loads(Buffer.from('x'), 'text/plain', 'utf-8', { accept }), ContentDisallowed);
  const wrong = new Set(['ymal']);
  assert.throws(() => loads(Buffer.from('x'), 'text/plain', 'utf-8', { accept: wrong }), /did you mean 'yaml'/);
});

test('a body that is no bytes is refused before anything is done with it', () => {
  for (const body of ['{"a":1}', null, undefined, [1], new ArrayBuffer(1)]) {
    assert.throws(() => loads(body as never, 'application/json'), /the body must be bytes/);
  }
});

test('an accepted type that nothing decodes is not guessed at', () => {
  const accept = prepareAcceptContent(['application/x-protobuf']);
  assert.throws(
    () => loads(Buffer.from('a: 1'), 'application/x-protobuf', 'binary', { accept }),
    /no decoder is registered/,
  );
});

test('a body without content type is text in its charset, or bytes where it says binary', () => {
  assert.equal(loads(Buffer.from('é')), 'é');
  assert.equal(loads(Buffer.from('é'), '', ''), 'é');
  assert.deepEqual(loads(Buffer.of(0xff), undefined, 'binary'), Buffer.of(0xff));
  assert.throws(() => loads(Buffer.of(0xff)), DecodeError);
});

test('an empty body is not decoded', () => {
  const accept = prepareAcceptContent(['json', 'text', 'raw', 'msgpack']);
  const empty = Buffer.alloc(0);
  assert.equal(loads(empty, 'application/json', 'utf-8', { accept }), '');
  assert.equal(loads(empty, 'text/plain', 'utf-8', { accept }), '');
  assert.deepEqual(loads(empty, 'application/x-msgpack', 'binary', { accept }), empty);
  assert.deepEqual(loads(empty, 'application/data', 'binary', { accept }), empty);
  assert.throws(() => loads(empty, 'application/x-msgpack', 'binary'), ContentDisallowed);
});

test('text and JSON are read in the charset they name', () => {
  const text = (bytes: string, encoding?: string, type = 'text/plain'): unknown =>
    loads(Buffer.from(bytes, 'hex'), type, encoding);
  assert.equal(text('c3a9', 'utf-8'), 'é');
  assert.equal(text('c3a9', 'UTF8'), 'é');
  assert.equal(text('c3a9', 'us-ascii'), 'é');
  assert.equal(text('e980', 'iso-8859-1'), 'é\u0080');
  assert.equal(text('e980', 'latin_1'), 'é\u0080');
  assert.equal(text('c9', 'koi8-r'), 'и');
  assert.equal(text('fffee900', 'utf-16'), 'é');
  assert.deepEqual(text('e9', 'binary'), Buffer.of(0xe9));
  assert.equal(text('e9', undefined, 'text/plain; charset="ISO-8859-1"'), 'é');
  assert.equal(text('22e922', 'latin1', 'application/json'), 'é');
  assert.equal(text('22c3a922', 'binary', 'application/json'), 'é');
  assert.equal(text('22c3a922', undefined, 'Application/JSON; charset=utf-8'), 'é');
  assert.equal(text('efbfbd', 'utf-8'), '\ufffd');
  for (const type of ['text/plain', 'application/json']) {
    assert.throws(() => text('22ff22', 'utf-8', type), /not valid UTF-8/);
    assert.throws(() => text('22ff22', 'klingon', type), /'klingon'/);
    assert.throws(() => text('22ff22', 'gzip', type), DecodeError);
  }
  assert.throws(() => text('ff', 'shift_jis'), DecodeError);
});

test('integers are exact in charsets that are wider than a byte', () => {
  const body = Buffer.from('[12345678901234567890]', 'utf16le');
  assert.deepEqual(loads(body, 'application/json', 'utf-16le'), [12345678901234567890n]);
});

test('no payload shares memory with its body', () => {
  const limits = { accept: prepareAcceptContent(['json', 'text', 'raw', 'application/x-own']), maxDecodedBytes: 1000 };
  register('own', null, (body) => body, 'application/x-own', 'binary');
  registerCompression(null, (body) => body, 'application/x-same', ['same']);
  for (const contentType of ['application/data', 'text/plain', 'application/x-own']) {
    for (const compression of [undefined, 'same', 'zlib']) {
      const plain = Buffer.from('original');
      const bytes = compression === 'zlib' ? compress(plain, 'zlib').body : plain;
      const slot = Buffer.from(new SharedArrayBuffer(bytes.length));
      slot.set(bytes);
      const payload = decodePayload(slot, { contentType, contentEncoding: 'binary', compression }, limits);
      slot.fill(0);
      assert.deepEqual(payload, plain);
    }
  }
  unregister('own');
});

test('a serializer of the user is used, wrapped, and can be taken away', () => {
  const accept = new Set(['application/x-upper']);
  register(
    'upper',
    (value) => String(value).toUpperCase(),
    (body, encoding) => [body.toString(), encoding],
    'application/x-upper',
    'latin1',
  );
  const sent = dumps('é', 'upper');
  assert.deepEqual([...sent.body], [0xc9]);
  assert.deepEqual([sent.contentType, sent.contentEncoding], ['application/x-upper', 'latin1']);
  assert.deepEqual(loads(Buffer.from('x'), 'application/x-upper', 'LATIN1', { accept }), ['x', 'latin1']);
  assert.deepEqual(loads(Buffer.from('x'), 'application/x-upper', undefined, { accept: ['upper'] }), ['x', 'utf-8']);
  const fail = (): never => {
    throw new TypeError('broken');
  };
  register('upper', fail, fail, 'application/x-upper');
  assert.throws(
    () => dumps('x', 'upper'),
    (error: unknown) => error instanceof EncodeError && error.cause instanceof TypeError,
  );
  assert.throws(() => loads(Buffer.from('x'), 'application/x-upper', 'utf-8', { accept }), DecodeError);
  register('upper', null, null, 'application/x-upper');
  assert.throws(() => dumps('x', 'upper'), /without an encoder/);
  assert.throws(() => loads(Buffer.from('x'), 'application/x-upper', 'utf-8', { accept }), /without a decoder/);
  unregister('upper');
  assert.throws(() => dumps('x', 'upper'), SerializerNotInstalled);
  assert.throws(() => loads(Buffer.from('x'), 'application/x-upper', 'utf-8', { accept }), SerializerNotInstalled);
  assert.throws(() => unregister('upper'), SerializerNotInstalled);
});

test('a serializer that gives a promise is an error at once, and its rejection ends nothing', async () => {
  const late = async (): Promise<never> => {
    throw new Error('late');
  };
  register('late', late as never, late, 'application/x-late');
  assert.throws(() => dumps(1, 'late'), /'late' failed: it gave a promise/);
  assert.throws(() => loads(Buffer.from('1'), 'application/x-late', 'utf-8', { accept: ['late'] }), DecodeError);
  // An unhandled rejection would be told, and fail this test, before the next turn of the loop.
  await new Promise((resolve) => setImmediate(resolve));
  unregister('late');
});

test('register refuses what it could not use', () => {
  const type = 'application/x-own';
  assert.throws(() => register('own', 'json' as never, null, type), /the encoder must be a function/);
  assert.throws(() => register('own', null, 5 as never, type), /the decoder must be a function/);
  for (const name of ['', 'a/b', 5 as never]) assert.throws(() => register(name, String, null, type), OptionError);
  for (const wrong of ['', 'own', undefined as never]) {
    assert.throws(() => register('own', String, null, wrong), OptionError);
  }
  assert.throws(() => dumps(1, 'own'), SerializerNotInstalled, 'nothing was registered');
});

test('a body over the limit is not decoded', () => {
  const limits = { accept: prepareAcceptContent(['json']), maxDecodedBytes: 10 };
  const info = { contentType: 'application/json', contentEncoding: 'utf-8' };
  assert.equal(decodePayload(Buffer.from('12345678  '), info, limits), 12345678);
  assert.throws(() => decodePayload(Buffer.from('12345678   '), info, limits), MessageTooLarge);
  const { body, contentType } = compress(Buffer.from(JSON.stringify('x'.repeat(1000))), 'zlib');
  assert.throws(() => decodePayload(body, { ...info, compression: contentType }, limits), MessageTooLarge);
  assert.throws(() => loads(Buffer.from('[1,2]'), 'application/json', 'utf-8', { maxBytes: 4 }), MessageTooLarge);
});

test('a compressed body is decompressed before it is decoded, and damage to it is a DecodeError', () => {
  const limits = { accept: prepareAcceptContent(['json', 'text']), maxDecodedBytes: 1000 };
  const info = { contentType: 'application/json', contentEncoding: 'utf-8' };
  const { body, contentType } = compress(Buffer.from('{"a":1}'), 'brotli');
  assert.deepEqual(decodePayload(body, { ...info, compression: contentType }, limits), { a: 1 });
  assert.deepEqual(decodePayload(Buffer.from('{"a":1}'), { ...info, compression: '' }, limits), { a: 1 });
  for (const compression of ['application/x-brotli', 'application/x-gzip', 'application/x-bz2']) {
    assert.throws(() => decodePayload(Buffer.alloc(0), { ...info, compression }, limits), DecodeError);
    assert.throws(() => decodePayload(body.subarray(0, 4), { ...info, compression }, limits), DecodeError);
  }
});

const yaml = (options?: LoadsOptions): unknown => loads(Buffer.from('a: 1'), 'application/x-yaml', 'utf-8', options);
const text = (): unknown => loads(Buffer.from('x'), 'text/plain', 'utf-8');

test('without accept, what is enabled decides; names and types enable and disable', () => {
  try {
    assert.throws(() => yaml(), ContentDisallowed);
    enable('yaml');
    assert.deepEqual(yaml(), { a: 1 });
    disable('application/x-yaml');
    assert.throws(() => yaml(), ContentDisallowed);
    enable('application/x-yaml');
    disable('yaml');
    assert.throws(() => yaml(), ContentDisallowed);
    disable('text');
    assert.throws(() => text(), ContentDisallowed);
    disable('raw');
    assert.equal(loads(Buffer.from('x')), 'x', 'application/data is passed on always');
    for (const unknown of [enable, disable]) assert.throws(() => unknown('ymal'), /did you mean 'yaml'/);
    assert.throws(() => enable('pickle'), SerializerNotInstalled);
    disable('pickle');
  } finally {
    for (const name of ['text', 'raw']) enable(name);
    disable('yaml');
  }
});

test('the insecure serializers are enabled together, or all but some disabled', () => {
  try {
    enableInsecureSerializers();
    assert.deepEqual(yaml(), { a: 1 });
    assert.equal(loads(Buffer.of(1), 'application/x-msgpack', 'binary'), 1);
    disableInsecureSerializers();
    assert.throws(() => yaml(), ContentDisallowed);
    assert.throws(() => text(), ContentDisallowed);
    assert.equal(loads(Buffer.from('1'), 'application/json', 'utf-8'), 1);
    disableInsecureSerializers(['yaml']);
    assert.deepEqual(yaml(), { a: 1 });
    assert.throws(() => loads(Buffer.from('1'), 'application/json', 'utf-8'), ContentDisallowed);
    assert.throws(() => enableInsecureSerializers(['yaml', 'pickle']), SerializerNotInstalled);
    assert.throws(() => disableInsecureSerializers(['jsno']), SerializerNotInstalled);
    assert.deepEqual(yaml(), { a: 1 }, 'a wrong name changes nothing');
  } finally {
    disableInsecureSerializers(['json', 'text', 'raw']);
  }
});

test('an accept stands above what is enabled; force stands for it where there is none; pickle has neither', () => {
  assert.deepEqual(yaml({ force: true }), { a: 1 });
  assert.throws(() => yaml({ force: true, accept: ['json'] }), ContentDisallowed);
  assert.deepEqual(yaml({ accept: ['yaml'] }), { a: 1 });
  assert.throws(() => loads(Buffer.of(1), PICKLE, 'binary', { force: true }), ContentDisallowed);
  assert.throws(() => loads(Buffer.of(1), 'application/x-no', 'binary', { force: true }), /no decoder is registered/);
  assert.throws(() => yaml({ acept: ['yaml'] } as object), /did you mean 'accept'/);
  assert.throws(() => yaml({ accept: 'yaml' } as object), /must be a list or set of content types/);
});
