/** What a benchmark prints: tables for people, or everything as JSON. */
import type { Machine } from './machine.js';
import type { BenchOptions } from './options.js';
import { mainThreadSource } from './peers/meter.js';
import type { Failure, Sample } from './protocol.js';
import { prefetchFor } from './schedule.js';
import { METRICS, ratio, type SampleNumber, select, summarize } from './stats.js';
import { judge } from './targets.js';
import { bodyText, plural, shortNumber, spreadText, table } from './text.js';

export interface Outcome {
  readonly options: BenchOptions;
  readonly machine: Machine;
  readonly stealPercent: number | null;
  readonly samples: readonly Sample[];
  readonly failures: readonly Failure[];
}

interface Column {
  readonly title: string;
  readonly metric: SampleNumber;
  /** 'spread': median and range. A peak of several runs is the highest of them; the broker's part is only background. */
  readonly show: 'spread' | 'median' | 'max';
  readonly factor?: number;
}

const COLUMNS: readonly Column[] = [
  { title: 'messages/s', metric: 'rate', show: 'spread' },
  { title: 'CPU µs/msg', metric: 'processMicros', show: 'spread' },
  { title: 'main thread µs/msg', metric: 'mainMicros', show: 'spread' },
  { title: 'loop delay max ms', metric: 'loopDelayMaxMs', show: 'max' },
  { title: 'RSS max MiB', metric: 'maxRssBytes', show: 'max', factor: 1 / (1024 * 1024) },
  { title: 'broker µs/msg', metric: 'brokerMicros', show: 'median' },
];

function cell(samples: readonly Sample[], { metric, show, factor = 1 }: Column): string {
  const spread = summarize(samples, metric);
  if (spread === undefined) return '-';
  return show === 'spread' ? spreadText(spread) : shortNumber(spread[show] * factor);
}

export function textReport(outcome: Outcome): string {
  const { options } = outcome;
  const blocks = [head(outcome)];
  for (const bodyBytes of options.bodies) {
    blocks.push(figures(outcome, bodyBytes));
    if (options.peers.includes('ours') && options.peers.length > 1) blocks.push(ratios(outcome, bodyBytes));
  }
  blocks.push(targets(outcome));
  if (outcome.failures.length > 0) blocks.push(failed(outcome.failures));
  return `${blocks.join('\n\n')}\n`;
}

export function jsonReport(outcome: Outcome): string {
  const { options, samples } = outcome;
  const others = options.peers.filter((peer) => peer !== 'ours');
  const ratioList = options.bodies.flatMap((bodyBytes) =>
    others.flatMap((peer) =>
      METRICS.map((metric) => ({
        bodyBytes,
        peer,
        metric,
        oursToTheirs: ratio(samples, bodyBytes, peer, metric) ?? null,
      })),
    ),
  );
  const measured = judge(samples).map((target) => ({
    ...target,
    measured: target.measured ?? null,
    met: target.met ?? null,
  }));
  return `${JSON.stringify({ ...outcome, mainThreadSource, ratios: ratioList, targets: measured }, null, 2)}\n`;
}

function head({ options, machine, stealPercent }: Outcome): string {
  const gib = (machine.memoryBytes / 1024 ** 3).toFixed(1);
  const steal = stealPercent === null ? '' : `; CPU time stolen by the hypervisor: ${stealPercent.toFixed(1)} %`;
  return [
    `Consumers against a replay broker on the same machine: ${options.preset}, ${plural(options.rounds, 'round')}, peers taking turns`,
    `Node ${machine.node}, ${machine.system}, ${machine.cores} x ${machine.cpu}, ${gib} GiB${steal}`,
    `Main-thread CPU from: ${mainThreadSource}`,
    'Each figure: median (least to most) of the rounds, from the first delivery until the broker has the last ack',
  ].join('\n');
}

function figures({ options, samples }: Outcome, bodyBytes: number): string {
  const title = `Body ${bodyText(bodyBytes)}, prefetch ${prefetchFor(bodyBytes, options.prefetch)}, ${plural(options.workers, 'worker thread')}`;
  const rows = options.peers.map((peer) => {
    const own = select(samples, bodyBytes, peer);
    return [peer, ...COLUMNS.map((column) => cell(own, column))];
  });
  return `${title}\n${table([['', ...COLUMNS.map(({ title: name }) => name)], ...rows])}`;
}

function ratios({ options, samples }: Outcome, bodyBytes: number): string {
  const others = options.peers.filter((peer) => peer !== 'ours');
  const rows = others.map((peer) => [
    `ours / ${peer}`,
    ...METRICS.map((metric) => spreadText(ratio(samples, bodyBytes, peer, metric))),
  ]);
  return table([[`Ratios, ${bodyText(bodyBytes)}`, 'messages/s', 'CPU', 'main CPU'], ...rows]);
}

function targets({ samples }: Outcome): string {
  const rows = judge(samples).map(({ text, bodyBytes, bound, asked, measured, met }) => [
    `${text}, ${bodyText(bodyBytes)}`,
    `${bound} ${shortNumber(asked)}`,
    measured === undefined ? 'not measured' : spreadText(measured),
    met === undefined ? '' : met ? 'met' : 'missed',
  ]);
  return table([['Targets (stated for prefetch 1000, 2 workers)', 'asked', 'measured', ''], ...rows]);
}

function failed(failures: readonly Failure[]): string {
  const lines = failures.map(
    ({ peer, bodyBytes, round, text }) =>
      `  ${peer}, ${bodyText(bodyBytes)}, ${round === 0 ? 'pilot' : `round ${round}`}: ${text}`,
  );
  return ['FAILED', ...lines].join('\n');
}
