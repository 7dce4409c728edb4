/** What is under way, each with a deadline and perhaps a signal, in the order in which it began. One timer for all. */
import { performance } from 'node:perf_hooks';
import { whenAborted } from '../abort.js';
import { Chain, type Link } from './chain.js';

export abstract class Timed {
  /** When it is late, in ms of `performance.now()`. */
  readonly deadline: number;
  readonly signal: AbortSignal | undefined;
  #underWay: UnderWay | undefined;
  #link: Link<Timed> | undefined;
  #unheard: (() => void) | undefined;

  constructor(milliseconds: number, signal: AbortSignal | undefined) {
    this.deadline = performance.now() + milliseconds;
    this.signal = signal;
  }

  /** Its time is over: to be ended. */
  abstract late(): void;

  /** Its signal was aborted: to be ended. */
  abstract aborted(reason: unknown): void;

  /** Nobody waits for it any more, or not yet. */
  get settled(): boolean {
    return this.#underWay === undefined;
  }

  beginIn(underWay: UnderWay): void {
    this.#underWay = underWay;
    this.#link = underWay.add(this);
    const { signal } = this;
    if (signal !== undefined) this.#unheard = whenAborted(signal, () => this.aborted(signal.reason));
  }

  /** It is under way no more. False if it was not. */
  end(): boolean {
    const underWay = this.#underWay;
    if (underWay === undefined) return false;
    this.#underWay = undefined;
    this.#unheard?.();
    underWay.remove(this.#link!);
    return true;
  }
}

export class UnderWay {
  readonly #items = new Chain<Timed>();
  #timer: NodeJS.Timeout | undefined;
  /** When the timer ends, in ms of `performance.now()`. */
  #timerAt = Number.POSITIVE_INFINITY;
  #onIdle: (() => void)[] = [];

  get size(): number {
    return this.#items.size;
  }

  /** @internal Of `Timed`. */
  add(item: Timed): Link<Timed> {
    const link = this.#items.push(item);
    if (item.deadline < this.#timerAt) this.#arm(item.deadline);
    else if (this.#items.size === 1) this.#timer!.ref();
    return link;
  }

  /** @internal Of `Timed`. */
  remove(link: Link<Timed>): void {
    this.#items.remove(link);
    if (this.#items.size > 0) return;
    // It stays for those that come next, but does not keep the process alive.
    this.#timer!.unref();
    if (this.#onIdle.length > 0) for (const tell of this.#onIdle.splice(0)) tell();
  }

  /** Resolves when nothing is under way. */
  idle(): Promise<void> {
    if (this.#items.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#onIdle.push(resolve));
  }

  [Symbol.iterator](): IterableIterator<Timed> {
    return this.#items[Symbol.iterator]();
  }

  #arm(deadline: number): void {
    clearTimeout(this.#timer);
    this.#timerAt = deadline;
    this.#timer = setTimeout(this.#onTimer, Math.max(0, Math.ceil(deadline - performance.now())));
  }

  readonly #onTimer = (): void => {
    const now = performance.now();
    const late: Timed[] = [];
    let next = Number.POSITIVE_INFINITY;
    for (const item of this.#items) {
      if (item.deadline <= now) late.push(item);
      else if (item.deadline < next) next = item.deadline;
    }
    this.#timerAt = Number.POSITIVE_INFINITY;
    if (next < Number.POSITIVE_INFINITY) this.#arm(next);
    // What ends one of them may end others.
    for (const item of late) if (!item.settled) item.late();
  };
}
