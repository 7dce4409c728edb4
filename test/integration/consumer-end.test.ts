/** The inline consumer against a broker: how it ends, and its `for await` loop. Needs a broker. */
import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { after, before, beforeEach, describe, it } from 'node:test';
import { ConnectionError, ConsumerCancelled } from '#src/errors';
import { Connection } from '#src/main/connection';
import { Consumer, type ConsumerOptions } from '#src/main/consumer';
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

  describe('loses its queue or connection', () => {
    const both: [string, ConsumerOptions][] = [
      ['onMessage', { onMessage: () => undefined }],
      ['callbacks', { callbacks: [() => undefined] }],
    ];
    for (const [name, options] of both) {
      it(`and says so through closed and 'error' when the broker cancels it (${name})`, async () => {
        const gone = new Queue(uniqueName('mozuku-gone'));
        const consumer = connection.Consumer(gone, options);
        const told = new Promise((resolve) => consumer.once('error', resolve));
        await consumer.consume();
        await gone.delete(connection);
        await assert.rejects(consumer.closed, (error: ConsumerCancelled) => {
          assert.ok(error instanceof ConsumerCancelled);
          assert.equal(error.details.queue, gone.name);
          return true;
        });
        assert.ok((await told) instanceof ConsumerCancelled);
        assert.equal(consumer.consuming, false);
        await consumer.close();
      });
    }

    it('and goes on with the other queues when the broker cancels one', async () => {
      const gone = new Queue(uniqueName('mozuku-gone'));
      const { count, reached } = counter();
      const consumer = connection.Consumer([gone, queue], { callbacks: [(_, message) => message.ack(), count] });
      const told = new Promise((resolve) => consumer.once('error', resolve));
      await consumer.consume();
      await gone.delete(connection);
      assert.ok((await told) instanceof ConsumerCancelled);
      await fill(1);
      await reached(1);
      await consumer.close();
      await consumer.closed;
    });

    it('and says so when the connection is lost; late acks are counted, and consume() starts anew', async () => {
      await using own = new Connection(url!);
      await fill(1);
      const held: Message[] = [];
      const { count, reached } = counter();
      const consumer = new Consumer(own, queue, {
        onMessage: (message) => {
          held.push(message);
          count();
        },
      });
      await consumer.consume();
      await reached(1);
      const channel = await own.channel();
      (channel.raw.connection as unknown as { stream: Socket }).stream.destroy(new Error('the network is gone'));
      await assert.rejects(
        consumer.closed,
        (error) => error instanceof ConnectionError && /network is gone/.test(error.message),
      );
      held[0]!.ack();
      assert.deepEqual([consumer.stale, consumer.consuming], [1, false]);
      await consumer.consume();
      await reached(2);
      assert.equal(held[1]!.deliveryInfo.redelivered, true);
      held[1]!.ack();
      await consumer.close();
      assert.equal((await ready()).messageCount, 0);
    });

    it('and ends quietly when its connection is closed on purpose', async () => {
      const own = new Connection(url!);
      const consumer = own.Consumer(queue, { onMessage: () => undefined });
      consumer.on('error', assert.fail);
      await consumer.consume();
      await own.close();
      await consumer.closed;
      assert.equal(consumer.consuming, false);
    });
  });

  describe('as a loop', () => {
    it('gives messages until it is left, then gives the rest back', async () => {
      await fill(1, 2, 3, 4, 5);
      const consumer = connection.Consumer(queue);
      const seen: unknown[] = [];
      for await (const message of consumer) {
        seen.push(Number(message.payload));
        message.ack();
        if (seen.length === 2) break;
      }
      assert.deepEqual(seen, [1, 2]);
      assert.equal(consumer.consuming, false);
      for await (const message of consumer) {
        seen.push(Number(message.payload));
        message.ack();
        if (seen.length === 5) break;
      }
      assert.deepEqual(seen, [1, 2, 3, 4, 5]);
      await consumer.close();
      assert.equal((await ready()).messageCount, 0);
    });

    it('waits for messages, and ends when the consumer is closed', async () => {
      await queue.declare(connection);
      const consumer = connection.Consumer(queue, { prefetchCount: 1 });
      const seen: unknown[] = [];
      const loop = (async () => {
        for await (const message of consumer) {
          seen.push(message.payload);
          message.ack();
          if (seen.length === 3) consumer.close();
        }
      })();
      await fill('a', 'b', 'c');
      await loop;
      await consumer.closed;
      assert.deepEqual(seen, ['a', 'b', 'c']);
    });

    it('keeps what noAck has brought for the next loop', async () => {
      await fill(1, 2, 3);
      await using consumer = connection.Consumer(queue, { noAck: true });
      const seen: unknown[] = [];
      while (seen.length < 3) {
        for await (const message of consumer) {
          seen.push(message.payload);
          break;
        }
      }
      assert.deepEqual(seen, [1, 2, 3]);
    });

    it('throws when the broker cancels it, and when the connection is lost', async () => {
      const gone = new Queue(uniqueName('mozuku-gone'));
      const cancelled = connection.Consumer(gone)[Symbol.asyncIterator]();
      const waiting = assert.rejects(cancelled.next(), ConsumerCancelled);
      const probe = new Queue(gone.name, undefined, { passive: true });
      for (;;) {
        const found = await probe.declare(connection).then(
          () => connection.defaultChannel(),
          () => undefined,
        );
        if ((await found?.raw.checkQueue(gone.name))?.consumerCount === 1) break;
      }
      await gone.delete(connection);
      await waiting;

      await using own = new Connection(url!);
      await fill(1);
      const lost = assert.rejects(async () => {
        for await (const message of own.Consumer(queue)) {
          message.ack();
          const { connection: raw } = (await own.channel()).raw;
          (raw as unknown as { stream: Socket }).stream.destroy(new Error('the network is gone'));
        }
      }, ConnectionError);
      await lost;
    });
  });
});
