/**
 * How a thread sleeps and is woken, without losing a wake-up and without a system call while it is awake.
 *
 *   sleeper                                   ringer
 *   b = load(bell)            prepareSleep    (work is published)
 *   sleeping = 1                              if exchange(sleeping, 0) == 1: bell += 1, notify
 *   if there is work: sleeping = 0, go on     cancelSleep
 *   else waitAsync(bell, b)   sleepUntilRung
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

/**
 * First step of going to sleep; returns a token for `sleepUntilRung`. Look for work after it: what is published from now
 * on rings the bell, what was published before must be seen.
 */
export function prepareSleep(words: Int32Array, bell: number, sleeping: number): number {
  const token = Atomics.load(words, bell);
  Atomics.store(words, sleeping, 1);
  return token;
}

/** There was work after all. */
export function cancelSleep(words: Int32Array, sleeping: number): void {
  Atomics.store(words, sleeping, 0);
}

/**
 * Sleeps until the bell rings; undefined if it has rung since `prepareSleep`. `waitAsync` keeps no thread alive:
 * something referenced (a port, a socket) must.
 */
export function sleepUntilRung(words: Int32Array, bell: number, token: number): Promise<unknown> | undefined {
  const wait = Atomics.waitAsync(words, bell, token);
  return wait.async ? wait.value : undefined;
}
