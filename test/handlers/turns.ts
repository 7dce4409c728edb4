/**
 * Notices how a worker's event loop turns under load: between two turns, how many callbacks ran and how long all but the last
 * of them took together; and how often an interval of 10 ms ticks. Writes one line of JSON to MOZUKU_EFFECTS at its end.
 * A body is the microseconds to compute for; `async` in the environment's MOZUKU_TURNS makes callbacks await a microtask too.
 */
import { appendFileSync } from 'node:fs';

const awaits = process.env.MOZUKU_TURNS === 'async';
const facts = { messages: 0, turns: 0, mostMessages: 0, longestMs: 0, ticks: 0, forMs: 0 };
let inTurn = 0;
let took = 0;
let last = 0;
let first = 0;

function turned(): void {
  if (inTurn > 0) {
    facts.turns++;
    facts.mostMessages = Math.max(facts.mostMessages, inTurn);
    facts.longestMs = Math.max(facts.longestMs, took - last);
  }
  inTurn = 0;
  took = 0;
  last = 0;
  setImmediate(turned);
}

let interval: NodeJS.Timeout | undefined;

export function setup(): void {
  setImmediate(turned);
}

export default function handle(microseconds: unknown): unknown {
  const start = performance.now();
  if (first === 0) {
    first = start;
    interval = setInterval(() => facts.ticks++, 10);
  }
  const end = start + Number(microseconds) / 1000;
  let now = start;
  while (now < end) now = performance.now();
  inTurn++;
  facts.messages++;
  last = performance.now() - start;
  took += last;
  facts.forMs = now - first;
  return awaits ? Promise.resolve() : undefined;
}

export function teardown(): void {
  clearInterval(interval);
  appendFileSync(process.env.MOZUKU_EFFECTS!, `${JSON.stringify(facts)}\n`);
}
