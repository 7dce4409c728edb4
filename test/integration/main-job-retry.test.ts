/** Retries: kept by the broker, or held in order; what a handler throws decides, and how often is counted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Connection, Exchange, type FailedMessage, Queue, type ShardedConsumerOptions } from '#src/index';
import { roundUp } from '#src/main/runtime/retries';
import { brokerTest, findQueueStats, uniqueName, waitForQueue } from '../support/rabbitmq.js';
import { consumerOf, EffectsLog, publishAll, until } from '../support/rig.js';

async function removed(url: string, ...names: string[]): Promise<void> {
  const connection = new Connection(url);
  for (const name of names) await new Queue(name).bind(connection).delete();
  await connection.close();
}

test('delays of nearly the same length share a queue, and none is shortened', () => {
  assert.deepEqual([1, 95, 100, 101, 1234, 60_000, 61_001].map(roundUp), [10, 100, 100, 110, 1300, 60_000, 62_000]);
});

const kinds: Record<string, Partial<ShardedConsumerOptions>> = {
  'kept by the broker': {},
  'held in order': { orderBy: 'routingKey' },
  'kept by the broker, out of order': { orderBy: 'routingKey', retry: { order: 'skip' } },
};

for (const [what, options] of Object.entries(kinds)) {
  brokerTest(`a failed message runs again, ${what}, until its attempts are used up`, async (broker) => {
    using effects = new EffectsLog();
    const queue = new Queue(uniqueName('retry'));
    const retry = { attempts: 3, initial: 50, factor: 2, jitter: 0, ...options.retry };
    await publishAll(broker.url, queue, [
      {
        body: { id: 'third', do: 'failTwice' },
        options: { messageId: 'third', headers: { tenant: 'a' }, priority: 3 },
      },
      { body: { id: 'never', do: 'throw' } },
      { body: { id: 'refused', do: 'giveUp' } },
      { body: { id: 'asks', do: 'retry', ms: 30 } },
    ]);
    const consumer = consumerOf(broker.url, queue, { ...options, retry });
    const failures: FailedMessage[] = [];
    consumer.on('failed', (failure) => failures.push(failure));
    try {
      await consumer.consume();
      await until('all are settled', () => effects.counts().size === 2 && consumer.stats().deadLettered === 2, {
        state: () => [consumer.stats(), failures],
      });
      await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
      const runs = Object.fromEntries(effects.read().map(({ id, attempt }) => [id, attempt]));
      assert.deepEqual(runs, { third: 3, asks: 2 });
      const outcomes = (text: string): (string | undefined)[] =>
        failures.filter(({ error }) => error.message.includes(text)).map(({ outcome }) => outcome);
      assert.deepEqual(outcomes('failed run'), ['retry', 'retry']);
      assert.deepEqual(outcomes('asked to fail'), ['retry', 'retry', 'deadLetter']);
      assert.deepEqual(outcomes('no use'), ['deadLetter']);
      assert.equal(consumer.stats().retried, 5);
      const kept = await findQueueStats(broker.ctl, `${queue.name}.retry.50`);
      assert.equal(kept !== undefined, what !== 'held in order');
      const connection = new Connection(broker.url);
      const dead = new Queue(`${queue.name}.dead`).bind(connection);
      for (let i = 0; i < 2; i++) {
        const letter = await dead.get();
        const attempts = (letter!.payload as { id: string }).id === 'never' ? 3 : 1;
        assert.equal(letter!.headers['x-mozuku-attempts'], attempts);
        letter!.ack();
      }
      await connection.close();
    } finally {
      await consumer.close();
      const delays = [30, 50, 100].map((ms) => `${queue.name}.retry.${ms}`);
      await removed(broker.url, queue.name, `${queue.name}.dead`, ...delays);
    }
  });
}

/** False: the machine was so slow that the message was back before its consumer had closed. */
async function comesBack(url: string, ms: number): Promise<boolean> {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('retry'), { maxPriority: 5 });
  const properties = { messageId: 'm', correlationId: 'c', type: 't', priority: 3 };
  await publishAll(url, queue, [
    {
      body: { id: 'kept', do: 'retry', ms },
      options: { ...properties, headers: { tenant: 'a' }, compression: 'zlib' },
    },
    ...Array.from({ length: 5 }, (_, i) => ({ body: { id: i } })),
  ]);
  const consumer = consumerOf(url, queue, { workers: 1, prefetchCount: 1 });
  const connection = new Connection(url);
  try {
    await consumer.consume();
    await until('the others are handled', () => effects.counts().size >= 5 && consumer.stats().unsettled === 0);
    await consumer.close();
    if (effects.counts().has('kept')) return false;
    const message = await until('it is back', () => queue.get(connection));
    assert.deepEqual(message.payload, { id: 'kept', do: 'retry', ms });
    const { messageId, correlationId, type, priority } = message.properties;
    assert.deepEqual({ messageId, correlationId, type, priority }, properties);
    assert.equal(message.headers.tenant, 'a');
    assert.equal(message.headers['x-mozuku-retries'], 1);
    assert.equal(message.headers['x-mozuku-routing-key'], queue.name);
    message.ack();
    return true;
  } finally {
    await consumer.close();
    await connection.close();
    await removed(url, queue.name, `${queue.name}.retry.${ms}`);
  }
}

brokerTest('what the broker keeps comes back as it was, and takes no place meanwhile', async (broker) => {
  for (const ms of [2000, 10_000, 50_000]) if (await comesBack(broker.url, ms)) return;
  assert.fail('it was handled again before its consumer could close');
});

brokerTest(
  'a message that is retried twice keeps where it came from, and no count of an earlier life',
  async (broker) => {
    using _effects = new EffectsLog();
    const exchange = new Exchange(uniqueName('origin'), { type: 'topic', autoDelete: true });
    const queue = new Queue(uniqueName('retry'), exchange, { routingKey: 'orders.#' });
    const connection = new Connection(broker.url);
    await queue.declare(connection);
    // As a message has it that was shovelled back from a dead-letter queue.
    const death = {
      queue: queue.name,
      reason: 'expired',
      exchange: exchange.name,
      count: 1,
      'routing-keys': ['orders.new'],
    };
    const headers = { 'x-death': [death], 'x-first-death-reason': 'expired' };
    await connection.Producer({ exchange }).publish({ id: 'x', do: 'throw' }, { routingKey: 'orders.new', headers });
    const consumer = consumerOf(broker.url, queue, { retry: { attempts: 3, initial: 20, factor: 1, jitter: 0 } });
    const dead = new Queue(`${queue.name}.dead`).bind(connection);
    try {
      await consumer.consume();
      await until('it is given up', () => consumer.stats().deadLettered === 1, { state: () => consumer.stats() });
      assert.equal(consumer.stats().retried, 2);
      const letter = await dead.get();
      assert.equal(letter!.headers['x-mozuku-attempts'], 3);
      assert.equal(letter!.headers['x-mozuku-exchange'], exchange.name);
      assert.equal(letter!.headers['x-mozuku-routing-key'], 'orders.new');
      assert.equal('x-mozuku-retries' in letter!.headers, false);
      letter!.ack();
    } finally {
      await consumer.close();
      await connection.close();
      await removed(broker.url, queue.name, `${queue.name}.dead`, `${queue.name}.retry.20`);
    }
  },
);
