/**
 * The threads themselves: a Piscina pool that is told exactly how many there are. Each worker is one endless `run()`;
 * nothing is started, restarted or removed except by us, and a thread's end is known by its `exit` event alone.
 */
import type { ResourceLimits, Worker } from 'node:worker_threads';
import { Piscina } from 'piscina';
import type { WorkerTask } from './worker-protocol.js';

export interface WorkerPoolOptions {
  readonly resourceLimits?: ResourceLimits;
  readonly env?: Record<string, string>;
  readonly execArgv?: readonly string[];
}

export const MAX_THREADS = 64;

export class WorkerPool {
  readonly #piscina: Piscina;
  /** Threads by id, until they have exited. A Worker's own threadId is -1 once it is gone. */
  readonly #threads = new Map<number, Worker>();
  readonly #onExit: (threadId: number, code: number, error: unknown) => void;

  /** `entry`: file: URL of the module whose default export runs a task. */
  constructor(
    entry: string,
    options: WorkerPoolOptions,
    /** `error`: what nobody caught on the thread, if that ended it. */
    onExit: (threadId: number, code: number, error: unknown) => void,
  ) {
    this.#onExit = onExit;
    this.#piscina = new Piscina({
      filename: entry,
      minThreads: 0,
      maxThreads: MAX_THREADS,
      idleTimeout: 0,
      concurrentTasksPerWorker: 1,
      // With 'sync' a thread between tasks blocks its own timers and sockets.
      atomics: 'disabled',
      recordTiming: false,
      workerHistogram: false,
      ...(options.resourceLimits === undefined ? {} : { resourceLimits: options.resourceLimits }),
      ...(options.env === undefined ? {} : { env: options.env }),
      ...(options.execArgv === undefined ? {} : { execArgv: [...options.execArgv] }),
    });
    // Each task's promise rejects with the same error, and the thread's own event is listened to below.
    this.#piscina.on('error', () => undefined);
  }

  /** Starts one worker. The promise settles when its task returned or its thread broke down: mostly before the exit. */
  run(task: WorkerTask): Promise<void> {
    const result = this.#piscina.run(task, { transferList: [task.port] }) as Promise<void>;
    // Piscina starts the thread inside run(), so it is listed now.
    for (const thread of this.#piscina.threads) this.#watch(thread);
    return result;
  }

  #watch(thread: Worker): void {
    const { threadId } = thread;
    if (threadId < 0 || this.#threads.has(threadId)) return;
    this.#threads.set(threadId, thread);
    let uncaught: unknown;
    thread.once('error', (error: unknown) => {
      // `throw undefined` is an error too.
      uncaught = error ?? new Error(`${String(error)} was thrown`);
    });
    thread.once('exit', (code: number) => {
      this.#threads.delete(threadId);
      this.#onExit(threadId, code, uncaught);
    });
  }

  alive(threadId: number): boolean {
    return this.#threads.has(threadId);
  }

  /** Ends a thread where it stands. It takes effect when a native call that is running returns. */
  terminate(threadId: number): void {
    // The exit event tells when it is done; the promise tells nothing more.
    void this.#threads.get(threadId)?.terminate();
  }

  /** Ends whatever still runs. Does not wait for threads that are stuck in native calls. */
  async destroy(patience: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const deadline = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, patience);
    });
    await Promise.race([this.#piscina.destroy(), deadline]);
    clearTimeout(timer);
  }
}
