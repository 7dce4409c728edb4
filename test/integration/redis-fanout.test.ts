/** Fanout exchanges on Redis: queues with several bindings, and listeners that are slower than publishers. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach } from 'node:test';
import { Connection, Consumer, type ConsumerOptions, Exchange, type Message, Queue, ShardedConsumer } from '#src/index';
import { MOST_RUNNING } from '#src/main/transports/redis/consumption';
import { write } from '../support/envelopes.js';
import { RedisServer, type RedisSpace, redisServerTest, redisTest } from '../support/redis.js';
import { EFFECTS_HANDLER, EffectsLog, next, until } from '../support/rig.js';

const LIMIT = { timeout: 120_000 };

const open: { close(): Promise<unknown> }[] = [];
afterEach(() => Promise.all(open.splice(0).map((each) => each.close())));

function connectionTo(url: string, transportOptions: Record<string, unknown> = {}): Connection {
  const connection = new Connection(url, { transportOptions });
  open.push(connection);
  return connection;
}

/** Publishes one after another, and then what ends it, so that all that was to come has come when that is here. */
async function publishTo(url: string, messages: readonly (readonly [Exchange, string, string])[]): Promise<void> {
  await using connection = new Connection(url);
  for (const [exchange, routingKey, body] of messages) {
    await connection.Producer().publish({ id: body }, { exchange, routingKey, declare: [exchange] });
  }
}

/** What differs between consumers: how to start one, and the ids that it has had so far. */
interface Ears {
  readonly consumer: { consume(): Promise<void>; close(): Promise<void> };
  heard(): string[];
}

const KINDS: Record<string, (connection: Connection, queue: Queue) => Ears> = {
  'an inline consumer': (connection, queue) => {
    const got: string[] = [];
    const onMessage = (message: Message): void => {
      got.push((message.decode() as { id: string }).id);
      message.ack();
    };
    return { consumer: new Consumer(connection, queue, { onMessage, prefetchCount: 2 }), heard: () => [...got] };
  },
  'a sharded consumer': (connection, queue) => {
    const effects = new EffectsLog();
    const consumer = new ShardedConsumer(connection, queue, { handler: EFFECTS_HANDLER, workers: 1, concurrency: 1 });
    open.push({ close: async () => effects[Symbol.dispose]() });
    return { consumer, heard: () => effects.read().map(({ id }) => id) };
  },
};

for (const [kind, earsOf] of Object.entries(KINDS)) {
  redisTest(`${kind} hears all fanout exchanges of its queue, each message once`, LIMIT, async ({ url, prefix }) => {
    const [a, b, c] = ['a', 'b', 'c'].map((name) => new Exchange(`${prefix}${name}`, { type: 'fanout' }));
    const connection = connectionTo(url);
    const queue = new Queue(`${prefix}q`, a!, { routingKey: 'x.#' }).bind(connection);
    await queue.declare();
    // A pattern that is like the first, and a key that fits both.
    await queue.bindTo(a!, { routingKey: '#.y' });
    await queue.bindTo(a!, { routingKey: 'x.y' });
    await b!.declare(connection);
    await queue.bindTo(b!);
    const { consumer, heard } = earsOf(connectionTo(url), queue);
    open.unshift(consumer);
    await consumer.consume();
    const comes = async (expected: string[], messages: [Exchange, string, string][]): Promise<void> => {
      const before = heard().length;
      await publishTo(url, messages);
      await until('the last', () => heard().at(-1) === messages.at(-1)![2], { state: heard });
      assert.deepEqual(heard().slice(before), expected);
    };
    await comes(
      ['key', 'pattern', 'other', 'end'],
      [
        [a!, 'x.y', 'key'],
        [a!, 'x.1', 'pattern'],
        [a!, 'z', 'nobody'],
        [b!, '', 'other'],
        [c!, '', 'unbound'],
        [b!, '', 'end'],
      ],
    );
    // While it listens.
    await c!.declare(connection);
    await queue.bindTo(c!);
    await queue.unbindFrom(a!, { routingKey: 'x.#' });
    await comes(
      ['key-2', 'later', 'still'],
      [
        [a!, 'x.y', 'key-2'],
        [a!, 'x.1', 'no-more'],
        [c!, '', 'later'],
        [b!, '', 'still'],
      ],
    );
    await queue.unbindFrom(b!);
    await comes(
      ['end-2'],
      [
        [b!, '', 'nor-this'],
        [c!, '', 'end-2'],
      ],
    );
    await queue.delete();
    await publishTo(url, [
      [a!, 'x.y', 'deleted'],
      [c!, '', 'deleted'],
    ]);
    // Bound anew it hears again: what came before would be here.
    await queue.declare();
    await comes(['again'], [[a!, 'x.again', 'again']]);
  });
}

/** Messages of 20 kB with the ids from `from` on. By a script, so that this process keeps nothing of them. */
async function flood(
  server: Pick<RedisSpace, 'command'>,
  channel: string,
  { from = 0, count, body }: { from?: number; count: number; body: object },
): Promise<void> {
  const text = Buffer.from(JSON.stringify({ ...body, id: '@@', padding: 'x'.repeat(20_000) }));
  const envelope = write(text, { contentType: 'application/json', contentEncoding: 'utf-8' }, 'utf-8').toString();
  const script = `local before, after = ARGV[1]:match('^(.*)@@(.*)$')
    for i = ARGV[2], ARGV[3] do redis.call('PUBLISH', KEYS[1], before .. string.format('%d', i) .. after) end`;
  for (let at = from; at < from + count; at += 100) {
    await server.command('EVAL', script, 1, channel, envelope, at, Math.min(at + 100, from + count) - 1);
  }
}

/** Bytes that wait in Redis for those that listen. */
async function waitingIn(server: Pick<RedisSpace, 'command'>): Promise<number> {
  const clients = String(await server.command('CLIENT', 'LIST', 'TYPE', 'pubsub'));
  return [...clients.matchAll(/ omem=(\d+)/g)].reduce((sum, [, bytes]) => sum + Number(bytes), 0);
}

const ids = (count: number, from = 0): string[] => Array.from({ length: count }, (_, i) => String(from + i));

/** A gate for callbacks: shut until it is opened. */
function gate(): { readonly opened: Promise<void>; open(): void } {
  let release = (): void => undefined;
  const opened = new Promise<void>((resolve) => {
    release = resolve;
  });
  return { opened, open: () => release() };
}

const MANY = 2500;

for (const options of [{ prefetchCount: 4 }, { noAck: true }] as ConsumerOptions[]) {
  redisServerTest(`an inline consumer with ${JSON.stringify(options)} that is slow reads no more`, LIMIT, async () => {
    await using server = await RedisServer.start({ config: { 'client-output-buffer-limit': 'pubsub 0 0 0' } });
    const exchange = new Exchange('f', { type: 'fanout' });
    // The looks whether the server is there go on meanwhile.
    await using connection = new Connection(`${server.url}?heartbeat=1`);
    const { opened, open: release } = gate();
    const got: string[] = [];
    const onMessage = async (message: Message): Promise<void> => {
      got.push((message.decode() as { id: string }).id);
      await opened;
      if (options.noAck !== true) message.ack();
    };
    const consumer = new Consumer(connection, new Queue('q', exchange), { onMessage, ...options });
    await consumer.consume();
    const before = process.memoryUsage().arrayBuffers;
    await flood(server, '/0.f', { count: MANY, body: {} });
    // 50 MB, of which sockets of this machine may hold a part.
    assert.ok((await waitingIn(server)) > 10e6, `${await waitingIn(server)} bytes wait in Redis`);
    const most = options.prefetchCount ?? MOST_RUNNING;
    await until('all that may run', () => got.length >= Math.min(most, 4));
    assert.ok(got.length <= most);
    const grown = process.memoryUsage().arrayBuffers - before;
    assert.ok(grown < 25e6, `${grown} bytes more`);
    // The other socket of the connection is asked over and over; the one that is not read does not count as silent.
    const pings = async (): Promise<number> =>
      Number(/cmdstat_ping:calls=(\d+)/.exec(String(await server.command('INFO', 'commandstats')))?.[1] ?? 0);
    const asked = await pings();
    await until('four looks', async () => (await pings()) >= asked + 4);
    assert.equal(consumer.consuming, true);
    // One that listens beside it is not kept waiting.
    const other = new Consumer(connection, new Queue('other', exchange), {
      onMessage: (message) => {
        message.ack();
        release();
      },
    });
    await other.consume();
    await flood(server, '/0.f', { from: MANY, count: 1, body: {} });
    await until('all', () => got.length === MANY + 1, { state: () => got.length });
    assert.deepEqual(got, ids(MANY + 1));
    assert.equal(await waitingIn(server), 0);
    await consumer.close();
  });
}

redisServerTest('a sharded consumer that is slow reads no more, and other queues go on', LIMIT, async () => {
  await using server = await RedisServer.start({ config: { 'client-output-buffer-limit': 'pubsub 0 0 0' } });
  using effects = new EffectsLog();
  const latch = join(effects.folder, 'latch');
  const exchange = new Exchange('f', { type: 'fanout' });
  const queues = [new Queue('heard', exchange), new Queue('q')];
  const settings = { handler: EFFECTS_HANDLER, workers: 1, concurrency: 8, prefetchCount: 4 };
  const consumer = new ShardedConsumer(new Connection(server.url), queues, settings);
  open.push(consumer);
  const errors: Error[] = [];
  consumer.on('error', (error) => errors.push(error));
  await consumer.consume();
  await flood(server, '/0.f', { count: MANY, body: { do: 'latch', at: latch } });
  assert.ok((await waitingIn(server)) > 10e6, `${await waitingIn(server)} bytes wait in Redis`);
  await until('as many as may come', () => consumer.stats().received === 4);
  {
    await using connection = new Connection(server.url);
    await connection.Producer().publish({ id: 'taken' }, { routingKey: 'q' });
  }
  await until('the other queue', () => effects.counts().has('taken'));
  assert.equal(consumer.stats().received, 5);
  writeFileSync(latch, '');
  await until('all', () => consumer.stats().acked === MANY + 1, { state: () => consumer.stats() });
  await consumer.close();
  assert.deepEqual([...effects.counts().keys()].sort(), [...ids(MANY), 'taken'].sort());
  assert.deepEqual(errors, []);
});

/** 4 MB wait in Redis at most. */
const SHORT = { 'client-output-buffer-limit': 'pubsub 4mb 0 0' };
const CUT = /messages may have been missed/;

redisServerTest('a server that cuts a slow listener: the inline consumer ends and says why', LIMIT, async () => {
  await using server = await RedisServer.start({ config: SHORT });
  const exchange = new Exchange('f', { type: 'fanout' });
  const { opened, open: release } = gate();
  let count = 0;
  const onMessage = async (message: Message): Promise<void> => {
    count++;
    await opened;
    message.ack();
  };
  await using connection = new Connection(server.url);
  const consumer = new Consumer(connection, new Queue('q', exchange), { onMessage, prefetchCount: 1 });
  await consumer.consume();
  const ended = assert.rejects(consumer.closed, { name: 'ConnectionError', message: CUT });
  await flood(server, '/0.f', { count: 100, body: {} });
  await until('all is sent', async () => (await waitingIn(server)) === 0);
  await flood(server, '/0.f', { from: 100, count: MANY - 100, body: {} });
  assert.equal(await server.command('PUBLISH', '/0.f', 'x'), 0);
  assert.equal(count, 1);
  release();
  await ended;
  assert.ok(count < MANY);
});

redisServerTest(
  'a server that cuts a slow listener: the sharded consumer tells, and listens again',
  LIMIT,
  async () => {
    await using server = await RedisServer.start({ config: SHORT });
    using effects = new EffectsLog();
    const latch = join(effects.folder, 'latch');
    const exchange = new Exchange('f', { type: 'fanout' });
    const settings = { handler: EFFECTS_HANDLER, workers: 1, concurrency: 4, prefetchCount: 4 };
    const consumer = new ShardedConsumer(new Connection(server.url), new Queue('heard', exchange), settings);
    open.push(consumer);
    const errors: Error[] = [];
    consumer.on('error', (error) => errors.push(error));
    const [lost, back] = [next(consumer, 'disconnected'), next(consumer, 'reconnected')];
    await consumer.consume();
    const body = { do: 'latch', at: latch };
    // 2 MB, more than wait here, of which Redis keeps nothing; and then more than it may keep.
    await flood(server, '/0.f', { count: 100, body });
    await until('all is sent', async () => (await waitingIn(server)) === 0);
    await flood(server, '/0.f', { from: 100, count: MANY - 100, body });
    assert.equal(await server.command('PUBLISH', '/0.f', 'x'), 0);
    writeFileSync(latch, '');
    await Promise.all([lost, back]);
    assert.equal(errors.length, 1);
    assert.match(errors[0]!.message, CUT);
    await flood(server, '/0.f', { from: MANY, count: 1, body: {} });
    await until('it hears again', () => effects.counts().has(String(MANY)), { state: () => consumer.stats() });
    // What it had heard before the cut is not lost with the connection.
    await until('all that came', () => consumer.stats().acked === consumer.stats().received);
    const heard = [...effects.counts().keys()]
      .map(Number)
      .filter((id) => id < MANY)
      .sort((x, y) => x - y);
    assert.deepEqual(
      heard,
      heard.map((_, i) => i),
    );
    assert.ok(heard.length >= 100 && heard.length < MANY, `${heard.length} heard`);
    await consumer.close();
  },
);
