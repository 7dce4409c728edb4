/** Whatever a message does to its worker: the worker is replaced, the others are handled, the culprit is kept. */
import assert from 'node:assert/strict';
import { Connection, Queue, type ShardedConsumerOptions, type WorkerEvent } from '#src/index';
import { brokerTest, type SharedBroker, uniqueName, waitForQueue } from '../support/rabbitmq.js';
import { consumerOf, EffectsLog, publishAll, sha256, until } from '../support/rig.js';

const COUNT = 200;

interface Case {
  readonly order: object;
  readonly options: Partial<ShardedConsumerOptions>;
  readonly reason: RegExp;
}

const cases: Record<string, Case> = {
  'calls process.exit()': { order: { do: 'exit' }, options: {}, reason: /exited with code 3/ },
  'throws outside of its callback': { order: { do: 'stray' }, options: {}, reason: /stray: culprit/ },
  'fills its heap': {
    order: { do: 'heap' },
    options: { resourceLimits: { maxOldGenerationSizeMb: 48 } },
    reason: /memory/i,
  },
  'loops for ever': { order: { do: 'busy', ms: 60_000 }, options: { timeout: 300 }, reason: /past its timeout/ },
  'does not return from a native call': {
    order: { do: 'native', ms: 4_000 },
    options: { timeout: 300, terminateGrace: 300 },
    reason: /does not exit/,
  },
};

async function dieInTheMiddle(broker: SharedBroker, { order, options, reason }: Case): Promise<void> {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('deaths'));
  const dead = new Queue(`${queue.name}.dead`);
  const culprit = { id: 'culprit', ...order };
  await publishAll(
    broker.url,
    queue,
    Array.from({ length: COUNT }, (_, i) => ({ body: i === COUNT / 2 ? culprit : { id: i, do: 'sleep', ms: 1 } })),
  );
  const consumer = consumerOf(broker.url, queue, { maxDeliveries: 2, ...options });
  const exits: WorkerEvent[] = [];
  const failures: string[] = [];
  consumer.on('worker', (event) => event.state === 'exited' && exits.push(event));
  consumer.on('failed', ({ outcome }) => failures.push(outcome ?? '?'));
  try {
    await consumer.consume();
    await until('all are handled but the culprit', () => consumer.stats().acked === COUNT - 1, {
      state: () => [consumer.stats(), exits],
    });
    await until('the culprit is dead-lettered', () => consumer.stats().deadLettered === 1, {
      state: () => [consumer.stats(), exits],
    });
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 0 && unacked === 0);
    assert.equal(exits.length, 2, 'it took its worker down twice, alone');
    for (const exit of exits) assert.match(`${exit.reason} ${exit.error?.message}`, reason);
    assert.deepEqual(failures, ['again', 'deadLetter']);
    const counts = effects.counts();
    counts.delete('culprit');
    assert.equal(counts.size, COUNT - 1);
    assert.ok([...counts.values()].every((count) => count === 1));
    const connection = new Connection(broker.url);
    const letter = await dead.bind(connection).get();
    assert.ok(letter !== null);
    assert.equal(sha256(letter.body), sha256(JSON.stringify(culprit)));
    assert.equal(letter.headers['x-mozuku-reason'], 'deaths');
    assert.equal(letter.headers['x-mozuku-deaths'], 2);
    letter.ack();
    assert.equal(await dead.bind(connection).get(), null, 'no innocent is dead-lettered');
    await queue.bind(connection).delete();
    await dead.bind(connection).delete();
    await connection.close();
  } finally {
    await consumer.close();
  }
}

for (const [name, kind] of Object.entries(cases)) {
  brokerTest(`a message that ${name}: replaced, kept, and no other harmed`, (broker) => dieInTheMiddle(broker, kind));
}

brokerTest(
  'of several that ran beside each other the suspects run alone, and only the culprit is kept',
  async (broker) => {
    using effects = new EffectsLog();
    const queue = new Queue(uniqueName('suspects'));
    await publishAll(
      broker.url,
      queue,
      Array.from({ length: 40 }, (_, i) => ({
        body: i === 20 ? { id: 'culprit', do: 'exit' } : { id: i, do: 'sleep', ms: 10 },
      })),
    );
    const consumer = consumerOf(broker.url, queue, { concurrency: 4, maxDeliveries: 2 });
    try {
      await consumer.consume();
      await until('all but one are handled', () => consumer.stats().acked === 39, { state: () => consumer.stats() });
      await until('the culprit is dead-lettered', () => consumer.stats().deadLettered === 1);
      assert.equal([...effects.counts().keys()].filter((id) => id !== 'culprit').length, 39);
    } finally {
      await consumer.close();
      const connection = new Connection(broker.url);
      await queue.bind(connection).delete();
      await new Queue(`${queue.name}.dead`).bind(connection).delete();
      await connection.close();
    }
  },
);

brokerTest('an asynchronous callback past its timeout fails alone', async (broker) => {
  const queue = new Queue(uniqueName('timeout'));
  await publishAll(broker.url, queue, [
    { body: { id: 'never', do: 'never' } },
    ...Array.from({ length: 20 }, (_, i) => ({ body: { id: i, do: 'sleep', ms: 10 } })),
  ]);
  const consumer = consumerOf(broker.url, queue, { workers: 1, concurrency: 4, timeout: 200 });
  const failed: string[] = [];
  const exits: WorkerEvent[] = [];
  consumer.on('failed', ({ error }) => failed.push(error.name));
  consumer.on('worker', (event) => event.state === 'exited' && exits.push(event));
  try {
    await consumer.consume();
    await until('the others are handled', () => consumer.stats().acked === 20);
    await until('the late one is dead-lettered', () => consumer.stats().deadLettered === 1);
    assert.deepEqual(failed, ['TimeoutError']);
    assert.deepEqual(exits, [], 'its worker lives on');
  } finally {
    await consumer.close();
    const connection = new Connection(broker.url);
    await queue.bind(connection).delete();
    await new Queue(`${queue.name}.dead`).bind(connection).delete();
    await connection.close();
  }
});
