/** Every interleaving of the claim, settlement, wake-up and end-of-generation protocols, on the compiled code itself. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { walk } from '../model/interleave.js';
import { protocol, type Scenario } from '../model/protocol.js';

const scenarios: Record<string, Scenario> = {
  'two workers share two messages': { workers: 2, slots: 2, deliveries: 2, deaths: 0, withdrawals: 0, generations: 0 },
};

describe('every interleaving', () => {
  for (const [name, scenario] of Object.entries(scenarios)) {
    it(name, (t) => {
      const started = performance.now();
      const { states, ends, deepest } = walk(protocol(scenario), 2_000_000);
      t.diagnostic(`${states} states, ${ends} ends, at most ${deepest} steps, ${Math.round(performance.now() - started)} ms`);
      assert.ok(ends > 0);
    });
  }
});
