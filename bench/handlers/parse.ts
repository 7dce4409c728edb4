/** The handler of our peer: gets the body that the worker thread parsed, and counts it. */
import { BroadcastChannel } from 'node:worker_threads';
import { idOf, Tally } from '../tally.js';
import { TALLY_CHANNEL } from './tally-channel.js';

const tally = new Tally();

export default function handle(body: unknown): void {
  tally.add(idOf(body));
}

export function teardown(): void {
  const channel = new BroadcastChannel(TALLY_CHANNEL);
  channel.postMessage(tally.counts());
  channel.close();
}
