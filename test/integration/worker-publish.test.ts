/** Publishing from handlers, through the main thread's connection: on both brokers. */
import assert from 'node:assert/strict';
import {
  Connection,
  Consumer,
  type FailedMessage,
  type Message,
  Queue,
  ShardedConsumer,
  type ShardedConsumerOptions,
} from '#src/index';
import { onBothBrokers, type Scene } from '../support/both-brokers.js';
import { TcpProxy } from '../support/proxy.js';
import { brokerTest, uniqueName } from '../support/rabbitmq.js';
import { publishAll, until } from '../support/rig.js';

const HANDLER = new URL('../handlers/publishes.js', import.meta.url);

interface Result {
  readonly id: string;
  readonly i: number;
}

interface Stage {
  readonly url: string;
  readonly work: Queue;
  readonly results: Queue;
  readonly consumer: ShardedConsumer;
  readonly failures: FailedMessage[];
  /** What came out, in the order in which it did. */
  readonly got: Message[];
  done(): Promise<void>;
}

/** `through`: how the sharded consumer reaches the broker, if it is not the way of the others. */
async function stage(url: string, options: Partial<ShardedConsumerOptions> = {}, through = url): Promise<Stage> {
  const connection = new Connection(url);
  const work = new Queue(uniqueName('work'));
  const results = new Queue(uniqueName('results'));
  await work.declare(connection);
  await results.declare(connection);
  const got: Message[] = [];
  const reader = new Consumer(connection, results, { onMessage: (message) => void got.push(message), noAck: true });
  await reader.consume();
  const consumer = new ShardedConsumer(new Connection(through), work, {
    handler: HANDLER,
    workers: 2,
    deadLetter: 'drop',
    ...options,
  });
  const failures: FailedMessage[] = [];
  consumer.on('failed', (failure) => failures.push(failure));
  const done = async (): Promise<void> => {
    await consumer.close();
    for (const queue of [work, results]) await queue.delete(connection);
    await connection.close();
  };
  return { url, work, results, consumer, failures, got, done };
}

const ask = (s: Stage, ...asked: { readonly do: string; readonly [key: string]: unknown }[]): Promise<unknown> =>
  publishAll(
    s.url,
    s.work,
    asked.map((each) => ({ body: { to: s.results.name, ...each } })),
  );

const settled = (s: Stage, count: number): Promise<unknown> =>
  until(
    'all are settled',
    () => s.consumer.stats().acked + s.consumer.stats().deadLettered + s.consumer.stats().rejected >= count,
    {
      state: () => [s.consumer.stats(), s.failures],
    },
  );

const both = (name: string, body: (scene: Scene) => Promise<void>): void => onBothBrokers(name, body);

both('what a handler publishes is confirmed before its message is settled, waited for or not', async ({ url }) => {
  const s = await stage(url);
  try {
    await ask(
      s,
      { do: 'publish', count: 3000 },
      { do: 'forget', count: 2000, size: 100 },
      { do: 'forget', count: 3, size: 300_000 },
    );
    await s.consumer.consume();
    await settled(s, 3);
    await until('all results are here', () => s.got.length === 5003);
    assert.deepEqual(s.failures, []);
    const first = s.got.find((message) => (message.payload as { pad: string }).pad.length === 10)!;
    assert.equal(first.properties.contentType, 'application/json');
    assert.match(first.properties.messageId!, /^[0-9a-f-]{36}$/);
    assert.deepEqual(first.headers.bytes, Buffer.from([1, 2]));
    const large = s.got.filter((message) => (message.payload as { pad: string }).pad.length === 300_000);
    assert.equal(large.length, 3);
  } finally {
    await s.done();
  }
});

both('a handler’s publishes keep their order', async ({ url }) => {
  const s = await stage(url, { workers: 1 });
  try {
    await ask(s, { do: 'publish', count: 5000 });
    await s.consumer.consume();
    await until('all results are here', () => s.got.length === 5000);
    assert.deepEqual(
      s.got.map((message) => message.headers.i),
      Array.from({ length: 5000 }, (_, i) => i),
    );
  } finally {
    await s.done();
  }
});

both('what is declared and compressed on a worker is so at the broker', async ({ url }) => {
  const s = await stage(url);
  const connection = new Connection(url);
  const target = new Queue(uniqueName('declared'), undefined, {
    maxLength: 5,
    queueArguments: { 'x-overflow': 'drop-head' },
  });
  try {
    await ask(s, { do: 'declare', to: target.name });
    await s.consumer.consume();
    await settled(s, 1);
    assert.deepEqual(s.failures, []);
    const message = await target.get(connection);
    assert.deepEqual(message?.payload, ['declared']);
    assert.equal(message?.headers.compression, 'application/x-gzip');
    // As it was declared: with the same arguments, or this is refused.
    await target.declare(connection);
  } finally {
    await target.delete(connection);
    await connection.close();
    await s.done();
  }
});

both(
  'a returned message is the same error on a worker, its callback is called, and it fails its message',
  async ({ url }) => {
    const s = await stage(url);
    try {
      await ask(s, { do: 'mandatory' });
      await s.consumer.consume();
      await settled(s, 1);
      await until('the handler has told', () => s.got.length === 1);
      assert.deepEqual(s.got[0]!.payload, {
        name: 'MessageReturned',
        code: 'MESSAGE_RETURNED',
        isOurs: true,
        replyCode: 312,
        told: 1,
      });
      // Caught by the handler, but published through the message's own context.
      assert.deepEqual(
        s.failures.map(({ error }) => error.name),
        ['MessageReturned'],
      );
    } finally {
      await s.done();
    }
  },
);

both('context.connection has the parameters, and teardown can publish', async ({ url }) => {
  const s = await stage(url);
  process.env.MOZUKU_LAST_WORDS = s.results.name;
  try {
    await ask(s, { do: 'connection' });
    await s.consumer.consume();
    await settled(s, 1);
    await s.consumer.close();
    await until('both workers have said farewell', () => s.got.length === 3);
    assert.deepEqual(s.got[0]!.payload, { hostname: new Connection(url).hostname, same: true });
    assert.deepEqual(
      s.got
        .slice(1)
        .map((message) => (message.payload as { worker: number }).worker)
        .sort(),
      [0, 1],
    );
  } finally {
    delete process.env.MOZUKU_LAST_WORDS;
    await s.done();
  }
});

brokerTest(
  'workers that block for longer than the heartbeat lose and delay nothing that is published through main',
  async (broker) => {
    const url = `${broker.url}?heartbeat=2`;
    const s = await stage(url, { workers: 2 });
    try {
      await ask(s, { do: 'block', ms: 7000, count: 50 }, { do: 'block', ms: 7000, count: 50 });
      await s.consumer.consume();
      await settled(s, 2);
      await until('all results are here', () => s.got.length === 102);
      assert.deepEqual(s.failures, []);
      assert.equal(s.consumer.stats().redelivered, 0);
    } finally {
      await s.done();
    }
  },
);

brokerTest('what a lost publishing connection leaves unconfirmed is sent again, under the same id', async (broker) => {
  await using proxy = await TcpProxy.listen(broker.url);
  const s = await stage(broker.url, { workers: 2, concurrency: 2 }, proxy.url);
  try {
    const tasks = Array.from({ length: 20 }, (_, i) => ({ do: 'publish', id: `m${i}`, count: 500, size: 200 }));
    await ask(s, ...tasks);
    await s.consumer.consume();
    // The first one consumes.
    let connection = await proxy.connection(2);
    for (let cut = 1; cut <= 5; cut++) {
      const next = proxy.nextConnection();
      // In the middle of a frame, most likely.
      connection.cutAfter(40_001, cut % 2 === 0 ? 'toClient' : 'toServer');
      if (cut % 2 === 0) connection.cut();
      connection = await next;
    }
    await settled(s, tasks.length);
    const kinds = (): Set<string> =>
      new Set(s.got.map(({ payload }) => `${(payload as Result).id} ${(payload as Result).i}`));
    await until('every result is here', () => kinds().size === tasks.length * 500);
    // One id for each, however often it was sent.
    assert.equal(new Set(s.got.map(({ properties }) => properties.messageId)).size, tasks.length * 500);
    assert.deepEqual([s.failures.length, s.consumer.stats().redelivered], [0, 0]);
  } finally {
    await s.done();
  }
});

brokerTest(
  'a publish to a broker that does not answer rejects within its deadline and fails its message',
  async (broker) => {
    await using proxy = await TcpProxy.listen(broker.url);
    const s = await stage(broker.url, { workers: 1 }, proxy.url);
    try {
      await s.consumer.consume();
      proxy.onConnection((connection) => connection.blackHole());
      await ask(s, { do: 'outlives', ms: 300 });
      await until('the message has failed', () => s.failures.length === 1);
      const [failure] = s.failures;
      assert.equal(failure!.error.name, 'TimeoutError');
      assert.match(
        failure!.error.message,
        /publishing to exchange '' with routing key 'results-.*no answer within 300 ms/,
      );
      proxy.onConnection(() => undefined);
      proxy.cutAll();
    } finally {
      await s.done();
    }
  },
);

brokerTest(
  'a worker has pools of its own, with connections that it may leave alone for longer than a heartbeat',
  async (broker) => {
    const s = await stage(`${broker.url}?heartbeat=2`, { workers: 2 });
    try {
      await ask(s, { do: 'pools', count: 20, ms: 6000 }, { do: 'pools', count: 20, ms: 6000 });
      await s.consumer.consume();
      await settled(s, 2);
      assert.deepEqual(s.failures, []);
      await until('all results are here', () => s.got.length === 42);
      assert.ok(s.got.every(({ payload }) => (payload as { limit: number }).limit === 3));
    } finally {
      await s.done();
    }
  },
);

brokerTest('waiting for confirms does not count towards the timeout of a callback', async (broker) => {
  await using proxy = await TcpProxy.listen(broker.url);
  const s = await stage(broker.url, { workers: 1, timeout: 300 }, proxy.url);
  try {
    await ask(s, { do: 'forget', count: 1 });
    await s.consumer.consume();
    await settled(s, 1);
    const publishing = await proxy.connection(2);
    publishing.blackHole();
    await ask(s, { do: 'forget', count: 5 }, { do: 'publish', count: 5 });
    const running = (): number => s.consumer.stats().workers[0]?.running[0]?.forMs ?? 0;
    await until('it has waited for long', () => running() > 1500);
    publishing.resume();
    await settled(s, 3);
    assert.deepEqual(s.failures, []);
    await until('all results are here', () => s.got.length === 11);
  } finally {
    await s.done();
  }
});

both('what the broker refuses fails its own message, and none of those beside it', async ({ url }) => {
  const s = await stage(url);
  try {
    const good = Array.from({ length: 20 }, (_, i) => ({ do: 'publish', id: `g${i}`, count: 50 }));
    await ask(s, ...good.slice(0, 10), { do: 'badUser' }, ...good.slice(10));
    await s.consumer.consume();
    await settled(s, 21);
    assert.deepEqual(
      s.failures.map(({ error }) => error.name),
      ['PreconditionFailed'],
    );
    const kinds = (): number =>
      new Set(s.got.map(({ payload }) => `${(payload as Result).id} ${(payload as Result).i}`)).size;
    await until('every result is here', () => kinds() === 1000);
  } finally {
    await s.done();
  }
});

both('what cannot cross threads rejects with EncodeError, and takes nothing along', async ({ url }) => {
  const s = await stage(url, { workers: 1 });
  try {
    await ask(s, { do: 'unclonable', count: 10 }, { do: 'publish', count: 5 });
    await s.consumer.consume();
    await settled(s, 2);
    await until('all good ones are here', () => s.got.length === 15);
    assert.deepEqual(
      s.failures.map(({ error }) => error.name),
      ['EncodeError'],
    );
    assert.deepEqual(
      s.consumer.stats().workers.map(({ restarts }) => restarts),
      [0],
    );
  } finally {
    await s.done();
  }
});

for (const ack of ['auto', 'none'] as const) {
  both(
    `a publish that nobody waited for fails its message, by a producer of setup's too: ack '${ack}'`,
    async ({ url }) => {
      const s = await stage(url, { workers: 1, ack });
      try {
        await ask(s, { do: 'ownForget' });
        await s.consumer.consume();
        await until('it is told', () => s.failures.length === 1);
        const [failure] = s.failures;
        assert.deepEqual(
          [failure!.error.name, failure!.outcome],
          ['MessageReturned', ack === 'auto' ? 'drop' : 'none'],
        );
      } finally {
        await s.done();
      }
    },
  );
}

both('a worker hears of a nack', async ({ url }) => {
  const s = await stage(url, { workers: 1 });
  const connection = new Connection(url);
  const full = new Queue(uniqueName('full'), { maxLength: 1, queueArguments: { 'x-overflow': 'reject-publish' } });
  try {
    const producer = connection.Producer({ routingKey: full.name });
    await producer.publish('the only one', { declare: [full] });
    await ask(s, { do: 'publish', to: full.name });
    await s.consumer.consume();
    await until('it is told', () => s.failures.length === 1);
    assert.equal(s.failures[0]!.error.name, 'MessageNacked');
  } finally {
    await full.delete(connection);
    await connection.close();
    await s.done();
  }
});
