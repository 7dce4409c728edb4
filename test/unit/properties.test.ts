/** The property block of content headers against the test's own encoder. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { findHeaders, readProperties, skipShortString } from '#src/codec/amqp/properties';
import { readTable } from '#src/codec/amqp/table';
import { DecodeError } from '#src/errors';
import { type HeaderFields, properties, table } from '../support/amqp-bytes.js';

const text = fc.string({ unit: 'grapheme', maxLength: 30 }).filter((value) => Buffer.byteLength(value) < 256);
const fields: fc.Arbitrary<HeaderFields> = fc.record(
  {
    contentType: fc.oneof(text, fc.constant('x'.repeat(255))),
    contentEncoding: text,
    headers: fc.array(fc.tuple(fc.string({ maxLength: 5 }), fc.tuple(fc.constant('S' as const), text)), {
      maxLength: 3,
    }),
    deliveryMode: fc.nat(255),
    priority: fc.nat(255),
    correlationId: text,
    replyTo: text,
    expiration: text,
    messageId: text,
    timestamp: fc.bigInt({ min: 0n, max: 2n ** 53n - 1n }),
    type: text,
    userId: text,
    appId: text,
    clusterId: text,
  },
  { requiredKeys: [] },
);

describe('a property block', () => {
  it('with any of the properties is read as it was written', () => {
    fc.assert(
      fc.property(fields, fc.nat(9), (written, before) => {
        const block = Buffer.concat([Buffer.alloc(before, 0xff), properties(written), Buffer.alloc(5, 0xff)]);
        const { headers, clusterId, timestamp, ...rest } = written;
        const expected = timestamp === undefined ? rest : { ...rest, timestamp: Number(timestamp) };
        assert.deepEqual(readProperties(block, before, block.length - 5), expected);
      }),
      { numRuns: 1000 },
    );
  });

  it('shows where its header table is, or that there is none', () => {
    fc.assert(
      fc.property(fields, (written) => {
        const block = properties(written);
        const at = findHeaders(block, 0, block.length);
        if (written.headers === undefined) {
          assert.equal(at, -1);
        } else {
          const bytes = table(written.headers);
          assert.ok(block.subarray(at, at + bytes.length).equals(bytes));
          assert.deepEqual(readTable(block, at, block.length), readTable(bytes, 0, bytes.length));
        }
      }),
      { numRuns: 500 },
    );
  });

  it('cut at any byte is a DecodeError, whatever lies behind the cut', () => {
    fc.assert(
      fc.property(fields, (written) => {
        const { clusterId, ...known } = written;
        const block = properties(known);
        for (let cut = 0; cut < block.length; cut++) {
          assert.throws(() => readProperties(block, 0, cut), DecodeError);
          assert.throws(() => readProperties(Buffer.from(block.subarray(0, cut)), 0, cut), DecodeError);
        }
        if (known.headers === undefined) return;
        const end = findHeaders(block, 0, block.length) + table(known.headers).length;
        for (let cut = 0; cut < end; cut++) assert.throws(() => findHeaders(block, 0, cut), DecodeError);
      }),
      { numRuns: 100 },
    );
  });

  it('whose header table is cut and comes last is a DecodeError', () => {
    const block = properties({ headers: [['key', ['S', 'value']]] });
    for (let cut = 0; cut < block.length; cut++) {
      assert.throws(() => readProperties(block, 0, cut), DecodeError);
      assert.throws(() => findHeaders(block, 0, cut), DecodeError);
    }
  });

  it('of noise is read or refused with a DecodeError', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (noise) => {
        const block = Buffer.from(noise);
        for (const read of [readProperties, findHeaders, skipShortString]) {
          try {
            read(block, 0, block.length);
          } catch (error) {
            assert.ok(error instanceof DecodeError, String(error));
          }
        }
      }),
      { numRuns: 5000 },
    );
  });

  it('that continues its flags is a DecodeError for every reader of it', () => {
    const block = properties({ contentType: 'text/plain', headers: [] });
    block.writeUInt16BE(block.readUInt16BE(0) | 1);
    assert.throws(() => readProperties(block, 0, block.length), {
      name: 'DecodeError',
      message: /continues its flags/,
    });
    assert.throws(() => findHeaders(block, 0, block.length), DecodeError);
  });
});
