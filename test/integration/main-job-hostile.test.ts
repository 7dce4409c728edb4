/** Callbacks that throw what is hard to look at: each fails alone, with the reason, and takes no worker down. */
import assert from 'node:assert/strict';
import { Connection, Consumer, type FailedMessage, Queue, type WorkerEvent } from '#src/index';
import { NAMES } from '../handlers/hostile.js';
import { brokerTest, uniqueName, waitForQueue } from '../support/rabbitmq.js';
import { consumerOf, publishAll, until } from '../support/rig.js';

const HANDLER = new URL('../handlers/hostile.js', import.meta.url);

brokerTest('whatever is thrown is a failure like any other, with a dead letter that says so', async (broker) => {
  const queue = new Queue(uniqueName('hostile'));
  const dead = new Queue(`${queue.name}.dead`);
  const hostile = [
    ...NAMES.flatMap((what) => [
      { what, later: false },
      { what, later: true },
    ]),
    { what: 'thenable' },
  ];
  const bodies = hostile.flatMap((order) => [order, { what: 'fine' }]);
  await publishAll(
    broker.url,
    queue,
    bodies.map((body) => ({ body })),
  );
  const consumer = consumerOf(broker.url, queue, { handler: HANDLER, concurrency: 4 });
  const failures: FailedMessage[] = [];
  const exits: WorkerEvent[] = [];
  consumer.on('failed', (failure) => failures.push(failure));
  consumer.on('worker', (event) => event.state === 'exited' && exits.push(event));
  try {
    await consumer.consume();
    await until('all fail that should', () => consumer.stats().deadLettered === hostile.length, {
      timeoutMs: 20_000,
      state: () => [consumer.stats(), exits],
    });
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 0 && unacked === 0);
    assert.equal(consumer.stats().acked, hostile.length);
    assert.deepEqual(exits, []);
    assert.equal(failures.length, hostile.length);
    for (const { error, outcome } of failures) {
      assert.ok(error instanceof Error && error.message.length <= 17_000, error.message.slice(0, 100));
      assert.equal(outcome, 'deadLetter');
    }
    await using connection = new Connection(broker.url);
    for (let i = 0; i < hostile.length; i++) {
      const letter = await dead.get(connection, { noAck: true });
      assert.equal(letter?.headers['x-mozuku-reason'], 'failed');
      assert.ok(String(letter.headers['x-mozuku-error']).length > 5, 'and why');
    }
  } finally {
    await consumer.close();
    await using connection = new Connection(broker.url);
    await queue.delete(connection);
    await dead.delete(connection);
  }
});

brokerTest('an inline consumer tells its listener what was thrown, as it is, or warns of it', async (broker) => {
  await using connection = new Connection(broker.url);
  const queue = new Queue(uniqueName('hostile'), { exclusive: true });
  await queue.declare(connection);
  const proxy = new Proxy(
    {},
    {
      get: () => {
        throw new Error('a trap');
      },
      getPrototypeOf: () => {
        throw new Error('a trap');
      },
    },
  );
  const thrown: readonly unknown[] = [null, Symbol('what'), Object.create(null), proxy];
  const warnings: string[] = [];
  const note = (warning: Error) => warning.name === 'MozukuWarning' && warnings.push(warning.message);
  process.on('warning', note);
  const waiting = [...thrown];
  const consumer = new Consumer(connection, [queue], {
    noAck: true,
    callbacks: [
      () => {
        throw waiting.shift();
      },
    ],
  });
  try {
    await consumer.consume();
    const producer = connection.Producer({ routingKey: queue.name });
    for (let i = 0; i < thrown.length; i++) await producer.publish({ i });
    await until('all have failed', () => waiting.length === 0 && warnings.length === thrown.length, {
      timeoutMs: 10_000,
      state: () => warnings,
    });
    const told: unknown[] = [];
    consumer.on('error', (error) => told.push(error));
    waiting.push(...thrown);
    for (let i = 0; i < thrown.length; i++) await producer.publish({ i });
    await until('all are told', () => told.length === thrown.length, { timeoutMs: 10_000 });
    for (const [i, value] of thrown.entries()) assert.ok(Object.is(told[i], value));
  } finally {
    process.off('warning', note);
    await consumer.close();
  }
});
