/**
 * How a worker's publishes reach main's socket: in batches on the worker's port, one a turn of its event loop, all small bodies in
 * one ArrayBuffer that changes hands. Answers come back the same way.
 */
import type { EntityFields } from './entity.js';
import type { PortableError } from './worker-protocol.js';

/** What crosses for each publish, small so that cloning it is cheap. */
export interface PublishRequest {
  /** Of this worker's life. */
  readonly id: number;
  readonly exchange: string;
  readonly routingKey: string;
  /** Where the body is in the batch's `bytes`; a large one is `own` instead. */
  readonly start: number;
  readonly length: number;
  readonly own?: ArrayBuffer;
  readonly properties: Readonly<Record<string, unknown>>;
  /** Milliseconds that its publisher waits for the confirm, and how many of them are over. */
  readonly timeout: number;
  readonly waited: number;
  /** Entities to declare before, once in the life of the connection. */
  readonly declare?: readonly EntityFields[];
}

export interface PublishBatch {
  readonly type: 'publish';
  readonly bytes: ArrayBuffer;
  readonly requests: readonly PublishRequest[];
}

/** Nobody waits for these any more. */
export interface PublishAbandoned {
  readonly type: 'abandoned';
  readonly ids: readonly number[];
}

export interface PublishFailure {
  readonly id: number;
  readonly error: PortableError & { readonly details?: Readonly<Record<string, unknown>> };
}

export interface PublishAnswers {
  readonly type: 'published';
  readonly confirmed: readonly number[];
  readonly failed: readonly PublishFailure[];
}
