/** Whether a failed message runs again, and when: by what was thrown, or by the option `retry`. */
import type { RetryRules } from '../pool/worker-protocol.js';

/** A class of ours, also if the handler's copy of this package is not this one. */
function hasCode(error: unknown, code: string): boolean {
  return typeof error === 'object' && error !== null && (error as { code?: unknown }).code === code;
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
  if (hasCode(error, 'REJECT')) return undefined;
  const asked = hasCode(error, 'RETRY');
  if (rules === undefined ? !asked : attempt >= rules.attempts) return undefined;
  const delay = asked ? (error as { delay?: unknown }).delay : undefined;
  if (typeof delay === 'number' && delay >= 0) return Math.min(MAX_DELAY, Math.round(delay));
  if (rules === undefined) return DEFAULT_DELAY;
  const base = Math.min(rules.max, rules.initial * rules.factor ** (attempt - 1));
  return Math.min(MAX_DELAY, Math.round(base * (1 + rules.jitter * (2 * random - 1))));
}

/** For `new Retry()` without a delay where no option says one. */
const DEFAULT_DELAY = 1000;
