/** What helpers do when the broker falls silent, or ends something at the worst moment: against a puppet. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  Connection,
  Consumer,
  type ConsumerFactory,
  ConsumerMixin,
  errors,
  insured,
  itermessages,
  Queue,
  utils,
} from '#src/index';
import { method, shortString, uint } from '../support/amqp-bytes.js';
import { FakeBroker, type FakeConnection } from '../support/fake-broker.js';

const { ClosedError, ConnectionForced, ConsumerCancelled, TimeoutError } = errors;

/** basic.consume, basic.publish, channel.open, and everything. */
const CONSUME = '60.20';
const PUBLISH = '60.40';
const CHANNEL_OPEN = '20.10';
const ALL = 'all';

/** A broker that answers no question of the methods in `silent`, while they are in it. */
async function puppet(
  answer: (connection: FakeConnection, question: string, channel: number) => boolean = () => false,
): Promise<FakeBroker & { silent: Set<string> }> {
  const silent = new Set<string>();
  const broker = await FakeBroker.listen({
    answer: (connection, question, channel, fields) => {
      if (silent.has(ALL) || silent.has(question)) return answer(connection, question, channel) || true;
      if (question !== CONSUME) return answer(connection, question, channel);
      fields.short();
      fields.shortString();
      return endings.get(broker)?.(connection, channel, fields.shortString()) ?? false;
    },
  });
  return Object.assign(broker, { silent });
}

/** How consumers end as they begin, by broker. */
const endings = new WeakMap<
  FakeBroker,
  (connection: FakeConnection, channel: number, tag: string) => boolean | undefined
>();

/** The first consumer gets its yes, and what ends it, in one piece. */
function endsTheFirst(broker: FakeBroker, how: 'channel' | 'consumer'): void {
  let asked = 0;
  endings.set(broker, (connection, channel, tag) => {
    if (asked++ > 0) return false;
    const end =
      how === 'consumer'
        ? method(channel, 60, 30, shortString(tag), Buffer.from([1]))
        : method(channel, 20, 40, uint(320, 2), shortString('over'), uint(60, 2), uint(20, 2));
    connection.send(Buffer.concat([method(channel, 60, 21, shortString(tag)), end]));
    return true;
  });
}

describe('a consumer that ends as it begins', { timeout: 30_000 }, () => {
  it('consume() rejects when the channel is closed in one read with the yes', async () => {
    await using broker = await puppet();
    endsTheFirst(broker, 'channel');
    await using connection = new Connection(broker.url);
    const consumer = new Consumer(connection, new Queue('q'), { callbacks: [() => undefined] });
    await assert.rejects(consumer.consume(), ConnectionForced);
    assert.equal(consumer.consuming, false);
    await consumer.consume();
    assert.equal(consumer.consuming, true);
    await consumer.close();
  });

  it('a mixin begins anew', async () => {
    await using broker = await puppet();
    endsTheFirst(broker, 'channel');
    await using connection = new Connection(broker.url);
    class Worker extends ConsumerMixin {
      readonly connection = connection;
      override restartLimit = new utils.TokenBucket(1000, 1000);
      override logger = { info: () => undefined, warn: () => undefined, error: () => undefined };
      getConsumers(make: ConsumerFactory): Consumer[] {
        return [make(new Queue('q'), { callbacks: [() => undefined] })];
      }
    }
    const worker = new Worker();
    const run = worker.run();
    await broker.consumer(1);
    worker.stop();
    await run;
  });

  for (const [how, why] of [
    ['channel', ConnectionForced],
    ['consumer', ConsumerCancelled],
  ] as const) {
    it(`a get of a SimpleQueue ends with its ${how}, and the next begins anew`, async () => {
      await using broker = await puppet();
      endsTheFirst(broker, how);
      await using connection = new Connection(broker.url);
      await using queue = connection.SimpleQueue('q');
      await assert.rejects(queue.get(), why);
      await assert.rejects(queue.get({ timeout: 0 }), errors.Empty);
      assert.equal(broker.consumers.length, 1);
    });
  }
});

describe('a broker that is silent', { timeout: 30_000 }, () => {
  it('a SimpleQueue keeps the time of a put, and fails at once for all who wait for one attempt', async () => {
    await using broker = await puppet();
    broker.silent.add(CHANNEL_OPEN);
    const connection = new Connection(broker.url);
    const queue = connection.SimpleQueue('q');
    await assert.rejects(queue.put(1, { timeout: 1 }), /TimeoutError: putting into queue 'q': no answer within 1 ms/);
    await connection.close();
    await queue.close();
    await using nobody = await puppet();
    nobody.silent.add(ALL);
    await using waiting = new Connection(nobody.url, { connectTimeout: 100 }).SimpleQueue('q');
    const all = [1, 2, 3].map(() => assert.rejects(waiting.qsize(), TimeoutError));
    await Promise.all([...all, assert.rejects(waiting.get(), TimeoutError)]);
    assert.equal(nobody.connections.length, 1);
  });

  it('a put with retry waits for the broker', async () => {
    await using broker = await puppet((connection, question, channel) => {
      // Of the first publish of the channel.
      if (question === PUBLISH) connection.send(method(channel, 60, 80, uint(0, 4), uint(1, 4), uint(0, 1)));
      return false;
    });
    await using connection = new Connection(broker.url, { connectTimeout: 100 });
    await using queue = connection.SimpleQueue('q');
    broker.silent.add(ALL);
    let failures = 0;
    const errback = (): void => {
      failures++;
      broker.silent.clear();
    };
    await queue.put(1, { retry: true, retryPolicy: { intervalStart: 1, errback } });
    assert.equal(failures, 1);
  });

  it('an aborted loop throws the reason of its signal', async () => {
    await using broker = await puppet();
    await using connection = new Connection(broker.url);
    await connection.defaultChannel();
    broker.silent.add(CONSUME);
    const abort = new AbortController();
    const loop = itermessages(connection, new Queue('q'), { signal: abort.signal });
    const next = loop.next();
    next.catch(() => undefined);
    while (!broker.connections[0]!.methods.includes(CONSUME)) await new Promise(setImmediate);
    abort.abort(new Error('enough'));
    await assert.rejects(next, /enough/);

    await using nobody = await puppet();
    nobody.silent.add(ALL);
    const connecting = itermessages(new Connection(nobody.url), new Queue('q'), { signal: AbortSignal.timeout(1) });
    await assert.rejects(connecting.next(), { name: 'TimeoutError', code: 23 });
  });

  it('a pool keeps its time when a channel is to be acquired', async () => {
    await using broker = await puppet();
    broker.silent.add(ALL);
    await using pool = new Connection(broker.url).Pool(1);
    await assert.rejects(pool.acquireChannel({ timeout: 50 }), /opening a channel: no answer within \d+ ms/);
    const reason = new Error('enough');
    await assert.rejects(pool.acquireChannel({ signal: AbortSignal.timeout(1) }), { code: 23 });
    await assert.rejects(pool.acquireChannel({ signal: AbortSignal.abort(reason) }), reason);
    assert.equal(pool.inUse, 0);
  });

  it('insured() lets nobody else wait for the same connection', async () => {
    await using broker = await puppet();
    await using pool = new Connection(broker.url).Pool(1);
    const declare = (timeout: number) => insured(pool, (_, channel) => new Queue('q').declare(channel), { timeout });
    assert.equal(await declare(30_000), 'q');
    broker.silent.add(ALL);
    await assert.rejects(declare(50), TimeoutError);
    assert.equal(pool.idle + pool.inUse, 0);
    broker.silent.clear();
    assert.equal(await declare(30_000), 'q');
  });

  it('insured() calls nothing any more when its time is over, though the channel opens', async () => {
    let open: () => void = () => undefined;
    await using broker = await puppet((connection, question, channel) => {
      if (question === CHANNEL_OPEN) open = () => connection.send(method(channel, 20, 11, uint(0, 4)));
      return false;
    });
    await using connection = new Connection(broker.url);
    broker.silent.add(CHANNEL_OPEN);
    // One whose connections stay open when they are given back.
    const pool = { acquire: async () => ({ ...lent(connection), release: () => undefined }) };
    let called = false;
    const fun = (): void => {
      called = true;
    };
    await assert.rejects(insured(pool, fun, { timeout: 20 }), TimeoutError);
    broker.silent.clear();
    open();
    await connection.defaultChannel();
    await new Promise(setImmediate);
    assert.equal(called, false);
  });

  it('a lease that was given back gets no channel of its connection', async () => {
    let open: () => void = () => undefined;
    await using broker = await puppet((connection, question, channel) => {
      if (question === CHANNEL_OPEN) open = () => connection.send(method(channel, 20, 11, uint(0, 4)));
      return false;
    });
    await using pool = new Connection(broker.url).Pool(1);
    const lease = await pool.acquire();
    await lease.connect();
    broker.silent.add(CHANNEL_OPEN);
    const opening = lease.defaultChannel();
    opening.catch(() => undefined);
    while (!broker.connections[0]!.methods.includes(CHANNEL_OPEN)) await new Promise(setImmediate);
    await lease.release();
    broker.silent.clear();
    open();
    await assert.rejects(opening, ClosedError);
  });
});

function lent(connection: Connection) {
  return {
    get closed() {
      return connection.closed;
    },
    channel: () => connection.channel(),
    defaultChannel: () => connection.defaultChannel(),
  };
}
