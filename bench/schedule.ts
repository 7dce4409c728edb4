/**
 * The order of runs: for every body size a pilot of each peer, then rounds in which the peers take turns, so that a
 * machine that gets slower or faster for a while does so for all of them.
 */
import type { BenchOptions } from './options.js';
import type { Progress } from './progress.js';
import { type Failure, MAX_COUNT, message, type PeerName, type Sample, type Task } from './protocol.js';
import { type Broker, runOnce } from './sample.js';
import { bodyText, rateText } from './text.js';

/** A measured run lasts at least this long; a shorter one is repeated with more messages. */
const MIN_SECONDS = 2;
const AIM_SECONDS = 2.5;
/** A pilot this long is believed. */
const PILOT_SECONDS = 0.4;
const PILOT_BYTES = 4 * 1024 * 1024;
const ATTEMPTS = 4;
const TIMEOUT_MS = 60_000;
/** Bodies in flight: half of the memory this library takes for them by default, so that no peer is starved of it. */
const IN_FLIGHT_BYTES = 128 * 1024 * 1024;

export const prefetchFor = (bodyBytes: number, prefetch: number): number =>
  Math.max(1, Math.min(prefetch, Math.floor(IN_FLIGHT_BYTES / bodyBytes)));

export interface Results {
  readonly samples: Sample[];
  readonly failures: Failure[];
}

export async function runAll(options: BenchOptions, broker: Broker, progress: Progress): Promise<Results> {
  const results: Results = { samples: [], failures: [] };
  for (const bodyBytes of options.bodies) {
    const base = {
      url: broker.url,
      bodyBytes,
      prefetch: prefetchFor(bodyBytes, options.prefetch),
      workers: options.workers,
    };
    const counts = new Map<PeerName, number>();
    /** A peer that failed is not run again on this body: it would only cost time. */
    const guarded = async (peer: PeerName, round: number, work: () => Promise<void>): Promise<void> => {
      try {
        await work();
      } catch (error) {
        counts.delete(peer);
        const text = message(error);
        results.failures.push({ peer, bodyBytes, round, text });
        progress.note(`${peer}, ${bodyText(bodyBytes)}, ${round === 0 ? 'pilot' : `round ${round}`} failed: ${text}`);
        progress.done(`${peer} left out`, options.rounds - Math.max(0, round - 1));
      }
    };
    for (const peer of options.peers) {
      progress.doing(`${bodyText(bodyBytes)} ${peer} pilot`);
      await guarded(peer, 0, async () => {
        counts.set(peer, await pilot(broker, peer, base));
      });
    }
    for (let round = 1; round <= options.rounds; round++) {
      for (const peer of options.peers) {
        const count = counts.get(peer);
        if (count === undefined) continue;
        progress.doing(`${bodyText(bodyBytes)} ${peer} round ${round}`);
        await guarded(peer, round, async () => {
          const sample = await measure(broker, peer, round, { ...base, count });
          results.samples.push(sample);
          counts.set(peer, countFor(sample.rate, sample.count));
          progress.done(`${bodyText(bodyBytes)}, round ${round}: ${peer} ${rateText(sample.rate)}/s`);
        });
      }
    }
  }
  return results;
}

/** Never fewer than before: a single slow run must not make the next ones short. */
const countFor = (rate: number, before = 0): number =>
  Math.min(MAX_COUNT, Math.max(before, Math.ceil(rate * AIM_SECONDS)));

/** Short runs, each longer, until one is long enough to tell the speed by. Returns the count for a measured run. */
async function pilot(broker: Broker, peer: PeerName, base: Omit<Task, 'count'>): Promise<number> {
  let count = Math.max(base.prefetch, Math.min(10_000, Math.ceil(PILOT_BYTES / base.bodyBytes)));
  for (;;) {
    const sample = await runOnce(broker, { peer, round: 0, task: { ...base, count }, timeoutMs: TIMEOUT_MS });
    if (sample.seconds >= PILOT_SECONDS) return countFor(sample.rate);
    count = Math.min(MAX_COUNT, Math.ceil(count * Math.min(20, (1.5 * PILOT_SECONDS) / sample.seconds)));
  }
}

async function measure(broker: Broker, peer: PeerName, round: number, first: Task): Promise<Sample> {
  let task = first;
  for (let attempt = 1; ; attempt++) {
    const sample = await runOnce(broker, { peer, round, task, timeoutMs: TIMEOUT_MS });
    if (sample.seconds >= MIN_SECONDS || attempt === ATTEMPTS || task.count === MAX_COUNT) return sample;
    task = { ...task, count: countFor(sample.rate, task.count) };
  }
}
