/** What we write is what amqplib writes, and what our readers read. */
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import fc from 'fast-check';
import { readField, readFields } from '#src/codec/amqp/amqplib-values';
import { fieldBytes, joinTable, splitTable } from '#src/codec/amqp/field-bytes';
import { deliveryPrefix, writeDelivery, writeRest } from '#src/codec/amqp/write-content';
import { writeTable } from '#src/codec/amqp/write-table';
import { NO_DECODING } from '#src/pool/delivery';
import { openDelivery } from '#src/pool/open-delivery';

/** amqplib's own codec, by its path: the package does not export it. */
const amqplib = createRequire(import.meta.url)(
  createRequire(import.meta.url)
    .resolve('amqplib')
    .replace(/channel_api\.js$/, 'lib/codec.js'),
) as {
  encodeTable(buffer: Buffer, table: object, at: number): number;
  decodeFields(bytes: Buffer): Record<string, unknown>;
};

const scalar = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.boolean(),
  fc.constant(null),
  fc.integer({ min: Number.MIN_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER }),
  fc.integer({ min: -70_000, max: 70_000 }),
  // Beyond that amqplib fails on some fractions.
  fc.double({ noNaN: true, min: -(2 ** 49), max: 2 ** 49 }),
  fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes)),
  fc.nat().map((value) => ({ '!': 'timestamp', value })),
  fc.nat().map((digits) => ({ '!': 'decimal', value: { places: 2, digits } })),
  fc.nat(255).map((value) => ({ '!': 'uint8', value })),
  fc.nat(65535).map((value) => ({ '!': 'unsignedshort', value })),
);
const value = fc.letrec((tie) => ({
  any: fc.oneof(
    { depthSize: 'small' },
    scalar,
    fc.array(tie('any'), { maxLength: 4 }),
    fc.dictionary(
      fc.string({ maxLength: 9 }).filter((key) => key !== '!' && key !== '__proto__'),
      tie('any'),
      { maxKeys: 4 },
    ),
  ),
})).any;
const table = fc.dictionary(
  fc.string({ maxLength: 30 }).filter((key) => key !== '__proto__'),
  value,
  { maxKeys: 6 },
);

test('field tables: the bytes are amqplib’s, and so are the values read from them', () => {
  fc.assert(
    fc.property(table, (fields) => {
      const theirs = Buffer.alloc(65536);
      const size = amqplib.encodeTable(theirs, fields, 0);
      const ours = Buffer.alloc(65536);
      assert.equal(writeTable(ours, fields, 0), size);
      assert.deepEqual(ours.subarray(0, size), theirs.subarray(0, size));
      assert.deepEqual(readFields(ours), amqplib.decodeFields(theirs.subarray(4, size)));
      assert.deepEqual(joinTable(splitTable(ours)), ours.subarray(0, size));
    }),
    { numRuns: 1000 },
  );
});

test('field tables: a key __proto__ is a key', () => {
  const bytes = joinTable(new Map([['__proto__', fieldBytes('x')]]));
  const fields = readFields(bytes);
  assert.equal(Object.getPrototypeOf(fields), Object.prototype);
  assert.deepEqual(Object.entries(fields), [['__proto__', 'x']]);
});

test('field tables: what AMQP cannot carry is refused', () => {
  const out = Buffer.alloc(300);
  assert.throws(() => writeTable(out, { f: () => undefined }, 0), /Unknown type to encode: function/);
  assert.throws(() => writeTable(out, { ['k'.repeat(256)]: 1 }, 0), TypeError);
  assert.throws(() => writeTable(out, { s: 'x'.repeat(400) }, 0), RangeError);
  assert.throws(() => writeTable(out, { b: Buffer.alloc(400) }, 0), RangeError);
  assert.throws(() => writeTable(out, { d: { '!': 'decimal', value: {} } }, 0), /Decimal value must be/);
  assert.equal(readField(fieldBytes('x'.repeat(5000))), 'x'.repeat(5000));
});

test('a delivery that is written is a delivery that is read', () => {
  const text = fc.string({ maxLength: 30 });
  const optional = fc.option(text, { nil: undefined });
  fc.assert(
    fc.property(
      fc.record({ tag: text, exchange: text, key: text, contentType: optional, messageId: optional, appId: optional }),
      fc.record({ deliveryTag: fc.maxSafeNat(), redelivered: fc.boolean(), body: fc.uint8Array({ maxLength: 300 }) }),
      fc.option(
        fc.dictionary(
          fc.string({ maxLength: 5 }).filter((key) => key !== '__proto__'),
          fc.string(),
          { maxKeys: 3 },
        ),
        { nil: undefined },
      ),
      (texts, { deliveryTag, redelivered, body }, headers) => {
        const { contentType, messageId, appId } = texts;
        const properties = { contentType, messageId, appId, headers, priority: 3, timestamp: 2 ** 40 };
        const rest = writeRest(texts.exchange, texts.key, properties, body);
        assert.equal(rest.bytes.byteOffset & 7, 0);
        const memory = Buffer.alloc(4096, 0xee);
        const prefix = deliveryPrefix(texts.tag);
        const end = writeDelivery(memory, 11, prefix, rest, deliveryTag, redelivered);
        assert.equal(end, 11 + prefix.length + rest.bytes.length);
        assert.equal(memory[end], 0xee);
        const delivery = openDelivery(memory, 11, end - 11, new Map([[texts.tag, 'q']]), NO_DECODING);
        assert.deepEqual(delivery.readDeliveryInfo(), {
          exchange: texts.exchange,
          routingKey: texts.key,
          redelivered,
          consumerTag: texts.tag,
          deliveryTag,
          queue: 'q',
        });
        assert.deepEqual(delivery.readBody(), Buffer.from(body));
        assert.deepEqual({ ...delivery.readHeaders() }, { ...headers });
        const { contentType: type, messageId: id, appId: app, priority, timestamp } = delivery.readProperties();
        assert.deepEqual([type, id, app, priority, timestamp], [contentType, messageId, appId, 3, 2 ** 40]);
      },
    ),
    { numRuns: 500 },
  );
});
