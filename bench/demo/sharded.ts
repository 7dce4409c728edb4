/** The main phase: the same work on worker threads. */
import { BroadcastChannel } from 'node:worker_threads';
import { type Connection, Queue, ShardedConsumer, type ShardedConsumerStats } from '#src/index';
import { type Measured, Meter } from '../peers/meter.js';
import type { Book } from './book.js';
import { REPORT_CHANNEL } from './names.js';
import type { DemoOptions } from './options.js';
import { Progress, whole } from './progress.js';

export interface ShardedRun {
  readonly measured: Measured;
  readonly stats: ShardedConsumerStats;
  /** Failures by the error's name. */
  readonly failures: ReadonlyMap<string, number>;
  /** What the `dead` event said went to the dead letters. */
  readonly dead: number;
  /** Anything that the runtime complained about. */
  readonly errors: readonly Error[];
}

const SAMPLE_MS = 10;
/** No message settled for so long: something is wrong. */
const STALLED_MS = 30_000;

export async function runSharded(
  connection: Connection,
  queue: string,
  options: DemoOptions,
  book: Book,
  signal: AbortSignal,
): Promise<ShardedRun> {
  const { messages, workers, prefetch } = options;
  const reports = new BroadcastChannel(REPORT_CHANNEL);
  reports.onmessage = (event) => {
    const pairs = (event as unknown as { data: Uint32Array }).data;
    for (let i = 0; i < pairs.length; i += 2) book.handled(pairs[i]!, pairs[i + 1]!);
  };
  const consumer = new ShardedConsumer(connection, new Queue(queue), {
    handler: new URL('../handlers/demo.js', import.meta.url),
    workers,
    prefetchCount: prefetch,
    accept: ['json', 'msgpack'],
    autoDeclare: false,
  });
  const failures = new Map<string, number>();
  const errors: Error[] = [];
  let dead = 0;
  consumer.on('failed', ({ error, count }) => failures.set(error.name, (failures.get(error.name) ?? 0) + count));
  consumer.on('dead', () => dead++);
  consumer.on('error', (error) => errors.push(error));
  consumer.on('disconnected', (error) => errors.push(error));
  const progress = new Progress(workers === 1 ? '1 worker' : `${workers} workers`, messages);
  const meter = new Meter();
  const settled = allSettled(consumer, messages, meter, progress, signal);
  let measured: Measured;
  let stats: ShardedConsumerStats;
  try {
    // First, so that a failed start does not leave the other promise unobserved.
    await Promise.all([consumer.consume(), settled]);
    measured = meter.end();
    stats = consumer.stats();
    progress.end(`${whole(messages)} messages in ${measured.seconds.toFixed(1)} s`);
  } catch (error) {
    progress.erase();
    throw error;
  } finally {
    // The threads hand in their last reports when they are torn down.
    await consumer.close();
    await new Promise((resolve) => setTimeout(resolve, 50));
    reports.close();
  }
  return { measured, stats, failures, dead, errors };
}

/** Resolves when every message is settled; nothing on this thread is called for a message, so it looks every 10 ms. */
function allSettled(
  consumer: ShardedConsumer,
  messages: number,
  meter: Meter,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    let before = 0;
    let since = performance.now();
    const end = (error?: unknown): void => {
      clearInterval(timer);
      signal.removeEventListener('abort', stop);
      if (error === undefined) resolve();
      else reject(error);
    };
    const stop = (): void => end(signal.reason);
    const look = (): void => {
      const { received, acked, deadLettered, state } = consumer.stats();
      const settled = acked + deadLettered;
      if (received > 0) {
        meter.begin();
        progress.update(settled, () => `${whole(deadLettered)} dead letters`);
      }
      if (settled >= messages) end();
      else if (state === 'closing' || state === 'closed')
        end(new Error('the consumer closed before its work was done'));
      if (settled !== before) since = performance.now();
      else if (performance.now() - since > STALLED_MS) end(new Error(`no message was settled for ${STALLED_MS} ms`));
      before = settled;
    };
    const timer = setInterval(look, SAMPLE_MS);
    signal.addEventListener('abort', stop);
    if (signal.aborted) stop();
  });
}
