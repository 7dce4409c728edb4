/** What `ShardedConsumer.stats()` returns: read from shared memory, without asking any worker. */
import { fromWords, now } from '../../pool/clock.js';
import { readDeliver } from '../../pool/delivery.js';
import { percentile } from '../../pool/histogram.js';
import { block, HISTOGRAM_BUCKETS, RUNNING_WORDS, STATE_MASK, slot, state } from '../../pool/layout.js';
import type { Memory } from '../../pool/memory.js';

export interface RunningCallback {
  readonly deliveryTag: number;
  readonly queue: string;
  /** Milliseconds since it started. */
  readonly forMs: number;
}

export interface WorkerStats {
  /** The worker's number, 0 and up. */
  readonly id: number;
  readonly threadId: number;
  readonly state: 'starting' | 'running' | 'draining' | 'ending' | 'zombie' | 'gone';
  readonly processed: number;
  readonly failed: number;
  readonly running: readonly RunningCallback[];
  /** Seconds spent in callbacks in this life of the worker. */
  readonly busy: number;
  readonly restarts: number;
}

/** Milliseconds from a message's arrival to its settlement, each off by at most an eighth. */
export interface LatencyStats {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

export interface ShardedConsumerStats {
  readonly state: 'idle' | 'starting' | 'consuming' | 'disconnected' | 'pausing' | 'paused' | 'closing' | 'closed';
  readonly received: number;
  readonly acked: number;
  readonly rejected: number;
  readonly requeued: number;
  readonly deadLettered: number;
  readonly failed: number;
  readonly retried: number;
  /** Settlements that came after the channel that delivered them was gone. */
  readonly stale: number;
  readonly shed: number;
  readonly redelivered: number;
  /** Claimed by a worker. */
  readonly inFlight: number;
  /** Ready, and claimed by none. */
  readonly waiting: number;
  /** In main's hands: on the way to the dead letters, to be run again later, or behind others of the same key. */
  readonly held: number;
  /** What the broker counts as ours. */
  readonly unsettled: number;
  /** Bytes. */
  readonly arena: { readonly used: number; readonly size: number };
  readonly latency: LatencyStats;
  readonly workers: readonly WorkerStats[];
}

/** Adds the histogram of a block to `sum`. */
export function addHistogram(sum: Float64Array, words: Int32Array): void {
  for (let i = 0; i < HISTOGRAM_BUCKETS; i++) sum[i]! += words[block.HISTOGRAM + i]! >>> 0;
}

export function latencyOf(sum: Float64Array): LatencyStats {
  const at = (share: number): number => percentile(sum, share) / 1000;
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1) };
}

export function workerStats(
  life: { worker: number; threadId: number; state: WorkerStats['state']; words: Int32Array; restarts: number },
  memory: Memory,
  concurrency: number,
  queues: ReadonlyMap<string, string>,
): WorkerStats {
  const { words } = life;
  const time = now();
  const running: RunningCallback[] = [];
  for (let row = 0; row < concurrency; row++) {
    const at = block.TABLE + row * RUNNING_WORDS;
    const index = words[at]! - 1;
    if (index < 0) continue;
    const from = index << slot.SHIFT;
    // Claimed and unsettled, its bytes are what they were; settled early, they may be another message's.
    if (words[at + 3] !== 0 || (memory.slotWords[from + slot.STATE]! & STATE_MASK) !== state.CLAIMED) continue;
    const { deliveryTag, queue } = readDeliver(memory.bytes, memory.slotWords[from + slot.OFFSET]!, queues);
    running.push({
      deliveryTag,
      queue,
      forMs: Math.max(0, Math.round((time - fromWords(words[at + 1]!, words[at + 2]!)) / 1000)),
    });
  }
  return {
    id: life.worker,
    threadId: life.threadId,
    state: life.state,
    processed: words[block.PROCESSED]! >>> 0,
    failed: words[block.FAILED]! >>> 0,
    running,
    busy: fromWords(words[block.BUSY_HI]!, words[block.BUSY_LO]!) / 1e6,
    restarts: life.restarts,
  };
}
