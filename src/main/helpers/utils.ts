/** kombu.utils, as far as it is of use here. */
export { fxrange, type RetryOverTimeOptions, retryOverTime } from './functional.js';
export { cycleByName, FairCycle, PriorityCycle, RoundRobinCycle, SortedCycle } from './scheduling.js';
export { TokenBucket } from './token-bucket.js';
