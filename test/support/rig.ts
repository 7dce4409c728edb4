/**
 * What the tests of the sharded consumer share: an effects log that the handlers write and the test reads, publishing in
 * bulk, and waiting for a fact with a deadline.
 */
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Connection, type PublishOptions, type Queue, ShardedConsumer, type ShardedConsumerOptions } from '#src/index';

export const EFFECTS_HANDLER = new URL('../handlers/effects.js', import.meta.url);

export interface Effect {
  readonly id: string;
  readonly worker: number;
  readonly attempt: number;
  readonly hash: string;
  /** Microseconds, of one clock for all threads. */
  readonly start: number;
  readonly end: number;
}

/** A folder of the test's own with the effects log in it. Set before the consumer starts: threads copy the environment. */
export class EffectsLog implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'mozuku-effects-'));
  readonly path = join(this.folder, 'effects');

  constructor() {
    process.env.MOZUKU_EFFECTS = this.path;
  }

  read(): Effect[] {
    let text = '';
    try {
      text = readFileSync(this.path, 'utf8');
    } catch (error) {
      // No handler has run yet.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    return text
      .split('\n')
      .slice(0, -1)
      .map((line) => {
        const [id = '', worker, attempt, hash = '', _tag, start, end] = line.split(' ');
        const numbers = { worker: Number(worker), attempt: Number(attempt), start: Number(start), end: Number(end) };
        return { id, hash, ...numbers };
      });
  }

  /** How often each id stands in the log. */
  counts(): Map<string, number> {
    const counts = new Map<string, number>();
    for (const { id } of this.read()) counts.set(id, (counts.get(id) ?? 0) + 1);
    return counts;
  }

  [Symbol.dispose](): void {
    delete process.env.MOZUKU_EFFECTS;
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Polls `fact` until it is truthy. Rejects after `timeoutMs`, saying what was waited for and `state()`. */
export async function until<T>(
  what: string,
  fact: () => T | Promise<T>,
  { timeoutMs = 60_000, everyMs = 20, state = (): unknown => '' } = {},
): Promise<NonNullable<T>> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const found = await fact();
    if (found) return found as NonNullable<T>;
    if (performance.now() > deadline) {
      throw new Error(`waited ${timeoutMs} ms in vain for: ${what}; ${JSON.stringify(await state())}`);
    }
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

/** Publishes many messages to a queue, declared first, all confirmed when it resolves. */
export async function publishAll(
  url: string,
  queue: Queue,
  messages: Iterable<{ readonly body: unknown; readonly options?: PublishOptions }>,
): Promise<number> {
  const connection = new Connection(url);
  try {
    await queue.declare(connection);
    const producer = connection.Producer({ routingKey: queue.name });
    let count = 0;
    let window: Promise<void>[] = [];
    for (const { body, options = {} } of messages) {
      window.push(producer.publish(body, options));
      count++;
      if (window.length === 500) {
        await Promise.all(window);
        window = [];
      }
    }
    await Promise.all(window);
    return count;
  } finally {
    await connection.close();
  }
}

/** A consumer of one queue with the effects handler, two workers and prefetch 64 unless told otherwise; not started. */
export function consumerOf(
  url: string,
  queue: Queue | readonly Queue[],
  options: Partial<ShardedConsumerOptions> = {},
): ShardedConsumer {
  return new ShardedConsumer(new Connection(url), queue, { handler: EFFECTS_HANDLER, workers: 2, ...options });
}

/** Resolves with the next event of this name. */
export function next<Args extends unknown[]>(
  emitter: { once(event: string, listener: (...args: Args) => void): unknown },
  event: string,
): Promise<Args> {
  return new Promise((resolve) => {
    emitter.once(event, (...args: Args) => resolve(args));
  });
}
