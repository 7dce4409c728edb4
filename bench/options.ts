/**
 * The flags of the benchmark. What is not one of them is an error with a hint, exit code 2.
 */
import { parseArgs } from 'node:util';
import { MIN_BODY } from './pour.js';
import { message, PEERS, type PeerName } from './protocol.js';

export interface BenchOptions {
  readonly preset: 'quick' | 'full';
  readonly json: boolean;
  readonly peers: readonly PeerName[];
  readonly prefetch: number;
  readonly bodies: readonly number[];
  readonly workers: number;
  readonly rounds: number;
}

export class UsageError extends Error {}

const PRESETS = {
  quick: { rounds: 3, bodies: [200, 65_536] },
  full: { rounds: 10, bodies: [200, 1024, 4096, 65_536, 1_048_576] },
} as const;
const MAX_BODY = 16 * 1024 * 1024;
const PREFETCH = 1000;
const WORKERS = 2;

const FLAGS = {
  quick: { type: 'boolean' },
  full: { type: 'boolean' },
  json: { type: 'boolean' },
  only: { type: 'string', multiple: true },
  prefetch: { type: 'string' },
  body: { type: 'string', multiple: true },
  workers: { type: 'string' },
  rounds: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const;

export const HELP = `Usage: node build/bench/main.js [--quick | --full] [options]
       node build/bench/main.js codecs | publish | redis [--quick] [--json]

Compares consumers of one queue against a broker that only replays deliveries. Every peer is a
process of its own, the peers take turns in rounds, and every message is checked to be handled
and acked exactly once: a run that lost or duplicated one fails, exit code 1.

  --quick          ${PRESETS.quick.rounds} rounds, bodies of ${PRESETS.quick.bodies.join(' and ')} bytes (the default): about two minutes
  --full           ${PRESETS.full.rounds} rounds, bodies of ${PRESETS.full.bodies.join(', ')} bytes: about a quarter of an hour
  --only NAME      only these peers, repeated or with commas: ${PEERS.join(', ')}
  --prefetch N     deliveries in flight, 1 to 65535 (${PREFETCH}); less for large bodies, see the report
  --body BYTES     body sizes, with commas, ${MIN_BODY} to ${MAX_BODY}
  --workers N      threads of the peers that have some (${WORKERS})
  --rounds N       how often each peer runs
  --json           all raw samples as JSON instead of tables
  --help           this text
`;

/** Undefined when help was asked for. Throws UsageError. */
export function readOptions(args: readonly string[]): BenchOptions | undefined {
  const values = parse(args);
  if (values.help) return undefined;
  if (values.quick && values.full) throw new UsageError('--quick and --full exclude each other');
  const preset = values.full ? 'full' : 'quick';
  const only = list(values.only).map(peerName);
  return {
    preset,
    json: values.json ?? false,
    peers: only.length === 0 ? PEERS : PEERS.filter((name) => only.includes(name)),
    prefetch: integer('--prefetch', values.prefetch, 1, 65_535) ?? PREFETCH,
    bodies: bodies(values.body) ?? PRESETS[preset].bodies,
    workers: integer('--workers', values.workers, 1, 64) ?? WORKERS,
    rounds: integer('--rounds', values.rounds, 1, 1000) ?? PRESETS[preset].rounds,
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: FLAGS, strict: true }).values;
  } catch (error) {
    const unknown = args.find((arg) => arg.startsWith('--') && !(arg.slice(2).split('=')[0]! in FLAGS));
    if (unknown === undefined) throw new UsageError(message(error).split('. ')[0]);
    throw new UsageError(`there is no ${unknown.split('=')[0]}${meant(unknown.slice(2), Object.keys(FLAGS), '--')}`);
  }
}

function peerName(name: string): PeerName {
  const found = PEERS.find((peer) => peer === name);
  if (found === undefined) throw new UsageError(`there is no peer '${name}'${meant(name, PEERS, '')}`);
  return found;
}

function bodies(values: readonly string[] | undefined): number[] | undefined {
  const sizes = list(values).map((value) => integer('--body', value, MIN_BODY, MAX_BODY)!);
  return sizes.length === 0 ? undefined : [...new Set(sizes)];
}

function integer(flag: string, text: string | undefined, min: number, max: number): number | undefined {
  if (text === undefined) return undefined;
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new UsageError(`${flag} is a whole number from ${min} to ${max}, not '${text}'`);
}

const list = (values: readonly string[] | undefined): string[] =>
  (values ?? []).flatMap((value) => value.split(',')).filter((value) => value !== '');

/** The name that was most likely meant: the one that shares most letter pairs. */
function meant(word: string, names: readonly string[], prefix: string): string {
  const pairs = (text: string): string[] => Array.from({ length: text.length - 1 }, (_, i) => text.slice(i, i + 2));
  const score = (name: string): number => {
    const own = pairs(name);
    return (2 * pairs(word).filter((pair) => own.includes(pair)).length) / (own.length + word.length - 1);
  };
  const best = [...names].sort((a, b) => score(b) - score(a))[0]!;
  return score(best) >= 0.3 ? `: did you mean ${prefix}${best}?` : '';
}
