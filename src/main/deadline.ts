/** Every wait of the library has an end. */
import { whenAborted } from '../abort.js';
import { TimeoutError } from '../errors.js';

/** The error of a wait for the broker that is over. */
export function tooLate(doing: string, milliseconds: number, cause?: unknown): TimeoutError {
  return new TimeoutError(`${doing}: no answer within ${Math.round(milliseconds)} ms`, {
    details: { milliseconds },
    ...(cause !== undefined && { cause }),
  });
}

/**
 * Waits for `work`, at most `milliseconds`, and no longer than `signal` is quiet. Rejects with `TimeoutError` naming `doing`,
 * or with the signal's reason. How `work` ends after that is of no interest; it cannot become an unhandled rejection.
 */
export function withDeadline<T>(
  work: Promise<T>,
  doing: string,
  milliseconds: number,
  signal?: AbortSignal,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      unheard?.();
    };
    const onAbort = () => {
      end();
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      end();
      reject(tooLate(doing, milliseconds));
    }, milliseconds);
    work.then(
      (value) => {
        end();
        resolve(value);
      },
      (error) => {
        end();
        reject(error);
      },
    );
    const unheard = signal?.aborted === false ? whenAborted(signal, onAbort) : undefined;
    if (signal?.aborted) onAbort();
  });
}
