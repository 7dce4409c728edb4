/** zstd, on every backend there is: frames in a row, what headers claim, and what the backends do not agree about. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { decodeZstd } from '#src/codec/compressions/zstd';
import { zstdBackends } from '#src/codec/compressions/zstd-backend';
import { withContentSize, zstdFrames } from '#src/codec/compressions/zstd-frames';
import { DecodeError, MessageTooLarge } from '#src/errors';
import { DecodeCase } from '../support/decode-case.js';

const MAX = 1 << 26;
const text = (length: number): Buffer => Buffer.alloc(length, 'one kelp, two kelp, a broth of kelp; ');

/** A frame of blocks that repeat one byte: 4 bytes each, which stand for up to 128 KiB. */
function repeating(sizes: readonly number[], contentSize?: number | bigint, windowByte = 0x38): Buffer {
  const head = Buffer.of(0x28, 0xb5, 0x2f, 0xfd, contentSize === undefined ? 0 : 0xc0, windowByte);
  const size = Buffer.alloc(contentSize === undefined ? 0 : 8);
  if (contentSize !== undefined) size.writeBigUInt64LE(BigInt(contentSize));
  const blocks = sizes.map((length, i) => {
    const block = Buffer.alloc(4, 0x61);
    block.writeUIntLE((length << 3) | (1 << 1) | (i === sizes.length - 1 ? 1 : 0), 0, 3);
    return block;
  });
  return Buffer.concat([head, size, ...blocks]);
}

function skippable(content: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(0x184d2a53);
  head.writeUInt32LE(content.length, 4);
  return Buffer.concat([head, content]);
}

for (const { name, found } of zstdBackends()) {
  if (!('value' in found)) {
    test(`zstd over ${name}`, { skip: `does not work here: ${found.missing}` }, () => undefined);
    continue;
  }
  const backend = found.value;
  const decode = (body: Buffer, maxBytes = MAX): Uint8Array => decodeZstd(backend, body, maxBytes);
  const encode = (body: Buffer): Buffer => Buffer.from(backend.encode(body));

  test(`${name}: bodies of any length survive, and their frame says how long they are`, () => {
    for (const length of [0, 1, 255, 256, 65_791, 65_792, 1_048_576, 1_048_577, 5_000_000, 20_000_000]) {
      const body = text(length);
      const bytes = encode(body);
      assert.equal(zstdFrames(bytes)[0]?.contentSize, length);
      assert.ok(body.equals(decode(bytes)), `${length} bytes`);
    }
    const noise = randomBytes(3_000_000);
    assert.ok(noise.equals(decode(encode(noise))));
  });

  test(`${name}: a frame that does not say its size is read up to the limit`, () => {
    const bytes = repeating([131_072, 131_072, 500]);
    assert.ok(Buffer.alloc(262_644, 0x61).equals(decode(bytes)));
    assert.equal(decode(bytes, 262_644).length, 262_644);
    assert.throws(() => decode(bytes, 262_643), MessageTooLarge);
  });

  test(`${name}: the limit is exact`, () => {
    const bytes = encode(text(100_000));
    assert.equal(decode(bytes, 100_000).length, 100_000);
    assert.throws(() => decode(bytes, 99_999), MessageTooLarge);
    assert.equal(decode(encode(Buffer.alloc(0)), 0).length, 0);
  });

  test(`${name}: frames and skippable frames in a row are one body`, () => {
    const row = [
      skippable(text(9)),
      encode(text(1000)),
      encode(Buffer.alloc(0)),
      skippable(text(0)),
      encode(text(2000)),
    ];
    assert.deepEqual(Buffer.from(decode(Buffer.concat(row))), Buffer.concat([text(1000), text(2000)]));
    assert.throws(() => decode(Buffer.concat(row), 2999), MessageTooLarge);
    assert.throws(() => decode(skippable(text(9))), /only skippable/);
    assert.throws(() => decode(Buffer.concat([encode(text(10)), skippable(text(9)).subarray(0, -1)])), /cut off/);
  });

  test(`${name}: bytes behind the last frame, and frames cut off anywhere, are refused`, () => {
    const bytes = encode(text(3000));
    for (const tail of ['x', 'tail', 'a longer tail']) {
      assert.throws(() => decode(Buffer.concat([bytes, Buffer.from(tail)])), /bytes follow the last frame/);
    }
    for (let length = 0; length < bytes.length; length++) {
      assert.throws(() => decode(bytes.subarray(0, length)), DecodeError);
    }
  });

  test(`${name}: what a header claims is checked before anything is decoded`, () => {
    assert.throws(() => decode(repeating([10], 10_000_000_000)), MessageTooLarge);
    assert.throws(() => decode(repeating([10], 2n ** 64n - 1n)), MessageTooLarge);
    assert.throws(() => decode(repeating([10], 1_000_000)), /claims more bytes than the blocks can hold/);
    assert.throws(() => decode(repeating([10], 9)), DecodeError);
    assert.throws(() => decode(repeating([131_073])), /longer than its frame allows/);
    assert.throws(() => decode(Buffer.of(0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 5, 1, 0, 0)), /dictionary/);
    assert.throws(() => decode(Buffer.from('{"json": "and nothing else"}')), /no zstd frame/);
  });

  test(`${name}: a window is read as long as it fits, and refused with its size beyond that`, () => {
    const eight = (23 - 10) << 3;
    assert.equal(decode(repeating([100], undefined, eight)).length, 100);
    // 512 MiB, more than any decoder here takes
    assert.throws(() => decode(repeating([100], undefined, (29 - 10) << 3)), /window of 536870912 bytes/);
    const sixteen = repeating([100], undefined, (24 - 10) << 3);
    if (name === 'node:zlib') assert.equal(decode(sixteen).length, 100);
    else assert.throws(() => decode(sixteen), /window of 16777216 bytes.*Node 22\.15/);
  });

  test(`${name}: five thousand forged frames end as a body or a DecodeError`, () => {
    const seeds = [encode(text(700)), encode(randomBytes(500)), repeating([5000, 700, 3])];
    const random = new DecodeCase(0x5a5344);
    for (let i = 0; i < 5000; i++) {
      const bytes = random.mutate(seeds[i % seeds.length]!);
      try {
        decode(bytes, 1 << 24);
      } catch (error) {
        if (!(error instanceof DecodeError)) throw error;
      }
    }
    assert.ok(text(700).equals(decode(seeds[0]!)), 'the backend is as good as before');
  });

  test(`${name}: reads from shared memory, and keeps nothing of it`, () => {
    const bytes = encode(text(5000));
    const slot = Buffer.from(new SharedArrayBuffer(bytes.length + 3), 3);
    slot.set(bytes);
    const decoded = decode(slot);
    slot.fill(0);
    assert.ok(text(5000).equals(decoded));
  });

  test(`${name}: a content size is added where there is none`, () => {
    const bytes = withContentSize(repeating([131_072, 500]), 131_572);
    assert.equal(zstdFrames(bytes)[0]?.contentSize, 131_572);
    assert.equal(decode(bytes).length, 131_572);
    assert.throws(() => decode(withContentSize(repeating([131_072, 500]), 131_571)), DecodeError);
  });
}
