/**
 * `npm run bench -- redis [--quick] [--json] [--rounds N] [--only NAME]`: consumers of a redis-server of its own, messages of
 * 200 bytes of JSON, each acked, at most 400 under way. Peers are processes of their own that take turns in rounds, each
 * finds what its own producer has put there; ratios are of the same round.
 *
 *   ours            a ShardedConsumer with two workers
 *   bullmq-inline   BullMQ with its processor on the main thread, concurrency 400
 *   bullmq-threads  BullMQ with a sandboxed processor on four worker threads, which is kinder to it than two
 *   kombu           Python. Absent where no Python has kombu and redis
 *
 * and `lone`: what an idle consumer costs, and how soon it starts on a lone message that another process publishes.
 *
 * Exit code 1 where a figure misses what is asked.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Connection } from '#src/index';
import type { Lone } from '../handlers/lone-channel.js';
import { machine } from '../machine.js';
import { FIRST_ID, message } from '../protocol.js';
import { pythonWith } from '../python.js';
import { inTurn, judge, peerLine, type RoundTarget, targetLine } from '../rounds.js';
import { KOMBU } from './kombu.js';
import type { LoneOutput } from './lone.js';
import { bodyOf, type PeerOutput, PREFETCH, QUEUE } from './peer.js';

const PEERS = ['ours', 'bullmq-inline', 'bullmq-threads', 'kombu'] as const;
type Peer = (typeof PEERS)[number];

const TARGETS = [
  { text: 'ours against kombu', over: 'ours', under: 'kombu', asked: 20 },
  { text: 'ours against BullMQ on worker threads', over: 'ours', under: 'bullmq-threads', asked: 8 },
  { text: 'ours against BullMQ on the main thread', over: 'ours', under: 'bullmq-inline', asked: 2 },
] as const satisfies readonly RoundTarget<Peer>[];

/** Of an idle consumer: the share of a core that it uses, percent, and how soon a lone message starts, microseconds. */
const IDLE_ASKED = 1;
const START_ASKED = 2000;
const LONE: Record<'quick' | 'full', { readonly seconds: number; readonly count: number }> = {
  quick: { seconds: 10, count: 200 },
  full: { seconds: 60, count: 1000 },
};
/** Messages before: what a service has done that runs for minutes, for code that V8 has compiled. */
const BEFORE = 10_000;
/** Between two lone messages: so long that none meets another, and none comes in step with what the consumer does by itself. */
const BETWEEN_MS = { least: 5, most: 600 };

/** Each peer works for a second and more. */
const COUNTS: Record<'quick' | 'full', Record<Peer, number>> = {
  quick: { ours: 60_000, 'bullmq-inline': 15_000, 'bullmq-threads': 5000, kombu: 2000 },
  full: { ours: 150_000, 'bullmq-inline': 40_000, 'bullmq-threads': 12_000, kombu: 5000 },
};

const NO_PYTHON = 'not there: no Python with kombu and redis';

const FLAGS = {
  quick: { type: 'boolean' },
  json: { type: 'boolean' },
  rounds: { type: 'string' },
  only: { type: 'string', multiple: true },
} as const;

interface RedisBenchOptions {
  readonly json: boolean;
  readonly rounds: number;
  readonly counts: Record<Peer, number>;
  readonly peers: readonly Peer[];
  readonly lone: { readonly seconds: number; readonly count: number } | undefined;
}

function readOptions(args: readonly string[]): RedisBenchOptions {
  const { values } = parseArgs({ args: [...args], options: FLAGS, strict: true });
  const quick = values.quick ?? false;
  const only = (values.only ?? []).flatMap((value) => value.split(','));
  const unknown = only.find((name) => ![...PEERS, 'lone'].includes(name));
  if (unknown !== undefined) throw new Error(`there is no '${unknown}': ${PEERS.join(', ')}, lone`);
  const rounds = Number(values.rounds ?? (quick ? 3 : 7));
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error('--rounds is a whole number from 1');
  return {
    json: values.json ?? false,
    rounds,
    counts: COUNTS[quick ? 'quick' : 'full'],
    peers: only.length === 0 ? PEERS : PEERS.filter((peer) => only.includes(peer)),
    lone: only.length === 0 || only.includes('lone') ? LONE[quick ? 'quick' : 'full'] : undefined,
  };
}

/** Runs a peer to its end and gives what it printed. Its standard input ends when this process does, and so does the peer. */
async function runPeer(peer: Peer, mode: 'fill' | 'consume', url: string, count: number, python: string) {
  const ofPython = [QUEUE, PREFETCH, FIRST_ID, JSON.stringify(bodyOf(1)).length].map(String);
  const [command, args] =
    peer === 'kombu'
      ? [python, ['-c', KOMBU, mode, url, String(count), ...ofPython]]
      : [process.execPath, [fileURLToPath(new URL(`${peer}.js`, import.meta.url)), mode, url, String(count)]];
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  // it may be gone before it has read
  child.stdin.on('error', () => undefined);
  const [[code, signal], output] = await Promise.all([once(child, 'exit'), text(child.stdout)]);
  if (code !== 0) throw new Error(`${peer} ended with ${signal ?? `code ${code}`} while it was to ${mode}`);
  return output;
}

interface IdleFigures {
  readonly idlePercent: number;
  /** Ascending. */
  readonly startMicros: readonly number[];
}

/** An idle consumer in a process of its own; what it gets is published here. */
async function measureLone(url: string, { seconds, count }: { seconds: number; count: number }): Promise<IdleFigures> {
  const script = fileURLToPath(new URL('lone.js', import.meta.url));
  const child = spawn(process.execPath, [script, url, String(seconds), String(count), String(BEFORE)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.stdin.on('error', () => undefined);
  const ended = once(child, 'exit');
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (line: string): Promise<void> => {
    if ((await lines.next()).value !== line) throw new Error(`the idle consumer ended before it was ${line}`);
  };
  await next('ready');
  const connection = new Connection(url);
  const producer = connection.Producer({ serializer: 'json', routingKey: QUEUE });
  const publish = (at: string): Promise<unknown> => producer.publish({ at } satisfies Lone);
  for (let sent = 0; sent < BEFORE; sent++) await publish('');
  await next('idle');
  for (let sent = 0; sent < count; sent++) {
    await publish(String(process.hrtime.bigint()));
    const { least, most } = BETWEEN_MS;
    await sleep(least + ((sent * 0.618034) % 1) ** 3 * (most - least));
  }
  const { value } = await lines.next();
  await connection.close();
  const [code] = (await ended) as [number | null];
  if (code !== 0 || value === undefined) throw new Error(`the idle consumer ended with code ${code}`);
  const { idlePercent, startMicros } = JSON.parse(value) as LoneOutput;
  if (startMicros.length !== count) throw new Error(`${startMicros.length} lone messages of ${count} were handled`);
  return { idlePercent, startMicros: [...startMicros].sort((a, b) => a - b) };
}

const at = (sorted: readonly number[], share: number): number => sorted[Math.floor(share * (sorted.length - 1))]!;

const isIdleMet = ({ idlePercent }: IdleFigures): boolean => idlePercent < IDLE_ASKED;
const isStartMet = ({ startMicros }: IdleFigures): boolean => at(startMicros, 0.5) <= START_ASKED;

function loneLines(figures: IdleFigures): string {
  const verdict = (met: boolean): string => (met ? 'met   ' : 'MISSED');
  const micros = (share: number): string => `${Math.round(at(figures.startMicros, share))} µs`;
  return (
    `${verdict(isIdleMet(figures))} idle: asked under ${IDLE_ASKED} % of a core, measured ${figures.idlePercent.toFixed(2)} %\n` +
    `${verdict(isStartMet(figures))} a lone message starts: asked at most ${START_ASKED} µs after publish(), ` +
    `measured ${micros(0.5)} (90 % ${micros(0.9)}, 99 % ${micros(0.99)}, all ${micros(1)})\n`
  );
}

async function withServer<T>(
  use: (server: import('../../scripts/lib/redis.mjs').RedisServer) => Promise<T>,
): Promise<T> {
  const path = new URL('../../../scripts/lib/redis.mjs', import.meta.url).href;
  const { RedisServer } = (await import(path)) as typeof import('../../scripts/lib/redis.mjs');
  const server = await RedisServer.start();
  try {
    return await use(server);
  } finally {
    await server.dispose();
  }
}

export async function benchRedis(args: readonly string[]): Promise<number> {
  let options: RedisBenchOptions;
  try {
    options = readOptions(args);
  } catch (error) {
    process.stderr.write(`bench redis: ${message(error)}\n`);
    return 2;
  }
  const { peers, counts, rounds, lone } = options;
  const python = pythonWith('kombu', 'redis');
  const absent: Partial<Record<Peer, string>> = python === undefined ? { kombu: NO_PYTHON } : {};
  const [idle, samples] = await withServer(async (server) => [
    lone === undefined ? undefined : await measureLone(server.url, lone),
    await inTurn(peers, rounds, async (peer) => {
      if (absent[peer] !== undefined) return undefined;
      await server.command('FLUSHALL');
      await runPeer(peer, 'fill', server.url, counts[peer], python ?? '');
      const output = JSON.parse(await runPeer(peer, 'consume', server.url, counts[peer], python ?? '')) as PeerOutput;
      if ('rate' in output) return output;
      absent[peer] = output.missing;
      return undefined;
    }),
  ]);
  const results = judge(samples, TARGETS);
  if (options.json) {
    process.stdout.write(`${JSON.stringify({ machine: machine(), idle, samples, absent, results }, undefined, 2)}\n`);
  } else {
    if (idle !== undefined) process.stdout.write(loneLines(idle));
    for (const peer of peers) process.stdout.write(peerLine(peer, samples, absent[peer]));
    for (const result of results.filter(({ over, under }) => peers.includes(over) && peers.includes(under))) {
      const missing = [result.over, result.under].filter((peer) => !samples.some((sample) => sample.peer === peer));
      process.stdout.write(targetLine(result, `no ${missing.join(' and no ')}`));
    }
  }
  const isIdleMissed = idle !== undefined && !(isIdleMet(idle) && isStartMet(idle));
  return isIdleMissed || results.some(({ met }) => met === false) ? 1 : 0;
}
