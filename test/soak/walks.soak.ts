/** Every interleaving of larger systems than the unit tests walk: the same compiled code, more of everything at once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { walk } from '../model/interleave.js';
import { protocol, type Scenario } from '../model/protocol.js';

const LIMIT = Number(process.env.MOZUKU_SOAK_STATES ?? 4_000_000);
const NOTHING = { workers: 2, slots: 2, deliveries: 2, deaths: 0, withdrawals: 0, generations: 0 } as const;
const NEAR_2_31 = 0x7fffffff;
const NEAR_2_32 = -1;

const scenarios: Record<string, Scenario> = {
  'two workers, two slots, two deliveries, one death': { ...NOTHING, about: 'claims', deaths: 1 },
  'two workers, two slots, two deliveries, one withdrawal': { ...NOTHING, about: 'claims', withdrawals: 1 },
  'counters crossing 2^31, with a death': { ...NOTHING, about: 'claims', slots: 1, deaths: 1, from: NEAR_2_31 },
  'counters crossing 2^32, with a withdrawal': {
    ...NOTHING,
    about: 'claims',
    slots: 1,
    withdrawals: 1,
    from: NEAR_2_32,
  },
};

for (const [name, scenario] of Object.entries(scenarios)) {
  test(name, (t) => {
    const started = performance.now();
    const { states, ends, deepest } = walk(protocol(scenario), LIMIT);
    const seconds = ((performance.now() - started) / 1000).toFixed(0);
    const line = `${name}: asked every state of at most ${LIMIT}, measured ${states} states, ${ends} ends, at most ${deepest} steps, ${seconds} s`;
    t.diagnostic(line);
    console.log(line);
    assert.ok(ends > 0);
  });
}
