/** A worker under saturation, and what its handler notices of the event loop (handlers/turns.ts). */
import { readFileSync } from 'node:fs';
import { Connection, Queue } from '#src/index';
import { uniqueName } from './rabbitmq.js';
import { consumerOf, EffectsLog, publishAll, until } from './rig.js';

export interface TurnFacts {
  readonly messages: number;
  readonly turns: number;
  /** Most callbacks between two turns. */
  readonly mostMessages: number;
  /** Longest that the callbacks between two turns took together, the last one left out. */
  readonly longestMs: number;
  /** Of an interval of 10 ms, while messages were there. */
  readonly ticks: number;
  readonly forMs: number;
}

/** One worker handles `count` messages of so many microseconds each, all of them there from the start. */
export async function saturate(
  url: string,
  { count, microseconds, mode }: { count: number; microseconds: number; mode: 'sync' | 'async' },
): Promise<TurnFacts> {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('turns'));
  await publishAll(
    url,
    queue,
    Array.from({ length: count }, () => ({ body: microseconds })),
  );
  process.env.MOZUKU_TURNS = mode;
  const consumer = consumerOf(url, queue, {
    handler: new URL('../handlers/turns.js', import.meta.url),
    workers: 1,
    prefetchCount: 2000,
  });
  try {
    await consumer.consume();
    await until('all are acked', () => consumer.stats().acked === count, { timeoutMs: 120_000 });
  } finally {
    delete process.env.MOZUKU_TURNS;
    await consumer.close();
    const connection = new Connection(url);
    await queue.bind(connection).delete();
    await connection.close();
  }
  return JSON.parse(readFileSync(effects.path, 'utf8')) as TurnFacts;
}
