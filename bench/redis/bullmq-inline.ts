/** Peer: BullMQ with its processor on the main thread, as most services have it. */
import { consumeBullmq, fillBullmq } from './bullmq.js';
import { PREFETCH, runRedisPeer } from './peer.js';

await runRedisPeer({
  fill: fillBullmq,
  consume: (url, count) => consumeBullmq(url, count, async (job) => job.data.id, { concurrency: PREFETCH }),
});
