/** What a `ShardedConsumer` tells its listeners. */
import type { KombuError } from '../../errors.js';
import type { DeadLetter } from './dead-letters.js';

export interface WorkerEvent {
  readonly id: number;
  readonly threadId: number;
  readonly state: 'started' | 'exited';
  /** Why it exited, in words; absent for a start. */
  readonly reason?: string;
  readonly error?: Error;
  /** Messages that went back to the lane, or to the dead letters, with it. */
  readonly requeued?: number;
  readonly dead?: number;
}

/** A message whose callback threw, ran out of time, or whose body could not be decoded. */
export interface FailedMessage {
  readonly error: Error;
  /** How many failures this event stands for: beyond 100 a second and worker they are counted by the error's name. */
  readonly count: number;
  readonly worker: number;
  readonly queue?: string;
  readonly deliveryTag?: number;
  readonly messageId?: string;
  readonly attempt?: number;
  /**
   * What becomes of the message. `'retry'`: it runs again when its delay is over. `'again'`: it took its worker down and runs again on another; `'drop'`: acked and gone, as
   * `deadLetter: 'drop'` asks for; `'none'`: the callback had settled it before it failed.
   */
  readonly outcome?: FailureOutcome;
}

export type FailureOutcome = 'deadLetter' | 'reject' | 'requeue' | 'ack' | 'drop' | 'retry' | 'again' | 'none';

export interface ShardedConsumerEvents {
  /** The handler is loaded on every worker, and the queues are consumed. */
  ready: [];
  failed: [failure: FailedMessage];
  /** A message went to the dead letters. */
  dead: [letter: DeadLetter];
  worker: [event: WorkerEvent];
  /** The arena is full: bodies are shed and their messages given back. Once a second at most. */
  pressure: [{ readonly shed: number; readonly used: number; readonly size: number }];
  /** A callback has held its worker's event loop for more than ten seconds. */
  stalled: [{ readonly worker: number; readonly forMs: number }];
  disconnected: [error: KombuError];
  reconnected: [{ readonly attempts: number }];
  /** Something failed that no promise tells. Only emitted if somebody listens. */
  error: [error: Error];
  closed: [];
}
