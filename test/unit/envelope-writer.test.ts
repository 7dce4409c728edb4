/** kombu's envelope: what we write is what it stores, and what we change stays what it was but for that. */
import assert from 'node:assert/strict';
import { describe, it, test } from 'node:test';
import type * as amqplib from 'amqplib';
import fc from 'fast-check';
import { toTable } from '#src/codec/amqp/plain-table';
import { readEnvelope, rewriteEnvelope, writeEnvelope } from '#src/codec/envelope';
import { DecodeError, EncodeError } from '#src/errors';
import { PUBLISH_OPTIONS, preparePublication } from '#src/pool/publication';
import { envelopes, type ParsedEnvelope, shared, TAG, write } from '../support/envelopes.js';

const JSON_TYPE = { contentType: 'application/json', contentEncoding: 'utf-8' };

const text = fc.string({ unit: 'binary', maxLength: 60 });
const optional = fc.option(text, { nil: undefined });
const headerValue = fc.letrec((tie) => ({
  any: fc.oneof(
    { depthSize: 'small' },
    text,
    fc.boolean(),
    fc.constant(null),
    fc.maxSafeInteger(),
    fc.double({ noInteger: true }),
    fc.constantFrom(2 ** 60, -(2 ** 70), -0, Number.NaN, Number.POSITIVE_INFINITY),
    fc.bigInt({ min: 2n ** 53n, max: 2n ** 63n - 1n }),
    fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes)),
    fc.integer({ min: 0, max: 4e9 }).map((seconds) => new Date(seconds * 1000)),
    fc.array(tie('any'), { maxLength: 4 }),
    fc.dictionary(fc.string({ maxLength: 9 }), tie('any'), { maxKeys: 4 }),
  ),
})).any;
const headersOf = fc.dictionary(fc.string({ maxLength: 20 }), headerValue, { maxKeys: 6, noNullPrototype: true });

/** A table goes on the wire without prototypes, and what is read has some. */
const plain = (value: unknown): unknown => {
  if (typeof value !== 'object' || value === null || Buffer.isBuffer(value) || value instanceof Date) return value;
  if (Array.isArray(value)) return value.map(plain);
  return new Map(Object.entries(value).map(([key, item]) => [key, plain(item)]));
};

test('what is published comes back as it was, whatever the way of its body', () => {
  fc.assert(
    fc.property(
      fc.record({ exchange: text, routingKey: text, correlationId: optional, messageId: optional, type: optional }),
      fc.record({ headers: headersOf, priority: fc.nat(9), timestamp: fc.option(fc.nat(), { nil: undefined }) }),
      fc.oneof(text, fc.uint8Array({ maxLength: 200 }).map(Buffer.from), fc.jsonValue()),
      fc.constantFrom('base64' as const, 'utf-8' as const),
      fc.constantFrom(undefined, 'zlib'),
      (texts, { headers, priority, timestamp }, payload, bodyEncoding, compression) => {
        const given = {
          ...texts,
          headers,
          priority,
          compression,
          declare: PUBLISH_OPTIONS.declare.default!,
          timeout: 1,
          mandatory: false,
          ...(timestamp === undefined ? {} : { timestamp }),
        };
        const defaults = { exchange: '', routingKey: '', serializer: 'json', compression: undefined };
        const { exchange, routingKey, body, properties } = preparePublication(payload, given as never, defaults, false);
        const bytes = writeEnvelope({ exchange, routingKey, body, properties, deliveryTag: TAG, bodyEncoding });
        const read = readEnvelope(shared(bytes));
        assert.deepEqual(Buffer.from(read.body), body);
        assert.deepEqual([read.exchange, read.routingKey, read.deliveryTag], [exchange, routingKey, TAG]);
        const { contentType, contentEncoding } = properties as amqplib.Options.Publish;
        const { correlationId, messageId, type } = texts;
        const known = { contentType, contentEncoding, correlationId, messageId, type, priority, timestamp };
        const wanted = Object.entries({ ...known, deliveryMode: 2 }).filter(([, value]) => value !== undefined);
        assert.deepEqual({ ...read.properties }, Object.fromEntries(wanted));
        const compressed = compression === undefined ? {} : { compression: 'application/x-gzip' };
        assert.deepEqual(plain(read.headers), plain({ ...headers, ...compressed }));
      },
    ),
    { numRuns: 1500 },
  );
});

describe('an envelope that is written', () => {
  it('has extended types where a header is one, as kombu has', () => {
    const headers = {
      at: { '!': 'timestamp', value: 1_700_000_000 },
      cost: { '!': 'decimal', value: { places: 2, digits: -5 } },
    };
    const bytes = write(Buffer.from('x'), { headers: { ...headers, raw: Buffer.of(255), text: Buffer.from('é') } });
    assert.deepEqual((JSON.parse(bytes.toString()) as ParsedEnvelope).headers, {
      at: { __type__: 'datetime', __value__: '2023-11-14T22:13:20.000000+00:00' },
      cost: { __type__: 'decimal', __value__: '-0.05' },
      raw: { __type__: 'base64', __value__: '/w==' },
      text: { __type__: 'bytes', __value__: 'é' },
    });
  });

  it("has a body of text as it is under 'utf-8', and bytes as kombu's extended type", () => {
    const bodyOf = (body: Buffer, properties: object): unknown =>
      (JSON.parse(write(body, properties, 'utf-8').toString()) as { body: unknown }).body;
    const json = Buffer.from('{"é":"\\n"}');
    assert.equal(bodyOf(json, JSON_TYPE), json.toString());
    assert.equal(bodyOf(json, { contentType: 'text/plain' }), json.toString());
    const bytes = { __type__: 'bytes', __value__: json.toString() };
    assert.deepEqual(bodyOf(json, { ...JSON_TYPE, contentEncoding: 'binary' }), bytes);
    assert.deepEqual(bodyOf(json, { ...JSON_TYPE, headers: { compression: 'application/x-gzip' } }), bytes);
    assert.deepEqual(bodyOf(Buffer.of(255), JSON_TYPE), { __type__: 'base64', __value__: '/w==' });
  });

  it('has texts as they are, half a surrogate pair too', () => {
    for (const odd of ['\ud800', '\udc00'.repeat(60), '\u0000"\\\u2028\u007f']) {
      const read = readEnvelope(write(Buffer.alloc(0), { correlationId: odd, headers: { [odd]: odd } }));
      assert.deepEqual([read.properties.correlationId, { ...read.headers }], [odd, { [odd]: odd }]);
    }
  });

  it('has null for a content type and a content encoding that nobody gave', () => {
    const parsed = JSON.parse(write(Buffer.alloc(0)).toString()) as ParsedEnvelope;
    assert.deepEqual([parsed['content-type'], parsed['content-encoding'], parsed.body], [null, null, '']);
    assert.deepEqual(readEnvelope(write(Buffer.alloc(0))).properties, { deliveryMode: 2, priority: 0 });
  });

  it('is refused with an EncodeError for headers that have no form', () => {
    let deep: object = {};
    for (let i = 0; i < 70; i++) deep = { deep };
    for (const header of [deep, () => 1, { '!': 'decimal', value: 1 }, [[deep]]]) {
      assert.throws(() => write(Buffer.alloc(0), { headers: { header } }), EncodeError);
    }
  });
});

describe('an envelope that is changed', () => {
  it('is marked where kombu marks it, and is the same but for that', () => {
    for (const { envelope } of envelopes) {
      const read = JSON.parse(
        rewriteEnvelope(Buffer.from(envelope), { redelivered: true }).toString(),
      ) as ParsedEnvelope;
      const wanted = JSON.parse(envelope) as ParsedEnvelope & { properties: { delivery_info: object } };
      wanted.headers.redelivered = true;
      Object.assign(wanted.properties.delivery_info, { redelivered: true });
      assert.deepEqual(read, wanted);
      assert.deepEqual(Object.keys(read), Object.keys(wanted));
    }
  });

  it('keeps what it does not know to the octet', () => {
    const text =
      '{"x": 12345678901234567890, "body" : "Pz8\\/", "headers":{"n":1.0,"\\u006bey":NaN, "old":[ 1,{}] },' +
      '"properties":{"priority":1e0,"delivery_info":{"y":-0.0}}, "z":{"headers":{}}}';
    const bytes = rewriteEnvelope(Buffer.from(text), {
      redelivered: true,
      headers: { old: undefined, key: 'é', at: new Date(0), big: 2n ** 64n },
    });
    assert.equal(
      bytes.toString(),
      '{"x": 12345678901234567890, "body" : "Pz8\\/", "headers":{"n":1.0, "\\u006bey":"é", ' +
        '"at": {"__type__":"datetime","__value__":"1970-01-01T00:00:00.000000+00:00"}, "big": 18446744073709551616, ' +
        '"redelivered": true}, "properties":{"priority":1e0, "delivery_info":{"y":-0.0, "redelivered": true}}, ' +
        '"z":{"headers":{}}}',
    );
    assert.equal(rewriteEnvelope(Buffer.from('{}'), {}).toString(), '{}');
  });

  it('has every header once, the changed ones as they were changed', () => {
    fc.assert(
      fc.property(headersOf, fc.dictionary(fc.string({ maxLength: 20 }), fc.oneof(text, fc.nat())), (before, after) => {
        const first = write(Buffer.from('x'), { headers: toTable(before, 'headers') });
        const once = rewriteEnvelope(shared(first), { headers: after });
        assert.deepEqual(rewriteEnvelope(once, { headers: after }), once);
        const read = readEnvelope(once);
        assert.deepEqual(Object.keys(read.headers).sort(), Object.keys({ ...before, ...after }).sort());
        for (const [name, value] of Object.entries(after)) assert.equal(read.headers[name], value);
        assert.deepEqual([read.body.toString(), read.deliveryTag], ['x', TAG]);
      }),
    );
  });

  it('takes headers that are missing, null or said twice; others that are none, and properties, it refuses', () => {
    const headersIn = (members: string): unknown =>
      (JSON.parse(rewriteEnvelope(Buffer.from(`{${members}}`), { headers: { a: 1 } }).toString()) as ParsedEnvelope)
        .headers;
    assert.deepEqual(headersIn(''), { a: 1 });
    assert.deepEqual(headersIn('"headers":null'), { a: 1 });
    assert.deepEqual(headersIn('"headers\u0301":{},"h\\u0065aders":{"b":2,"\\u0061":0}'), { b: 2, a: 1 });
    assert.deepEqual(headersIn('"headers":{"b":2},"headers":{"c":3,"a":0,"a":0}'), { c: 3, a: 1 });
    for (const members of ['"headers":[]', '"headers":"x"']) assert.throws(() => headersIn(members), DecodeError);
    for (const members of ['', '"properties":null', '"properties":1', '"properties":{"delivery_info":[]}']) {
      const bytes = Buffer.from(`{${members}}`);
      assert.throws(() => rewriteEnvelope(bytes, { redelivered: true }), DecodeError, members);
    }
    assert.throws(() => rewriteEnvelope(Buffer.from('{}'), { headers: { f: () => 1 } }), EncodeError);
  });
});
