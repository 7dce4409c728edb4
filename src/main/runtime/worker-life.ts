/**
 * One life of one worker, as the supervisor keeps it, and what can be read of its callbacks from shared memory.
 */
import type { MessagePort } from 'node:worker_threads';
import { HandlerError, WorkerLost } from '../../errors.js';
import { fromWords, now } from '../../pool/clock.js';
import { block, RUNNING_WORDS } from '../../pool/layout.js';
import type { PortableError } from '../../pool/worker-protocol.js';

export type LifeState = 'starting' | 'running' | 'draining' | 'ending' | 'zombie' | 'gone';

export class WorkerLife {
  state: LifeState = 'starting';
  threadId = -1;
  timer: NodeJS.Timeout | undefined;
  /** Why main ends it; undefined while it ends by itself. */
  reason: string | undefined;
  blame: ReadonlySet<number> | undefined;
  error: Error | undefined;
  returned = false;
  readonly startedAt = now();
  /** The overdue row seen by the last tick, as text: a decision needs to see it twice. */
  overdue = '';
  stalledAt = 0;

  constructor(
    readonly worker: number,
    readonly incarnation: number,
    readonly words: Int32Array,
    readonly port: MessagePort,
  ) {}
}

export interface Overdue {
  /** Which callbacks are over the limit, as text: the same text twice is the same callbacks. */
  readonly seen: string;
  /** Their slots, less those whose messages are settled already: such a slot may be another message's by now. */
  readonly slots: ReadonlySet<number>;
  /** When the oldest callback that runs began, microseconds; `time` if none runs. */
  readonly oldest: number;
}

/** Callbacks that began before `time` - `limit` (microseconds). */
export function readOverdue(words: Int32Array, concurrency: number, time: number, limit: number): Overdue {
  const slots = new Set<number>();
  let seen = '';
  let oldest = time;
  for (let row = 0; row < concurrency; row++) {
    const at = block.TABLE + row * RUNNING_WORDS;
    const index = Atomics.load(words, at) - 1;
    if (index < 0) continue;
    const since = fromWords(words[at + 1]!, words[at + 2]!);
    oldest = Math.min(oldest, since);
    if (time - since < limit) continue;
    seen += `${row}:${index}:${since} `;
    if (words[at + 3] === 0) slots.add(index);
  }
  return { seen, slots, oldest };
}

/** An error of a worker thread, put together again. */
export function fromPortable(error: PortableError): HandlerError {
  const cause = error.cause === undefined ? undefined : fromPortable(error.cause);
  const built = new HandlerError(error.message, cause === undefined ? {} : { cause });
  built.name = error.name;
  if (error.stack !== undefined) built.stack = error.stack;
  return built;
}

/** Whatever ended a thread, as an error. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new WorkerLost(`the worker threw ${String(thrown)}`);
}
