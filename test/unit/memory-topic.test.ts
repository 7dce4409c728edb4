/** Topic patterns against a model that tries everything. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { matchesTopic, topicWords } from '#src/main/transports/memory/topic';

/** By trying every number of words for each '#'. */
function model(pattern: readonly string[], key: readonly string[]): boolean {
  const [first, ...rest] = pattern;
  if (first === undefined) return key.length === 0;
  if (first === '#') return Array.from({ length: key.length + 1 }, (_, i) => key.slice(i)).some((k) => model(rest, k));
  return key.length > 0 && (first === '*' || first === key[0]) && model(rest, key.slice(1));
}

const word = fc.constantFrom('a', 'b', '', 'ab');
const key = fc.array(word, { maxLength: 6 }).map((words) => words.join('.'));
const pattern = fc.array(fc.oneof(word, fc.constantFrom('*', '#')), { maxLength: 6 }).map((words) => words.join('.'));

test('topic: a key matches a pattern if some reading of it does', () => {
  fc.assert(
    fc.property(pattern, key, (p, k) => {
      assert.equal(matchesTopic(topicWords(p), topicWords(k)), model(topicWords(p), topicWords(k)));
    }),
    { numRuns: 5000 },
  );
});

test('topic: a pattern of many # is not slow', () => {
  const words = Array.from({ length: 60 }, () => '#.a').join('.');
  const key = Array.from({ length: 127 }, () => 'a').join('.');
  const started = performance.now();
  assert.equal(matchesTopic(topicWords(words), topicWords(`${key}.b`)), false);
  assert.ok(performance.now() - started < 100);
});
