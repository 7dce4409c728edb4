/** Whether a failed message runs again, and when: by what was thrown, or by the option `retry`. */
import type { RetryRules } from '../pool/worker-protocol.js';

/** Of whatever was thrown: its getters may throw. */
function read(error: unknown, key: 'code' | 'delay'): unknown {
  if (typeof error !== 'object' || error === null) return undefined;
  try {
    return (error as Partial<Record<typeof key, unknown>>)[key];
  } catch {
    return undefined;
  }
}

/** 23 days: what a queue's `x-expires` still has room for, twice. */
const MAX_DELAY = 2_000_000_000;

/** Milliseconds until the next run, or undefined if there is to be none. `attempt`: which run failed, 1 the first. */
export function retryDelay(
  error: unknown,
  attempt: number,
  rules: RetryRules | undefined,
  random = Math.random(),
): number | undefined {
  // By its code: the handler's copy of this package may be another one than this.
  const code = read(error, 'code');
  if (code === 'REJECT') return undefined;
  const asked = code === 'RETRY';
  if (rules === undefined ? !asked : attempt >= rules.attempts) return undefined;
  const delay = asked ? read(error, 'delay') : undefined;
  if (typeof delay === 'number' && delay >= 0) return Math.min(MAX_DELAY, Math.round(delay));
  if (rules === undefined) return DEFAULT_DELAY;
  const base = Math.min(rules.max, rules.initial * rules.factor ** (attempt - 1));
  return Math.min(MAX_DELAY, Math.round(base * (1 + rules.jitter * (2 * random - 1))));
}

/** For `new Retry()` without a delay where no option says one. */
const DEFAULT_DELAY = 1000;
