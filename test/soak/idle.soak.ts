/** An idle consumer sleeps: a process that only consumes from an empty queue uses under 1 % of a core over a minute. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection, Queue } from '#src/index';
import { sharedBroker, uniqueName } from '../support/rabbitmq.js';
import { consumerOf } from '../support/rig.js';

const SECONDS = Number(process.env.MOZUKU_SOAK_SECONDS ?? 60);

test('an idle consumer uses under 1 % of a core', { timeout: 600_000 }, async () => {
  const broker = sharedBroker();
  assert.ok(broker !== undefined, 'this soak needs a RabbitMQ');
  const queue = new Queue(uniqueName('idle'));
  const consumer = consumerOf(broker.url, queue);
  await consumer.consume();
  await sleep(2000);
  const before = process.cpuUsage();
  const started = performance.now();
  await sleep(SECONDS * 1000);
  const { user, system } = process.cpuUsage(before);
  const share = (user + system) / 10 / (performance.now() - started);
  await consumer.close();
  const connection = new Connection(broker.url);
  await queue.bind(connection).delete();
  await connection.close();
  console.log(`idle for ${SECONDS} s: asked under 1 % of a core, measured ${share.toFixed(2)} %`);
  assert.ok(share < 1);
});
