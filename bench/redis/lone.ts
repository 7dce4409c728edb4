/**
 * An idle consumer of a service that has run for a while: `lone.js URL SECONDS COUNT BEFORE` says `ready`, handles so many
 * messages, measures what it costs while its queue stays empty, says `idle`, and then how long lone messages take from publish()
 * in another process until their callback starts.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { BroadcastChannel } from 'node:worker_threads';
import { Connection, Queue, ShardedConsumer } from '#src/index';
import { LONE_CHANNEL } from '../handlers/lone-channel.js';
import { QUEUE, THREADS } from './peer.js';

export interface LoneOutput {
  /** Of one core, percent, of the whole process. */
  readonly idlePercent: number;
  /** From publish() to the callback, microseconds. */
  readonly startMicros: readonly number[];
}

/** Until then V8 gives back, thread by thread, what the work needed. */
const SETTLE_MS = 40_000;

const [url = '', seconds = '', count = '', before = ''] = process.argv.slice(2);
process.stdin.resume().on('end', () => process.exit(1));
const connection = new Connection(url);
const consumer = new ShardedConsumer(connection, new Queue(QUEUE), {
  handler: new URL('../handlers/lone.js', import.meta.url),
  workers: THREADS,
});
await consumer.consume();
process.stdout.write('ready\n');
while (consumer.stats().acked < Number(before)) await sleep(20);
await sleep(SETTLE_MS);
const cpu = process.cpuUsage();
const started = performance.now();
await sleep(Number(seconds) * 1000);
const { user, system } = process.cpuUsage(cpu);
const idlePercent = (user + system) / 10 / (performance.now() - started);
process.stdout.write('idle\n');

const startMicros: number[] = [];
const channel = new BroadcastChannel(LONE_CHANNEL);
let threads = 0;
channel.onmessage = (event) => {
  startMicros.push(...(event as unknown as { data: number[] }).data);
  threads++;
};
while (consumer.stats().acked < Number(before) + Number(count)) await sleep(20);
await consumer.close();
while (threads < THREADS) await sleep(5);
channel.close();
await connection.close();
process.stdout.write(`${JSON.stringify({ idlePercent, startMicros } satisfies LoneOutput)}\n`);
process.exit(0);
