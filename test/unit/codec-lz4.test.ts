/** The LZ4 frame format, on every backend there is: what it allows, what it forbids, and what no frame may do. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { decodeLz4, encodeLz4 } from '#src/codec/compressions/lz4';
import { lz4Backends } from '#src/codec/compressions/lz4-backend';
import { measureBlock } from '#src/codec/compressions/lz4-block';
import { xxhash32 } from '#src/codec/compressions/xxhash32';
import { DecodeError, MessageTooLarge } from '#src/errors';
import { DecodeCase } from '../support/decode-case.js';
import { type FrameOptions, lz4Frame, stored } from '../support/lz4-frames.js';

const MAX = 1 << 26;
const text = (length: number): Buffer => {
  const words: string[] = [];
  for (let i = 0, size = 0; size < length; i++)
    size += words[words.push(`"user ${(i * 7919) % 1000}": ${i % 97}, `) - 1]!.length;
  return Buffer.from(words.join('')).subarray(0, length);
};

test('xxHash32 is what others compute', () => {
  assert.equal(xxhash32(Buffer.alloc(0)), 0x02cc5d05);
  assert.equal(xxhash32(Buffer.from('a')), 0x550d7456);
  assert.equal(xxhash32(Buffer.from('abc')), 0x32d153ff);
  assert.equal(xxhash32(Buffer.from('Nobody inspects the spammish repetition')), 0xe2293b2f);
});

for (const { name, found } of lz4Backends()) {
  if (!('value' in found)) {
    test(`lz4 over ${name}`, { skip: `does not work here: ${found.missing}` }, () => undefined);
    continue;
  }
  const backend = found.value;
  const decode = (body: Buffer, maxBytes = MAX): Buffer => decodeLz4(backend, body, maxBytes);
  const frame = (body: Buffer, options: FrameOptions = {}): Buffer => lz4Frame(backend, body, options);

  test(`${name}: bodies of any length survive, one block or many`, () => {
    for (const length of [0, 1, 12, 13, 1000, 65_535, 65_536, 65_537, 262_145, 4_194_304, 4_194_305, 9_000_000]) {
      const body = text(length);
      assert.ok(decode(encodeLz4(backend, body)).equals(body), `${length} bytes of text`);
    }
    for (const length of [1, 70_000, 5_000_000]) {
      const noise = randomBytes(length);
      assert.ok(decode(encodeLz4(backend, noise)).equals(noise), `${length} bytes of noise`);
    }
  });

  test(`${name}: every kind of frame is read`, () => {
    const body = Buffer.concat([text(200_000), randomBytes(70_000), text(50_000)]);
    for (const linked of [true, false]) {
      for (const blockChecksums of [true, false]) {
        for (const contentSize of [true, false]) {
          for (const contentChecksum of [true, false]) {
            const options = { linked, blockChecksums, contentSize, contentChecksum };
            assert.ok(decode(frame(body, options)).equals(body), JSON.stringify(options));
          }
        }
      }
    }
  });

  test(`${name}: linked blocks may be as short as a byte, and reach back over many`, () => {
    const pattern = text(300);
    for (const blockLength of [1, 2, 3, 4, 5, 7, 64]) {
      // one literal each, then a block that copies all of it
      const pieces: Buffer[] = [];
      for (let at = 0; at < pattern.length; at += blockLength)
        pieces.push(stored(pattern.subarray(at, at + blockLength)));
      const [back, more] = [pattern.length & 0xff, pattern.length >> 8];
      // no literals, a match of 4 + 15 + 11 bytes, then five literals
      const block = Buffer.of(0x0f, back, more, 11, 0x50, 1, 2, 3, 4, 5);
      pieces.push(Buffer.concat([Buffer.of(block.length, 0, 0, 0), block]));
      const expected = Buffer.concat([pattern, pattern.subarray(0, 30), Buffer.of(1, 2, 3, 4, 5)]);
      assert.deepEqual(decode(lz4Frame(backend, expected, { linked: true, blocks: pieces })), expected);
    }
  });

  test(`${name}: a linked block of a few literals, or of nothing, is read`, () => {
    for (const contentSize of [true, false]) {
      for (const length of [0, 1, 2, 4, 7, 8, 14, 15, 16, 300]) {
        const tail = text(300).subarray(0, length);
        const head = length < 15 ? [length << 4] : length < 270 ? [0xf0, length - 15] : [0xf0, 255, length - 270];
        const block = Buffer.concat([
          Buffer.of(head.length + length, (head.length + length) >> 8, 0, 0),
          Buffer.from(head),
          tail,
        ]);
        for (const history of [1, 5, 66_000]) {
          const pieces = [stored(text(Math.min(history, 60_000)))];
          if (history > 60_000) pieces.push(stored(text(history - 60_000)));
          const expected = Buffer.concat([text(Math.min(history, 60_000)), text(Math.max(history - 60_000, 0)), tail]);
          const bytes = lz4Frame(backend, expected, { linked: true, contentSize, blocks: [...pieces, block] });
          assert.ok(decode(bytes).equals(expected), `${length} literals behind ${history} bytes`);
        }
      }
    }
    const long = Buffer.concat([Buffer.of(6, 0, 0, 0, 0x50), Buffer.from('12345')]);
    const forged = lz4Frame(backend, text(14), { linked: true, contentSize: true, blocks: [stored(text(10)), long] });
    assert.throws(() => decode(forged), DecodeError, 'more than the header says');
  });

  test(`${name}: a linked block that reaches back further than there is something is damaged`, () => {
    for (const history of [0, 1, 2, 3, 4, 100]) {
      for (const contentSize of [true, false]) {
        const start = history === 0 ? [] : [stored(text(history))];
        const reach = history + 1;
        const block = Buffer.of(0x00, reach & 0xff, reach >> 8, 0x50, 1, 2, 3, 4, 5);
        const blocks = [...start, Buffer.concat([Buffer.of(block.length, 0, 0, 0), block])];
        const forged = lz4Frame(backend, Buffer.alloc(history + 9), { linked: true, blocks, contentSize });
        assert.throws(() => decode(forged), DecodeError, `history ${history}`);
      }
    }
  });

  test(`${name}: a block is measured without being decoded`, () => {
    for (const body of [text(1), text(5000), Buffer.alloc(60_000), randomBytes(999)]) {
      const output = Buffer.alloc(body.length * 2 + 100);
      const length = backend.encodeBlock(body, output, 0);
      assert.equal(measureBlock(output, 0, length, 0), body.length);
    }
    assert.equal(measureBlock(Buffer.of(0xf0, 255), 0, 2, 0), -1);
    assert.equal(measureBlock(Buffer.of(0x10, 1, 1, 0), 0, 4, 0), -1);
  });

  test(`${name}: frames and skippable frames in a row are one body`, () => {
    const [a, b] = [text(1000), text(70_000)];
    const skippable = (content: Buffer): Buffer => {
      const head = Buffer.alloc(8);
      head.writeUInt32LE(0x184d2a5a);
      head.writeUInt32LE(content.length, 4);
      return Buffer.concat([head, content]);
    };
    const row = [
      skippable(text(50)),
      frame(a),
      skippable(Buffer.alloc(0)),
      frame(b, { linked: true }),
      frame(Buffer.alloc(0)),
    ];
    assert.ok(decode(Buffer.concat(row)).equals(Buffer.concat([a, b])));
    assert.throws(() => decode(skippable(text(5))), /only skippable/);
    assert.throws(() => decode(Buffer.concat([frame(a), skippable(text(5)).subarray(0, -1)])), /cut off/);
    const total = a.length + b.length;
    assert.equal(decode(Buffer.concat(row), total).length, total);
    assert.throws(() => decode(Buffer.concat(row), total - 1), MessageTooLarge);
  });

  test(`${name}: the limit is exact, whether the frame says its size or not`, () => {
    const body = text(100_000);
    for (const contentSize of [true, false]) {
      for (const linked of [true, false]) {
        const bytes = frame(body, { contentSize, linked });
        assert.ok(decode(bytes, body.length).equals(body));
        assert.throws(() => decode(bytes, body.length - 1), MessageTooLarge);
      }
    }
  });

  test(`${name}: a header that is not what it should be is refused with the reason`, () => {
    const good = frame(text(100), { contentSize: true });
    const reseal = (edit: (bytes: Buffer) => void): Buffer => {
      const bytes = Buffer.from(good);
      edit(bytes);
      bytes[14] = (xxhash32(bytes, 4, 14) >>> 8) & 0xff;
      return bytes;
    };
    for (const [what, bytes] of [
      [/no LZ4 frame/, Buffer.from('{"json": "and nothing else"}')],
      [/legacy/, Buffer.concat([Buffer.of(0x02, 0x21, 0x4c, 0x18), good])],
      [/version/, reseal((b) => b.writeUInt8(b[4]! ^ 0x80, 4))],
      [/reserved/, reseal((b) => b.writeUInt8(b[4]! | 2, 4))],
      [/reserved/, reseal((b) => b.writeUInt8(b[5]! | 1, 5))],
      [/block size/, reseal((b) => b.writeUInt8(3 << 4, 5))],
      [/checksum/, Buffer.concat([good.subarray(0, 14), Buffer.of(good[14]! ^ 1), good.subarray(15)])],
      [/claims more/, reseal((b) => b.writeUInt32LE(1_000_000, 6))],
      [/longer than the header allows/, reseal((b) => b.writeUInt32LE(50, 6))],
      [/shorter than the header claims/, reseal((b) => b.writeUInt32LE(101, 6))],
      [/bytes follow the last frame/, Buffer.concat([good, Buffer.from('tail')])],
    ] as const) {
      assert.throws(() => decode(bytes), what);
    }
    assert.throws(() => decode(reseal((b) => b.writeUInt32LE(1, 10))), MessageTooLarge);
    const dictionary = Buffer.concat([Buffer.of(0x04, 0x22, 0x4d, 0x18, 0x61, 0x40, 1, 0, 0, 0, 0), Buffer.alloc(4)]);
    dictionary[10] = (xxhash32(dictionary, 4, 10) >>> 8) & 0xff;
    assert.throws(() => decode(dictionary), /dictionary/);
  });

  test(`${name}: a wrong checksum of a block or the content is damage`, () => {
    const body = text(1000);
    const blocks = frame(body, { blockChecksums: true, contentChecksum: false });
    blocks.writeUInt8(blocks.readUInt8(blocks.length - 5) ^ 1, blocks.length - 5);
    assert.throws(() => decode(blocks), /a block does not have the checksum/);
    const content = frame(body, { contentChecksum: true });
    content.writeUInt8(content.readUInt8(content.length - 1) ^ 1, content.length - 1);
    assert.throws(() => decode(content), /content does not have the checksum/);
  });

  test(`${name}: frames cut off anywhere are refused, and nothing happens a tick later`, async () => {
    for (const bytes of [frame(text(700)), frame(text(90_000), { linked: true, contentSize: false })]) {
      for (let length = 0; length < bytes.length; length += length < 40 ? 1 : 61) {
        assert.throws(() => decode(bytes.subarray(0, length)), DecodeError);
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  });

  test(`${name}: ten thousand forged frames end as a body or a DecodeError`, () => {
    const seeds = [
      frame(text(600)),
      frame(Buffer.concat([text(150_000), randomBytes(1000)]), { linked: true, contentSize: false }),
      frame(text(3000), { linked: false, contentSize: true, blockChecksums: true }),
    ];
    const random = new DecodeCase(0x4c5a34);
    for (let i = 0; i < 10_000; i++) {
      const bytes = random.mutate(seeds[i % 10 === 0 ? 1 : (i & 1) * 2]!);
      try {
        assert.ok(decode(bytes).length <= MAX);
      } catch (error) {
        if (!(error instanceof DecodeError)) throw error;
      }
    }
  });

  test(`${name}: reads from shared memory at any address, and keeps nothing of it`, () => {
    const body = text(150_000);
    const bytes = frame(body, { linked: true, blockChecksums: true });
    for (const offset of [0, 1, 5]) {
      const slot = Buffer.from(new SharedArrayBuffer(offset + bytes.length), offset);
      slot.set(bytes);
      const decoded = decode(slot);
      slot.fill(0);
      assert.ok(decoded.equals(body));
    }
  });
}
