/** The histogram's promise about percentiles, at every size of duration, and over several threads' counts. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { addHistogram } from '#src/main/runtime/stats';
import { bucketOf, bucketTop, percentile } from '#src/pool/histogram';
import { block, HISTOGRAM_BUCKETS } from '#src/pool/layout';

const MOST = 2 ** 38;
const duration = fc.oneof(
  fc.double({ min: 0, max: 40, noNaN: true }),
  fc.integer({ min: 0, max: 2 ** 31 - 1 }),
  fc
    .tuple(fc.integer({ min: 0, max: 37 }), fc.double({ min: 1, max: 2, maxExcluded: true, noNaN: true }))
    .map(([p, f]) => 2 ** p * f),
  fc.integer({ min: 3, max: 37 }).chain((power) => fc.constantFrom(2 ** power - 1, 2 ** power, 2 ** power + 1)),
);

/** An eighth of the duration; whole microseconds are all that is told apart below 8. */
const allowed = (value: number): number => Math.max(1, value / 8);

describe('the histogram', () => {
  it('puts a duration into a bucket whose top is above it by at most an eighth', () => {
    fc.assert(
      fc.property(duration, (value) => {
        const bucket = bucketOf(value);
        assert.ok(Number.isInteger(bucket) && bucket >= 0 && bucket < HISTOGRAM_BUCKETS, `bucket ${bucket}`);
        const top = bucketTop(bucket);
        assert.ok(value < top && top - value <= allowed(value), `${value} in the bucket up to ${top}`);
      }),
      { numRuns: 20_000 },
    );
  });

  it('has buckets that follow each other without a gap', () => {
    for (let bucket = 0; bucketTop(bucket) < MOST; bucket++) {
      assert.equal(bucketOf(bucketTop(bucket)), bucket + 1);
      assert.equal(bucketOf(bucketTop(bucket) - 0.001), bucket);
    }
  });

  it('keeps what is negative or beyond its range in its first and last buckets', () => {
    assert.equal(bucketOf(-1), 0);
    assert.equal(bucketOf(-1e12), 0);
    const last = bucketOf(MOST - 1);
    for (const value of [MOST, MOST * 3, 1e15, Number.MAX_VALUE, Number.POSITIVE_INFINITY])
      assert.equal(bucketOf(value), last);
    assert.ok(last < HISTOGRAM_BUCKETS);
  });

  it('gives percentiles that are off by at most an eighth', () => {
    const share = fc.double({ min: 0.01, max: 1, noNaN: true });
    fc.assert(
      fc.property(fc.array(duration, { minLength: 1, maxLength: 200 }), share, (durations, asked) => {
        const counts = new Int32Array(HISTOGRAM_BUCKETS);
        for (const value of durations) counts[bucketOf(value)]!++;
        const exact = [...durations].sort((a, b) => a - b)[Math.ceil(durations.length * asked) - 1]!;
        const told = percentile(counts, asked);
        assert.ok(told >= exact && told - exact <= allowed(exact), `${told} for ${exact}`);
      }),
      { numRuns: 2000 },
    );
  });

  it('of nothing has the percentile 0', () => {
    assert.equal(percentile(new Int32Array(HISTOGRAM_BUCKETS), 0.5), 0);
    assert.equal(percentile([], 1), 0);
  });

  it('of several threads is the sum of theirs', () => {
    const sum = new Float64Array(HISTOGRAM_BUCKETS);
    for (const [value, times] of [
      [100, 90],
      [10_000, 10],
    ] as const) {
      const words = new Int32Array(block.TABLE);
      words[block.HISTOGRAM + bucketOf(value)] = times;
      addHistogram(sum, words);
    }
    assert.ok(Math.abs(percentile(sum, 0.9) - 100) <= 12.5);
    assert.ok(Math.abs(percentile(sum, 0.91) - 10_000) <= 1250);
  });

  it('counts on beyond 2^31 messages of one thread', () => {
    const words = new Int32Array(block.TABLE);
    const at = block.HISTOGRAM + bucketOf(100);
    words[at] = 2 ** 31 - 1;
    for (let i = 0; i < 10; i++) words[at]!++;
    words[block.HISTOGRAM + bucketOf(10_000)] = 5;
    const sum = new Float64Array(HISTOGRAM_BUCKETS);
    addHistogram(sum, words);
    assert.ok(Math.abs(percentile(sum, 0.5) - 100) <= 12.5, `p50 is ${percentile(sum, 0.5)} µs`);
  });
});
