/** Deliveries whose message is kombu's envelope, out of shared memory: read as those of AMQP are, by everybody who reads them. */
import assert from 'node:assert/strict';
import { describe, it, test } from 'node:test';
import fc from 'fast-check';
import { envelopeDeliveryLength, envelopePrefix, writeEnvelopeDelivery } from '#src/codec/amqp/write-envelope';
import { compress } from '#src/codec/compression';
import { type DecodeLimits, decodePayload } from '#src/codec/decode';
import { readEnvelope } from '#src/codec/envelope';
import { dumps, prepareAcceptContent } from '#src/codec/serialization';
import { ContentDisallowed, DecodeError, MessageTooLarge } from '#src/errors';
import { NO_KEY } from '#src/main/runtime/key-order';
import { messageOf, originOf } from '#src/main/runtime/letter';
import { keyReader } from '#src/main/runtime/order-key';
import { type Delivery, markRedelivered, NO_DECODING, RETRIES_HEADER, readDeliver } from '#src/pool/delivery';
import { openDelivery } from '#src/pool/open-delivery';
import { envelopes, TAG, write } from '../support/envelopes.js';

const CONSUMER = 'mozuku-3-17';
const QUEUES = new Map([[CONSUMER, 'the queue']]);
const LIMITS: DecodeLimits = {
  accept: prepareAcceptContent(['json', 'text', 'raw', 'msgpack', 'yaml']),
  maxDecodedBytes: 1 << 20,
};
const memory = Buffer.from(new SharedArrayBuffer(1 << 20));
const prefix = envelopePrefix(CONSUMER);
const START = 67;

interface Placing {
  readonly tag?: number;
  readonly redelivered?: boolean;
  readonly limits?: DecodeLimits;
}

/** Writes a delivery into memory that is full of something else. */
function place(envelope: Buffer, { tag = 7, redelivered = false, limits = LIMITS }: Placing = {}): Delivery {
  memory.fill(0x45);
  const end = writeEnvelopeDelivery(memory, START, prefix, envelope, tag, redelivered);
  assert.equal(end - START, envelopeDeliveryLength(prefix, envelope));
  assert.deepEqual([memory[START - 1], memory[end - 1], memory[end]], [0x45, 0xce, 0x45]);
  return openDelivery(memory, START, end - START, QUEUES, limits);
}

const json = (value: unknown, headers: object = {}): Buffer =>
  write(dumps(value, 'json').body, { contentType: 'application/json', contentEncoding: 'utf-8', headers });

for (const { name, envelope } of envelopes) {
  test(`kombu's envelope ${name} is decoded where it lies, and from a copy of its own`, () => {
    const theirs = readEnvelope(Buffer.from(envelope));
    const { body, contentType, contentEncoding, compression } = theirs;
    const payload = decodePayload(body, { contentType, contentEncoding, compression }, LIMITS);
    const parts = (delivery: Delivery): unknown => [
      delivery.decode(),
      delivery.readBody(),
      delivery.readProperties(),
      { ...delivery.readHeaders() },
      delivery.readDeliveryInfo(),
    ];
    const info = { consumerTag: CONSUMER, deliveryTag: 7, queue: 'the queue', redelivered: false };
    const { exchange, routingKey } = theirs;
    const expected = [payload, body, theirs.properties, { ...theirs.headers }, { ...info, exchange, routingKey }];
    const delivery = place(Buffer.from(envelope));
    assert.deepEqual(parts(delivery), expected);
    delivery.own();
    memory.fill(0x5a);
    assert.deepEqual(parts(delivery), expected);
    // Also where nothing was read before.
    const unread = place(Buffer.from(envelope));
    unread.own();
    memory.fill(0x5a);
    assert.deepEqual(parts(unread), expected);
  });
}

test('its tag, its queue and whether it was delivered before are read and marked as in frames of AMQP', () => {
  const anyTag = fc.oneof(fc.maxSafeNat(), fc.nat(300));
  fc.assert(
    fc.property(anyTag, fc.boolean(), fc.string({ maxLength: 60 }), (tag, redelivered, consumerTag) => {
      const envelope = json('x');
      const own = envelopePrefix(consumerTag);
      const end = writeEnvelopeDelivery(memory, 8, own, envelope, tag, redelivered);
      const queues = new Map([[consumerTag, 'q']]);
      const fields = { consumerTag, deliveryTag: tag, queue: 'q' };
      const read = (): unknown => openDelivery(memory, 8, end - 8, queues, LIMITS).readDeliveryInfo();
      assert.deepEqual(readDeliver(memory, 8, queues), { ...fields, redelivered, exchange: '', routingKey: '' });
      assert.deepEqual(read(), { ...fields, redelivered, exchange: 'ex', routingKey: 'rk' });
      markRedelivered(memory, 8);
      assert.deepEqual(read(), { ...fields, redelivered: true, exchange: 'ex', routingKey: 'rk' });
    }),
  );
  const marked = place(json('x', { redelivered: true }));
  assert.equal(marked.readDeliveryInfo().redelivered, true);
  assert.throws(() => envelopePrefix('é'.repeat(128)), RangeError);
});

describe('a delivery of an envelope', () => {
  it('gives a body and a payload that outlive its memory, however the body stood in it', () => {
    for (const encoding of ['base64', 'utf-8'] as const) {
      for (const body of [Buffer.from('no escapes'), Buffer.from('a "quote"'), Buffer.of(1, 255)]) {
        for (const contentEncoding of ['utf-8', 'binary']) {
          const properties = { contentType: 'application/data', contentEncoding };
          const delivery = place(write(body, properties, encoding));
          const given = [delivery.readBody(), delivery.readRaw()];
          const payload = contentEncoding === 'binary' ? delivery.decode() : body;
          memory.fill(0);
          assert.deepEqual([given[0], payload], [body, body]);
          assert.equal(readEnvelope(given[1]!).deliveryTag, TAG);
        }
      }
    }
  });

  it('asks accept and the limits, decompresses, and knows charsets', () => {
    const properties = { contentType: 'application/json', contentEncoding: 'utf-8' };
    const zeros = dumps('0'.repeat(100_000), 'json').body;
    const { body, contentType: compression } = compress(zeros, 'zlib');
    const packed = write(body, { ...properties, headers: { compression } });
    assert.equal(place(packed).decode(), '0'.repeat(100_000));
    assert.throws(() => place(packed, { limits: { ...LIMITS, maxDecodedBytes: 1000 } }).decode(), MessageTooLarge);
    assert.throws(() => place(packed, { limits: NO_DECODING }).decode(), ContentDisallowed);
    assert.equal(place(packed).readAccept(), LIMITS.accept);
    const latin1 = { contentType: 'text/plain', contentEncoding: 'latin1' };
    for (const encoding of ['base64', 'utf-8'] as const) {
      assert.equal(place(write(Buffer.of(0xe9), latin1, encoding)).decode(), 'é');
      assert.equal(place(write(Buffer.from('é'), { contentType: 'text/plain' }, encoding)).decode(), 'é');
    }
  });

  it('has extended types among its headers as the limits say', () => {
    const headers = { at: { '!': 'timestamp', value: 1_700_000_000 } };
    const at = (types: 'plain' | 'exact'): unknown =>
      place(json(1, headers), { limits: { ...LIMITS, types } }).readHeaders().at;
    assert.deepEqual(at('plain'), new Date(1_700_000_000_000));
    assert.equal(String(at('exact')), '2023-11-14T22:13:20+00:00');
  });

  it('counts the runs before it', () => {
    for (const [retries, expected] of [
      [{ '!': 'int', value: 3 }, 3],
      [0, 0],
      [-1, 0],
      [1.5, 0],
      ['2', 0],
      [null, 0],
    ]) {
      assert.equal(place(json(1, { [RETRIES_HEADER]: retries })).readRetries(), expected);
    }
    assert.equal(place(json(1)).readRetries(), 0);
  });

  it('that cannot be read fails where it is decoded, and is known by its queue and tag all the same', () => {
    const good = json(1).toString();
    const broken = ['', 'not JSON', '[]', '{}', good.slice(0, -1), good.replace('"properties":{', '"properties":[{')];
    for (const text of broken) {
      const delivery = place(Buffer.from(text), { tag: 9, redelivered: true });
      for (let again = 0; again < 2; again++) {
        assert.throws(() => delivery.decode(), DecodeError, text);
        assert.throws(() => delivery.readBody(), DecodeError, text);
        assert.throws(() => delivery.readProperties(), DecodeError, text);
        assert.equal(delivery.readRetries(), 0);
        const info = { exchange: '', routingKey: '', redelivered: true, consumerTag: CONSUMER, deliveryTag: 9 };
        assert.deepEqual(delivery.readDeliveryInfo(), { ...info, queue: 'the queue' });
        assert.equal(delivery.readRaw().toString(), text);
        delivery.own();
        memory.fill(0x5a);
      }
    }
  });
});

describe('a dead letter of an envelope', () => {
  it('has its body, its properties and the headers that can be sent on', () => {
    const own = {
      compression: 'zlib',
      k: 'v',
      [RETRIES_HEADER]: { '!': 'int', value: 2 },
      'x-mozuku-exchange': 'first',
    };
    const delivery = place(json({ a: 1 }, own), { limits: NO_DECODING });
    assert.deepEqual(originOf(delivery), { exchange: 'first', routingKey: 'rk' });
    const { body, properties } = messageOf(delivery, { ours: 1 }, (name) => name === RETRIES_HEADER);
    assert.equal(body.toString(), '{"a":1}');
    const { headers, contentType, deliveryMode } = properties;
    assert.deepEqual([contentType, deliveryMode, headers.k, headers.compression], ['application/json', 2, 'v', 'zlib']);
    assert.deepEqual([headers.ours, headers[RETRIES_HEADER], headers['x-mozuku-raw']], [1, undefined, undefined]);
  });

  it('whose body cannot be read is the whole envelope, and says so', () => {
    const good = json({ a: 1 }, { compression: 'zlib', k: 'v' }).toString();
    for (const [text, k] of [
      [good.replace('{"body":"', '{"body":"?'), 'v'],
      ['not JSON', undefined],
    ] as const) {
      const { body, properties } = messageOf(place(Buffer.from(text)), {}, () => false);
      assert.equal(body.toString(), text);
      assert.deepEqual([properties.contentType, properties.contentEncoding], ['application/data', 'binary']);
      const { headers } = properties;
      assert.deepEqual([headers['x-mozuku-raw'], headers.compression, headers.k], ['envelope', undefined, k]);
    }
  });
});

describe('the key for orderBy of an envelope', () => {
  const keyOf = (by: Parameters<typeof keyReader>[0], envelope: Buffer | string, consumerTag = CONSUMER): number => {
    const bytes = Buffer.from(envelope);
    const end = writeEnvelopeDelivery(memory, START, envelopePrefix(consumerTag), bytes, 1, false);
    return keyReader(by)(memory, START, end - START);
  };
  const python = (key: string): string =>
    `{"body": "", "headers": {"k": ${key}}, "properties": {"delivery_info": {"exchange": "", "routing_key": ${key}}}}`;

  it('is the same for the same routing key or header, however that is written, and another for another', () => {
    const by = { header: 'k' } as const;
    for (const read of ['routingKey', by] as const) {
      const plain = keyOf(read, python('"clé"'));
      assert.notEqual(plain, NO_KEY);
      assert.equal(keyOf(read, python('"cl\\u00e9"')), plain);
      assert.equal(keyOf(read, `{"x": [],${python('"clé"').slice(1)}`), plain);
      assert.notEqual(keyOf(read, python('"cle"')), plain);
    }
    assert.equal(keyOf(by, python('{"a": [1, 2.0]}')), keyOf(by, python('{"a":[1,2]}')));
    assert.notEqual(keyOf(by, python('12345678901234567890')), keyOf(by, python('12345678901234567891')));
    const unknown = '{"__type__": "of the handler module", "__value__": 7}';
    assert.equal(keyOf(by, python(unknown)), keyOf(by, python(unknown)));
    assert.notEqual(keyOf(by, python(unknown)), NO_KEY);
  });

  it('is none without the header, and for what cannot be read', () => {
    assert.equal(keyOf({ header: 'other' }, python('"x"')), NO_KEY);
    for (const broken of ['', '[]', '{}', 'not JSON', python('[1')]) assert.equal(keyOf('routingKey', broken), NO_KEY);
    for (const broken of ['', 'not JSON', '{"headers": 1}']) assert.equal(keyOf({ header: 'k' }, broken), NO_KEY);
  });

  it('by queue is its place in the consumer tag', () => {
    assert.equal(keyOf('queue', 'not JSON', 'mozuku-3-17'), keyOf('queue', '{}', 'mozuku-3-18'));
    assert.notEqual(keyOf('queue', '{}', 'mozuku-3-17'), keyOf('queue', '{}', 'mozuku-4-17'));
  });
});
