/**
 * `npm run bench -- codecs`: what decoding costs beside the bare library. The same bytes in the same shared memory go
 * through `decodePayload`, as a worker thread does it, and through the call of the library that somebody would write by
 * hand (no charset, no limit, no checks). Both in turns, in batches; the ratio of each pair counts, not the times.
 *
 * `--json`: one object. `--quick`: fewer rounds. Exit code 1 where a figure misses what is asked.
 */
import { createRequire } from 'node:module';
import zlib from 'node:zlib';
import { Unpackr } from 'msgpackr';
import { codecBackends } from '#src/codec/backends';
import { compress, decompress } from '#src/codec/compression';
import { decodePayload } from '#src/codec/decode';
import { dumps, prepareAcceptContent } from '#src/codec/serialization';
import { machine } from './machine.js';

const require = createRequire(import.meta.url);
const KIB = 1024;
const SIZES = [1, 4, 16, 64, 256].map((kib) => kib * KIB);
const CODECS = ['json', 'msgpack', 'json+zlib', 'json+zstd', 'json+lz4'] as const;
/** No more than this many times the bare call. */
const ASKED = 1.15;
/** lz4 at 1 KiB: at least this many times as fast as the package's own `decode`. */
const ASKED_LZ4 = 100;
const BATCH_MS = 4;

type Codec = (typeof CODECS)[number];

interface Figure {
  readonly codec: Codec;
  readonly bytes: number;
  readonly ours: number;
  readonly bare: number;
  readonly ratio: number;
  readonly low: number;
  readonly high: number;
}

/** Events as services send them: ids, names, times, floats, nesting, some text that is not ASCII. */
function document(bytes: number): unknown {
  const events: unknown[] = [];
  for (let i = 0, size = 0; size < bytes; i++) {
    const event = {
      id: 140_000 + i * 7919,
      type: ['order.created', 'order.paid', 'user.updated', 'page.viewed'][i % 4],
      at: new Date(1_700_000_000_000 + i * 977_000).toISOString(),
      user: {
        name: `Ada ${i % 53} Lovelace`,
        city: i % 7 === 0 ? 'Zürich' : 'Boston',
        tags: ['a', 'beta', String(i % 13)],
      },
      amount: Math.round(Math.sin(i) * 1e6) / 100,
      ok: i % 3 !== 0,
      note: i % 5 === 0 ? null : 'the quick brown kelp jumps over the lazy broth',
    };
    size += JSON.stringify(event).length + 1;
    events.push(event);
  }
  return { events };
}

function shared(bytes: Buffer): Buffer {
  // Anywhere but at an address that is a multiple of eight: bodies lie where the broker's frames put them.
  const view = Buffer.from(new SharedArrayBuffer(bytes.length + 16), 5, bytes.length);
  view.set(bytes);
  return view;
}

const unpackr = new Unpackr({
  useRecords: false,
  mapsAsObjects: true,
  int64AsType: 'auto',
  copyBuffers: true,
} as object);

/** The library's own call for a body. */
function bareCall(codec: Codec, body: Buffer, plain: Buffer): () => unknown {
  switch (codec) {
    case 'json':
      return () => JSON.parse(body.toString('utf8'));
    case 'msgpack':
      return () => unpackr.unpack(body);
    case 'json+zlib':
      return () => JSON.parse(zlib.inflateSync(body).toString('utf8'));
    case 'json+zstd':
      return bareZstd(body);
    case 'json+lz4':
      return bareLz4(body, plain.length);
  }
}

function bareZstd(body: Buffer): () => unknown {
  const { zstdDecompressSync } = zlib as unknown as { zstdDecompressSync?: (bytes: Buffer) => Buffer };
  if (zstdDecompressSync !== undefined) return () => JSON.parse(zstdDecompressSync(body).toString('utf8'));
  const simple = zstdCodecSimple;
  if (simple === undefined) throw new Error('zstd-codec is not ready');
  return () => JSON.parse(Buffer.from(simple.decompress(body).buffer).toString('utf8'));
}

interface Simple {
  decompress(bytes: Uint8Array): Uint8Array<ArrayBuffer>;
}
let zstdCodecSimple: Simple | undefined;

function startZstdCodec(): Promise<void> {
  const { ZstdCodec } = require('zstd-codec') as {
    ZstdCodec: { run(ready: (zstd: { Simple: new () => Simple }) => void): void };
  };
  return new Promise((resolve) => {
    ZstdCodec.run((zstd) => {
      zstdCodecSimple = new zstd.Simple();
      resolve();
    });
  });
}

interface Lz4 {
  encode(bytes: Buffer): Buffer;
  decode(bytes: Buffer): Buffer;
  decodeBlock(input: Buffer, output: Buffer, start: number, end: number): number;
}
interface Lz4Napi {
  decompressFrameSync(bytes: Buffer): Buffer;
}

/** The one block of the frame that we write lies between 15 bytes of header, 4 of length, and 8 of trailer. */
function bareLz4(body: Buffer, length: number): () => unknown {
  const [start, end] = [19, body.length - 8];
  if (usesLz4()) {
    const { decodeBlock } = require('lz4') as Lz4;
    return () => {
      const output = Buffer.allocUnsafe(length);
      decodeBlock(body, output, start, end);
      return JSON.parse(output.toString('utf8'));
    };
  }
  const { decompressFrameSync } = require('lz4-napi') as Lz4Napi;
  return () => JSON.parse(decompressFrameSync(body).toString('utf8'));
}

const usesLz4 = (): boolean => codecBackends()[0]?.backend === 'lz4';

/** Microseconds a call, of a batch. */
function time(call: () => unknown, calls: number): number {
  const start = process.hrtime.bigint();
  for (let i = 0; i < calls; i++) call();
  return Number(process.hrtime.bigint() - start) / calls / 1000;
}

function callsFor(call: () => unknown): number {
  const warm = performance.now();
  let calls = 0;
  for (; performance.now() - warm < 40; calls++) call();
  return Math.max(1, Math.ceil((calls / 40) * BATCH_MS));
}

const quantile = (sorted: readonly number[], q: number): number => sorted[Math.round((sorted.length - 1) * q)]!;
const sort = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b);

function compare(codec: Codec, bytes: number, rounds: number): Figure {
  const [serializer = '', compression] = codec.split('+');
  const { contentType, contentEncoding, body: plain } = dumps(document(bytes), serializer);
  const sent = compression === undefined ? { body: plain, contentType: undefined } : compress(plain, compression);
  const body = shared(sent.body);
  const info = { contentType, contentEncoding, compression: sent.contentType };
  const limits = { accept: prepareAcceptContent(['json', 'msgpack']), maxDecodedBytes: 256 * KIB * KIB };
  const ours = (): unknown => decodePayload(body, info, limits);
  const bare = bareCall(codec, body, plain);
  if (JSON.stringify(ours()) !== JSON.stringify(bare())) throw new Error(`${codec}: the two do not agree`);
  callsFor(ours);
  const calls = callsFor(bare);
  const times: { ours: number; bare: number }[] = [];
  for (let round = 0; round < rounds; round++) {
    // Who goes first changes: what one leaves to the garbage collector, the other pays.
    if (round % 2 === 0) times.push({ ours: time(ours, calls), bare: time(bare, calls) });
    else {
      const second = time(bare, calls);
      times.push({ ours: time(ours, calls), bare: second });
    }
  }
  const ratios = sort(times.map((pair) => pair.ours / pair.bare));
  return {
    codec,
    bytes: plain.length,
    ours: quantile(sort(times.map((pair) => pair.ours)), 0.5),
    bare: quantile(sort(times.map((pair) => pair.bare)), 0.5),
    ratio: quantile(ratios, 0.5),
    low: quantile(ratios, 0.1),
    high: quantile(ratios, 0.9),
  };
}

interface Lz4Figure {
  /** Whose encoder wrote the frame: the package's announces blocks of 4 MiB, ours of 64 KiB at this size. */
  readonly frame: string;
  readonly ours: number;
  readonly decode: number;
}

/** How we compare with the package's `decode` at 1 KiB; nothing where the package did not compile. */
async function againstLz4Decode(rounds: number): Promise<Lz4Figure[]> {
  if (!usesLz4()) return [];
  const { decode, encode } = require('lz4') as Lz4;
  const plain = dumps(document(KIB), 'json').body;
  const figures: Lz4Figure[] = [];
  for (const [frame, bytes] of [
    ["the package's", encode(plain)],
    ['ours', compress(plain, 'lz4').body],
  ] as const) {
    const body = shared(bytes);
    const [ours, theirs] = [() => decompress(body, 'lz4'), () => decode(body)];
    for (let i = 0; i < 20_000; i++) ours();
    const pairs: (readonly [ours: number, theirs: number])[] = [];
    for (let round = 0; round < rounds; round++) {
      pairs.push([time(ours, 2000), time(theirs, 5)]);
      // Its streams leave work for the next tick: piled up, it would be counted against it.
      await new Promise(setImmediate);
    }
    const median = (which: 0 | 1): number => quantile(sort(pairs.map((pair) => pair[which])), 0.5);
    figures.push({ frame, ours: median(0), decode: median(1) });
  }
  return figures;
}

const HELP = `npm run bench -- codecs [--quick] [--json] [CODEC ...]

Decoding through mozuku beside the bare library call, from shared memory, in turns.
Codecs: ${CODECS.join(', ')}
`;

/** Runs the benchmark; the exit code. */
export async function benchCodecs(args: readonly string[]): Promise<number> {
  if (args.includes('--help')) {
    process.stdout.write(HELP);
    return 0;
  }
  const unknown = args.find((arg) => !['--quick', '--json', ...CODECS].includes(arg));
  if (unknown !== undefined) {
    process.stderr.write(`bench: codecs: unknown argument '${unknown}'\n${HELP}`);
    return 2;
  }
  const rounds = args.includes('--quick') ? 15 : 61;
  const chosen = CODECS.filter((codec) => args.includes(codec));
  await startZstdCodec();
  const figures: Figure[] = [];
  for (const codec of chosen.length > 0 ? chosen : CODECS) {
    for (const size of SIZES) figures.push(compare(codec, size, rounds));
  }
  const lz4 = await againstLz4Decode(rounds);
  const missed = figures.filter(({ ratio }) => ratio > ASKED).length;
  const [own] = lz4;
  const slow = own !== undefined && own.decode / own.ours < ASKED_LZ4;
  const report = args.includes('--json') ? jsonReport : textReport;
  process.stdout.write(report(figures, lz4));
  return missed > 0 || slow ? 1 : 0;
}

function jsonReport(figures: readonly Figure[], lz4: readonly Lz4Figure[]): string {
  return `${JSON.stringify({ machine: machine(), backends: codecBackends(), figures, lz4 }, null, 2)}\n`;
}

function textReport(figures: readonly Figure[], lz4: readonly Lz4Figure[]): string {
  const lines = [
    `Node ${process.versions.node}; ${codecBackends()
      .map(({ codec, backend }) => `${codec}: ${backend ?? 'none'}`)
      .join(', ')}`,
    `ratio: ours / bare, median of pairs (10th to 90th percentile); asked: at most ${ASKED}`,
    '',
    'codec        KiB  ours µs   bare µs   ratio',
  ];
  for (const { codec, bytes, ours, bare, ratio, low, high } of figures) {
    const mark = ratio > ASKED ? '  missed' : '';
    lines.push(
      `${codec.padEnd(10)} ${(bytes / KIB).toFixed(0).padStart(5)} ${ours.toFixed(1).padStart(8)} ${bare.toFixed(1).padStart(9)}` +
        `   ${ratio.toFixed(3)} (${low.toFixed(2)} to ${high.toFixed(2)})${mark}`,
    );
  }
  if (lz4.length > 0)
    lines.push('', `lz4 at 1 KiB, asked: ${ASKED_LZ4} times as fast as package lz4's decode, on its own frames`);
  for (const { frame, ours, decode } of lz4) {
    lines.push(
      `${`${frame} frame:`.padEnd(21)} ours ${ours.toFixed(2)} µs, its decode ${decode.toFixed(0)} µs: ${(decode / ours).toFixed(0)} times`,
    );
  }
  return `${lines.join('\n')}\n`;
}
