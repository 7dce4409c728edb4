/** Calling what users gave where nobody waits for the outcome. */
import { toPortableError } from '../../pool/worker-protocol.js';

/** "RangeError: too far", whatever was thrown. */
export function describeThrown(error: unknown): string {
  try {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  } catch {
    // It cannot be looked at, or has no text.
    return toPortableError(error).message;
  }
}

/** A warning of the process: for what nobody listens to. */
export function warn(text: string): void {
  process.emitWarning(text, { type: 'MozukuWarning' });
}

/** A promise, of whatever library. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as Partial<PromiseLike<unknown>> | null | undefined)?.then === 'function';
}

/** Calls `user`; what it throws or rejects with becomes a warning of the process. `who`: whose callback it is. */
export function callSafely(who: unknown, user: () => unknown): void {
  const tell = (error: unknown): void => warn(`a callback of ${who} failed: ${describeThrown(error)}`);
  try {
    const result = user();
    if (isThenable(result)) result.then(undefined, tell);
  } catch (error) {
    tell(error);
  }
}
