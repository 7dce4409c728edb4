/** `onDecodeError` reject, requeue and ack: for what cannot be decoded, is too large, or fits nowhere. */
import assert from 'node:assert/strict';
import { Connection, errors, type FailedMessage, Queue } from '#src/index';
import { brokerTest, uniqueName, waitForQueue } from '../support/rabbitmq.js';
import { consumerOf, EffectsLog, publishAll, until } from '../support/rig.js';

const MiB = 1024 * 1024;
const bad = {
  'cannot be decoded': { body: Buffer.from('{"id":'), limits: {} },
  'is over maxMessageBytes': { body: Buffer.alloc(300_000, 32), limits: { maxMessageBytes: 200_000 } },
  'fits nowhere': { body: Buffer.alloc(9 * MiB, 32), limits: { maxMemory: 8 * MiB } },
} as const;

for (const [what, { body, limits }] of Object.entries(bad)) {
  for (const onDecodeError of ['reject', 'requeue', 'ack'] as const) {
    brokerTest(`${onDecodeError}s a body that ${what}, when asked to, and handles the others`, async (broker) => {
      using effects = new EffectsLog();
      const graves = new Queue(uniqueName('graves'));
      const queue = new Queue(uniqueName('work'), {
        queueArguments: { 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': graves.name },
      });
      const connection = new Connection(broker.url);
      await graves.declare(connection);
      const options = { contentType: 'application/json', contentEncoding: 'utf-8', messageId: 'bad' };
      await publishAll(broker.url, queue, [{ body: { id: 'before' } }, { body, options }, { body: { id: 'after' } }]);
      const consumer = consumerOf(broker.url, queue, { workers: 1, onDecodeError, ...limits });
      const failures: FailedMessage[] = [];
      const problems: Error[] = [];
      consumer.on('failed', (failure) => failures.push(failure));
      consumer.on('error', (error) => problems.push(error));
      try {
        await consumer.consume();
        await until('the others are handled', () => effects.counts().size === 2, { state: () => consumer.stats() });
        if (onDecodeError === 'requeue') {
          // It comes again and again: that is what was asked for.
          await until('it has come again', () => consumer.stats().requeued >= 2, { state: () => consumer.stats() });
          await consumer.close();
          await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 1 && unacked === 0);
        } else {
          await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
          await waitForQueue(broker.ctl, graves.name, ({ ready }) => ready === (onDecodeError === 'reject' ? 1 : 0));
        }
        assert.equal(consumer.stats().deadLettered, 0);
        if (what === 'cannot be decoded') {
          assert.equal(failures[0]!.error.name, 'DecodeError');
          assert.equal(failures[0]!.outcome, onDecodeError);
          assert.deepEqual(problems, []);
        } else {
          assert.ok(problems[0] instanceof errors.MessageTooLarge);
          assert.match(problems[0].message, new RegExp(`${body.length} bytes.*onDecodeError is '${onDecodeError}'`));
        }
      } finally {
        await consumer.close();
        await queue.bind(connection).delete();
        await graves.bind(connection).delete();
        await connection.close();
      }
    });
  }
}

brokerTest(
  'a body that fits nowhere and must not be lost stays unsettled, and goes back after maxWait',
  async (broker) => {
    using effects = new EffectsLog();
    const queue = new Queue(uniqueName('work'));
    const body = Buffer.alloc(9 * MiB, 32);
    await publishAll(broker.url, queue, [{ body }, { body: { id: 'after' } }]);
    const connection = new Connection(broker.url);
    const problems: Error[] = [];
    const patient = consumerOf(broker.url, queue, { maxMemory: 8 * MiB });
    patient.on('error', (error) => problems.push(error));
    await patient.consume();
    await until('the other is handled', () => effects.counts().has('after'));
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 0 && unacked === 1);
    assert.ok(problems[0] instanceof errors.MessageTooLarge);
    assert.match(problems[0].message, /does not fit in memory to be dead-lettered; it stays unsettled/);
    await patient.close();
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 1 && unacked === 0);

    const hasty = consumerOf(broker.url, queue, { maxMemory: 8 * MiB, maxWait: 200 });
    await hasty.consume();
    await until('it was given back', () => hasty.stats().requeued >= 1, { state: () => hasty.stats() });
    await hasty.close();
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 1 && unacked === 0);
    const message = await queue.bind(connection).get({ accept: [] });
    assert.equal(message?.body.length, body.length);
    message?.ack();
    await queue.bind(connection).delete();
    await connection.close();
  },
);
