/** Peer: BullMQ with a sandboxed processor on worker threads. */
import { consumeBullmq, fillBullmq } from './bullmq.js';
import { runRedisPeer, THREADS } from './peer.js';

/** A thread has one job at a time, and waits for Redis between two: more threads than cores is the setting that is kinder. */
const CONCURRENCY = 2 * THREADS;

const task = new URL('./bullmq-task.js', import.meta.url);

await runRedisPeer({
  fill: fillBullmq,
  consume: (url, count) => consumeBullmq(url, count, task, { concurrency: CONCURRENCY, useWorkerThreads: true }),
});
