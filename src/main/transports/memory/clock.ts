/** Time for the broker: milliseconds that never go back, and calls at a later time. Tests pass one of their own. */

export interface Alarm {
  cancel(): void;
}

export interface Clock {
  now(): number;
  /** Seconds since 1970, for the death of a message. */
  seconds(): number;
  /** Calls `ring` at `time` of this clock or a little later. */
  at(time: number, ring: () => void): Alarm;
}

/** The longest that `setTimeout` can wait; what is later is asked for again then. */
const LONGEST = 0x7fffffff;

/** Holds no process alive: an open connection does that, as with any broker. */
export const realClock: Clock = {
  now: () => performance.now(),
  seconds: () => Math.floor(Date.now() / 1000),
  at(time, ring) {
    let timer: NodeJS.Timeout;
    const wait = (): void => {
      const left = Math.max(0, Math.ceil(time - performance.now()));
      timer = setTimeout(left > LONGEST ? wait : ring, Math.min(left, LONGEST)).unref();
    };
    wait();
    return { cancel: () => clearTimeout(timer) };
  },
};
