/** maybeDeclare, loops over consumers, replies, insured and ignoreErrors, Broadcast: on both brokers. */
import assert from 'node:assert/strict';
import {
  Broadcast,
  Connection,
  Consumer,
  collectReplies,
  drainConsumer,
  Exchange,
  errors,
  eventloop,
  ignoreErrors,
  insured,
  itermessages,
  type Message,
  maybeDeclare,
  Queue,
  sendReply,
} from '#src/index';
import { onBothBrokers, type Scene } from '../support/both-brokers.js';

const { ClosedError, ConnectionError, NotBoundError, NotFound, OptionError, PreconditionFailed, TimeoutError } = errors;

/** A queue with these bodies in it. */
async function filled(scene: Scene, ...bodies: unknown[]): Promise<Queue> {
  const queue = new Queue(await scene.queue());
  await using producer = scene.connection.Producer({ routingKey: queue.name });
  for (const body of bodies) await producer.publish(body);
  return queue;
}

onBothBrokers('maybeDeclare: once in the life of a connection', async (scene) => {
  const queue = new Queue(scene.unique('q'));
  const channel = await scene.connection.channel();
  assert.equal(await maybeDeclare(queue, channel), true);
  assert.equal(await maybeDeclare(queue, channel), false);
  assert.equal(await maybeDeclare(queue, scene.connection), false);
  assert.equal(await maybeDeclare(new Queue(queue.name).bind(scene.connection)), false);
  // Another connection has not declared it, and another declaration is another matter.
  assert.equal(await maybeDeclare(queue, scene.connect()), true);
  const other = new Queue(queue.name, { maxLength: 5 });
  await assert.rejects(maybeDeclare(other, await scene.connection.channel()), PreconditionFailed);
  await scene.connection.close();
  await scene.connection.connect();
  assert.equal(await maybeDeclare(queue, scene.connection), true);
  await queue.delete(scene.connection);
});

onBothBrokers('maybeDeclare: new bindings are made, what goes away by itself is declared each time', async (scene) => {
  const exchange = new Exchange(await scene.exchange('direct'), { type: 'direct' });
  const name = await scene.queue();
  assert.equal(await maybeDeclare(new Queue(name, exchange, { routingKey: 'a' }), scene.connection), true);
  assert.equal(await maybeDeclare(new Queue(name, exchange, { routingKey: 'b' }), scene.connection), true);
  await scene.publish(exchange.name, 'a', 'one');
  await scene.publish(exchange.name, 'b', 'two');
  assert.deepEqual(await scene.texts(name), ['one', 'two']);
  const passing = new Queue(scene.unique('q'), { autoDelete: true });
  assert.equal(await maybeDeclare(passing, scene.connection), true);
  assert.equal(await maybeDeclare(passing, scene.connection), true);
  await passing.delete(scene.connection);
});

onBothBrokers('maybeDeclare: needs something to talk through, which is not gone', async (scene) => {
  const queue = new Queue(scene.unique('q'));
  await assert.rejects(maybeDeclare(queue), NotBoundError);
  await assert.rejects(maybeDeclare('queue' as never, scene.connection), OptionError);
  const channel = await scene.connection.channel();
  await assert.rejects(maybeDeclare(queue, channel, { retry: true }), OptionError);
  await channel.close();
  await assert.rejects(maybeDeclare(queue, channel), ClosedError);
});

onBothBrokers('maybeDeclare: with retry it waits for the connection, as often as it may', async (scene) => {
  const queue = new Queue(scene.unique('q'));
  const dead = new Connection('amqp://127.0.0.1:1', { connectTimeout: 1 });
  const told: number[] = [];
  const errback = (error: unknown, interval: number) => {
    assert.ok(error instanceof errors.OperationalError);
    told.push(interval);
  };
  const retryPolicy = { maxRetries: 2, intervalStart: 1, errback };
  await assert.rejects(maybeDeclare(queue, dead, { retry: true, retryPolicy }), errors.OperationalError);
  assert.equal(told.length, 2);
  assert.equal(await maybeDeclare(queue, scene.connection, { retry: true, retryPolicy }), true);
  // What the broker refuses is not tried again.
  const other = new Queue(queue.name, { maxLength: 5 });
  await assert.rejects(maybeDeclare(other, scene.connection, { retry: true, retryPolicy }), PreconditionFailed);
  assert.equal(told.length, 2);
  await queue.delete(scene.connection);
});

onBothBrokers(
  'maybeDeclare, publish, sendReply: what is wrong is named at once, whether it is needed or not',
  async (scene) => {
    const queue = await filled(scene, 'x');
    const wrong = { retryPolicy: { maxRetrys: 1 } as object };
    const named = (key: string) => ({ name: 'OptionError', details: { option: key } });
    await assert.rejects(maybeDeclare(queue, scene.connection, wrong), named('maxRetrys'));
    await assert.rejects(scene.connection.Producer().publish('x', wrong), named('maxRetrys'));
    const message = (await queue.get(scene.connection))!;
    await assert.rejects(sendReply('', message, 'x', undefined as never), OptionError);
    message.ack();
  },
);

onBothBrokers('drainConsumer: so many messages and no more; what was not taken goes back', async (scene) => {
  const queue = await filled(scene, 1, 2, 3, 4);
  await using consumer = new Consumer(scene.connection, queue);
  const seen: unknown[] = [];
  const callbacks = [(body: unknown) => seen.push(['callback', body])];
  for await (const [body, message] of drainConsumer(consumer, { limit: 2, callbacks })) {
    seen.push(body);
    message.ack();
  }
  const expected: unknown[] = [['callback', 1], 1, ['callback', 2], 2];
  assert.deepEqual(seen, expected);
  await scene.hasReady(queue.name, 2);
  for await (const [body, message] of drainConsumer(consumer)) {
    seen.push(body);
    message.ack();
  }
  assert.equal(seen.at(-1), 3);
  await scene.hasReady(queue.name, 1);
});

onBothBrokers('drainConsumer: ends when no message comes for a time', async (scene) => {
  const queue = await filled(scene, 'only');
  await using consumer = new Consumer(scene.connection, queue);
  const bodies: unknown[] = [];
  for await (const [body, message] of drainConsumer(consumer, { limit: 5, timeout: 100 })) {
    bodies.push(body);
    message.ack();
  }
  assert.deepEqual(bodies, ['only']);
  assert.ok(!consumer.consuming);
});

onBothBrokers('eventloop: throws when no message comes, unless that is to be ignored', async (scene) => {
  const queue = await filled(scene, 'only');
  await using consumer = new Consumer(scene.connection, queue, { noAck: true });
  const seen: unknown[] = [];
  const loop = async (options: object) => {
    for await (const message of eventloop(consumer, options)) seen.push(message.payload);
  };
  await assert.rejects(loop({ timeout: 100 }), TimeoutError);
  assert.deepEqual(seen, ['only']);
  await loop({ timeout: 1, ignoreTimeouts: true });
  const abort = new AbortController();
  const waiting = loop({ signal: abort.signal });
  abort.abort(new Error('enough'));
  await assert.rejects(waiting, /enough/);
  await assert.rejects(loop({ limit: -1 }), OptionError);
  // One with callbacks is refused, and not started either.
  await using busy = new Consumer(scene.connection, queue, { callbacks: [() => assert.fail()] });
  await assert.rejects(async () => {
    for await (const _ of eventloop(busy, { timeout: 1 })) assert.fail();
  }, OptionError);
  assert.ok(!busy.consuming);
  await assert.rejects(async () => {
    for await (const _ of eventloop(scene.connection as never)) assert.fail();
  }, OptionError);
});

onBothBrokers('itermessages: a queue’s messages, to be acked in the loop or after it', async (scene) => {
  const queue = await filled(scene, 1, 2, 3);
  const kept: Message[] = [];
  for await (const [body, message] of itermessages(scene.connection, queue, { limit: 2 })) {
    assert.equal(body, kept.length + 1);
    kept.push(message);
  }
  for (const message of kept) message.ack();
  const left: unknown[] = [];
  for await (const [body, message] of itermessages(scene.connection, queue, { limit: 0, timeout: 100, noAck: true })) {
    left.push(body, message.deliveryInfo.redelivered);
  }
  // No more was asked for than was wanted.
  assert.deepEqual(left, [3, false]);
  assert.equal(await scene.size(queue.name), 0);
});

onBothBrokers('itermessages: a body that cannot be read ends the loop, or is somebody’s business', async (scene) => {
  const queue = new Queue(await scene.queue());
  await scene.publish('', queue.name, '{', { contentType: 'application/json' });
  await scene.publish('', queue.name, '{}', { contentType: 'application/json' });
  const channel = await scene.connection.channel();
  await assert.rejects(async () => {
    for await (const _ of itermessages(channel, queue)) assert.fail();
  }, errors.DecodeError);
  await channel.close();
  await scene.hasReady(queue.name, 2);
  const bad: unknown[] = [];
  const onDecodeError = (message: Message, error: unknown) => {
    bad.push(error);
    message.reject();
  };
  const good: unknown[] = [];
  for await (const [body, message] of itermessages(scene.connection, queue, { limit: 2, onDecodeError })) {
    good.push(body);
    message.ack();
  }
  assert.deepEqual([bad.length, good], [1, [{}]]);
});

onBothBrokers('sendReply and collectReplies: answers go to whoever asked', async (scene) => {
  const requests = new Queue(await scene.queue());
  const replies = new Queue(await scene.queue());
  await using producer = scene.connection.Producer();
  for (const [serializer, body] of Object.entries({ json: { n: 1 }, msgpack: { n: 2 } })) {
    const options = { routingKey: requests.name, replyTo: replies, correlationId: `c${serializer}`, serializer };
    await producer.publish(body, options);
  }
  const accept = ['json', 'msgpack'];
  for await (const [body, message] of itermessages(scene.connection, requests, { limit: 2, accept })) {
    const { n } = body as { n: number };
    await sendReply('', message, { answer: n * 10 }, { producer, headers: { n } });
    message.ack();
  }
  const seen: string[] = [];
  const callbacks = [
    (_: unknown, { properties, headers }: Message) =>
      seen.push(`${properties.correlationId} ${properties.contentType} ${headers.n}`),
  ];
  const bodies: unknown[] = [];
  for await (const body of collectReplies(scene.connection, replies, { limit: 2, accept, callbacks }))
    bodies.push(body);
  assert.deepEqual(bodies, [{ answer: 10 }, { answer: 20 }]);
  assert.deepEqual(seen, ['cjson application/json 1', 'cmsgpack application/x-msgpack 2']);
  assert.equal(await scene.size(replies.name), 0);

  const unasked = await filled(scene, 'x');
  const message = await unasked.get(scene.connection);
  await assert.rejects(sendReply('', message!, 'y', { producer }), { name: 'OptionError', message: /no replyTo/ });
  message!.ack();
});

onBothBrokers('collectReplies: those beyond the limit stay in the queue', async (scene) => {
  const replies = await filled(scene, 1, 2, 3);
  const bodies: unknown[] = [];
  for await (const body of collectReplies(scene.connection, replies, { limit: 2 })) bodies.push(body);
  assert.deepEqual(bodies, [1, 2]);
  await scene.hasReady(replies.name, 1);
});

/** A pool of one. */
function poolOf(connection: Connection) {
  let lent = 0;
  const pool = {
    get lent() {
      return lent;
    },
    acquire: async ({ block }: { block: true }) => {
      assert.equal(block, true);
      lent++;
      return Object.assign(connection, {
        release: async () => {
          lent--;
        },
      });
    },
  };
  return pool;
}

onBothBrokers(
  'insured: again with a new channel after the connection was lost, and the connection given back',
  async (scene) => {
    const connection = scene.connect();
    const pool = poolOf(connection);
    const queue = await filled(scene);
    const told: unknown[] = [];
    let calls = 0;
    const result = await insured(
      pool,
      async (lent, channel) => {
        assert.equal(lent, connection);
        assert.equal(pool.lent, 1);
        if (++calls === 1) {
          await channel.close();
          await channel.call('asking a channel that is gone', (raw) => raw.checkQueue(queue.name));
        }
        if (calls === 2) throw new ConnectionError('lost, says the test');
        return (await channel.call('counting', (raw) => raw.checkQueue(queue.name))).queue;
      },
      {
        intervalStart: 1,
        errback: (error) => told.push((error as Error).name),
        onRevive: (channel) => told.push(channel.closed ? 'closed' : 'revived'),
      },
    );
    assert.equal(result, queue.name);
    assert.deepEqual(told, ['ClosedError', 'revived', 'ConnectionError', 'revived']);
    assert.equal(pool.lent, 0);
  },
);

onBothBrokers('insured: what is wrong for good, or too often, is thrown', async (scene) => {
  const pool = poolOf(scene.connect());
  let calls = 0;
  const fails = (error: Error) => () => {
    calls++;
    throw error;
  };
  await assert.rejects(insured(pool, fails(new RangeError('mine'))), RangeError);
  assert.equal(calls, 1);
  const lost = fails(new ConnectionError('lost'));
  await assert.rejects(insured(pool, lost, { maxRetries: 2, intervalStart: 1 }), ConnectionError);
  assert.equal(calls, 4);
  await assert.rejects(
    insured(pool, lost, { timeout: 5000, intervalStart: 10_000, intervalMax: 10_000 }),
    (error: Error) => {
      assert.ok(error instanceof TimeoutError && error.cause instanceof ConnectionError);
      return true;
    },
  );
  assert.equal(pool.lent, 0);
});

onBothBrokers('ignoreErrors: of the connection and its channels, no others', async (scene) => {
  const { connection } = scene;
  assert.equal(await ignoreErrors(connection, () => 5), 5);
  // A refused declaration closes its channel.
  const missing = async () => new Queue(scene.unique('q'), { passive: true }).declare(await connection.channel());
  await assert.rejects(missing(), NotFound);
  assert.equal(await ignoreErrors(connection, missing), undefined);
  await assert.rejects(
    ignoreErrors(connection, () => {
      throw new RangeError('mine');
    }),
    RangeError,
  );
  const says = { connectionErrors: [RangeError], channelErrors: [] };
  const thrown = ignoreErrors(says, () => Promise.reject(new RangeError('theirs')));
  assert.equal(await thrown, undefined);
  await assert.rejects(ignoreErrors(says, missing));
});

onBothBrokers('Broadcast: every consumer gets every message', async (scene) => {
  const name = scene.unique('news');
  const got: string[] = [];
  let done: () => void = () => undefined;
  const all = new Promise<void>((resolve) => {
    done = resolve;
  });
  const consumers = ['a', 'b'].map((who) =>
    scene.connection.Consumer(new Broadcast(name), {
      callbacks: [
        (body, message) => {
          message.ack();
          if (got.push(`${who} ${body}`) === 4) done();
        },
      ],
    }),
  );
  for (const consumer of consumers) await consumer.consume();
  await using producer = scene.connection.Producer({ exchange: name });
  await producer.publish('one');
  await producer.publish('two');
  await all;
  assert.deepEqual(got.sort(), ['a one', 'a two', 'b one', 'b two']);
  for (const consumer of consumers) await consumer.close();
  await new Exchange(name).delete(scene.connection);
});
