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
 * Exit code 1 where a figure misses what is asked.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { machine } from '../machine.js';
import { FIRST_ID, message } from '../protocol.js';
import { pythonWith } from '../python.js';
import { inTurn, judge, peerLine, type RoundTarget, targetLine } from '../rounds.js';
import { KOMBU } from './kombu.js';
import { bodyOf, type PeerOutput, PREFETCH, QUEUE } from './peer.js';

const PEERS = ['ours', 'bullmq-inline', 'bullmq-threads', 'kombu'] as const;
type Peer = (typeof PEERS)[number];

const TARGETS = [
  { text: 'ours against kombu', over: 'ours', under: 'kombu', asked: 20 },
  { text: 'ours against BullMQ on worker threads', over: 'ours', under: 'bullmq-threads', asked: 8 },
  { text: 'ours against BullMQ on the main thread', over: 'ours', under: 'bullmq-inline', asked: 2 },
] as const satisfies readonly RoundTarget<Peer>[];

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
}

function readOptions(args: readonly string[]): RedisBenchOptions {
  const { values } = parseArgs({ args: [...args], options: FLAGS, strict: true });
  const quick = values.quick ?? false;
  const only = (values.only ?? []).flatMap((value) => value.split(','));
  const unknown = only.find((name) => !(PEERS as readonly string[]).includes(name));
  if (unknown !== undefined) throw new Error(`there is no peer '${unknown}': ${PEERS.join(', ')}`);
  const rounds = Number(values.rounds ?? (quick ? 3 : 7));
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error('--rounds is a whole number from 1');
  return {
    json: values.json ?? false,
    rounds,
    counts: COUNTS[quick ? 'quick' : 'full'],
    peers: only.length === 0 ? PEERS : PEERS.filter((peer) => only.includes(peer)),
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
  const { peers, counts, rounds } = options;
  const python = pythonWith('kombu', 'redis');
  const absent: Partial<Record<Peer, string>> = python === undefined ? { kombu: NO_PYTHON } : {};
  const samples = await withServer((server) =>
    inTurn(peers, rounds, async (peer) => {
      if (absent[peer] !== undefined) return undefined;
      await server.command('FLUSHALL');
      await runPeer(peer, 'fill', server.url, counts[peer], python ?? '');
      const output = JSON.parse(await runPeer(peer, 'consume', server.url, counts[peer], python ?? '')) as PeerOutput;
      if ('rate' in output) return output;
      absent[peer] = output.missing;
      return undefined;
    }),
  );
  const results = judge(samples, TARGETS);
  if (options.json) {
    process.stdout.write(`${JSON.stringify({ machine: machine(), samples, absent, results }, undefined, 2)}\n`);
  } else {
    for (const peer of peers) process.stdout.write(peerLine(peer, samples, absent[peer]));
    for (const result of results) {
      const missing = [result.over, result.under].filter((peer) => !samples.some((sample) => sample.peer === peer));
      process.stdout.write(targetLine(result, `no ${missing.join(' and no ')}`));
    }
  }
  return results.some(({ met }) => met === false) ? 1 : 0;
}
