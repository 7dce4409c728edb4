/**
 * From raw samples to figures: medians with their range, and ratios between two peers of the same round.
 */
import type { PeerName, Sample } from './protocol.js';

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** What is compared between peers. */
export const METRICS = ['rate', 'processMicros', 'mainMicros'] as const;
export type Metric = (typeof METRICS)[number];

export type SampleNumber = {
  [Key in keyof Sample]: Sample[Key] extends number | null ? Key : never;
}[keyof Sample];

/** Undefined for no values at all. */
export function spread(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)! };
}

export function summarize(samples: readonly Sample[], metric: SampleNumber): Spread | undefined {
  return spread(samples.map((sample) => sample[metric]).filter((value) => value !== null));
}

export const select = (samples: readonly Sample[], bodyBytes: number, peer: PeerName): Sample[] =>
  samples.filter((sample) => sample.bodyBytes === bodyBytes && sample.peer === peer);

/** Ours divided by a peer's, round by round: what slows the machine for a while then slows both. */
export function ratio(
  samples: readonly Sample[],
  bodyBytes: number,
  peer: PeerName,
  metric: Metric,
): Spread | undefined {
  const theirs = select(samples, bodyBytes, peer);
  const ratios: number[] = [];
  for (const our of select(samples, bodyBytes, 'ours')) {
    const their = theirs.find((sample) => sample.round === our.round)?.[metric];
    const value = our[metric];
    if (value !== null && their !== undefined && their !== null && their > 0) ratios.push(value / their);
  }
  return spread(ratios);
}
