/** Logical time: which of two events, seen by different processes, came first. */

import { OptionError } from '../../errors.js';
import { kinds } from '../../options.js';

/** Lamport's clock: `forward()` before each event that is sent, `adjust()` with the time of each that is received. */
export class LamportClock {
  value: number;

  /** Throws `OptionError`. */
  constructor(initialValue = 0) {
    if (!kinds.integer(0, Number.MAX_SAFE_INTEGER).test(initialValue)) {
      throw new OptionError('LamportClock: the initial value must be a whole number from 0');
    }
    this.value = initialValue;
  }

  /** Takes notice of another process's time; returns the new one, which is later than both. */
  adjust(other: number): number {
    this.value = Math.max(this.value, other) + 1;
    return this.value;
  }

  /**
   * @internal The same with the time in the headers of a message, which anybody may have written: what is no time, or so late that
   * soon nothing could be later, does not count, or every message from here on would carry it.
   */
  adjustTo({ clock }: Readonly<Record<string, unknown>>): number {
    return this.adjust(
      Number.isSafeInteger(clock) && (clock as number) < Number.MAX_SAFE_INTEGER / 2 ? (clock as number) : 0,
    );
  }

  /** One step; returns the new time. */
  forward(): number {
    this.value += 1;
    return this.value;
  }

  /**
   * The first of events that are sorted by their clock: [clock, process id, …] each; among those with the first one's clock, the
   * one with the least process id. Undefined for an empty list.
   */
  sortHeap<Event extends readonly [clock: number, id: string, ...rest: unknown[]]>(
    events: readonly Event[],
  ): Event | undefined {
    let [first] = events;
    for (const event of events) {
      if (event[0] !== events[0]![0]) break;
      if (event[1] < first![1]) first = event;
    }
    return first;
  }

  toString(): string {
    return String(this.value);
  }
}

/** When and where an event was. */
export class TimeTuple<T = unknown> {
  /** 0 or absent: not known. */
  readonly clock: number | undefined;
  /** Seconds since 1970. */
  readonly timestamp: number;
  /** Of the process, for example 'hostname:pid'. */
  readonly id: string;
  readonly obj: T | undefined;

  constructor(clock: number | undefined, timestamp: number, id: string, obj?: T) {
    this.clock = clock;
    this.timestamp = timestamp;
    this.id = id;
    this.obj = obj;
    Object.freeze(this);
  }

  /**
   * Negative if `a` was before `b`, positive if after, else 0, as `sort()` wants it: by the clocks, for equal clocks by the ids; by
   * the timestamps if one of the clocks is not known.
   */
  static compare(this: void, a: TimeTuple, b: TimeTuple): number {
    if (!a.clock || !b.clock) return a.timestamp - b.timestamp;
    if (a.clock !== b.clock) return a.clock - b.clock;
    return a.id < b.id ? -1 : Number(a.id > b.id);
  }

  before(other: TimeTuple): boolean {
    return TimeTuple.compare(this, other) < 0;
  }

  toString(): string {
    return `timetuple(clock=${this.clock}, timestamp=${this.timestamp}, id=${this.id})`;
  }
}

/** kombu's name for `new TimeTuple(…)`. */
export function timetuple<T>(clock: number | undefined, timestamp: number, id: string, obj?: T): TimeTuple<T> {
  return new TimeTuple(clock, timestamp, id, obj);
}
