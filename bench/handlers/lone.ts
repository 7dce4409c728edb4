/** The handler of redis/lone.ts: hands in how long each message took to get here, in microseconds. */
import { BroadcastChannel } from 'node:worker_threads';
import { LONE_CHANNEL, type Lone } from './lone-channel.js';

const taken: number[] = [];

export default function handle(body: unknown): void {
  const { at } = body as Lone;
  if (at !== '') taken.push(Number(process.hrtime.bigint() - BigInt(at)) / 1000);
}

export function teardown(): void {
  const channel = new BroadcastChannel(LONE_CHANNEL);
  channel.postMessage(taken);
  channel.close();
}
