/**
 * Keeps the wanted number of workers alive: starts them, notices how each one ends, sweeps what it left, replaces it with
 * back-off, and ends those whose callbacks overrun. Decides about threads only; messages are the dispatcher's.
 *
 *   starting ──ready──▶ running ──stop──▶ draining ──returned──▶ gone
 *       │                  │ terminate / crash                     ▲
 *       └───────▶ ending ◀─┘ ── exit ─────────────────────────────┤
 *                   │ no exit within terminateGrace: disowned      │
 *                   ▼                                              │
 *                zombie ── exit ───────────────────────────────────┘
 */
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads';
import { ClosedError, HandlerLoadError, type KombuError, TimeoutError, WorkerLost } from '../../errors.js';
import { ringAlways } from '../../pool/bell.js';
import { now } from '../../pool/clock.js';
import { block, MAX_INCARNATION, stop } from '../../pool/layout.js';
import { allocateBlock, type Memory, memoryHandles } from '../../pool/memory.js';
import type { PublishAnswers } from '../../pool/publish-protocol.js';
import { type FromWorker, MOST_TAGS, type ToWorker, type WorkerTask } from '../../pool/worker-protocol.js';
import { WorkerThread, type WorkerThreadOptions } from '../../pool/worker-thread.js';
import type { Blame, Dispatcher, Swept } from './dispatcher.js';
import type { WorkerEvent } from './events.js';
import type { PublishClient } from './publishing.js';
import { Watchdog, type WatchdogOptions } from './watchdog.js';
import { asError, type LifeState, WorkerLife } from './worker-life.js';

export interface SupervisorOptions extends WorkerThreadOptions, Omit<WatchdogOptions, 'timeout'> {
  readonly entry: string;
  /** What every worker's task has in common. */
  readonly task: Omit<WorkerTask, 'memory' | 'block' | 'incarnation' | 'worker' | 'port' | 'queues'>;
  readonly workers: number;
  readonly startTimeout: number;
  readonly terminateGrace: number;
}

export interface SupervisorEvents {
  /** A worker is ready, or has ended and why. */
  worker(event: WorkerEvent): void;
  message(worker: number, message: FromWorker): void;
  /** It publishes for the first time. */
  publishing(answer: (answers: PublishAnswers) => void): PublishClient;
  /** A life is over: its block holds its last figures. */
  ended(words: Int32Array): void;
  /** A message took its worker down, alone: it runs again, or (`dead`) goes to the dead letters. Its slot is its own. */
  culprit(worker: number, index: number, error: Error, dead: boolean): void;
  /** A callback has held its worker's event loop for long. */
  stalled(worker: number, forMs: number): void;
  /** The runtime cannot go on. */
  fatal(error: KombuError): void;
}

/** A worker that lived this long has its earlier failures forgotten, microseconds. */
const SETTLED_IN = 10_000_000;
const FIRST_DELAY = 100;
const LAST_DELAY = 5_000;
/** A worker that ends while the others go on has this long for its module's teardown, ms. */
const TEARDOWN_TIMEOUT = 2_000;

export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #memory: Memory;
  readonly #dispatcher: Dispatcher;
  readonly #events: SupervisorEvents;
  readonly #lives = new Map<number, WorkerLife>();
  readonly #failures = new Map<number, number>();
  readonly #restarts = new Map<number, number>();
  /** Replacements that wait for their back-off, by worker. */
  readonly #delays = new Map<number, NodeJS.Timeout>();
  /** How many workers there are to be. */
  #wanted: number;
  #scaled: { resolve: () => void; reject: (error: Error) => void }[] = [];
  /** The worker that is being replaced for its age or size: one at a time. */
  #recycling: number | undefined;
  #queues: Readonly<Record<string, string>> = {};
  #lastIncarnation = 0;
  #stopping = false;
  readonly #watchdog: Watchdog;
  #first: { missing: Set<number>; resolve: () => void; reject: (error: Error) => void } | undefined;
  #allGone: (() => void) | undefined;
  #allDrained: (() => void) | undefined;

  constructor(options: SupervisorOptions, memory: Memory, dispatcher: Dispatcher, events: SupervisorEvents) {
    this.#options = options;
    this.#wanted = options.workers;
    this.#memory = memory;
    this.#dispatcher = dispatcher;
    this.#events = events;
    this.#watchdog = new Watchdog(
      { ...options, timeout: options.task.timeout },
      {
        stalled: (life, forMs) => events.stalled(life.worker, forMs),
        overran: (life) => this.#overran(life),
        spent: (life, why) => this.#recycle(life, why),
      },
    );
  }

  /** Starts all workers; resolves when each has loaded its handler. Rejects with the first failure. */
  start(): Promise<void> {
    this.#watchdog.start(() => this.#lives.values());
    return new Promise((resolve, reject) => {
      const missing = new Set(Array.from({ length: this.#options.workers }, (_, worker) => worker));
      this.#first = { missing, resolve, reject };
      for (const worker of missing) this.#startWorker(worker);
    });
  }

  /** Queue names by consumer tag; sent to the workers whenever they change. */
  setQueues(queues: Readonly<Record<string, string>>): void {
    this.#queues = Object.fromEntries(Object.entries({ ...this.#queues, ...queues }).slice(-MOST_TAGS));
    this.#broadcast({ type: 'queues', queues });
  }

  generationEnded(generation: number): void {
    this.#broadcast({ type: 'generation', generation });
  }

  #broadcast(message: ToWorker): void {
    for (const life of this.#lives.values()) life.port.postMessage(message);
  }

  /**
   * Tells every worker to end after what it runs. Resolves when no callback runs any more; the modules' teardowns go on,
   * `gone` waits for them.
   */
  drain(): Promise<void> {
    this.#stopping = true;
    for (const delay of this.#delays.values()) clearTimeout(delay);
    this.#delays.clear();
    for (const { reject } of this.#scaled) reject(new ClosedError('the consumer closes'));
    this.#scaled = [];
    for (const life of this.#lives.values()) {
      // One that still starts has nothing to finish, and may never.
      if (life.state === 'starting') this.#terminate(life, 'the consumer closes', false);
      if (life.state === 'running') life.state = 'draining';
      this.#sayStop(life);
    }
    return new Promise((resolve) => {
      this.#allDrained = resolve;
      this.#checkDone();
    });
  }

  /**
   * From now on there are to be so many workers. Resolves when there are, and no others; or when another number is wanted
   * meanwhile. What a surplus worker runs it finishes.
   */
  scale(workers: number): Promise<void> {
    if (this.#stopping) return Promise.reject(new ClosedError('the consumer closes'));
    this.#wanted = workers;
    for (const { resolve } of this.#scaled) resolve();
    this.#scaled = [];
    for (const [worker, delay] of this.#delays) {
      if (worker < workers) continue;
      clearTimeout(delay);
      this.#delays.delete(worker);
    }
    const living = new Set(this.#delays.keys());
    for (const life of this.#lives.values()) {
      if (life.state === 'zombie' || life.state === 'gone') continue;
      living.add(life.worker);
      if (life.worker < workers) continue;
      if (life.state === 'starting') this.#terminate(life, 'fewer workers are wanted', false);
      else if (life.state === 'running') this.#retire(life, 'fewer workers are wanted');
    }
    for (let worker = 0; worker < workers; worker++) if (!living.has(worker)) this.#startWorker(worker);
    return new Promise((resolve, reject) => {
      this.#scaled.push({ resolve, reject });
      this.#checkScale();
    });
  }

  #checkScale(): void {
    if (this.#scaled.length === 0) return;
    const lives = [...this.#lives.values()].filter(({ state }) => state !== 'zombie');
    if (lives.length !== this.#wanted || !lives.every(({ state }) => state === 'running')) return;
    for (const { resolve } of this.#scaled) resolve();
    this.#scaled = [];
  }

  /** It finishes what it runs and ends. */
  #retire(life: WorkerLife, reason: string): void {
    life.state = 'draining';
    life.retired = reason;
    this.#sayStop(life);
  }

  #sayStop(life: WorkerLife): void {
    Atomics.store(life.words, block.STOP, stop.DRAIN);
    ringAlways(life.words, block.BELL, block.SLEEPING);
  }

  /** After `drain`: resolves when every thread that can still exit has. */
  gone(): Promise<void> {
    return new Promise((resolve) => {
      this.#allGone = resolve;
      this.#checkDone();
    });
  }

  abortAll(reason: string): void {
    this.#broadcast({ type: 'abort', reason });
  }

  /** Ends every worker that still lives; nobody is to blame for what it ran. */
  terminateAll(reason: string): void {
    for (const life of this.#lives.values()) {
      if (life.state !== 'zombie' && life.state !== 'gone') this.#terminate(life, reason, false);
    }
  }

  /** What is left, after `gone`, are threads that do not exit: they keep the process no more than they must. */
  destroy(): void {
    this.#watchdog.stop();
    for (const life of this.#lives.values()) {
      clearTimeout(life.timer);
      life.port.close();
    }
  }

  /** The lives that are not gone, for statistics. */
  *lives(): Iterable<{ worker: number; threadId: number; state: LifeState; words: Int32Array; restarts: number }> {
    for (const life of this.#lives.values()) {
      // A zombie's figures were taken when it was disowned.
      if (life.state === 'zombie') continue;
      const { worker, threadId, state, words } = life;
      yield { worker, threadId, state, words, restarts: this.#restarts.get(worker) ?? 0 };
    }
  }

  #startWorker(worker: number): void {
    const incarnation = this.#nextIncarnation();
    const { port1, port2 } = new MessageChannel();
    const { task } = this.#options;
    const shared = allocateBlock(task.concurrency, this.#memory.slotCount);
    const life = new WorkerLife(worker, incarnation, new Int32Array(shared), port1);
    this.#lives.set(incarnation, life);
    // Registered before it runs: it may claim and settle before main hears that it is ready.
    this.#dispatcher.add({ id: incarnation, block: life.words }, task.concurrency);
    port1.on('message', (message: FromWorker) => this.#received(life, message));
    port1.unref();
    life.timer = setTimeout(() => {
      const error = new HandlerLoadError(
        `worker ${worker} did not finish loading ${task.handler} within startTimeout (${this.#options.startTimeout} ms)`,
        { details: { url: task.handler, startTimeout: this.#options.startTimeout } },
      );
      life.error = error;
      this.#terminate(life, 'it did not start in time', false);
    }, this.#options.startTimeout);
    const started = {
      ...task,
      memory: memoryHandles(this.#memory),
      block: shared,
      incarnation,
      worker,
      queues: this.#queues,
      port: port2,
    };
    const onExit = (code: number, error: unknown): void => this.#exited(life, code, error);
    try {
      life.thread = new WorkerThread(this.#options.entry, this.#options, started, onExit);
    } catch (error) {
      life.error = asError(error);
      // Not at once: whoever wants workers waits for all of them, in a row.
      setImmediate(() => this.#gone(life));
      return;
    }
    life.thread.result.then(
      () => this.#returned(life),
      (error: unknown) => {
        life.error ??= asError(error);
        this.#returned(life);
      },
    );
  }

  #nextIncarnation(): number {
    for (let tried = 0; tried < MAX_INCARNATION; tried++) {
      this.#lastIncarnation = (this.#lastIncarnation % MAX_INCARNATION) + 1;
      if (!this.#lives.has(this.#lastIncarnation)) return this.#lastIncarnation;
    }
    throw new RangeError('255 lives of workers at once: threads do not exit');
  }

  #received(life: WorkerLife, message: FromWorker): void {
    if (message.type === 'ready') {
      // Too late: it is being ended already.
      if (life.state !== 'starting') return;
      clearTimeout(life.timer);
      life.state = this.#stopping ? 'draining' : 'running';
      life.beatAt = now();
      if (this.#recycling === life.worker) this.#recycling = undefined;
      this.#events.worker({ id: life.worker, threadId: life.threadId, state: 'started' });
      this.#first?.missing.delete(life.worker);
      if (this.#first?.missing.size === 0) {
        this.#first.resolve();
        this.#first = undefined;
      }
      // Wanted when it was started, and no longer.
      if (life.worker >= this.#wanted && life.state === 'running') this.#retire(life, 'fewer workers are wanted');
      this.#checkScale();
    } else if (message.type === 'drained') {
      life.returned = true;
      life.timer = setTimeout(() => this.#terminate(life, 'its teardown took too long', false), TEARDOWN_TIMEOUT);
      this.#checkDone();
    } else if (message.type === 'publish' || message.type === 'abandoned') {
      life.publishing ??= this.#events.publishing((answers) => life.port.postMessage(answers));
      life.publishing.received(message);
    } else {
      this.#events.message(life.worker, message);
    }
  }

  /** The task's promise settled. What it posted before is read first: the port's own event may come later. */
  #returned(life: WorkerLife): void {
    if (life.state === 'gone') return;
    this.#readPort(life);
    // A task that returned or failed to load has left its loop; one whose thread broke down is swept at the exit.
    if (life.thread?.exited !== false || life.error === undefined) this.#gone(life);
    else if (life.state !== 'zombie') this.#terminate(life, life.reason, life.blame);
  }

  #exited(life: WorkerLife, code: number, error: unknown): void {
    if (life.state === 'gone') return;
    this.#readPort(life);
    if (error !== undefined) life.error ??= asError(error);
    else if (life.reason === undefined) {
      life.error ??= new WorkerLost(`the thread of worker ${life.worker} exited with code ${code}`, {
        details: { worker: life.worker, code },
      });
    }
    this.#gone(life);
  }

  #readPort(life: WorkerLife): void {
    for (let next = receiveMessageOnPort(life.port); next !== undefined; next = receiveMessageOnPort(life.port)) {
      this.#received(life, next.message as FromWorker);
    }
  }

  #terminate(life: WorkerLife, reason: string | undefined, blame: boolean): void {
    life.reason ??= reason;
    if (life.state === 'ending') return;
    clearTimeout(life.timer);
    life.blame = blame;
    life.state = 'ending';
    life.timer = setTimeout(() => this.#disown(life), this.#options.terminateGrace);
    // Whatever of it may still come to run claims nothing more.
    Atomics.store(life.words, block.STOP, stop.DRAIN);
    life.thread?.terminate();
  }

  /** A native call holds the thread: its messages go on without it. */
  #disown(life: WorkerLife): void {
    life.state = 'zombie';
    const swept = this.#dispatcher.disown(life.incarnation, this.#verdictOn(life));
    this.#ended(life, swept, `${life.reason ?? 'it broke down'}; its thread does not exit`);
    this.#checkDone();
    const zombies = [...this.#lives.values()].filter((other) => other.state === 'zombie').length;
    if (zombies > Math.max(this.#options.workers, this.#wanted)) {
      this.#events.fatal(
        new WorkerLost(
          `${zombies} threads were terminated and do not exit, more than there are workers (${this.#wanted}): does a native call of the handler block?`,
          { details: { zombies, workers: this.#wanted } },
        ),
      );
    }
  }

  #gone(life: WorkerLife): void {
    if (life.state === 'gone') return;
    clearTimeout(life.timer);
    const wasZombie = life.state === 'zombie';
    life.state = 'gone';
    life.port.close();
    this.#lives.delete(life.incarnation);
    if (wasZombie) {
      this.#dispatcher.retire(life.incarnation);
    } else {
      const swept = this.#dispatcher.sweep(life.incarnation, this.#verdictOn(life));
      const reason = life.reason ?? life.error?.message ?? life.retired ?? 'it was told to';
      this.#ended(life, swept, reason);
    }
    this.#checkDone();
  }

  /** Whom the dispatcher may blame, and what for. */
  #verdictOn(life: WorkerLife): Blame {
    const error = life.error ?? new WorkerLost(life.reason ?? 'the thread broke down');
    return {
      blame: life.blame,
      cause: error.message,
      onCulprit: (index, dead) => this.#events.culprit(life.worker, index, error, dead),
    };
  }

  /** Tells the user, and brings a replacement unless the consumer stops. */
  #ended(life: WorkerLife, swept: Swept, reason: string): void {
    const { worker, threadId, error } = life;
    this.#events.ended(life.words);
    this.#events.worker({
      id: worker,
      threadId,
      state: 'exited',
      reason,
      requeued: swept.requeued,
      dead: swept.dead,
      ...(error === undefined ? {} : { error }),
    });
    if (this.#first !== undefined) {
      this.#first.reject(this.#startError(life, reason));
      this.#first = undefined;
      this.#stopping = true;
    }
    if (this.#stopping) return;
    this.#replace(life);
    this.#checkScale();
  }

  #replace({ worker, startedAt, retired, error }: WorkerLife): void {
    if (worker >= this.#wanted) {
      if (this.#recycling === worker) this.#recycling = undefined;
      return;
    }
    this.#restarts.set(worker, (this.#restarts.get(worker) ?? 0) + 1);
    // It did what it was told: nothing is wrong with it.
    if (retired !== undefined && error === undefined) {
      this.#startWorker(worker);
      return;
    }
    const livedLong = now() - startedAt > SETTLED_IN;
    const failures = livedLong ? 0 : (this.#failures.get(worker) ?? 0);
    this.#failures.set(worker, failures + 1);
    // The first replacement comes at once: mostly one message is to blame and the others wait.
    const delay = failures === 0 ? 0 : Math.min(LAST_DELAY, FIRST_DELAY * 2 ** (failures - 1));
    const timer = setTimeout(() => {
      this.#delays.delete(worker);
      this.#startWorker(worker);
    }, delay);
    this.#delays.set(worker, timer);
  }

  #startError(life: WorkerLife, reason: string): Error {
    if (life.error instanceof HandlerLoadError) return life.error;
    // An error that crossed threads by Piscina has lost its class, not its name.
    const text = life.error?.message ?? reason;
    return new HandlerLoadError(`worker ${life.worker} could not start: ${text}`, {
      cause: life.error,
      details: { url: this.#options.task.handler },
    });
  }

  #checkDone(): void {
    const lives = [...this.#lives.values()].filter((life) => life.state !== 'zombie');
    if (this.#allDrained !== undefined && lives.every((life) => life.returned)) {
      this.#allDrained();
      this.#allDrained = undefined;
    }
    if (this.#allGone !== undefined && lives.length === 0) {
      this.#allGone();
      this.#allGone = undefined;
    }
  }

  #overran(life: WorkerLife): void {
    const { timeout } = this.#options.task;
    life.error = new TimeoutError(
      `a callback ran past its timeout of ${timeout} ms and held the event loop of worker ${life.worker}`,
      { details: { timeout, worker: life.worker } },
    );
    this.#terminate(life, 'a callback ran past its timeout and held the event loop', true);
  }

  /** Replaces a worker that has done enough or has grown too large, unless another one is just being replaced. */
  #recycle(life: WorkerLife, why: string): void {
    if (life.state !== 'running' || this.#recycling !== undefined || this.#stopping) return;
    this.#recycling = life.worker;
    this.#retire(life, why);
  }
}
