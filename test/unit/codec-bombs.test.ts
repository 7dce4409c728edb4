/**
 * Small bodies that want to be huge: each ends as an error of ours, and the process that read it has not grown by 64 MiB.
 * What is given here as a limit is far less than the bomb wants and far more than a decoder needs.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import zlib from 'node:zlib';
import { compress } from '#src/codec/compression';
import { xxhash32 } from '#src/codec/compressions/xxhash32';
import { dumps } from '#src/codec/serialization';

const MIB = 1024 * 1024;
const CHILD = fileURLToPath(new URL('../support/decode-child.js', import.meta.url));

interface Outcome {
  readonly error?: string;
  readonly message?: string;
  readonly grown: number;
  readonly ms: number;
}

interface Bomb {
  readonly body: Buffer;
  /** A compression; or a serializer, for bodies that are not compressed. */
  readonly compression?: string;
  readonly serializer?: string;
  readonly maxDecodedBytes?: number;
}

const bombs: Bomb[] = [];
let outcomes: readonly Outcome[] | undefined;

/** All of them in one process: to start it takes longer than any bomb does. */
function decodeElsewhere(): readonly Outcome[] {
  const cases = bombs.map(({ body, compression, serializer, maxDecodedBytes = 256 * MIB }) => {
    const warm = dumps(serializer === undefined ? Buffer.from('warm') : ['warm'], serializer ?? 'raw');
    const { contentType, contentEncoding } = warm;
    const warmUp = compression === undefined ? warm.body : compress(warm.body, compression).body;
    const info = { contentType, contentEncoding, compression };
    return { body: body.toString('base64'), warmUp: warmUp.toString('base64'), info, maxDecodedBytes };
  });
  return JSON.parse(execFileSync(process.execPath, [CHILD], { input: JSON.stringify(cases), encoding: 'utf8' }));
}

function bomb(name: string, error: 'MessageTooLarge' | 'DecodeError', make: () => Bomb): void {
  const made = make();
  const index = bombs.push(made) - 1;
  test(`${name} is a ${error}`, (context) => {
    outcomes ??= decodeElsewhere();
    const outcome = outcomes[index]!;
    const { grown, ms, message = '' } = outcome;
    context.diagnostic(`${made.body.length} bytes: ${(grown / MIB).toFixed(1)} MiB more, ${ms.toFixed(0)} ms`);
    assert.equal(outcome.error, error, message);
    assert.match(message, new RegExp(`${made.body.length} bytes`));
    assert.ok(grown < 64 * MIB, `grew by ${grown} bytes`);
  });
}

const le = (value: number | bigint, bytes: number): Buffer => {
  const result = Buffer.alloc(8);
  result.writeBigUInt64LE(BigInt(value));
  return result.subarray(0, bytes);
};
const be32 = (value: number): Buffer => {
  const result = Buffer.alloc(4);
  result.writeUInt32BE(value);
  return result;
};
const TEN_GB = 10_000_000_000;

// Each of these really holds what it says, as much as the format can say in so many bytes.

const LIMIT = 8 * MIB;
for (const [name, pieces] of [
  ['zlib', 1],
  ['brotli', 1],
  ['zstd', 40],
  ['bzip2', 230],
  ['lzma', 1],
  ['lz4', 40],
] as const) {
  bomb(`${name}: a bomb of many times the limit`, 'MessageTooLarge', () => {
    // bzip2: 44 bytes for 44 MB each, so these 10 KB want 10 GB
    const zeros = Buffer.alloc(name === 'bzip2' ? 44 * MIB : pieces === 1 ? 32 * MIB : 2 * MIB);
    const { body } = compress(zeros, name);
    return {
      body: Buffer.concat(Array.from({ length: pieces }, () => body)),
      compression: name,
      maxDecodedBytes: LIMIT,
    };
  });
}

bomb('zlib: ten gigabytes', 'MessageTooLarge', () => {
  const piece = zlib.deflateRawSync(Buffer.alloc(32 * MIB), { finishFlush: zlib.constants.Z_FULL_FLUSH });
  const body = Buffer.concat([Buffer.of(0x78, 0x9c), ...Array.from({ length: 300 }, () => piece)]);
  return { body, compression: 'zlib', maxDecodedBytes: LIMIT };
});

bomb('zstd: a kilobyte of blocks that repeat a byte, in a frame that does not say its size', 'MessageTooLarge', () => {
  const block = Buffer.of(0x02, 0x00, 0x10, 0x61); // 128 KiB
  const last = Buffer.of(0x03, 0x00, 0x10, 0x61);
  const body = Buffer.concat([
    le(0xfd2fb528, 4),
    Buffer.of(0, 0x38),
    ...Array.from({ length: 255 }, () => block),
    last,
  ]);
  return { body, compression: 'zstd', maxDecodedBytes: LIMIT };
});

bomb('xz: ten gigabytes of chunks', 'MessageTooLarge', () => {
  const { body } = compress(Buffer.alloc(2 * MIB - 300), 'xz');
  const start = 12 + 12;
  const chunk = body.subarray(start, start + 6 + body.readUInt16BE(start + 3) + 1);
  const chunks = Array.from({ length: 5000 }, () => chunk);
  return { body: Buffer.concat([body.subarray(0, start), ...chunks, Buffer.alloc(40)]), compression: 'xz' };
});

// These only say so.

const lz4Header = (flags: number, size: number): Buffer => {
  const header = Buffer.concat([le(0x184d2204, 4), Buffer.of(flags, 0x70), le(size, flags & 8 ? 8 : 0), Buffer.of(0)]);
  header[header.length - 1] = (xxhash32(header, 4, header.length - 1) >>> 8) & 0xff;
  return header;
};
const lz4Block = Buffer.concat([
  Buffer.of(0x1f, 0x61, 1, 0),
  Buffer.alloc(980, 255),
  Buffer.of(0, 0x50, 1, 2, 3, 4, 5),
]);
const lz4Body = (flags: number, size: number): Buffer =>
  Buffer.concat([lz4Header(flags, size), le(lz4Block.length, 4), lz4Block, le(0, 4)]);

bomb('lz4: a header that claims ten gigabytes', 'MessageTooLarge', () => ({
  body: lz4Body(0x68, TEN_GB),
  compression: 'lz4',
}));
bomb('lz4: a header that claims just less than the limit', 'DecodeError', () => ({
  body: lz4Body(0x68, 255 * MIB),
  compression: 'lz4',
}));
bomb('lz4: a kilobyte of lengths, over a small limit', 'MessageTooLarge', () => ({
  body: lz4Body(0x60, 0),
  compression: 'lz4',
  maxDecodedBytes: 100_000,
}));
bomb('zstd: a header that claims ten gigabytes', 'MessageTooLarge', () => ({
  body: Buffer.concat([le(0xfd2fb528, 4), Buffer.of(0xc0, 0x88), le(TEN_GB, 8), Buffer.of(3, 0, 16, 0x61)]),
  compression: 'zstd',
}));
bomb('zstd: a header that claims just less than the limit', 'DecodeError', () => ({
  body: Buffer.concat([le(0xfd2fb528, 4), Buffer.of(0xc0, 0x88), le(255 * MIB, 8), Buffer.of(3, 0, 16, 0x61)]),
  compression: 'zstd',
}));
bomb('xz: chunks that claim two megabytes each', 'MessageTooLarge', () => {
  const { body } = compress(Buffer.alloc(1000), 'xz');
  const chunk = Buffer.of(0xff, 0xff, 0xff, 0, 0, 0x5d, 0);
  const chunks = Array.from({ length: 140 }, () => chunk);
  return { body: Buffer.concat([body.subarray(0, 24), ...chunks, Buffer.alloc(64)]), compression: 'xz' };
});
bomb('.lzma: a header that claims ten gigabytes', 'MessageTooLarge', () => ({
  body: Buffer.concat([Buffer.of(0x5d), le(1 << 23, 4), le(TEN_GB, 8), Buffer.alloc(1000)]),
  compression: 'lzma',
}));
bomb('.lzma: a dictionary of four gigabytes, and nothing in it', 'DecodeError', () => ({
  body: Buffer.concat([Buffer.of(0x5d), le(0xffffffff, 4), le(2n ** 64n - 1n, 8), Buffer.alloc(1000, 0xff)]),
  compression: 'lzma',
}));

// Serializers

for (const [what, head] of [
  ['an array of 2^32 - 1 items', Buffer.concat([Buffer.of(0xdd), be32(0xffffffff)])],
  ['an array of 30 million items', Buffer.concat([Buffer.of(0xdd), be32(30_000_000)])],
  ['a map of 2^32 - 1 entries', Buffer.concat([Buffer.of(0xdf), be32(0xffffffff)])],
  ['4 GB of bytes', Buffer.concat([Buffer.of(0xc6), be32(0xfffffff0)])],
  ['4 GB of text', Buffer.concat([Buffer.of(0xdb), be32(0xfffffff0)])],
  ['4 GB of an extension', Buffer.concat([Buffer.of(0xc9), be32(0xfffffff0), Buffer.of(1)])],
  [
    '340 arrays in one another, of 65,535 items each',
    Buffer.concat(Array.from({ length: 340 }, () => Buffer.of(0xdc, 0xff, 0xff))),
  ],
  ['a million arrays in one another', Buffer.alloc(1_000_000, 0x91)],
] as const) {
  bomb(`msgpack: ${what}`, 'DecodeError', () => ({ body: head, serializer: 'msgpack' }));
}
bomb('msgpack: 300 arrays in one another, each as long as the body', 'DecodeError', () => {
  const heads = Array.from({ length: 300 }, () => Buffer.concat([Buffer.of(0xdd), be32(900_000)]));
  return { body: Buffer.concat([...heads, Buffer.alloc(1_000_000)]), serializer: 'msgpack' };
});
for (const [what, text] of [
  ['a million brackets', '['.repeat(1_000_000)],
  ['a million objects', '{"a":'.repeat(200_000)],
  ['a hundred thousand arrays around NaN', `${'['.repeat(100_000)}NaN${']'.repeat(100_000)}`],
  ['an integer of a hundred thousand digits', '9'.repeat(100_000)],
] as const) {
  bomb(`json: ${what}`, 'DecodeError', () => ({ body: Buffer.from(text), serializer: 'json' }));
}
const laughs = ['a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]'];
for (let i = 1; i < 10; i++) laughs.push(`a${i}: &a${i} [${Array.from({ length: 9 }, () => `*a${i - 1}`).join(', ')}]`);
for (const [what, text] of [
  ['nine to the tenth by aliases', laughs.join('\n')],
  ['aliases of aliases in merge keys', laughs.join('\n').replaceAll('[lol', '[{x: y}').concat('\nm: {<<: *a9}')],
  ['a hundred thousand brackets', '['.repeat(100_000)],
  ['a hundred thousand dashes', '- '.repeat(100_000)],
  ['a thousand levels', Array.from({ length: 1000 }, (_, i) => `${' '.repeat(i)}a:`).join('\n')],
] as const) {
  bomb(`yaml: ${what}`, 'DecodeError', () => ({ body: Buffer.from(text), serializer: 'yaml' }));
}
