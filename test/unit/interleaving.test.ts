/**
 * Every interleaving of the claim, settlement, wake-up and end-of-generation protocols, walked on the compiled code itself
 * with small numbers. The soak walks larger ones.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { walk } from '../model/interleave.js';
import { protocol, type Scenario } from '../model/protocol.js';

const NOTHING = { workers: 2, slots: 2, deliveries: 1, deaths: 0, withdrawals: 0, generations: 0 } as const;
const NEAR_2_31 = 0x7fffffff;
const NEAR_2_32 = -1;

const scenarios: Record<string, Scenario> = {
  'two workers claim and settle two messages, counters crossing 2^31': {
    ...NOTHING,
    about: 'claims',
    deliveries: 2,
    from: NEAR_2_31,
  },
  'a worker dies at any step of a claim or a settlement': {
    ...NOTHING,
    about: 'claims',
    slots: 1,
    deliveries: 2,
    deaths: 1,
  },
  'main takes back what waits, at any moment of a claim': {
    ...NOTHING,
    about: 'claims',
    slots: 1,
    deliveries: 2,
    withdrawals: 1,
    from: NEAR_2_32,
  },
  'the channel ends at any step, and the broker gives out again': {
    ...NOTHING,
    about: 'claims',
    workers: 1,
    slots: 1,
    deliveries: 2,
    generations: 1,
  },
  'a thread that does not exit is disowned, and exits later': { ...NOTHING, about: 'claims', deaths: 1, zombies: true },
  'nobody sleeps while there is work, counters crossing 2^32': {
    ...NOTHING,
    about: 'bells',
    workers: 1,
    deliveries: 2,
    from: NEAR_2_32,
  },
  'a callback that ends at any moment keeps its worker, which sleeps beside it, from no work': {
    ...NOTHING,
    about: 'bells',
    workers: 1,
    deliveries: 2,
    busy: true,
  },
  'a wake-up survives the death of the worker it chose': { ...NOTHING, about: 'bells', deaths: 1 },
};

describe('every interleaving', () => {
  for (const [name, scenario] of Object.entries(scenarios)) {
    it(name, (t) => {
      const { states, ends, deepest } = walk(protocol(scenario), 1_000_000);
      t.diagnostic(`${states} states, ${ends} ends, at most ${deepest} steps`);
      assert.ok(ends > 0);
    });
  }
});
