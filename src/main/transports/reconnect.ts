/** How often to try again, and whether that makes sense. */
import { whenAborted } from '../../abort.js';
import { RecoverableConnectionError } from '../../errors.js';

/** The wait before the next attempt: 100 ms, doubling, ±20 %, at most 2 s. `attempt` counts from 0; `random` is in [0, 1). */
export function reconnectDelay(attempt: number, { initial = 100, max = 2000, random = Math.random() } = {}): number {
  const base = initial * 2 ** Math.min(attempt, 30);
  return Math.min(max, base * (0.8 + 0.4 * random));
}

/** Waits and calls `attempt` (1, 2, …) until it says true or the signal aborts. What it throws is the caller's. */
export async function retrying(signal: AbortSignal, attempt: (count: number) => Promise<boolean>): Promise<void> {
  for (let count = 1; !signal.aborted; count++) {
    await pause(reconnectDelay(count - 1), signal);
    if (signal.aborted || (await attempt(count))) return;
  }
}

/** Resolves after so many milliseconds, or when the signal aborts. */
export function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      unheard?.();
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    const unheard = signal?.aborted === false ? whenAborted(signal, done) : undefined;
    if (signal?.aborted) done();
  });
}

/** True for failures that another attempt may mend; a refused login or an impossible option will stay as it is. */
export function isRecoverable(error: unknown): boolean {
  return error instanceof RecoverableConnectionError;
}
