/**
 * How a thread sleeps and is woken, without losing a wake-up and without a system call while it is awake.
 *
 *   sleeper                                   ringer
 *   b = load(bell)                            (work is published)
 *   sleeping = 1                              if exchange(sleeping, 0) == 1: bell += 1, notify
 *   if there is work: sleeping = 0, go on
 *   else waitAsync(bell, b)
 *
 * All accesses are sequentially consistent, so either the sleeper sees the work or the ringer sees it sleeping; and a
 * bell rung between the load and the wait makes the wait return at once. A bell each, never a shared one: a shared bell
 * loses the wake-up when the thread that it chose dies. No time-outs: a waitAsync with one leaks until it expires.
 */

/** Wakes the owner of this bell if it sleeps; true if it did. */
export function ring(words: Int32Array, bell: number, sleeping: number): boolean {
  // The load first: an exchange takes the cache line away from its owner, and mostly nobody sleeps.
  if (Atomics.load(words, sleeping) === 0 || Atomics.exchange(words, sleeping, 0) === 0) return false;
  Atomics.add(words, bell, 1);
  Atomics.notify(words, bell, 1);
  return true;
}

/** Rings whether or not its owner seems to sleep: for words it must see, such as "stop". */
export function ringAlways(words: Int32Array, bell: number, sleeping: number): void {
  Atomics.store(words, sleeping, 0);
  Atomics.add(words, bell, 1);
  Atomics.notify(words, bell, 1);
}

/** Not asleep: there was work, or the bell rang meanwhile. */
export const AWAKE = undefined;

/**
 * Prepares to sleep. Returns AWAKE if `hasWork` says so, else a promise that resolves when the bell rings.
 * `waitAsync` keeps no thread alive: something referenced (a port, a socket) must.
 */
export function sleep(
  words: Int32Array,
  bell: number,
  sleeping: number,
  hasWork: () => boolean,
): Promise<unknown> | typeof AWAKE {
  const before = Atomics.load(words, bell);
  Atomics.store(words, sleeping, 1);
  if (hasWork()) {
    Atomics.store(words, sleeping, 0);
    return AWAKE;
  }
  const wait = Atomics.waitAsync(words, bell, before);
  if (wait.async) return wait.value;
  Atomics.store(words, sleeping, 0);
  return AWAKE;
}
