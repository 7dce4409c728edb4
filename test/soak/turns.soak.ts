/** Under saturation an interval of 10 ms in the handler's module ticks at least 50 times a second. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sharedBroker } from '../support/rabbitmq.js';
import { saturate } from '../support/turns.js';

for (const mode of ['sync', 'async'] as const) {
  for (const microseconds of [0, 50, 2000]) {
    test(`a 10 ms interval ticks under ${mode} callbacks of ${microseconds} µs`, { timeout: 300_000 }, async () => {
      const broker = sharedBroker();
      assert.ok(broker !== undefined, 'this soak needs a RabbitMQ');
      const count = Math.min(60_000, Math.round(5_000_000 / Math.max(50, microseconds)));
      const { ticks, forMs } = await saturate(broker.url, { count, microseconds, mode });
      const rate = (ticks * 1000) / forMs;
      console.log(
        `${mode} ${microseconds} µs for ${Math.round(forMs)} ms: asked 50 ticks a second, measured ${rate.toFixed(0)}`,
      );
      assert.ok(rate >= 50);
    });
  }
}
