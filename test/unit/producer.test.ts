/** What producers and consumers refuse before they ask a broker. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ClosedError, EncodeError, OptionError } from '#src/errors';
import { Connection } from '#src/main/connection';
import { Consumer } from '#src/main/consumer';
import { Exchange } from '#src/main/entities/exchange';
import { Queue } from '#src/main/entities/queue';
import { Producer } from '#src/main/producer';

/** Fails the test if it is used. */
const untouched = {
  closed: false,
  defaultChannel: () => assert.fail('asked for a channel'),
  channel: () => assert.fail('asked for a channel'),
};

describe('Producer', () => {
  it('refuses unknown and wrong options, of its own and of publish()', async () => {
    assert.throws(() => new Producer(untouched, { serialiser: 'json' } as object), /did you mean 'serializer'/);
    assert.throws(() => new Producer({} as never), OptionError);
    const producer = new Producer(untouched);
    const wrong: object[] = [
      { rooting_key: 'x' },
      { priority: 256 },
      { deliveryMode: 3 },
      { expiration: '5' },
      { declare: ['q'] },
      { timestamp: -1 },
      { contentEncoding: 'utf-8' },
      { retry: true, retryPolicy: { max_retries: 3 } },
    ];
    for (const options of wrong)
      await assert.rejects(producer.publish('x', options), OptionError, JSON.stringify(options));
  });

  it('rejects what cannot be encoded before anything is sent', async () => {
    const producer = new Producer(untouched);
    await assert.rejects(producer.publish({}, { contentType: 'application/x-mine' }), EncodeError);
    await assert.rejects(producer.publish('x', { contentType: 'text/plain', contentEncoding: 'koi8-r' }), EncodeError);
    for (const contentEncoding of [
      'hex',
      'base64',
      'base64url',
      'binary',
      'ascii',
      'us-ascii',
      'latin1',
      'iso-8859-1',
    ]) {
      const options = { contentType: 'text/plain', contentEncoding };
      await assert.rejects(producer.publish('消', options), EncodeError, contentEncoding);
    }
    for (const serializer of [undefined, 'text', 'raw', 'msgpack']) {
      await assert.rejects(producer.publish('half a pair: \ud83d', serializer ? { serializer } : {}), EncodeError);
    }
    await assert.rejects(producer.publish('x', { headers: { f: () => 0 } }), EncodeError);
    await assert.rejects(producer.publish('x', { compression: 'no-such' }), EncodeError);
    await assert.rejects(producer.publish({}, { serializer: 'no-such' }), { name: 'SerializerNotInstalled' });
  });

  it('does not publish with an aborted signal, nor when it is closed', async () => {
    const producer = new Producer(untouched);
    await assert.rejects(producer.publish('x', { signal: AbortSignal.abort(new Error('no')) }), /no/);
    await producer.close();
    await assert.rejects(producer.publish('x'), ClosedError);
  });

  it('is made by a connection, without I/O', () => {
    const producer = new Connection('amqp://nowhere.invalid').Producer({ exchange: 'e', routingKey: 'k' });
    assert.deepEqual([producer.exchange.name, producer.routingKey, producer.autoDeclare], ['e', 'k', false]);
    assert.equal(new Producer(untouched, { exchange: new Exchange('e') }).autoDeclare, true);
  });
});

describe('Consumer', () => {
  const queue = new Queue('q');

  it('refuses callbacks together with onMessage, unknown options, and things that are no queues', () => {
    const both = { callbacks: [() => undefined], onMessage: () => undefined };
    assert.throws(() => new Consumer(untouched, queue, both), { name: 'OptionError', message: /exclude each other/ });
    assert.throws(() => new Consumer(untouched, queue, { calbacks: [] } as object), /did you mean 'callbacks'/);
    assert.throws(() => new Consumer(untouched, 'q' as never), OptionError);
    assert.throws(() => new Consumer(untouched, [queue, 'q'] as never), OptionError);
    assert.throws(() => new Consumer(untouched, queue, { accept: ['no-such'] }), { name: 'SerializerNotInstalled' });
    assert.throws(() => new Consumer(untouched, queue, { accept: ['pickle'] }), { name: 'SerializerNotInstalled' });
  });

  it('has nothing to consume for without callbacks, and cannot do both callbacks and a loop', async () => {
    await assert.rejects(new Consumer(untouched, queue).consume(), OptionError);
    const consumer = new Consumer(untouched, queue, { onMessage: () => undefined });
    await assert.rejects(consumer[Symbol.asyncIterator]().next(), OptionError);
  });

  it('closes without having consumed, once and for all', async () => {
    const consumer = new Consumer(untouched, queue, { onMessage: () => undefined });
    await consumer.close();
    await consumer.close();
    await consumer.closed;
    await assert.rejects(consumer.consume(), ClosedError);
  });
});
