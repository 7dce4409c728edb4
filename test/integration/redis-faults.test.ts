/** Redis that stops, dies, freezes, refuses or cuts the line under load: consumption resumes by itself, nothing confirmed is lost. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection, type Message, Queue, ShardedConsumer } from '#src/index';
import { TcpProxy } from '../support/proxy.js';
import { RedisServer, redisServerTest } from '../support/redis.js';
import { EFFECTS_HANDLER, EffectsLog, until } from '../support/rig.js';

const LIMIT = { timeout: 120_000 };
const DURABLE = { appendonly: 'yes', appendfsync: 'always' };

/** A consumer under load: publishes until it is told to stop, each again until it is confirmed. */
class Load implements AsyncDisposable {
  readonly effects = new EffectsLog();
  readonly consumer: ShardedConsumer;
  readonly confirmed: string[] = [];
  readonly events: string[] = [];
  readonly #connection: Connection;
  #stopped = false;
  #publishing: Promise<void> = Promise.resolve();

  constructor(url: string, transportOptions: Record<string, unknown> = { visibilityTimeout: 2000 }) {
    const queue = new Queue('q');
    this.#connection = new Connection(url, { transportOptions });
    this.consumer = new ShardedConsumer(new Connection(url, { transportOptions }), queue, {
      handler: EFFECTS_HANDLER,
      workers: 2,
    });
    this.consumer.on('error', (error) => this.events.push(`error: ${error.message}`));
    this.consumer.on('disconnected', (error) => this.events.push(`disconnected: ${error.message}`));
    this.consumer.on('reconnected', () => this.events.push('reconnected'));
  }

  async start(): Promise<void> {
    await this.consumer.consume();
    this.#publishing = this.#publish();
    await this.flows();
  }

  async #publish(): Promise<void> {
    const producer = this.#connection.Producer({ routingKey: 'q' });
    for (let id = 0; !this.#stopped; id++) {
      try {
        await Promise.all(
          [0, 1, 2, 3].map(async (part) => {
            await producer.publish({ id: `${id}.${part}` }, { timeout: 3000 });
            this.confirmed.push(`${id}.${part}`);
          }),
        );
      } catch {
        // Not confirmed: it may have arrived or not.
        await sleep(20);
      }
    }
  }

  /** So many more are published and run. */
  async flows(count = 200): Promise<void> {
    const [acked, published] = [this.consumer.stats().acked, this.confirmed.length];
    await until(
      'messages flow',
      () => this.consumer.stats().acked >= acked + count && this.confirmed.length >= published + count,
      {
        state: () => [
          this.consumer.stats().state,
          this.consumer.stats().acked,
          this.confirmed.length,
          this.events.slice(-5),
        ],
        timeoutMs: 40_000,
      },
    );
  }

  /** Stops publishing; all that was confirmed has run. */
  async end(): Promise<Map<string, number>> {
    this.#stopped = true;
    await this.#publishing;
    let counts = this.effects.counts();
    const missing = (): string[] => {
      counts = this.effects.counts();
      return this.confirmed.filter((id) => !counts.has(id));
    };
    await until('all that was confirmed has run', () => missing().length === 0, {
      state: () => missing().slice(0, 5),
      timeoutMs: 40_000,
    });
    return counts;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    await this.#publishing;
    await this.consumer.close();
    await this.#connection.close();
    this.effects[Symbol.dispose]();
  }
}

redisServerTest('a server that is stopped and started again', LIMIT, async () => {
  await using server = await RedisServer.start({ config: DURABLE });
  await using load = new Load(server.url);
  await load.start();
  await server.restart();
  await load.flows();
  await load.end();
  assert.ok(load.events.includes('reconnected'), load.events.join('\n'));
});

redisServerTest('a server that is killed and started again', LIMIT, async () => {
  await using server = await RedisServer.start({ config: DURABLE });
  await using load = new Load(server.url);
  await load.start();
  for (let i = 0; i < 3; i++) {
    await server.kill('SIGKILL');
    await server.restart();
    await load.flows();
  }
  await load.end();
});

redisServerTest('clients that are killed, and waits that are ended with an error', LIMIT, async () => {
  await using server = await RedisServer.start();
  await using load = new Load(server.url);
  await load.start();
  for (let i = 0; i < 3; i++) {
    const list = String(await server.command('CLIENT', 'LIST'));
    for (const [, id, name] of list.matchAll(/id=(\d+) .*?name=(\S*)/g)) {
      if (name?.startsWith('mozuku')) await server.command('CLIENT', 'UNBLOCK', id!, 'ERROR');
    }
    await load.flows();
    await server.command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await load.flows();
  }
  await load.end();
});

redisServerTest(
  'a server that becomes a replica refuses writes; it is left until it is a primary again',
  LIMIT,
  async () => {
    await using other = await RedisServer.start();
    await using server = await RedisServer.start({ config: { 'repl-diskless-load': 'disabled' } });
    await using load = new Load(server.url);
    await load.start();
    await server.command('REPLICAOF', '127.0.0.1', other.port);
    await until('it is noticed', () => load.events.some((event) => event.startsWith('disconnected')), {
      state: () => load.events,
    });
    const start = performance.now();
    await until('a while', () => performance.now() - start > 1500);
    const flaps = load.events.filter((event) => event === 'reconnected').length;
    assert.ok(flaps === 0, `reconnected ${flaps} times to a replica`);
    await server.command('REPLICAOF', 'NO', 'ONE');
    await load.flows();
  },
);

redisServerTest('a line that is cut at any byte', LIMIT, async () => {
  await using server = await RedisServer.start();
  await using proxy = await TcpProxy.listen(server.url);
  await using load = new Load(proxy.url);
  await load.start();
  for (let i = 0; i < 12; i++) {
    for (const connection of proxy.live) {
      const way = i % 2 === 0 ? 'toServer' : 'toClient';
      connection.cutAfter(connection.forwarded[way] + 1 + 110 * i, way);
    }
    const seen = proxy.connections.length;
    await until('it is cut', () => proxy.connections.length > seen || proxy.live.length === 0, {
      timeoutMs: 5000,
    }).catch(() => proxy.cutAll());
    await load.flows(50);
  }
  await load.end();
});

redisServerTest('a frozen server', LIMIT, async () => {
  await using server = await RedisServer.start();
  await using load = new Load(server.url, { visibilityTimeout: 30_000 });
  await load.start();
  server.freeze();
  await sleep(2000);
  server.thaw();
  await load.flows();
  await load.end();
});

for (const how of ['pause', 'close'] as const) {
  redisServerTest(`a line that is lost during ${how}(): what runs keeps its lease, and runs once`, LIMIT, async () => {
    await using server = await RedisServer.start();
    await using proxy = await TcpProxy.listen(server.url);
    using effects = new EffectsLog();
    const queue = new Queue('q');
    const transportOptions = { visibilityTimeout: 600 };
    const options = { handler: EFFECTS_HANDLER, workers: 1, concurrency: 1, prefetchCount: 2 };
    const first = new ShardedConsumer(new Connection(proxy.url, { transportOptions }), queue, options);
    const other = new ShardedConsumer(new Connection(server.url, { transportOptions }), queue, options);
    await first.consume();
    const connection = new Connection(server.url);
    for (const id of ['first', 'second']) {
      await connection.Producer().publish({ id, do: 'sleep', ms: 2500 }, { routingKey: 'q' });
    }
    await until('one runs', () => first.stats().inFlight === 1 && first.stats().received === 2);
    const done = first[how]();
    // Before what has not begun is given back: it is told over the next connection.
    proxy.cutAll();
    await other.consume();
    await done;
    await until('both have run', () => effects.counts().size === 2, { state: () => effects.read() });
    await until('nothing is left', async () => (await server.command('DBSIZE')) === 0);
    assert.deepEqual([...effects.counts().values()], [1, 1]);
    assert.deepEqual([first.stats().acked, other.stats().acked], [1, 1]);
    await Promise.all([first.close(), other.close(), connection.close()]);
  });
}

redisServerTest('a line that is silent for ever is given up', LIMIT, async () => {
  await using server = await RedisServer.start();
  await using proxy = await TcpProxy.listen(server.url);
  const url = `${proxy.url}?heartbeat=1`;
  await using load = new Load(url);
  await load.start();
  proxy.blackHoleAll();
  await until('it is noticed', () => load.events.includes('reconnected'), {
    timeoutMs: 30_000,
    state: () => load.events,
  });
  await load.flows();
  await load.end();
});

redisServerTest('an inline consumer has again at once what it held when the line was cut', LIMIT, async () => {
  await using server = await RedisServer.start();
  await using proxy = await TcpProxy.listen(server.url);
  const queue = new Queue('q');
  const connection = new Connection(proxy.url);
  await queue.declare(connection);
  const producer = connection.Producer({ routingKey: 'q' });
  for (let i = 0; i < 10; i++) await producer.publish(String(i));
  const first = connection.Consumer(queue, { onMessage: () => undefined, prefetchCount: 5 });
  await first.consume();
  await until('five are held', async () => (await server.command('HLEN', 'unacked')) === 5);
  const ended = first.closed;
  proxy.cutAll();
  await assert.rejects(ended);
  const got: string[] = [];
  const second = connection.Consumer(queue, {
    onMessage: (message) => {
      got.push(`${message.decode()}${message.deliveryInfo.redelivered ? ' again' : ''}`);
      message.ack();
    },
    prefetchCount: 1,
  });
  await second.consume();
  await until('all ten', () => got.length === 10, { state: () => got });
  assert.deepEqual(got.slice().sort(), [
    '0 again',
    '1 again',
    '2 again',
    '3 again',
    '4 again',
    '5',
    '6',
    '7',
    '8',
    '9',
  ]);
  await until('nothing is left', async () => (await server.command('DBSIZE')) === 0);
  await connection.close();
});

redisServerTest('acks that were under way when the line was cut are told over the next connection', LIMIT, async () => {
  await using server = await RedisServer.start();
  await using proxy = await TcpProxy.listen(server.url);
  const queue = new Queue('q');
  const connection = new Connection(proxy.url);
  await queue.declare(connection);
  const producer = connection.Producer({ routingKey: 'q' });
  await Promise.all(Array.from({ length: 5 }, () => producer.publish('x')));
  const held: Message[] = [];
  const consumer = connection.Consumer(queue, { onMessage: (message) => held.push(message), prefetchCount: 5 });
  await consumer.consume();
  await until('five are held', () => held.length === 5);
  const ended = assert.rejects(consumer.closed);
  for (const each of proxy.live) each.cutAfter(each.forwarded.toServer + 1, 'toServer');
  for (const message of held) message.ack();
  await ended;
  assert.equal(await server.command('HLEN', 'unacked'), 5);
  assert.equal(await queue.get(connection), null);
  await until('nothing is left', async () => (await server.command('DBSIZE')) === 0);
  await connection.close();
});

redisServerTest(
  'every publish settles when the line is cut, and the process has no unhandled rejection',
  LIMIT,
  async () => {
    const unhandled: unknown[] = [];
    const hear = (error: unknown): number => unhandled.push(error);
    process.on('unhandledRejection', hear);
    await using server = await RedisServer.start();
    await using proxy = await TcpProxy.listen(server.url);
    const connection = new Connection(proxy.url);
    const producer = connection.Producer({ routingKey: 'q' });
    await producer.publish('first');
    for (let i = 0; i < 20; i++) {
      const publishes = Array.from({ length: 100 }, () => producer.publish('x'.repeat(1000)));
      const all = Promise.allSettled(publishes);
      const [live] = proxy.live;
      live?.cutAfter(live.forwarded.toServer + 5000 * i + 1, 'toServer');
      await all;
      proxy.cutAll();
    }
    await connection.close();
    assert.deepEqual(unhandled, []);
    process.off('unhandledRejection', hear);
  },
);
