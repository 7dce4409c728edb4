/** kombu's envelope: what Python stores is read, and what is broken says what and where. */
import assert from 'node:assert/strict';
import { describe, it, test } from 'node:test';
import fc from 'fast-check';
import { toTable } from '#src/codec/amqp/plain-table';
import { readEnvelope, rewriteEnvelope, writeEnvelope } from '#src/codec/envelope';
import { DecodeError } from '#src/errors';
import { DecodeCase } from '../support/decode-case.js';
import { envelopes, envelopeWith, type ParsedEnvelope, shared, TAG } from '../support/envelopes.js';

for (const { name, envelope } of envelopes) {
  test(`kombu's envelope ${name} is read, and written again with the same members`, () => {
    const theirs = JSON.parse(envelope) as ParsedEnvelope;
    const read = readEnvelope(shared(Buffer.from(envelope)));
    const { properties, headers, body, exchange, routingKey } = read;
    assert.deepEqual(body, Buffer.from(theirs.body, 'base64'));
    assert.deepEqual({ ...headers }, theirs.headers);
    assert.equal(read.compression, theirs.headers.compression);
    assert.deepEqual(properties, {
      contentType: theirs['content-type'],
      contentEncoding: theirs['content-encoding'],
      correlationId: theirs.properties.correlation_id,
      replyTo: theirs.properties.reply_to,
      deliveryMode: 2,
      expiration: '1500',
      priority: theirs.properties.priority,
    });
    assert.deepEqual([exchange, routingKey], Object.values(theirs.properties.delivery_info));
    assert.deepEqual(
      [read.priority, read.deliveryTag, read.redelivered],
      [theirs.properties.priority, theirs.properties.delivery_tag, false],
    );
    const ours = writeEnvelope({
      exchange,
      routingKey,
      body,
      properties: { ...properties, headers: toTable(headers, 'headers') },
      deliveryTag: read.deliveryTag,
      bodyEncoding: 'base64',
    });
    // The order of the members too: as text, once both are spaced alike.
    assert.equal(ours.toString(), JSON.stringify(theirs));
  });
}

test('there are vectors of 39 envelopes', () => assert.equal(envelopes.length, 39));

describe('an envelope is read', () => {
  const bodyOf = (members: Record<string, unknown>, properties?: Record<string, unknown>): string =>
    Buffer.from(readEnvelope(envelopeWith(members, properties)).body).toString();

  it('with its members in any order, spaced as anybody likes', () => {
    const { body, properties } = JSON.parse(envelopeWith({}).toString()) as ParsedEnvelope;
    for (const indent of [undefined, '\n\t ']) {
      const bytes = Buffer.from(
        `\ufeff ${JSON.stringify({ properties, body, extra: [1, { a: '}' }] }, null, indent)}\r\n`,
      );
      const read = readEnvelope(bytes);
      assert.deepEqual([read.body.toString(), read.exchange, read.contentType], ['{}', 'ex', undefined]);
    }
  });

  it('with the last of members of one name', () => {
    const text = envelopeWith({ body: 'aaaa' }).toString().slice(0, -1);
    const read = readEnvelope(Buffer.from(`${text},"body":"e30=","content-type":"text/plain"}`));
    assert.deepEqual([read.body.toString(), read.contentType], ['{}', 'text/plain']);
  });

  it('with NaN, infinities and integers of any size', () => {
    const text = envelopeWith({ headers: { a: 1, b: 2, c: 3 } }).toString();
    const odd = text.replace('"a":1,"b":2,"c":3', '"a":NaN,"b":-Infinity,"c":12345678901234567890');
    assert.deepEqual(
      { ...readEnvelope(Buffer.from(odd)).headers },
      { a: Number.NaN, b: -1 / 0, c: 12345678901234567890n },
    );
  });

  it('whatever its body is encoded as', () => {
    for (const encoding of [undefined, null, '', 'utf-8', 'UTF-8']) {
      const properties = { body_encoding: encoding };
      assert.equal(bodyOf({ body: 'é "quoted"\n' }, properties), 'é "quoted"\n');
      assert.equal(bodyOf({ body: { __type__: 'bytes', __value__: 'é' } }, properties), 'é');
      assert.equal(bodyOf({ body: { __type__: 'base64', __value__: 'e30=' } }, properties), '{}');
    }
    assert.equal(bodyOf({ body: { __type__: 'bytes', __value__: 'e30=' } }), '{}');
    assert.equal(bodyOf({ body: '' }), '');
    // As PHP's json_encode writes a slash, and as MIME's base64 breaks lines.
    const slash = envelopeWith({ body: 'Pz8/' }).toString().replace('Pz8/', 'Pz8\\/');
    assert.equal(readEnvelope(Buffer.from(slash)).body.toString(), '???');
    assert.equal(bodyOf({ body: 'e3\r\n0=\n' }), '{}');
  });

  it('to the quote that ends its body, however many are escaped before', () => {
    const piece = fc.constantFrom('"', '\\', '\\\\', '\\"', 'é', 'x'.repeat(47), 'y'.repeat(200));
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
        const body = pieces.join('');
        const read = readEnvelope(envelopeWith({ body }, { body_encoding: 'utf-8' }));
        assert.deepEqual([Buffer.from(read.body).toString(), read.deliveryTag], [body, TAG]);
        const bytes = rewriteEnvelope(envelopeWith({ x: body }), { headers: { a: body } });
        const { x, headers } = JSON.parse(bytes.toString()) as { x: string; headers: object };
        assert.deepEqual([x, headers], [body, { a: body }]);
      }),
    );
  });

  it('as base64 exactly where Python finds base64 without anything that is none', () => {
    const character = fc.constantFrom(...'ABCZabz019+/', ...'-_=*\u00e9');
    fc.assert(
      fc.property(fc.string({ unit: character, maxLength: 12 }), fc.boolean(), (body, isFirst) => {
        const bytes = isFirst
          ? envelopeWith({ body })
          : Buffer.from(`{"x":1,${envelopeWith({ body }).toString().slice(1)}`);
        if (body.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(body)) {
          assert.equal(readEnvelope(bytes).body.length, Math.floor((body.replace(/=+$/, '').length * 3) / 4));
        } else {
          assert.throws(() => readEnvelope(bytes).body, DecodeError, body);
        }
      }),
      { numRuns: 3000 },
    );
  });

  it('as redelivered where any of three places says so', () => {
    assert.equal(readEnvelope(envelopeWith({})).redelivered, false);
    assert.equal(readEnvelope(envelopeWith({ redelivered: true })).redelivered, true);
    assert.equal(readEnvelope(envelopeWith({ headers: { redelivered: true } })).redelivered, true);
    assert.equal(readEnvelope(envelopeWith({}, { delivery_info: { redelivered: true } })).redelivered, true);
    assert.equal(readEnvelope(envelopeWith({}, { delivery_info: { redelivered: 'no' } })).redelivered, false);
  });

  it('with null and what is missing as nothing', () => {
    const properties = { delivery_info: null, correlation_id: null, priority: null, timestamp: undefined };
    const read = readEnvelope(envelopeWith({ headers: null, 'content-type': null }, properties));
    assert.deepEqual([read.exchange, read.routingKey, read.contentType, read.priority], ['', '', undefined, 0]);
    assert.deepEqual(read.properties, { contentEncoding: 'utf-8' });
    assert.deepEqual(Object.keys(read.headers), []);
    assert.equal(Object.getPrototypeOf(read.headers), null);
  });

  it('with texts and numbers as senders mix them up, and priorities in their range', () => {
    const at = { __type__: 'datetime', __value__: '2023-11-14T22:13:20.5+00:00' };
    const id = { __type__: 'uuid', __value__: { hex: TAG.replaceAll('-', '') } };
    for (const types of ['plain', 'exact'] as const) {
      const properties = { timestamp: at, correlation_id: 7, message_id: id, delivery_mode: '2', priority: '3' };
      assert.deepEqual(readEnvelope(envelopeWith({}, properties), types).properties, {
        contentType: 'application/json',
        contentEncoding: 'utf-8',
        correlationId: '7',
        messageId: TAG,
        deliveryMode: 2,
        timestamp: 1_700_000_000,
        priority: 3,
      });
    }
    for (const [given, priority] of [
      [4, 4],
      [99, 9],
      [-3, 0],
      ['5', 5],
      ['x', 0],
      [null, 0],
      [2.9, 2],
      [[], 0],
    ]) {
      assert.equal(readEnvelope(envelopeWith({}, { priority: given })).priority, priority);
    }
  });

  it('with a key __proto__ as a key', () => {
    const text = envelopeWith({ headers: { a: 1 } }).toString();
    const evil = Buffer.from(text.replace('"a":1', '"__proto__":{"redelivered":true,"compression":"x"}'));
    const read = readEnvelope(evil);
    assert.equal(Object.getPrototypeOf(read.headers), null);
    assert.deepEqual(Object.keys(read.headers), ['__proto__']);
    assert.deepEqual([read.redelivered, read.compression], [false, undefined]);
    for (const members of ['{"__proto__":{"properties":{}}}', '{"properties":{"__proto__":{"delivery_tag":"x"}}}']) {
      assert.throws(() => readEnvelope(Buffer.from(members)).deliveryTag, DecodeError);
    }
    assert.equal(({} as Record<string, unknown>).redelivered, undefined);
    for (const name of ['constructor', 'toString']) assert.equal(read.rawHeader(name), undefined);
  });
});

/** Everything there is to ask. */
const ASK = ['body', 'headers', 'properties', 'exchange', 'routingKey', 'redelivered', 'priority'] as const;
const MORE = ['contentType', 'contentEncoding', 'compression', 'deliveryTag'] as const;

describe('a broken envelope', () => {
  it('says what is wrong and where, and quotes nothing', () => {
    const secret = 'hunter2';
    const extended = { __type__: 'nobody-has-this', __value__: secret };
    const cases: [Buffer, (typeof ASK)[number] | (typeof MORE)[number], RegExp][] = [
      [Buffer.alloc(0), 'body', /not valid JSON at its end \(0 bytes\)/],
      [Buffer.from('hunter2'), 'body', /not valid JSON at byte 0/],
      [Buffer.from('["hunter2"]'), 'body', /must be an object, not a list/],
      [Buffer.from('12'), 'body', /must be an object, not a number/],
      [Buffer.from('null'), 'body', /must be an object, not null/],
      [Buffer.from('{"body":"hunter2'), 'body', /not valid JSON at its end/],
      [Buffer.from('{"body":"hunter2","x":}'), 'body', /not valid JSON at character 22/],
      [Buffer.concat([envelopeWith({}), Buffer.from('hunter2')]), 'body', /not valid JSON at character \d+/],
      [envelopeWith({ body: undefined }), 'body', /body is missing/],
      [envelopeWith({ body: null }), 'body', /body is missing/],
      [envelopeWith({ body: [secret] }), 'body', /body must be text or bytes, not a list/],
      [envelopeWith({ body: { a: secret } }), 'body', /body must be text or bytes, not an object/],
      [envelopeWith({ body: extended }), 'body', /body: json: unknown extended type 'nobody-has-this'/],
      [envelopeWith({ body: 'hunter2' }), 'body', /body is not base64/],
      [envelopeWith({}, { body_encoding: 'base32' }), 'body', /body_encoding must be base64 or utf-8, not 'base32'/],
      [envelopeWith({}, { body_encoding: 1 }), 'body', /body_encoding must be text, not a number/],
      [envelopeWith({ properties: undefined }), 'body', /properties is missing/],
      [envelopeWith({ properties: [secret] }), 'exchange', /properties must be an object, not a list/],
      [envelopeWith({}, { delivery_info: secret }), 'exchange', /delivery_info must be an object, not text/],
      [envelopeWith({}, { delivery_info: { routing_key: 1 } }), 'routingKey', /routing_key must be text, not a number/],
      [envelopeWith({}, { delivery_tag: undefined }), 'deliveryTag', /delivery_tag is missing/],
      [envelopeWith({}, { delivery_tag: 7 }), 'deliveryTag', /delivery_tag must be text/],
      [envelopeWith({}, { correlation_id: [secret] }), 'properties', /properties.correlation_id must be text/],
      [envelopeWith({}, { timestamp: secret }), 'properties', /properties.timestamp must be a number/],
      [envelopeWith({ headers: secret }), 'headers', /headers must be an object, not text/],
      [envelopeWith({ headers: { a: extended } }), 'headers', /headers: json: unknown extended type/],
      [envelopeWith({ headers: [] }), 'compression', /headers must be an object, not a list/],
      [envelopeWith({ 'content-type': true }), 'contentType', /content-type must be text, not true or false/],
      [envelopeWith({ 'content-encoding': {} }), 'contentEncoding', /content-encoding must be text, not an object/],
      [Buffer.concat([Buffer.from('{"a":"'), Buffer.of(0xff), Buffer.from('"}')]), 'body', /not valid UTF-8/],
      [envelopeWith({ body: '\ud800' }, { body_encoding: 'utf-8' }), 'body', /half of a surrogate pair/],
    ];
    for (const [bytes, part, reason] of cases) {
      assert.throws(
        () => readEnvelope(bytes)[part],
        (error: unknown) => {
          assert.ok(error instanceof DecodeError, String(error));
          assert.match(error.message, /^envelope: /);
          assert.match(error.message, reason);
          assert.doesNotMatch(error.message, /hunter2/);
          return true;
        },
      );
    }
  });

  it('fails the part that is asked for, and no other', () => {
    const read = readEnvelope(envelopeWith({ headers: { bad: { __type__: 'x', __value__: 1 }, compression: 'zlib' } }));
    assert.throws(() => read.headers, DecodeError);
    assert.throws(() => read.headers, DecodeError);
    assert.deepEqual([read.body.toString(), read.compression, read.exchange], ['{}', 'zlib', 'ex']);
    assert.deepEqual(read.rawHeader('bad'), { __type__: 'x', __value__: 1 });
  });

  it('nested without end is refused, in time that grows with its length', () => {
    const deep = (levels: number): string => '['.repeat(levels) + ']'.repeat(levels);
    for (const value of [deep(65), deep(200_000), `{"__type__":${deep(200_000)},"__value__":1}`]) {
      const bytes = Buffer.from(
        envelopeWith({ headers: { a: 1 } })
          .toString()
          .replace('"a":1', `"a":${value}`),
      );
      assert.throws(() => readEnvelope(bytes).headers, DecodeError);
      assert.throws(() => rewriteEnvelope(bytes, { redelivered: true }), DecodeError);
    }
    const quotes = `{"body":"${'\\"'.repeat(1 << 20)}`;
    const slashes = `{"body":"${'\\\\'.repeat(1 << 20)}`;
    for (const text of [quotes, slashes, `${quotes}\\`, `${'{"a":'.repeat(1 << 18)}`, '{"a":1,'.repeat(1 << 18)]) {
      assert.throws(() => readEnvelope(Buffer.from(text)), DecodeError);
      assert.throws(() => rewriteEnvelope(Buffer.from(text), { redelivered: true }), DecodeError);
    }
  });

  it('of any kind is read or refused with a DecodeError, never with another', () => {
    const random = new DecodeCase(39);
    let refused = 0;
    for (let i = 0; i < 4000; i++) {
      const bytes = random.mutate(Buffer.from(envelopes[i % 30]!.envelope));
      const attempts = [...ASK, ...MORE].map((part) => () => readEnvelope(bytes)[part]);
      for (const attempt of [...attempts, () => rewriteEnvelope(bytes, { redelivered: true, headers: { a: 1 } })]) {
        try {
          attempt();
        } catch (error) {
          assert.ok(error instanceof DecodeError, `${String(error)} of ${bytes.toString('latin1')}`);
          refused++;
        }
      }
    }
    assert.ok(refused > 1000, `${refused} refused`);
  });
});
