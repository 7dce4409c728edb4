/**
 * Looks at the workers' lives now and then: whose event loop does not turn, whose callback holds it past its timeout, who
 * has done enough or has grown too large. Decides nothing about threads; the supervisor does what follows.
 */
import { now } from '../../pool/clock.js';
import { block } from '../../pool/layout.js';
import type { WorkerLife } from './worker-life.js';

export interface WatchdogOptions {
  /** Of a callback, ms; 0: none. */
  readonly timeout: number;
  readonly maxMessagesPerWorker?: number;
  readonly maxWorkerMemory?: number;
}

export interface WatchdogEvents {
  /** A callback has held its worker's event loop for long. Once a stall. */
  stalled(life: WorkerLife, forMs: number): void;
  /** A callback is past its timeout and lets nothing else run. */
  overran(life: WorkerLife): void;
  /** The worker is to be replaced, and why. Called at every look until it is. */
  spent(life: WorkerLife, why: string): void;
}

/** Beyond its timeout, a callback whose worker's loop does not turn has this long, ms. */
const LOOP_GRACE = 1_000;
const STALLED_AFTER = 10_000;
/** Where nothing but stalls is looked for, ms: an idle process should sleep. */
const STALLS_EVERY = 1000;

export class Watchdog {
  readonly #options: WatchdogOptions;
  readonly #events: WatchdogEvents;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: WatchdogOptions, events: WatchdogEvents) {
    this.#options = options;
    this.#events = events;
  }

  start(lives: () => Iterable<WorkerLife>): void {
    const { timeout, maxMessagesPerWorker, maxWorkerMemory } = this.#options;
    const stallsOnly = timeout === 0 && maxMessagesPerWorker === undefined && maxWorkerMemory === undefined;
    const every = timeout > 0 ? Math.max(10, Math.min(250, timeout / 4)) : stallsOnly ? STALLS_EVERY : 250;
    this.#timer = setInterval(() => this.#look(lives()), every);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(lives: Iterable<WorkerLife>): void {
    const time = now();
    for (const life of lives) {
      if (life.returned || (life.state !== 'running' && life.state !== 'draining')) continue;
      const spent = this.#spent(life);
      if (spent !== undefined) this.#events.spent(life, spent);
      this.#listen(life, time);
    }
  }

  /**
   * With a `timeout`, a loop that stands for longer than that is held by a callback that is over its time. While a loop turns,
   * its worker fails late callbacks by itself.
   */
  #listen(life: WorkerLife, time: number): void {
    const { timeout } = this.#options;
    const beats = Atomics.load(life.words, block.BEATS);
    if (beats !== life.beats) {
      life.beats = beats;
      life.beatAt = time;
      return;
    }
    const standsFor = Math.round((time - life.beatAt) / 1000);
    if (standsFor > STALLED_AFTER && life.stallTold !== life.beatAt) {
      life.stallTold = life.beatAt;
      this.#events.stalled(life, standsFor);
    }
    if (timeout > 0 && standsFor >= timeout + LOOP_GRACE) this.#events.overran(life);
  }

  #spent(life: WorkerLife): string | undefined {
    const { maxMessagesPerWorker = Number.POSITIVE_INFINITY, maxWorkerMemory = Number.POSITIVE_INFINITY } =
      this.#options;
    const messages = life.words[block.PROCESSED]! >>> 0;
    const bytes = (life.words[block.HEAP]! >>> 0) * 1024;
    if (messages >= maxMessagesPerWorker) return `it has handled ${messages} messages`;
    return bytes >= maxWorkerMemory ? `its memory is ${bytes} bytes` : undefined;
  }
}
