/**
 * One life of one worker, as the supervisor keeps it.
 */
import type { MessagePort } from 'node:worker_threads';
import { HandlerError, WorkerLost } from '../../errors.js';
import { now } from '../../pool/clock.js';
import type { PortableError } from '../../pool/worker-protocol.js';
import type { WorkerThread } from '../../pool/worker-thread.js';
import type { PublishClient } from './publishing.js';

export type LifeState = 'starting' | 'running' | 'draining' | 'ending' | 'zombie' | 'gone';

export class WorkerLife {
  state: LifeState = 'starting';
  /** Undefined if it could not even be started. */
  thread: WorkerThread | undefined;
  timer: NodeJS.Timeout | undefined;
  /** Why main ends it; undefined while it ends by itself. */
  reason: string | undefined;
  /** False: whatever it ran is not to be blamed for its end. */
  blame = true;
  error: Error | undefined;
  /** Why it was told to finish and end, though the consumer goes on. */
  retired: string | undefined;
  returned = false;
  publishing: PublishClient | undefined;
  readonly startedAt = now();
  /** The beats of its event loop as last seen, and when they last changed. */
  beats = -1;
  beatAt = 0;
  /** The stall that was told already, by its beginning. */
  stallTold = 0;

  constructor(
    readonly worker: number,
    readonly incarnation: number,
    readonly words: Int32Array,
    readonly port: MessagePort,
  ) {}

  get threadId(): number {
    return this.thread?.threadId ?? -1;
  }
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
