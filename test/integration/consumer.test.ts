/** The inline consumer against a broker: callbacks, acks, errors, cancel, close. Needs a broker. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, beforeEach, describe, it } from 'node:test';
import { ContentDisallowed, MessageStateError } from '#src/errors';
import { Connection } from '#src/main/connection';
import { Queue } from '#src/main/entities/queue';
import type { Producer } from '#src/main/producer';
import type { Message } from '#src/message';
import { sharedBroker, uniqueName } from '../support/rabbitmq.js';

const url = sharedBroker()?.url;
const skip = url === undefined ? 'NOT RUN: no broker; use npm test, or set MOZUKU_TEST_AMQP_URL' : false;

/** Counts calls; `reached(n)` resolves when there were n. */
function counter(): { count: () => void; reached: (n: number) => Promise<void> } {
  let calls = 0;
  let check: () => void = () => undefined;
  return {
    count: () => {
      calls++;
      check();
    },
    reached: (n) =>
      new Promise((resolve) => {
        check = () => calls >= n && resolve();
        check();
      }),
  };
}

describe('an inline consumer', { skip }, () => {
  let connection: Connection;
  let producer: Producer;
  let queue: Queue;
  const made: Queue[] = [];

  function newQueue(): Queue {
    const fresh = new Queue(uniqueName('mozuku-q'));
    made.push(fresh);
    return fresh;
  }
  const fill = (...bodies: unknown[]) =>
    Promise.all(bodies.map((body) => producer.publish(body, { routingKey: queue.name, declare: [queue] })));
  const ready = async () => (await connection.defaultChannel()).call('counting', (raw) => raw.checkQueue(queue.name));

  before(async () => {
    connection = await new Connection(url!).connect();
    producer = connection.Producer();
  });
  beforeEach(() => {
    queue = newQueue();
  });
  after(async () => {
    for (const each of made) await each.delete(connection);
    await connection.close();
  });

  it('calls its callbacks in order with body and message, for all its queues', async () => {
    const other = newQueue();
    await fill({ n: 1 }, 'two');
    await producer.publish(3, { routingKey: other.name, declare: [other] });
    const calls: unknown[] = [];
    const { count, reached } = counter();
    await using consumer = connection.Consumer([queue, other], {
      callbacks: [
        (body, message) => calls.push([message.deliveryInfo.queue === queue.name ? 'q' : 'other', body]),
        (_, message) => {
          calls.push('then');
          message.ack();
          assert.throws(() => message.ack(), MessageStateError);
          count();
        },
      ],
    });
    await consumer.consume();
    await consumer.consume();
    await reached(3);
    const of = (name: string) => calls.filter((call) => Array.isArray(call) && call[0] === name);
    assert.deepEqual(of('other'), [['other', 3]]);
    assert.deepEqual(of('q'), [
      ['q', { n: 1 }],
      ['q', 'two'],
    ]);
    assert.deepEqual(
      calls.filter((_, n) => n % 2 === 1),
      ['then', 'then', 'then'],
    );
    await consumer.close();
    assert.equal((await ready()).messageCount, 0);
  });

  it('waits for the promise of a callback before the next one of the same message, but lets others run', async () => {
    await fill('a', 'b');
    const log: string[] = [];
    const { count, reached } = counter();
    let release: () => void = () => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    await using consumer = connection.Consumer(queue, {
      callbacks: [
        async (body) => {
          log.push(`${body}1`);
          count();
          if (body === 'a') await held;
        },
        (body) => {
          log.push(`${body}2`);
          count();
        },
      ],
    });
    await consumer.consume();
    await reached(3);
    assert.deepEqual(log, ['a1', 'b1', 'b2']);
    release();
    await reached(4);
    assert.equal(log[3], 'a2');
  });

  it('gives onMessage what it may not decode, and never more than the prefetch', async () => {
    await fill(...Array.from({ length: 10 }, (_, n) => n));
    const held: Message[] = [];
    const { count, reached } = counter();
    const onMessage = (message: Message) => {
      held.push(message);
      count();
    };
    await using consumer = connection.Consumer(queue, { onMessage, prefetchCount: 4, accept: ['text'] });
    await consumer.consume();
    await reached(4);
    assert.equal((await ready()).messageCount, 6);
    assert.equal(held[0]!.body.toString(), '0');
    assert.throws(() => held[0]!.payload, ContentDisallowed);
    held[3]!.ack({ multiple: true });
    await reached(8);
    assert.deepEqual(
      held.map((message) => message.body.toString()),
      ['0', '1', '2', '3', '4', '5', '6', '7'],
    );
  });

  it('needs no acks with noAck, of the consumer or the queue', async () => {
    for (const [target, options] of [
      [queue, { noAck: true }],
      [new Queue(queue.name, undefined, { noAck: true }), {}],
    ] as const) {
      await fill(1);
      const { count, reached } = counter();
      const consumer = connection.Consumer(target, { ...options, callbacks: [(_, message) => message.ack(), count] });
      await consumer.consume();
      await reached(1);
      await consumer.close();
      assert.equal((await ready()).messageCount, 0);
    }
  });

  it('gives undecodable messages to onDecodeError, which settles them', async () => {
    await fill({ json: true }, 'text');
    const { count, reached } = counter();
    const seen: unknown[] = [];
    await using consumer = connection.Consumer(queue, {
      accept: ['text'],
      callbacks: [
        (body, message) => {
          seen.push(body);
          message.ack();
          count();
        },
      ],
      onDecodeError: (message, error) => {
        seen.push((error as Error).name);
        message.reject();
        count();
      },
    });
    await consumer.consume();
    await reached(2);
    assert.deepEqual(seen, ['ContentDisallowed', 'text']);
    await consumer.close();
    assert.equal((await ready()).messageCount, 0);
  });

  it('tells what a callback throws or rejects with, and bodies it cannot decode; the messages stay in the queue', async () => {
    await fill('throws', 'rejects', { json: true }, 'fine');
    const told: unknown[][] = [];
    const { count, reached } = counter();
    const consumer = connection.Consumer(queue, {
      accept: ['text'],
      callbacks: [
        (body, message) => {
          if (body === 'throws') throw new RangeError('thrown');
          if (body === 'rejects') return Promise.reject(new RangeError('rejected'));
          message.ack();
          count();
          return undefined;
        },
      ],
    });
    consumer.on('error', (error, message) => {
      told.push([(error as Error).name, message?.acknowledged]);
      count();
    });
    await consumer.consume();
    await reached(4);
    assert.deepEqual(told.sort(), [
      ['ContentDisallowed', false],
      ['RangeError', false],
      ['RangeError', false],
    ]);
    await consumer.close();
    assert.equal((await ready()).messageCount, 3);
  });

  it('warns through the process when nobody listens to errors', async () => {
    await fill('x');
    const consumer = connection.Consumer(queue, {
      callbacks: [
        () => {
          throw new RangeError('unheard');
        },
      ],
    });
    const warned = once(process, 'warning');
    await consumer.consume();
    const [warning] = (await warned) as [Error];
    assert.equal(warning.name, 'MozukuWarning');
    assert.match(warning.message, /RangeError: unheard .*stays unsettled/);
    await consumer.close();
  });

  it('stops at cancel(), lets what is at hand be settled, and starts again', async () => {
    await fill(1);
    const held: Message[] = [];
    const { count, reached } = counter();
    const onMessage = (message: Message) => {
      held.push(message);
      count();
    };
    const consumer = connection.Consumer(queue, { onMessage });
    await consumer.consume();
    await reached(1);
    await consumer.cancel();
    assert.equal(consumer.consuming, false);
    await fill(2);
    assert.deepEqual({ ...(await ready()), queue: '' }, { queue: '', messageCount: 1, consumerCount: 0 });
    held[0]!.ack();
    await consumer.consume();
    await reached(2);
    assert.equal(held[1]!.payload, 2);
    held[1]!.ack();
    await consumer.close();
    assert.equal((await ready()).messageCount, 0);
    assert.equal(consumer.stale, 0);
  });

  it('waits for the callbacks that run when it is closed', async () => {
    await fill(1);
    const { count, reached } = counter();
    let finish: () => void = () => undefined;
    const consumer = connection.Consumer(queue, {
      callbacks: [
        async (_, message) => {
          count();
          await new Promise<void>((resolve) => {
            finish = resolve;
          });
          message.ack();
        },
      ],
    });
    await consumer.consume();
    await reached(1);
    const closing = consumer.close();
    finish();
    await closing;
    await consumer.closed;
    assert.equal((await ready()).messageCount, 0);
  });

  it('consumes from a queue that the broker names', async () => {
    const { count, reached } = counter();
    let name = '';
    await using consumer = connection.Consumer(
      new Queue('', 'amq.direct', { routingKey: queue.name, exclusive: true }),
      {
        callbacks: [
          (body, message) => {
            name = `${body} ${message.deliveryInfo.queue}`;
            message.ack();
            count();
          },
        ],
      },
    );
    await consumer.consume();
    await producer.publish('to', { exchange: 'amq.direct', routingKey: queue.name, mandatory: true });
    await reached(1);
    assert.match(name, /^to amq\.gen-/);
    await queue.declare(connection);
  });

  it('rejects when it cannot consume, and holds nothing then', async () => {
    await queue.declare(connection);
    const wrong = new Queue(queue.name, undefined, { durable: false });
    const consumer = connection.Consumer([queue, wrong], { onMessage: () => undefined });
    await assert.rejects(consumer.consume(), { name: 'PreconditionFailed' });
    assert.equal(consumer.consuming, false);
    await consumer.close();
    const undeclared = connection.Consumer(new Queue('no-such'), { autoDeclare: false, onMessage: () => undefined });
    await assert.rejects(undeclared.consume(), { name: 'NotFound' });
  });
});
