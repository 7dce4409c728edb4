/**
 * A histogram with buckets that grow: HISTOGRAM_SUB for each power of two of microseconds, so that a percentile is off by
 * at most 1/8 of itself. Histograms of several threads are added up by adding buckets.
 */
import { HISTOGRAM_BUCKETS, HISTOGRAM_SUB } from './layout.js';

const SUB_BITS = 3;

/** The bucket of a duration. */
export function bucketOf(microseconds: number): number {
  if (microseconds < HISTOGRAM_SUB) return microseconds > 0 ? Math.floor(microseconds) : 0;
  if (microseconds >= 2 ** 31) {
    const power = Math.min(37, Math.floor(Math.log2(microseconds)));
    const sub = Math.floor(microseconds / 2 ** (power - SUB_BITS)) - HISTOGRAM_SUB;
    return Math.min(HISTOGRAM_BUCKETS - 1, (power - SUB_BITS + 1) * HISTOGRAM_SUB + Math.min(sub, HISTOGRAM_SUB - 1));
  }
  const whole = microseconds | 0;
  const power = 31 - Math.clz32(whole);
  return (power - SUB_BITS + 1) * HISTOGRAM_SUB + (whole >>> (power - SUB_BITS)) - HISTOGRAM_SUB;
}

/** The greatest duration of a bucket, microseconds. */
export function bucketTop(bucket: number): number {
  if (bucket < HISTOGRAM_SUB) return bucket + 1;
  const power = Math.floor(bucket / HISTOGRAM_SUB) + SUB_BITS - 1;
  const sub = bucket % HISTOGRAM_SUB;
  return 2 ** power + (sub + 1) * 2 ** (power - SUB_BITS);
}

/** The duration below which a share (0 to 1) of the counts lies, microseconds; 0 if there are none. */
export function percentile(counts: ArrayLike<number>, share: number): number {
  let total = 0;
  for (let i = 0; i < counts.length; i++) total += counts[i]!;
  if (total === 0) return 0;
  let left = Math.ceil(total * share);
  for (let i = 0; i < counts.length; i++) {
    left -= counts[i]!;
    if (left <= 0) return bucketTop(i);
  }
  return bucketTop(counts.length - 1);
}
