/**
 * One monotonic clock for all threads of the process. `performance.now()` is the cheapest clock Node has, but its origin
 * differs by thread; `process.hrtime()` has one origin for all and costs more. So: the difference, once a thread.
 */
const difference = Math.max(...Array.from({ length: 8 }, differenceNow));

/** A thread that is held up between the two reads sees too little, never too much: hence the most of several. */
function differenceNow(): number {
  return Number(process.hrtime.bigint() / 1000n) - performance.now() * 1000;
}

/** Microseconds since an origin that all threads share; a double, exact to the microsecond for centuries. */
export function now(): number {
  return performance.now() * 1000 + difference;
}

export function highWord(microseconds: number): number {
  return Math.floor(microseconds / 2 ** 32);
}

export function lowWord(microseconds: number): number {
  return microseconds >>> 0;
}

export function fromWords(high: number, low: number): number {
  return (high >>> 0) * 2 ** 32 + (low >>> 0);
}
