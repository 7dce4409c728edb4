/** A worker's event loop turns under saturation: after 256 messages at most, and after 1 ms of callbacks. */
import assert from 'node:assert/strict';
import { brokerTest } from '../support/rabbitmq.js';
import { saturate } from '../support/turns.js';

for (const mode of ['sync', 'async'] as const) {
  brokerTest(
    `between two turns of the loop no more than 256 ${mode} callbacks run, or 1 ms of them`,
    async (broker) => {
      const short = await saturate(broker.url, { count: 5000, microseconds: 0, mode });
      assert.ok(short.mostMessages <= 256, `${short.mostMessages} callbacks`);
      assert.ok(short.turns >= short.messages / 256);
      const long = await saturate(broker.url, { count: 1000, microseconds: 300, mode });
      // All but the last one: that one may begin just before the millisecond is over.
      assert.ok(long.longestMs <= 1.01, `${long.longestMs} ms of callbacks`);
      assert.ok(long.mostMessages <= 4, `${long.mostMessages} callbacks of 0.3 ms`);
    },
  );
}
