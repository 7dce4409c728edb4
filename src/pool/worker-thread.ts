/**
 * One life of one worker thread: a Piscina pool of one, with one endless task. So we alone decide how many threads there are,
 * a task can go to no other thread than its own, and a thread's end is known by its `exit` event alone. (With one pool for
 * all, the task of a thread that died while it started would be taken up by the next one.)
 */
import type { ResourceLimits, Worker } from 'node:worker_threads';
import { Piscina } from 'piscina';
import type { WorkerTask } from './worker-protocol.js';

export interface WorkerThreadOptions {
  readonly resourceLimits?: ResourceLimits;
  readonly env?: Record<string, string>;
  readonly execArgv?: readonly string[];
}

export const MAX_THREADS = 64;

export class WorkerThread {
  readonly threadId: number;
  /**
   * Settles when the task returned or the thread broke down, mostly before the exit. Never for a thread that dies before it has
   * taken its task: the exit tells.
   */
  readonly result: Promise<void>;
  readonly #piscina: Piscina;
  readonly #thread: Worker;
  #exited = false;

  /**
   * Starts the thread. `entry`: file: URL of the module whose default export runs a task. Throws what `new Worker` throws.
   * `onExit` gets what nobody caught on the thread, if that ended it.
   */
  constructor(
    entry: string,
    options: WorkerThreadOptions,
    task: WorkerTask,
    onExit: (code: number, error: unknown) => void,
  ) {
    this.#piscina = new Piscina({
      filename: entry,
      minThreads: 0,
      maxThreads: 1,
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
    // The task's promise rejects with the same error, and the thread's own event is listened to below.
    this.#piscina.on('error', () => undefined);
    this.result = this.#piscina.run(task, { transferList: [task.port] }) as Promise<void>;
    // Piscina starts the thread inside run().
    const [thread] = this.#piscina.threads;
    this.#thread = thread!;
    this.threadId = this.#thread.threadId;
    let uncaught: unknown;
    this.#thread.once('error', (error: unknown) => {
      // `throw undefined` is an error too.
      uncaught = error ?? new Error(`${String(error)} was thrown`);
    });
    this.#thread.once('exit', (code: number) => {
      this.#exited = true;
      onExit(code, uncaught);
      void this.#piscina.destroy();
    });
  }

  get exited(): boolean {
    return this.#exited;
  }

  /** Ends the thread where it stands. It takes effect when a native call that is running returns. */
  terminate(): void {
    // The exit event tells when it is done; the promise tells nothing more.
    void this.#thread.terminate();
  }
}
