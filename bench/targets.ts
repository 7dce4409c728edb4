/**
 * What this library set out to reach against its peers, and what a run says to it. They are stated for the quick
 * preset: prefetch 1000, two workers.
 */
import type { PeerName, Sample } from './protocol.js';
import { type Metric, ratio, type Spread } from './stats.js';

interface Target {
  readonly text: string;
  readonly bodyBytes: number;
  readonly peer: PeerName;
  readonly metric: Metric;
  readonly bound: 'at least' | 'at most';
  readonly asked: number;
}

export interface TargetResult extends Target {
  /** Absent when a peer, or the measure, was not there. */
  readonly measured: Spread | undefined;
  readonly met: boolean | undefined;
}

const TARGETS: readonly Target[] = [
  {
    text: 'main-thread CPU a message, against amqplib-inline',
    bodyBytes: 200,
    peer: 'amqplib-inline',
    metric: 'mainMicros',
    bound: 'at most',
    asked: 1 / 10,
  },
  {
    text: 'whole-process CPU a message, against amqplib-inline',
    bodyBytes: 200,
    peer: 'amqplib-inline',
    metric: 'processMicros',
    bound: 'at most',
    asked: 1 / 2,
  },
  {
    text: 'messages a second, against amqplib-inline',
    bodyBytes: 200,
    peer: 'amqplib-inline',
    metric: 'rate',
    bound: 'at least',
    asked: 3.5,
  },
  {
    text: 'messages a second, against amqplib-piscina',
    bodyBytes: 200,
    peer: 'amqplib-piscina',
    metric: 'rate',
    bound: 'at least',
    asked: 18,
  },
  {
    text: 'main-thread CPU a message, against drain',
    bodyBytes: 65_536,
    peer: 'drain',
    metric: 'mainMicros',
    bound: 'at most',
    asked: 1.3,
  },
];

export function judge(samples: readonly Sample[]): TargetResult[] {
  return TARGETS.map((target) => {
    const measured = ratio(samples, target.bodyBytes, target.peer, target.metric);
    if (measured === undefined) return { ...target, measured, met: undefined };
    const met = target.bound === 'at most' ? measured.median <= target.asked : measured.median >= target.asked;
    return { ...target, measured, met };
  });
}
