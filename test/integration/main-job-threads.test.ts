/** Threads that do not start, callbacks that run beside each other, listeners that throw: what goes wrong stays where it is. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Connection, errors, type FailedMessage, Queue, type ShardedConsumer, type WorkerEvent } from '#src/index';
import { TcpProxy } from '../support/proxy.js';
import { brokerTest, uniqueName, waitForQueue } from '../support/rabbitmq.js';
import { consumerOf, EffectsLog, next, publishAll, until } from '../support/rig.js';

const elsewhere = 'amqp://127.0.0.1:1//';

async function removed(url: string, ...queues: Queue[]): Promise<void> {
  const connection = new Connection(url);
  for (const queue of queues) await queue.bind(connection).delete();
  await connection.close();
}

function failuresOf(consumer: ShardedConsumer): FailedMessage[] {
  const failures: FailedMessage[] = [];
  consumer.on('failed', (failure) => failures.push(failure));
  return failures;
}

test('a thread that Node refuses to make rejects consume() with the reason', async () => {
  const consumer = consumerOf(elsewhere, new Queue('q'), { execArgv: ['--expose-gc'], drainTimeout: 60_000 });
  await assert.rejects(
    consumer.consume(),
    (error) => error instanceof errors.HandlerLoadError && /--expose-gc/.test(error.message),
  );
  await assert.rejects(consumer.closed, errors.HandlerLoadError);
});

test('a thread that dies while it boots rejects consume() with the reason', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mozuku-boot-'));
  const preload = join(folder, 'preload.cjs');
  writeFileSync(preload, 'if (!require("node:worker_threads").isMainThread) throw new Error("no boot today");');
  try {
    const consumer = consumerOf(elsewhere, new Queue('q'), { execArgv: ['--require', preload], drainTimeout: 60_000 });
    await assert.rejects(
      consumer.consume(),
      (error) => error instanceof errors.HandlerLoadError && /no boot today/.test(error.message),
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('one worker that cannot start does not wait for another that never finishes', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mozuku-setup-'));
  const path = join(folder, 'handler.mjs');
  writeFileSync(
    path,
    `export default () => 0;
     export const setup = ({ worker }) => (worker === 0 ? Promise.reject(undefined) : new Promise(() => 0));`,
  );
  try {
    const consumer = consumerOf(elsewhere, new Queue('q'), {
      handler: path,
      drainTimeout: 600_000,
      startTimeout: 600_000,
    });
    await assert.rejects(consumer.consume(), /worker 0 could not start: .*undefined/);
    assert.deepEqual(consumer.stats().workers, []);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

brokerTest('replacements that die as they boot are tried again, and lose nothing', async (broker) => {
  const folder = mkdtempSync(join(tmpdir(), 'mozuku-boot-'));
  const marker = join(folder, 'broken');
  const preload = join(folder, 'preload.cjs');
  writeFileSync(
    preload,
    `if (!require("node:worker_threads").isMainThread && require("node:fs").existsSync(${JSON.stringify(marker)})) throw new Error("boot");`,
  );
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('boot'));
  const consumer = consumerOf(broker.url, queue, { workers: 1, execArgv: ['--require', preload], maxDeliveries: 1 });
  const exits: WorkerEvent[] = [];
  consumer.on('worker', (event) => event.state === 'exited' && exits.push(event));
  try {
    await consumer.consume();
    writeFileSync(marker, '');
    await publishAll(broker.url, queue, [
      { body: { id: 'culprit', do: 'exit' } },
      ...Array.from({ length: 20 }, (_, i) => ({ body: { id: i } })),
    ]);
    await until('three lives are over', () => exits.length >= 3, { state: () => exits });
    assert.match(String(exits[1]!.error), /boot/);
    rmSync(marker);
    await until('all are handled', () => effects.counts().size === 20, { state: () => consumer.stats() });
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
    assert.ok([...effects.counts().values()].every((count) => count === 1));
  } finally {
    await consumer.close();
    await removed(broker.url, queue, new Queue(`${queue.name}.dead`));
    rmSync(folder, { recursive: true });
  }
});

brokerTest('close() past drainTimeout gives messages back whose callbacks heed the signal', async (broker) => {
  using _effects = new EffectsLog();
  const queue = new Queue(uniqueName('heed'));
  await publishAll(broker.url, queue, [{ body: { id: 1, do: 'honour' } }, { body: { id: 2, do: 'honour' } }]);
  const consumer = consumerOf(broker.url, queue, { drainTimeout: 200, concurrency: 2 });
  const failures = failuresOf(consumer);
  await consumer.consume();
  await until('both run', () => consumer.stats().inFlight === 2);
  await consumer.close();
  await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 2 && unacked === 0);
  assert.equal(consumer.stats().deadLettered, 0);
  assert.deepEqual(
    failures.map(({ outcome }) => outcome),
    ['requeue', 'requeue'],
  );
  await removed(broker.url, queue);
});

brokerTest(
  'only callbacks of the lost channel are aborted by its loss, however late their worker hears of it',
  async (broker) => {
    await using proxy = await TcpProxy.listen(broker.url);
    using effects = new EffectsLog();
    const queue = new Queue(uniqueName('abort'));
    // One computes while the connection is lost and comes back; beside it, the next ones begin in the same turn.
    await publishAll(broker.url, queue, [
      { body: { id: 'busy', do: 'busy', ms: 1500 } },
      ...Array.from({ length: 30 }, (_, i) => ({ body: { id: i, do: 'work', ms: 40 } })),
    ]);
    const consumer = consumerOf(proxy.url, queue, { workers: 1, concurrency: 4 });
    const failures = failuresOf(consumer);
    try {
      await consumer.consume();
      await until('it runs', () => consumer.stats().inFlight > 0);
      const back = next(consumer, 'reconnected');
      proxy.cutAll();
      await back;
      await until('all are handled', () => effects.counts().size === 31, { state: () => consumer.stats() });
      await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
      assert.deepEqual(failures.map(String), []);
      assert.equal(consumer.stats().deadLettered, 0);
    } finally {
      await consumer.close();
      await removed(broker.url, queue);
    }
  },
);

brokerTest('callbacks beside each other have their timeout each, from their own start', async (broker) => {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('beside'));
  // Eight compute 200 ms each before they wait as long: the last starts 1400 ms after the first.
  const bodies = Array.from({ length: 8 }, (_, i) => ({ body: { id: i, do: 'work', ms: 400 } }));
  await publishAll(broker.url, queue, bodies);
  const consumer = consumerOf(broker.url, queue, { workers: 1, concurrency: 8, timeout: 1900 });
  const failures = failuresOf(consumer);
  try {
    await consumer.consume();
    await until('all are handled', () => effects.counts().size + failures.length >= 8);
    assert.deepEqual(
      failures.map(({ error }) => error.message),
      [],
    );
  } finally {
    await consumer.close();
    await removed(broker.url, queue);
  }
});

brokerTest('of two beside each other the one that loops is found out, and the other is not blamed', async (broker) => {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('blame'));
  await publishAll(broker.url, queue, [
    { body: { id: 'innocent', do: 'sleep', ms: 400 } },
    { body: { id: 'guilty', do: 'loopAfter', ms: 100 }, options: { messageId: 'guilty' } },
  ]);
  const consumer = consumerOf(broker.url, queue, { workers: 1, concurrency: 2, timeout: 500, maxDeliveries: 1 });
  try {
    await consumer.consume();
    await until('one is dead-lettered', () => consumer.stats().deadLettered === 1, { state: () => consumer.stats() });
    await until('the other is handled', () => effects.counts().has('innocent'), { state: () => consumer.stats() });
    const connection = new Connection(broker.url);
    const letter = await new Queue(`${queue.name}.dead`).bind(connection).get();
    assert.equal(letter?.properties.messageId, 'guilty');
    assert.match(String(letter?.headers['x-mozuku-reason']), /deaths|failed/);
    letter?.ack();
    await connection.close();
  } finally {
    await consumer.close();
    await removed(broker.url, queue, new Queue(`${queue.name}.dead`));
  }
});

brokerTest('a callback that was given up and then blocks its thread does not block the consumer', async (broker) => {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('leftover'));
  await publishAll(broker.url, queue, [{ body: { id: 'late', do: 'loopAfter', ms: 600 } }]);
  const consumer = consumerOf(broker.url, queue, { workers: 1, timeout: 200 });
  const exits: WorkerEvent[] = [];
  consumer.on('worker', (event) => event.state === 'exited' && exits.push(event));
  try {
    await consumer.consume();
    await until('it was given up', () => consumer.stats().deadLettered === 1);
    await until('its thread is replaced', () => exits.length === 1, { state: () => consumer.stats() });
    await publishAll(broker.url, queue, [{ body: { id: 'after' } }]);
    await until('the next is handled', () => effects.counts().has('after'));
    assert.equal(consumer.stats().deadLettered, 1);
  } finally {
    await consumer.close();
    await removed(broker.url, queue, new Queue(`${queue.name}.dead`));
  }
});

brokerTest("with ack: 'manual' what a lost channel delivered gives its place up", async (broker) => {
  await using proxy = await TcpProxy.listen(broker.url);
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('manual'));
  const latch = join(effects.folder, 'latch');
  await publishAll(
    broker.url,
    queue,
    Array.from({ length: 8 }, (_, i) => ({ body: { id: i, do: 'later', at: latch } })),
  );
  const consumer = consumerOf(proxy.url, queue, { ack: 'manual', prefetchCount: 8 });
  try {
    await consumer.consume();
    for (let round = 1; round <= 5; round++) {
      await until('all have returned', () => effects.read().length === 8 * round, { state: () => consumer.stats() });
      const back = next(consumer, 'reconnected');
      proxy.cutAll();
      await back;
    }
    await until('only the living channel holds any', () => consumer.stats().inFlight === 8, {
      state: () => consumer.stats(),
    });
    writeFileSync(latch, '');
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
    assert.equal(consumer.stats().acked, 8);
    assert.equal(consumer.stats().failed, 0, 'a settlement that came too late is no mistake');
  } finally {
    await consumer.close();
    await removed(broker.url, queue);
  }
});

brokerTest(
  'a listener or a logger that throws disturbs its own process and not the runtime',
  async (broker, context) => {
    using effects = new EffectsLog();
    const queue = new Queue(uniqueName('listeners'));
    const uncaught: string[] = [];
    const onUncaught = (error: Error): void => {
      uncaught.push(error.message);
    };
    const others = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', onUncaught);
    context.after(() => {
      process.removeListener('uncaughtException', onUncaught);
      for (const other of others) process.on('uncaughtException', other);
    });
    const fail = (what: string) => () => {
      throw new Error(what);
    };
    const logger = { debug: fail('logger'), info: fail('logger'), warn: fail('logger'), error: fail('logger') };
    const consumer = consumerOf(broker.url, queue, { logger, maxDeliveries: 1 });
    for (const event of ['ready', 'failed', 'dead', 'worker', 'closed'] as const) consumer.on(event, fail(event));
    await publishAll(broker.url, queue, [
      { body: { id: 'bad', do: 'throw' } },
      { body: { id: 'exits', do: 'exit' } },
      { body: { id: 'logs', do: 'log' } },
      { body: { id: 'fine' } },
    ]);
    await consumer.consume();
    await until('both are dead-lettered', () => consumer.stats().deadLettered === 2, { state: () => consumer.stats() });
    await until('the others are handled', () => effects.counts().size === 2, { state: () => consumer.stats() });
    await until(
      'there are two workers again',
      () => consumer.stats().workers.filter(({ state }) => state === 'running').length === 2,
    );
    await consumer.close();
    await consumer.closed;
    await once(process, 'uncaughtException', { signal: AbortSignal.timeout(1) }).catch(() => undefined);
    for (const event of ['ready', 'failed', 'dead', 'worker', 'closed', 'logger']) {
      assert.ok(uncaught.includes(event), `${event} surfaced`);
    }
    await removed(broker.url, queue, new Queue(`${queue.name}.dead`));
  },
);
