/** The handler of the demonstration: runs on every worker thread. */
import { BroadcastChannel } from 'node:worker_threads';
import type { Message } from '#src/index';
import { FAIL_HEADER, REPORT_CHANNEL } from '../demo/names.js';
import { contentOf, work } from '../demo/work.js';

/** Pairs in one report: few enough that the main thread hardly notices. */
const BATCH = 256;

const channel = new BroadcastChannel(REPORT_CHANNEL);
let pairs: number[] = [];

function report(): void {
  if (pairs.length > 0) channel.postMessage(Uint32Array.from(pairs));
  pairs = [];
}

export default function handle(body: unknown, message: Message): void {
  const fail = message.headers[FAIL_HEADER];
  if (fail === 'RangeError') throw new RangeError('this message asks for a RangeError');
  if (fail === 'TypeError') throw new TypeError('this message asks for a TypeError');
  const id = Number(message.properties.messageId);
  pairs.push(id, work(contentOf(body, id)));
  if (pairs.length >= 2 * BATCH) report();
}

export function teardown(): void {
  report();
  channel.close();
}
