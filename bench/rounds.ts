/** Peers that take turns in rounds, ratios between two of them in the same round, and what was asked of those. */
import { type Spread, spread } from './stats.js';

export interface RoundSample<Peer extends string> {
  readonly peer: Peer;
  readonly round: number;
  /** Messages a second. */
  readonly rate: number;
  /** Of the whole process, microseconds a message; null where the peer does not say. */
  readonly cpuMicros: number | null;
}

export interface RoundTarget<Peer extends string> {
  readonly text: string;
  readonly over: Peer;
  readonly under: Peer;
  /** How many times faster, at least. */
  readonly asked: number;
}

export interface RoundResult<Peer extends string> extends RoundTarget<Peer> {
  /** Undefined when one of the two was not there. */
  readonly measured: Spread | undefined;
  readonly met: boolean | undefined;
}

/** Runs every peer once a round; each comes first in turn. A peer that gives nothing is left out of that round. */
export async function inTurn<Peer extends string>(
  peers: readonly Peer[],
  rounds: number,
  measure: (peer: Peer) => Promise<Omit<RoundSample<Peer>, 'round' | 'peer'> | undefined>,
): Promise<RoundSample<Peer>[]> {
  const samples: RoundSample<Peer>[] = [];
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < peers.length; i++) {
      const peer = peers[(i + round) % peers.length]!;
      const measured = await measure(peer);
      if (measured === undefined) continue;
      samples.push({ peer, ...measured, round });
      if (process.stderr.isTTY) process.stderr.write(`round ${round + 1} ${peer} ${Math.round(measured.rate)}/s\n`);
    }
  }
  return samples;
}

export function judge<Peer extends string>(
  samples: readonly RoundSample<Peer>[],
  targets: readonly RoundTarget<Peer>[],
): RoundResult<Peer>[] {
  return targets.map((target) => {
    const measured = compared(samples, target.over, target.under);
    return { ...target, measured, met: measured === undefined ? undefined : measured.median >= target.asked };
  });
}

function compared<Peer extends string>(
  samples: readonly RoundSample<Peer>[],
  over: Peer,
  under: Peer,
): Spread | undefined {
  const rate = (peer: Peer, round: number): number | undefined =>
    samples.find((sample) => sample.peer === peer && sample.round === round)?.rate;
  const rounds = [...new Set(samples.map(({ round }) => round))];
  const ratios = rounds.map((round) => (rate(over, round) ?? Number.NaN) / (rate(under, round) ?? Number.NaN));
  return spread(ratios.filter((each) => !Number.isNaN(each)));
}

/** A line for a peer; `absent` says why there is no sample of it. */
export function peerLine<Peer extends string>(
  peer: Peer,
  samples: readonly RoundSample<Peer>[],
  absent = 'not there',
): string {
  const of = samples.filter((sample) => sample.peer === peer);
  const rate = spread(of.map((sample) => sample.rate));
  const name = peer.padEnd(14);
  if (rate === undefined) return `${name} ${absent}\n`;
  const cpu = spread(of.flatMap(({ cpuMicros }) => (cpuMicros === null ? [] : [cpuMicros])));
  const cost = cpu === undefined ? '' : `, ${cpu.median.toFixed(1)} µs of CPU each`;
  const range = `${Math.round(rate.min)} to ${Math.round(rate.max)}`;
  return `${name} ${Math.round(rate.median)} messages a second (${range})${cost}\n`;
}

/** A line for a target; `absent` says why it was not measured. */
export function targetLine({ text, asked, measured, met }: RoundResult<string>, absent: string): string {
  const figure =
    measured === undefined
      ? `not measured: ${absent}`
      : `measured ${measured.median.toFixed(2)} × (${measured.min.toFixed(2)} to ${measured.max.toFixed(2)})`;
  return `${met === false ? 'MISSED' : met ? 'met   ' : '      '} ${text}: asked ${asked} ×, ${figure}\n`;
}
