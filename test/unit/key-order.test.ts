/** Who waits for whom, against a simple model: a list of slots for each key. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { KeyOrder, NO_KEY } from '#src/main/runtime/key-order';
import { NONE } from '#src/pool/lane';

const SLOTS = 12;

test('of each key one may run, and the next is the one that came next', () => {
  const order = new KeyOrder(SLOTS);
  assert.deepEqual(
    [order.join(3, 7), order.join(5, 7), order.join(1, 7), order.join(2, 8)],
    [true, false, false, true],
  );
  assert.deepEqual(
    [1, 2, 3, 5].map((slot) => order.waits(slot)),
    [true, false, false, true],
  );
  assert.deepEqual([order.leave(3), order.leave(2), order.leave(5), order.leave(1)], [5, NONE, 1, NONE]);
  assert.equal(order.size, 0);
});

test('messages without a key wait for nobody', () => {
  const order = new KeyOrder(SLOTS);
  assert.deepEqual([order.join(0, NO_KEY), order.join(1, NO_KEY)], [true, true]);
  assert.deepEqual([order.leave(1), order.leave(0)], [NONE, NONE]);
});

test('the first of a key keeps its place when it moves to another slot', () => {
  const order = new KeyOrder(SLOTS);
  order.join(0, 7);
  order.join(1, 7);
  order.moved(0, 9);
  assert.equal(order.join(2, 7), false);
  assert.deepEqual([order.leave(0), order.leave(9), order.leave(1), order.leave(2)], [NONE, 1, 2, NONE]);
  order.join(4, 8);
  order.moved(4, 5);
  assert.equal(order.join(6, 8), false, 'also where nothing waited behind it');
});

type Step =
  | { readonly kind: 'join'; readonly key: number }
  | { readonly kind: 'leave' | 'move'; readonly key: number }
  | { readonly kind: 'keepOnly'; readonly keys: readonly number[] };

const key = fc.integer({ min: 0, max: 3 });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('join' as const), key }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constantFrom('leave' as const, 'move' as const), key }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('keepOnly' as const), keys: fc.uniqueArray(key) }) },
);

test('as lists of slots by key, whatever happens', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const order = new KeyOrder(SLOTS);
      const lists = new Map<number, number[]>();
      const free = Array.from({ length: SLOTS }, (_, slot) => slot);
      for (const each of steps) {
        if (each.kind === 'keepOnly') {
          // Of each key, what runs (if it does) is the first of its list; all the others are taken back.
          const running = new Set(each.keys.flatMap((which) => lists.get(which)?.slice(0, 1) ?? []));
          order.keepOnly(running);
          for (const [which, list] of lists) {
            free.push(...list.filter((slot) => !running.has(slot)));
            lists.set(
              which,
              list.filter((slot) => running.has(slot)),
            );
          }
          continue;
        }
        const list = lists.get(each.key) ?? [];
        lists.set(each.key, list);
        const [first] = list;
        if (each.kind === 'join') {
          const slot = free.shift();
          if (slot === undefined) continue;
          assert.equal(order.join(slot, each.key), list.length === 0);
          list.push(slot);
        } else if (first !== undefined && each.kind === 'leave') {
          list.shift();
          free.push(first);
          assert.equal(order.leave(first), list[0] ?? NONE);
        } else if (first !== undefined) {
          const slot = free.shift();
          if (slot === undefined) continue;
          order.moved(first, slot);
          list[0] = slot;
          free.push(first);
        }
        for (const slots of lists.values())
          for (const [i, slot] of slots.entries()) assert.equal(order.waits(slot), i > 0);
      }
      assert.equal(order.size, [...lists.values()].filter((list) => list.length > 0).length);
    }),
  );
});
