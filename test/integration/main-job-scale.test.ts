/** Workers come and go while a consumer runs: scale, recycling; pause and resume; ack: 'none'; each kind of handler. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Connection, errors, type FailedMessage, Queue, type WorkerEvent } from '#src/index';
import { TcpProxy } from '../support/proxy.js';
import { brokerTest, uniqueName, waitForQueue } from '../support/rabbitmq.js';
import { consumerOf, EffectsLog, next, publishAll, until } from '../support/rig.js';

async function removed(url: string, ...queues: Queue[]): Promise<void> {
  const connection = new Connection(url);
  for (const queue of queues) await queue.bind(connection).delete();
  await connection.close();
}

const sleepers = (count: number, ms = 5) =>
  Array.from({ length: count }, (_, i) => ({ body: { id: i, do: 'sleep', ms } }));

brokerTest('scale() resolves when there are so many workers; nothing is lost or repeated', async (broker) => {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('scale'));
  await publishAll(broker.url, queue, sleepers(400));
  const consumer = consumerOf(broker.url, queue);
  await assert.rejects(consumer.scale(2), errors.OptionError, 'not before consume()');
  try {
    await consumer.consume();
    for (const workers of [5, 1, 3]) {
      await consumer.scale(workers);
      const { workers: lives } = consumer.stats();
      assert.deepEqual(
        lives.map(({ id, state }) => [id, state]),
        Array.from({ length: workers }, (_, id) => [id, 'running']),
      );
    }
    // Not waited for: the last one counts.
    await Promise.all([consumer.scale(6), consumer.scale(2), consumer.scale(4)]);
    await until('there are four', () => consumer.stats().workers.length === 4, { state: () => consumer.stats() });
    for (const wrong of [0, 65, 1.5, '2' as never]) await assert.rejects(consumer.scale(wrong), errors.OptionError);
    await until('all are handled', () => effects.counts().size === 400, { state: () => consumer.stats() });
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
    assert.ok([...effects.counts().values()].every((count) => count === 1));
    assert.equal(consumer.stats().acked, 400);
  } finally {
    await consumer.close();
    await removed(broker.url, queue);
  }
  await assert.rejects(consumer.scale(2), errors.ClosedError);
});

brokerTest('workers are replaced one at a time for their age', async (broker) => {
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('age'));
  await publishAll(broker.url, queue, sleepers(600, 4));
  const consumer = consumerOf(broker.url, queue, { workers: 3, maxMessagesPerWorker: 40 });
  const events: WorkerEvent[] = [];
  let leastRunning = 3;
  consumer.on('worker', (event) => {
    events.push(event);
    const running = consumer.stats().workers.filter(({ state }) => state === 'running').length;
    leastRunning = Math.min(leastRunning, running);
  });
  try {
    await consumer.consume();
    leastRunning = 3;
    await until('all are handled', () => effects.counts().size === 600, { state: () => consumer.stats() });
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
    const exits = events.filter(({ state }) => state === 'exited');
    assert.ok(exits.length >= 2, `${exits.length} were replaced`);
    assert.ok(exits.every(({ reason, error }) => error === undefined && /has handled \d+ messages/.test(reason ?? '')));
    assert.ok(leastRunning >= 2, `only ${leastRunning} workers at a time`);
    assert.ok([...effects.counts().values()].every((count) => count === 1));
  } finally {
    await consumer.close();
    await removed(broker.url, queue);
  }
});

brokerTest('a worker is replaced for its memory', async (broker) => {
  const folder = mkdtempSync(join(tmpdir(), 'mozuku-memory-'));
  const handler = join(folder, 'handler.mjs');
  writeFileSync(handler, 'const hoard = []; export default () => { hoard.push(Buffer.alloc(4 << 20, 1)); };');
  const queue = new Queue(uniqueName('memory'));
  await publishAll(broker.url, queue, sleepers(40));
  const consumer = consumerOf(broker.url, queue, { handler, workers: 1, maxWorkerMemory: 100 << 20 });
  try {
    const replaced = new Promise<WorkerEvent>((resolve) => {
      consumer.on('worker', (event) => event.state === 'exited' && resolve(event));
    });
    await consumer.consume();
    assert.match((await replaced).reason!, /its memory is \d+ bytes/);
    await until('all are acked', () => consumer.stats().acked === 40);
  } finally {
    await consumer.close();
    await removed(broker.url, queue);
    rmSync(folder, { recursive: true });
  }
});

brokerTest('pause() gives back what has not started and lets the rest end; resume() goes on', async (broker) => {
  using effects = new EffectsLog();
  const latch = join(effects.folder, 'latch');
  const queue = new Queue(uniqueName('pause'));
  await publishAll(broker.url, queue, [
    { body: { id: 'runs', do: 'latch', at: latch } },
    ...Array.from({ length: 30 }, (_, i) => ({ body: { id: i } })),
  ]);
  const consumer = consumerOf(broker.url, queue, { workers: 1 });
  try {
    await consumer.consume();
    await until('one runs, and the others are here', () => consumer.stats().waiting === 30);
    await consumer.pause();
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 30 && unacked === 1);
    assert.equal(consumer.stats().state, 'paused');
    writeFileSync(latch, '');
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 30 && unacked === 0);
    assert.deepEqual([...effects.counts().keys()], ['runs']);
    await Promise.all([consumer.pause(), consumer.resume(), consumer.pause(), consumer.resume()]);
    await until('all are handled', () => effects.counts().size === 31, { state: () => consumer.stats() });
    assert.equal(consumer.stats().state, 'consuming');
  } finally {
    await consumer.close();
    await removed(broker.url, queue);
  }
  await assert.rejects(consumer.pause(), errors.ClosedError);
});

brokerTest('a paused consumer that loses its connection stays paused, and resumes on a new one', async (broker) => {
  await using proxy = await TcpProxy.listen(broker.url);
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('pause'));
  const consumer = consumerOf(proxy.url, queue);
  try {
    await consumer.consume();
    await consumer.pause();
    const [first] = proxy.connections;
    proxy.cutAll();
    await first!.closed;
    await publishAll(broker.url, queue, [{ body: { id: 'waits' } }]);
    assert.equal(proxy.live.length, 0);
    assert.equal(consumer.stats().state, 'paused');
    await consumer.resume();
    await until('it is handled', () => effects.counts().has('waits'));
    // And while it reconnects: no connection is made until it resumes.
    proxy.refuse();
    const lost = next(consumer, 'disconnected');
    proxy.cutAll();
    await lost;
    await consumer.pause();
    await proxy.accept();
    await publishAll(broker.url, queue, [{ body: { id: 'later' } }]);
    assert.equal(proxy.live.length, 0);
    await consumer.resume();
    await until('the other is handled', () => effects.counts().has('later'));
  } finally {
    await consumer.close();
    await removed(broker.url, queue);
  }
});

brokerTest("ack: 'none' acks as the callback begins, within the prefetch, whatever becomes of it", async (broker) => {
  using effects = new EffectsLog();
  const latch = join(effects.folder, 'latch');
  const queue = new Queue(uniqueName('none'));
  await publishAll(broker.url, queue, [
    { body: { id: 'runs', do: 'latch', at: latch } },
    { body: { id: 'fails', do: 'throw' } },
    { body: { id: 'acks', do: 'ack' } },
    ...Array.from({ length: 40 }, (_, i) => ({ body: { id: i, do: 'latch', at: latch } })),
  ]);
  const consumer = consumerOf(broker.url, queue, { ack: 'none', workers: 1, concurrency: 2, prefetchCount: 5 });
  const failures: FailedMessage[] = [];
  consumer.on('failed', (failure) => failures.push(failure));
  try {
    await consumer.consume();
    // Two run, acked; five more wait, which is all that the broker gives out.
    await until('the failing one has failed', () => failures.length === 1);
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 34 && unacked === 5);
    assert.equal(failures[0]!.outcome, 'none');
    writeFileSync(latch, '');
    await until('all are handled', () => effects.counts().size === 42, { state: () => consumer.stats() });
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
    assert.equal(consumer.stats().acked, 43);
    for (const { id, hash } of effects.read()) assert.match(hash, /^[0-9a-f]{64}$/, id);
  } finally {
    await consumer.close();
    await removed(broker.url, queue);
  }
});

brokerTest(
  'callbacks are called in order, and stop at the first that fails; onMessage gets it undecoded',
  async (broker) => {
    const folder = mkdtempSync(join(tmpdir(), 'mozuku-kinds-'));
    const log = join(folder, 'log');
    const [list, raw] = [join(folder, 'list.mjs'), join(folder, 'raw.mjs')];
    const append = `import { appendFileSync } from 'node:fs'; const say = (text) => appendFileSync(${JSON.stringify(log)}, text + '\\n');`;
    writeFileSync(
      list,
      `${append} export const callbacks = [
      async (body) => { await null; say('one ' + body.id); },
      (body) => { say('two ' + body.id); if (body.id === 2) throw new Error('stop'); },
      (body, message, context) => say('three ' + body.id + ' ' + context.attempt)];
      export const setup = ({ worker }) => say('setup ' + worker);
      export const teardown = ({ worker }) => say('teardown ' + worker);`,
    );
    writeFileSync(
      raw,
      `${append} export const onMessage = (message) => say(message.body.toString('hex') + ' ' + message.properties.contentType);`,
    );
    const queue = new Queue(uniqueName('kinds'));
    const { readFileSync } = await import('node:fs');
    try {
      await publishAll(broker.url, queue, [{ body: { id: 1 } }, { body: { id: 2 } }]);
      const consumer = consumerOf(broker.url, queue, { handler: list, workers: 1, deadLetter: 'drop' });
      await consumer.consume();
      await until('both are settled', () => consumer.stats().acked === 2);
      await consumer.close();
      assert.deepEqual(readFileSync(log, 'utf8').trim().split('\n'), [
        'setup 0',
        'one 1',
        'two 1',
        'three 1 1',
        'one 2',
        'two 2',
        'teardown 0',
      ]);
      rmSync(log);
      await publishAll(broker.url, queue, [{ body: Buffer.from([1, 255]), options: { contentType: 'image/png' } }]);
      const other = consumerOf(broker.url, queue, { handler: raw, workers: 1 });
      await other.consume();
      await until('it is settled', () => other.stats().acked === 1);
      await other.close();
      assert.equal(readFileSync(log, 'utf8'), '01ff image/png\n');
    } finally {
      rmSync(folder, { recursive: true });
      await removed(broker.url, queue);
    }
  },
);

brokerTest('workers that come later know the names of all queues', async (broker) => {
  using _effects = new EffectsLog();
  const queues = [new Queue(uniqueName('one')), new Queue(uniqueName('two'))];
  const consumer = consumerOf(broker.url, queues, { workers: 1, deadLetter: 'drop' });
  const failed = new Map<number, Set<string | undefined>>();
  consumer.on('failed', ({ worker, queue }) => failed.set(worker, (failed.get(worker) ?? new Set()).add(queue)));
  try {
    await consumer.consume();
    await consumer.scale(3);
    for (const queue of queues) {
      const bodies = Array.from({ length: 60 }, (_, id) => ({ body: { id, do: id % 2 ? 'throw' : 'sleep', ms: 3 } }));
      await publishAll(broker.url, queue, bodies);
    }
    await until('all are settled', () => consumer.stats().acked === 120, { state: () => consumer.stats() });
    assert.equal(failed.size, 3, 'each worker had some');
    for (const names of failed.values())
      for (const name of names) assert.ok(queues.some((queue) => queue.name === name));
  } finally {
    await consumer.close();
    await removed(broker.url, ...queues);
  }
});
