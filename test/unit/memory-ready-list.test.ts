/** The order of a queue against a sorted array, whatever is pushed, taken and put back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Ordered, ReadyList } from '#src/main/transports/memory/ready-list';

const HIGHEST = 3;
const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('push' as const), level: fc.integer({ min: 0, max: HIGHEST }) }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('take' as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('back' as const), which: fc.nat() }) },
);

const inOrder = (a: Ordered, b: Ordered): number => b.level - a.level || a.sequence - b.sequence;

test('ready list: always the oldest of the highest priority, and what comes back is where it was', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200, size: 'max' }), (steps) => {
      const list = new ReadyList<Ordered>(HIGHEST);
      let model: Ordered[] = [];
      const taken: Ordered[] = [];
      let sequence = 0;
      for (const each of steps) {
        if (each.do === 'push') {
          const item = { sequence: sequence++, level: each.level };
          list.push(item);
          model.push(item);
        } else if (each.do === 'take') {
          const { first } = list;
          assert.equal(first, model[0]);
          if (first === undefined) continue;
          assert.equal(list.shiftLevel(first.level), first);
          model.shift();
          taken.push(first);
        } else if (taken.length > 0) {
          const [item] = taken.splice(each.which % taken.length, 1);
          list.insert(item!);
          model.push(item!);
        }
        model = model.sort(inOrder);
        assert.equal(list.size, model.length);
      }
      for (const item of model) {
        assert.equal(list.first, item);
        list.shiftLevel(item.level);
      }
      assert.equal(list.first, undefined);
    }),
    { numRuns: 500 },
  );
});

test('ready list: what comes back to the front of a long queue costs no more than to the front of a short one', () => {
  const list = new ReadyList<Ordered>(0);
  const count = 100_000;
  for (let i = count; i < 2 * count; i++) list.push({ sequence: i, level: 0 });
  const started = performance.now();
  for (let i = 2000; i > 0; i--) list.insert({ sequence: i, level: 0 });
  assert.ok(performance.now() - started < 500);
  let before = 0;
  for (let size = list.size; size > 0; size--) {
    const item = list.shiftLevel(0)!;
    assert.ok(item.sequence > before);
    before = item.sequence;
  }
});
