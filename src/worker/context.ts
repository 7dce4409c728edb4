/**
 * What a callback is given besides the message. The worker's part is made once a thread; `signal` and `attempt` belong
 * to one message. An AbortController costs more than most callbacks' whole bookkeeping, so it is made when first read.
 */
import type { LogLevel } from '../pool/worker-protocol.js';

export interface Logger {
  debug(fields: Record<string, unknown> | string, text?: string): void;
  info(fields: Record<string, unknown> | string, text?: string): void;
  warn(fields: Record<string, unknown> | string, text?: string): void;
  error(fields: Record<string, unknown> | string, text?: string): void;
}

/** What `setup` and `teardown` get: the same for a thread's whole life. */
export interface WorkerContext {
  /** The worker's number, 0 and up; a replacement has its predecessor's. */
  readonly worker: number;
  /** Lines go to the `logger` of the consumer's options, on the main thread. */
  readonly logger: Logger;
}

export interface Context extends WorkerContext {
  /** Aborts when the callback's time is over, when its delivery can no longer be settled, and at the end of `close()`. */
  readonly signal: AbortSignal;
  /** 1 for the first run of the message, as far as is known; one more for each run that failed or that a worker's death cut short. */
  readonly attempt: number;
}

export function makeLogger(post: (level: LogLevel, text: string, fields?: Record<string, unknown>) => void): Logger {
  const at =
    (level: LogLevel) =>
    (fields: Record<string, unknown> | string, text = ''): void => {
      if (typeof fields === 'string') post(level, fields);
      else post(level, text, fields);
    };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

interface RetriesSource {
  readRetries(): number;
}

function retriesOf(delivery: RetriesSource): number {
  try {
    return delivery.readRetries();
  } catch {
    // Headers that cannot be read fail where somebody wants them.
    return 0;
  }
}

export class MessageContext implements Context {
  readonly worker: number;
  readonly logger: Logger;
  readonly #runs: number;
  readonly #delivery: RetriesSource;
  #attempt: number | undefined;
  #controller: AbortController | undefined;
  #aborted: unknown;

  /** `runs`: of this delivery, here; those before it are in the message. */
  constructor(base: WorkerContext, runs: number, delivery: RetriesSource) {
    this.worker = base.worker;
    this.logger = base.logger;
    this.#runs = runs;
    this.#delivery = delivery;
  }

  get attempt(): number {
    this.#attempt ??= this.#runs + retriesOf(this.#delivery) + 1;
    return this.#attempt;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#aborted !== undefined) this.#controller.abort(this.#aborted);
    }
    return this.#controller.signal;
  }

  /** @internal */
  abort(reason: unknown): void {
    this.#aborted ??= reason;
    this.#controller?.abort(reason);
  }
}
