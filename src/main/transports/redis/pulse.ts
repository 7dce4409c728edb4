/** Asks a server from time to time whether it is there: a line that went silent says nothing by itself, for hours. */
import type { KombuError } from '../../../errors.js';
import { tooLate } from '../../deadline.js';
import type { Client } from './client.js';

/** Seconds, as kombu's `health_check_interval`. */
export const PULSE = 25;

/**
 * `onSilent` is called once, when a question had no answer until the next was due; not if `isExcused`: its answer may be here, or
 * have been until a moment ago, where we do not read. Gives what ends it.
 */
export function watchPulse(
  client: Client,
  seconds: number,
  where: string,
  onSilent: (error: KombuError) => void,
  isExcused: () => boolean = () => false,
): () => void {
  if (seconds <= 0) return () => undefined;
  let isAsking = false;
  const timer = setInterval(() => {
    if (client.status !== 'ready' || isExcused()) return;
    if (!isAsking) {
      isAsking = true;
      const answered = (): void => {
        isAsking = false;
      };
      // An error is an answer; where the connection is lost its end is told elsewhere.
      client.ping().then(answered, answered);
      return;
    }
    // If this thread was busy, the answer may be here and not read yet.
    setImmediate(() => {
      if (!isAsking || isExcused()) return;
      clearInterval(timer);
      onSilent(tooLate(`waiting for ${where}`, seconds * 1000));
    });
  }, seconds * 1000);
  timer.unref();
  return () => clearInterval(timer);
}
