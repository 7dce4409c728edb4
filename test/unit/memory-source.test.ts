/** What only the embedded broker does to a sharded consumer: an operator's closing, waiting at the ceiling, turns, another start. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Connection, errors, Queue, type ShardedConsumerOptions } from '#src/index';
import { Dispatcher } from '#src/main/runtime/dispatcher';
import { forgetMemoryBroker, memoryBroker } from '#src/main/transports/memory/broker';
import { MemorySource } from '#src/main/transports/memory/source';
import { Arena } from '#src/pool/arena';
import { allocateMemory } from '#src/pool/memory';
import { consumerOf, EffectsLog, next, until } from '../support/rig.js';

let names = 0;

/** A broker of the test's own. */
function scene() {
  const name = `source-${process.pid}-${names++}`;
  const url = `memory://${name}`;
  const connection = new Connection(url);
  const queue = new Queue('work');
  return {
    name,
    url,
    connection,
    queue,
    consumer: (options: Partial<ShardedConsumerOptions> = {}) => consumerOf(url, queue, options),
    async publish(count: number, order: object = {}): Promise<void> {
      await queue.declare(connection);
      const producer = connection.Producer({ routingKey: queue.name });
      await Promise.all(Array.from({ length: count }, (_, id) => producer.publish({ id, ...order })));
    },
    async [Symbol.asyncDispose](): Promise<void> {
      await connection.close();
      forgetMemoryBroker(name);
    },
  };
}

test('memory source: a connection that the broker closes is opened again, late settlements are stale', async () => {
  await using stage = scene();
  using effects = new EffectsLog();
  await stage.publish(60, { do: 'sleep', ms: 20 });
  const consumer = stage.consumer({ concurrency: 4 });
  const heard: string[] = [];
  consumer.on('disconnected', ({ message }) => heard.push(message));
  try {
    await consumer.consume();
    await until('some are handled', () => effects.read().length >= 20);
    const back = next(consumer as never, 'reconnected');
    memoryBroker(stage.name).closeConnections('by a test');
    await back;
    await until('all are handled', () => effects.counts().size === 60, { state: () => consumer.stats() });
    await until('nothing is unsettled', () => consumer.stats().unsettled === 0);
    assert.equal(heard.length, 1);
    assert.match(heard[0]!, /CONNECTION_FORCED - by a test/);
    assert.ok(consumer.stats().stale > 0);
    assert.ok(consumer.stats().redelivered > 0);
    await until('the arena is empty', () => consumer.stats().arena.used === 0);
  } finally {
    await consumer.close();
  }
});

test('memory source: at the ceiling of the arena the queue keeps the messages, and nothing is shed', async () => {
  await using stage = scene();
  using effects = new EffectsLog();
  await stage.publish(40, { do: 'busy', ms: 5, pad: 'x'.repeat(1024 * 1024) });
  const consumer = stage.consumer({ maxMemory: 8 * 1024 * 1024, prefetchCount: 64 });
  try {
    await consumer.consume();
    assert.ok(consumer.stats().unsettled < 10, 'no more than fits');
    await until('all are acked', () => consumer.stats().acked === 40, { state: () => consumer.stats() });
    const { shed, redelivered, requeued } = consumer.stats();
    assert.deepEqual({ shed, redelivered, requeued }, { shed: 0, redelivered: 0, requeued: 0 });
    assert.equal(effects.counts().size, 40);
  } finally {
    await consumer.close();
  }
});

test('memory source: a deep queue does not hold up the event loop', async () => {
  await using stage = scene();
  using _effects = new EffectsLog();
  await stage.queue.declare(stage.connection);
  const producer = stage.connection.Producer({ routingKey: 'work' });
  const body = { id: 1, pad: 'x'.repeat(20_000) };
  for (let i = 0; i < 40; i++) await Promise.all(Array.from({ length: 100 }, () => producer.publish(body)));
  const consumer = stage.consumer({ prefetchCount: 4000 });
  try {
    let turns = 0;
    let counting = true;
    const count = (): void => {
      turns++;
      if (counting) setImmediate(count);
    };
    await consumer.consume();
    setImmediate(count);
    await until('all are here', () => consumer.stats().received === 4000, { everyMs: 1 });
    counting = false;
    // 80 MB are not copied in one turn.
    assert.ok(turns > 5, `${turns} turns`);
  } finally {
    await consumer.close();
  }
});

test('memory: a consumer without a prefetch on a deep queue leaves the event loop turning', async () => {
  await using stage = scene();
  await stage.queue.declare(stage.connection);
  const producer = stage.connection.Producer({ routingKey: 'work' });
  for (let i = 0; i < 100; i++) await Promise.all(Array.from({ length: 300 }, () => producer.publish('x')));
  let turns = 0;
  let received = 0;
  const done = new Promise<void>((resolve) => {
    const consumer = stage.connection.Consumer(stage.queue, {
      noAck: true,
      onMessage: () => {
        if (++received === 30_000) resolve();
      },
    });
    void consumer.consume();
  });
  const count = (): void => {
    turns++;
    if (received < 30_000) setImmediate(count);
  };
  setImmediate(count);
  await done;
  assert.ok(turns > 14, `${turns} turns`);
});

test('memory source: consumes again after a cancel, on the same channel', async () => {
  await using stage = scene();
  await stage.publish(3);
  const memory = allocateMemory(64, 8 * 1024 * 1024);
  const arena = new Arena(8 * 1024 * 1024);
  const waiting: number[] = [];
  const dispatcher: Dispatcher = new Dispatcher(
    memory,
    arena,
    {
      settle: (entry, outcome) => source.settle(entry, outcome),
      retry: () => assert.fail('nobody asked for it'),
      dead: () => assert.fail('nothing dies'),
    },
    5,
  );
  const source: MemorySource = new MemorySource(
    {
      parameters: stage.connection.parameters,
      queues: [stage.queue],
      prefetchCount: 2,
      autoDeclare: true,
      consumerArguments: {},
      sink: {
        memory,
        arena,
        dispatcher,
        ordered: false,
        maxMessageBytes: 1_000_000,
        oversize: undefined,
        onTooLarge: () => undefined,
        onSwallowed: () => undefined,
        onRead: () => waiting.push(dispatcher.waiting()),
      },
    },
    {
      queues: () => undefined,
      generationEnded: () => undefined,
      disconnected: (error) => assert.fail(error),
      reconnected: () => undefined,
      error: (error) => assert.fail(error),
    },
  );
  await source.start();
  await until('the prefetch is used', () => waiting.at(-1) === 2, { everyMs: 1 });
  assert.equal(source.outstanding, 2);
  await source.cancel(1000);
  assert.equal(dispatcher.giveBack(), 2);
  source.flush();
  assert.equal(source.outstanding, 0);
  assert.equal((await stage.queue.declare(stage.connection)) && dispatcher.waiting(), 0);
  await source.resume();
  await until('it comes again', () => dispatcher.waiting() === 2, { everyMs: 1 });
  assert.equal(dispatcher.counters.redelivered, 2);
  assert.equal(dispatcher.counters.requeued, 2);
  await source.close();
  assert.equal(arena.usedBytes, 0);
  assert.equal(arena.takenBytes, 0);
  assert.equal((await stage.queue.get(stage.connection))?.deliveryInfo.redelivered, true);
});

test('memory: brokers with different names, and virtual hosts, know nothing of each other', async () => {
  await using stage = scene();
  await stage.publish(1);
  const other = new Connection(`${stage.url}/other`);
  const passive = new Queue('work', { passive: true });
  await assert.rejects(passive.declare(other), errors.NotFound);
  await other.close();
  const elsewhere = new Connection('memory://no-such-broker');
  await assert.rejects(passive.declare(elsewhere), errors.NotFound);
  await elsewhere.close();
  const same = new Connection(`${stage.url}//`);
  assert.equal(await passive.declare(same), 'work');
  await same.close();
});

test('memory: a broker that is forgotten closes its connections and keeps nothing', async () => {
  await using stage = scene();
  await stage.publish(1);
  const lost = new Promise<errors.KombuError | undefined>((resolve) => stage.connection.on('disconnected', resolve));
  forgetMemoryBroker(stage.name);
  assert.match(String((await lost)?.message), /CONNECTION_FORCED - the broker was forgotten/);
  const passive = new Queue('work', { passive: true });
  await assert.rejects(passive.declare(stage.connection), errors.NotFound);
});

test('memory: an open connection keeps the process alive, a closed one does not', async () => {
  const { spawn } = await import('node:child_process');
  const module = new URL('../../../dist/index.js', import.meta.url).href;
  const program = `
    const { Connection } = await import(${JSON.stringify(module)});
    const connection = await new Connection('memory://').connect();
    process.stdout.write('open');
    process.stdin.once('data', () => { process.stdin.unref?.(); process.stdin.pause(); connection.close(); });
    process.stdin.unref?.();`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: ['pipe', 'pipe', 'inherit'] });
  const exited = new Promise((resolve) => child.once('exit', (code) => resolve(code)));
  await new Promise((resolve) => child.stdout.once('data', resolve));
  assert.equal(await Promise.race([exited, new Promise((resolve) => setTimeout(resolve, 200, 'alive'))]), 'alive');
  child.stdin.write('close');
  assert.equal(await exited, 0);
});
