/**
 * The frame of a peer of `bench -- redis`: `PEER.js fill URL COUNT` puts the messages there, `PEER.js consume URL COUNT` takes
 * and settles them all, and prints what it measured of itself as one line of JSON. Two processes, so that consuming is not
 * measured in one that has filled.
 */
import { FIRST_ID, message, type TallyCounts } from '../protocol.js';
import { expected } from '../tally.js';

export const QUEUE = 'mozuku-bench-redis';
/** How many messages may be under way at a time, for every peer that has such a setting. */
export const PREFETCH = 400;
/** Threads of the peers that have some. */
export const THREADS = 2;

/** 200 bytes as JSON. */
export interface Body {
  readonly id: number;
  readonly pad: string;
}

const PAD = 'x'.repeat(200 - JSON.stringify({ id: FIRST_ID, pad: '' }).length);

/** The body of message `index`, which counts from 1. */
export const bodyOf = (index: number): Body => ({ id: FIRST_ID + index, pad: PAD });

/** What a peer prints: its figures, or why there are none. */
export type PeerOutput = { readonly rate: number; readonly cpuMicros: number } | { readonly missing: string };

/** The time and the CPU from the first message that was handled to the last one that was settled. */
export class Stopwatch {
  #begun: { readonly at: number; readonly cpu: NodeJS.CpuUsage } | undefined;

  /** Called for every message: only the first call counts. */
  begin(): void {
    this.#begun ??= { at: performance.now(), cpu: process.cpuUsage() };
  }

  /** `count`: settled since it began. */
  end(count: number): { rate: number; cpuMicros: number } {
    if (this.#begun === undefined) throw new Error('nothing was delivered');
    const seconds = (performance.now() - this.#begun.at) / 1000;
    const { user, system } = process.cpuUsage(this.#begun.cpu);
    return { rate: count / seconds, cpuMicros: (user + system) / count };
  }
}

/** Throws unless each of the messages was handled once. */
export function checkTally(tally: TallyCounts, count: number): void {
  const wanted = expected(count);
  if (JSON.stringify(tally) !== JSON.stringify(wanted)) {
    throw new Error(`handled ${JSON.stringify(tally)} instead of ${JSON.stringify(wanted)}`);
  }
}

export interface RedisPeer {
  fill(url: string, count: number): Promise<void>;
  consume(url: string, count: number): Promise<PeerOutput>;
}

export async function runRedisPeer(peer: RedisPeer): Promise<void> {
  // The harness is gone: so is the reason to run.
  process.stdin.resume().on('end', () => process.exit(1));
  const [mode, url = '', count = ''] = process.argv.slice(2);
  try {
    if (mode === 'fill') await peer.fill(url, Number(count));
    else process.stdout.write(`${JSON.stringify(await peer.consume(url, Number(count)))}\n`);
    process.exit(0);
  } catch (error) {
    process.stderr.write(`${message(error)}\n`);
    process.exit(1);
  }
}
