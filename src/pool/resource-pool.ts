/**
 * A pool of anything that is costly to make. What was given back last is lent next, so that what is not needed lies idle; those
 * who wait get their turn in the order they came. Nothing is made before somebody asks for it.
 *
 * What is lent is a lease: a handle of its own around the resource, so that giving it back twice cannot give back what
 * somebody else has by then.
 */
import { whenAborted } from '../abort.js';
import { ClosedError, LimitExceeded, TimeoutError } from '../errors.js';
import { kinds, type OptionTable, readOptions } from '../options.js';
import type { Ticket } from './ticket.js';

export interface AcquireOptions {
  readonly block?: boolean;
  readonly timeout?: number;
  readonly signal?: AbortSignal;
}

export const ACQUIRE_OPTIONS: OptionTable<AcquireOptions> = {
  block: { kind: kinds.boolean, default: false, doc: 'Wait for one to be given back if all are in use.' },
  timeout: { kind: kinds.milliseconds, default: 30_000, doc: 'For all of it (ms).' },
  signal: { kind: kinds.signal, doc: 'Gives up; the promise rejects with its reason.' },
};

export interface ResizeOptions {
  readonly force?: boolean;
  readonly ignoreErrors?: boolean;
  readonly reset?: boolean;
}

const RESIZE_OPTIONS: OptionTable<ResizeOptions> = {
  force: { kind: kinds.boolean, default: false, doc: 'Close what is in use where it would be in the way.' },
  ignoreErrors: {
    kind: kinds.boolean,
    default: false,
    doc: 'Shrink also while in use: what is too many is closed when it is given back.',
  },
  reset: { kind: kinds.boolean, default: false, doc: 'Close everything, also what is in use.' },
};

/** A limit as it may be given: `undefined` and 0 both mean that there is none. Throws `OptionError`. */
export function readLimit(owner: string, limit: unknown): number {
  const table = { limit: { kind: kinds.integer(0, 0x7fffffff), default: 0, doc: 'The most at a time.' } };
  return readOptions<{ limit?: number }>(owner, table, { limit }).limit!;
}

type LimitExceededClass = new (...args: ConstructorParameters<typeof LimitExceeded>) => LimitExceeded;

/** One that is lent, or about to be. */
interface Place<Member> {
  member: Member | undefined;
  /** All was closed since it was lent. */
  over: boolean;
  ending: Promise<void> | undefined;
}

interface Waiter<Member> {
  readonly go: (place: Place<Member>) => void;
  readonly fail: (error: unknown) => void;
}

/** `Member`: what is kept; `Lease`: the handle on it that is lent. */
export abstract class ResourcePool<Member, Lease> {
  /** What is thrown when there is no room: one of the subclasses of `LimitExceeded`. */
  protected readonly LimitExceeded: LimitExceededClass = LimitExceeded;
  #limit: number;
  #closed = false;
  /** The last one is the next to be lent. */
  readonly #idle: Member[] = [];
  readonly #used = new Set<Place<Member>>();
  /** In the order they came. */
  readonly #waiting = new Set<Waiter<Member>>();

  /** Without a limit (or with 0) each is made when it is asked for, and closed when it is given back. */
  constructor(limit?: number) {
    this.#limit = readLimit(new.target.name, limit);
  }

  /** A new one. */
  protected abstract make(options: AcquireOptions): Member | Promise<Member>;

  /** The lease of one: it calls the ticket when it is given back. */
  protected abstract lend(member: Member, ticket: Ticket, options: AcquireOptions): Lease | Promise<Lease>;

  /** Closes one; does nothing if it is closed. Must not reject. */
  protected abstract destroy(member: Member): Promise<void>;

  /** False for one that must not be lent again. */
  protected usable(_member: Member): boolean {
    return true;
  }

  /** The same for one that has lain idle, where finding out takes a while. */
  protected async stillUsable(member: Member): Promise<boolean> {
    return this.usable(member);
  }

  /** The most at a time; 0: any number. It may grow at any time. Throws `LimitExceeded` if it is lowered while any is in use. */
  get limit(): number {
    return this.#limit;
  }

  set limit(limit: number) {
    const checked = readLimit(this.constructor.name, limit);
    this.#mustNotShrink(checked);
    void this.#setLimit(checked);
  }

  /** How many are lent. */
  get inUse(): number {
    return this.#used.size;
  }

  /** How many lie here. */
  get idle(): number {
    return this.#idle.length;
  }

  /** How many wait for one. */
  get waiting(): number {
    return this.#waiting.size;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Lends one. If all are in use it throws `LimitExceeded` (a subclass of it), or with `block` waits, and throws the same error
   * after `timeout` (30 s), with a `TimeoutError` as its cause. Throws `ClosedError` if the pool is closed, also while waiting,
   * and the signal's reason.
   */
  async acquire(options: AcquireOptions = {}): Promise<Lease> {
    const given = readOptions('acquire', ACQUIRE_OPTIONS, options);
    given.signal?.throwIfAborted();
    this.#mustNotBeClosed();
    const deadline = performance.now() + given.timeout!;
    const place = this.#take() ?? (await this.#turn(given));
    const { block, signal } = given;
    const left: AcquireOptions = {
      block: block!,
      timeout: Math.max(0, deadline - performance.now()),
      ...(signal !== undefined && { signal }),
    };
    try {
      signal?.throwIfAborted();
      return await this.#lend(place, left);
    } catch (error) {
      await this.#end(place, false);
      throw error;
    }
  }

  /** Takes a lease out of the pool and closes it, because it is defective; another one is made when it is needed. */
  async replace(lease: Lease & { close(): Promise<void> }): Promise<void> {
    await lease.close();
  }

  /**
   * Changes the limit. Throws `LimitExceeded` if it is lowered while any is in use, unless `force` closes those or `ignoreErrors`
   * lets them be. Resolves when what is too many is closed.
   */
  async resize(limit: number | undefined, options: ResizeOptions = {}): Promise<void> {
    const { force, ignoreErrors, reset } = readOptions('resize', RESIZE_OPTIONS, options);
    const checked = readLimit('resize', limit);
    const shrinks = this.#shrinksInUse(checked);
    if (!force && !ignoreErrors) this.#mustNotShrink(checked);
    // First, or those who wait would fill up to the limit so far.
    this.#limit = checked;
    if (reset || (shrinks && !ignoreErrors)) await this.forceCloseAll(false);
    await this.#setLimit(checked);
  }

  /**
   * Closes all, also what is in use: those leases are over. With `closePool` (the default) nothing can be acquired any more, and
   * those who wait get `ClosedError`.
   */
  async forceCloseAll(closePool = true): Promise<void> {
    if (closePool) {
      this.#closed = true;
      for (const waiter of this.#waiting) waiter.fail(this.#closedError());
      this.#waiting.clear();
    }
    const closing = this.#idle.splice(0).map((member) => this.destroy(member));
    for (const place of this.#used) {
      place.over = true;
      // One that is still being made is closed by whoever makes it, and counts until then.
      if (place.member !== undefined) closing.push(this.#end(place, true));
    }
    await Promise.all(closing);
    this.#wake();
  }

  /** As `forceCloseAll()`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.forceCloseAll();
  }

  #take(): Place<Member> | undefined {
    const idle = this.#idle.pop();
    if (idle === undefined && this.#limit > 0 && this.#used.size >= this.#limit) return undefined;
    return this.#occupy(idle);
  }

  #occupy(member: Member | undefined): Place<Member> {
    const place = { member, over: false, ending: undefined };
    this.#used.add(place);
    return place;
  }

  #turn({ block, timeout, signal }: AcquireOptions): Promise<Place<Member>> {
    const text = `all ${this.#limit} are in use`;
    const details = { limit: this.#limit };
    if (!block) throw new this.LimitExceeded(`${text}; { block: true } waits for one`, { details });
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        clearTimeout(timer);
        unheard?.();
        this.#waiting.delete(waiter);
      };
      const waiter: Waiter<Member> = {
        go: (place) => {
          leave();
          resolve(place);
        },
        fail: (error) => {
          leave();
          reject(error);
        },
      };
      const timer = setTimeout(() => {
        const late = `none was given back within ${timeout} ms`;
        const cause = new TimeoutError(late, { details: { milliseconds: timeout } });
        waiter.fail(new this.LimitExceeded(`${text}, and ${late}`, { cause, details }));
      }, timeout);
      const unheard = signal && whenAborted(signal, () => waiter.fail(signal.reason));
      this.#waiting.add(waiter);
    });
  }

  async #lend(place: Place<Member>, options: AcquireOptions): Promise<Lease> {
    const idle = place.member;
    if (idle !== undefined && !(await this.stillUsable(idle))) {
      place.member = undefined;
      await this.destroy(idle);
    }
    if (place.member === undefined) {
      const made = await this.make(options);
      if (place.over) await this.destroy(made);
      else place.member = made;
    }
    if (place.member === undefined || place.over) throw this.#closedError();
    const ticket: Ticket = { release: () => this.#end(place, false), discard: () => this.#end(place, true) };
    const lease = await this.lend(place.member, ticket, options);
    if (!place.over) return lease;
    // Once more: while it was being lent it may have come to hold what it did not hold when all was closed.
    await this.destroy(place.member);
    throw this.#closedError();
  }

  /** Once for each place: later calls wait for the first. */
  #end(place: Place<Member>, discard: boolean): Promise<void> {
    place.ending ??= this.#giveBack(place, discard);
    return place.ending;
  }

  async #giveBack(place: Place<Member>, discard: boolean): Promise<void> {
    const { member } = place;
    const room = this.#limit > 0 && this.#used.size + this.#idle.length <= this.#limit;
    if (member !== undefined && !discard && !place.over && room && this.usable(member)) {
      this.#used.delete(place);
      this.#idle.push(member);
    } else {
      // It counts until it is gone: there are never more than the limit.
      if (member !== undefined) await this.destroy(member);
      this.#used.delete(place);
    }
    this.#wake();
  }

  /** Whatever there is room for goes to those who wait, first come, first served. */
  #wake(): void {
    for (const waiter of this.#waiting) {
      const place = this.#take();
      if (place === undefined) return;
      waiter.go(place);
    }
  }

  #shrinksInUse(limit: number): boolean {
    const shrinks = limit > 0 && (this.#limit === 0 || limit < this.#limit);
    return shrinks && this.#used.size > 0;
  }

  /** @internal Throws `LimitExceeded` where the setter of `limit` would. */
  mayBecome(limit: number): void {
    this.#mustNotShrink(readLimit(this.constructor.name, limit));
  }

  #mustNotShrink(limit: number): void {
    if (!this.#shrinksInUse(limit)) return;
    const was = this.#limit === 0 ? 'none' : this.#limit;
    const text = `cannot lower the limit of a pool in use: it was ${was}, would be ${limit}, and ${this.#used.size} are in use`;
    throw new LimitExceeded(text, { details: { limit: this.#limit, wanted: limit, inUse: this.#used.size } });
  }

  async #setLimit(limit: number): Promise<void> {
    this.#limit = limit;
    const surplus: Member[] = [];
    // The longest idle first; without a limit nothing is kept.
    while (this.#idle.length > 0 && (limit === 0 || this.#used.size + this.#idle.length > limit)) {
      surplus.push(this.#idle.shift()!);
    }
    this.#wake();
    await Promise.all(surplus.map((member) => this.destroy(member)));
  }

  #mustNotBeClosed(): void {
    if (this.#closed) throw this.#closedError();
  }

  #closedError(): ClosedError {
    return new ClosedError('the pool was closed');
  }
}
