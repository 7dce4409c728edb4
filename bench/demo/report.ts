/** What the demonstration says at its end: figures of both runs side by side, and whether everything checks. */
import { availableParallelism } from 'node:os';
import type { Measured } from '../peers/meter.js';
import { plural, table } from '../text.js';
import type { Verdict } from './book.js';
import type { Trouble } from './messages.js';
import { whole } from './progress.js';
import type { ShardedRun } from './sharded.js';

export interface Findings {
  readonly messages: number;
  readonly inlineMessages: number;
  readonly prefetch: number;
  readonly sharded: ShardedRun;
  readonly inline: Measured;
  readonly verdict: Verdict;
  readonly inlineVerdict: Verdict;
  readonly troubles: ReadonlyMap<number, Trouble>;
  readonly deadLetterFaults: readonly string[];
  /** Messages that were still in the queues when they were deleted. */
  readonly left: number;
}

export function report(findings: Findings): string {
  return [comparison(findings), workerTable(findings), troubleTable(findings), ''].join('\n\n');
}

const percent = (share: number): string => `${Math.round(100 * share)} %`;
const milliseconds = (value: number): string => `${value.toFixed(value < 10 ? 1 : 0)} ms`;

function comparison({ messages, inlineMessages, sharded, inline, prefetch }: Findings): string {
  const { measured, stats } = sharded;
  const { p50, p90, p99, max } = stats.latency;
  const share = ({ mainMicros, seconds }: Measured): string =>
    mainMicros === null ? 'not known here' : percent(mainMicros / 1e6 / seconds);
  const workers = stats.workers.length;
  const rows = [
    ['', `on ${workers} worker thread${workers === 1 ? '' : 's'}`, 'on the main thread'],
    ['messages', whole(messages), whole(inlineMessages)],
    ['messages per second', whole(messages / measured.seconds), whole(inlineMessages / inline.seconds)],
    ['CPU share of the main thread', share(measured), share(inline)],
    ['longest delay of its event loop', milliseconds(measured.loopDelayMaxMs), milliseconds(inline.loopDelayMaxMs)],
  ];
  const latency = [p50, p90, p99, max].map(milliseconds).join(', ');
  return [
    table(rows),
    '',
    `From a message's arrival to its settlement, with a prefetch of ${prefetch}:`,
    `half within, 90 %, 99 %, all: ${latency}`,
  ].join('\n');
}

function workerTable({ sharded: { measured, stats } }: Findings): string {
  const rows = stats.workers.map(({ id, processed, failed, busy, restarts }) => [
    `worker ${id}`,
    whole(processed),
    whole(failed),
    percent(busy / measured.seconds),
    whole(restarts),
  ]);
  return table([['', 'messages', 'failed', 'busy', 'restarts'], ...rows]);
}

function troubleTable({ troubles, sharded }: Findings): string {
  const counts = new Map<Trouble, number>();
  for (const trouble of troubles.values()) counts.set(trouble, (counts.get(trouble) ?? 0) + 1);
  const rows = [...counts].map(([{ text, errorName, reason }, count]) => [
    `${errorName}, ${text}`,
    whole(count),
    reason,
  ]);
  const seen = [...sharded.failures].map(([name, count]) => `${name} ${whole(count)}`).join(', ');
  return [
    table([['wrong on purpose', 'sent', 'dead letter'], ...rows]),
    `what the 'failed' event told:\n  ${seen || 'nothing'}`,
  ].join('\n');
}

/** What does not check, in words; empty if everything does. */
export function faults(findings: Findings): string[] {
  const { messages, inlineMessages, troubles, sharded, verdict, inlineVerdict, deadLetterFaults, left } = findings;
  const found = [
    ...booked('on the worker threads', verdict, messages - troubles.size),
    ...booked('on the main thread', inlineVerdict, inlineMessages),
    ...deadLetterFaults,
  ];
  const expected = new Map<string, number>();
  for (const { errorName } of troubles.values()) expected.set(errorName, (expected.get(errorName) ?? 0) + 1);
  for (const name of new Set([...expected.keys(), ...sharded.failures.keys()])) {
    const wanted = expected.get(name) ?? 0;
    const seen = sharded.failures.get(name) ?? 0;
    if (seen !== wanted) found.push(`${plural(wanted, 'message')} had to fail with ${name}, ${seen} did`);
  }
  if (sharded.dead !== troubles.size) {
    found.push(`${plural(troubles.size, 'dead letter')} had to be, the event 'dead' told of ${sharded.dead}`);
  }
  if (left > 0) found.push(`${plural(left, 'message')} stayed in the queues`);
  return [...found, ...sharded.errors.map((error) => `the runtime says: ${error.message}`)];
}

function booked(where: string, { handled, missing, twice, harmed }: Verdict, wanted: number): string[] {
  const found: string[] = [];
  if (handled !== wanted) found.push(`${where} ${plural(wanted, 'message')} had to be handled, ${handled} were`);
  if (missing > 0) found.push(`${where} ${plural(missing, 'message')} never came`);
  if (twice > 0) found.push(`${where} ${plural(twice, 'message')} came more than once`);
  if (harmed > 0) found.push(`${where} ${plural(harmed, 'message')} came with another content than was sent`);
  return found;
}

export function success({ messages, inlineMessages, troubles }: Findings): string {
  const sound = whole(messages - troubles.size + inlineMessages);
  return (
    `Everything checks: ${sound} messages handled once each, their SHA-256 as sent;\n` +
    `${troubles.size} that cannot be handled are dead letters, for the right reasons.`
  );
}

export const heading = (broker: string): string =>
  `mozuku demo: ${broker}, Node ${process.version}, ${availableParallelism()} CPU cores`;
