/** Declaring, binding, purging, deleting and getting against a broker. Needs a broker. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { MessageStateError, NotFound, PreconditionFailed, ResourceLocked } from '#src/errors';
import { Connection } from '#src/main/connection';
import { binding } from '#src/main/entities/binding';
import { declareQueue } from '#src/main/entities/declare';
import { Exchange } from '#src/main/entities/exchange';
import { Queue } from '#src/main/entities/queue';
import { sharedBroker, uniqueName } from '../support/rabbitmq.js';

const url = sharedBroker()?.url;
const skip = url === undefined ? 'NOT RUN: no broker; use npm test, or set MOZUKU_TEST_AMQP_URL' : false;

describe('entities on a broker', { skip }, () => {
  let connection: Connection;
  const made: (Queue | Exchange)[] = [];
  const unique = (what: string) => uniqueName(`mozuku-${what}`);
  function keep<T extends Queue | Exchange>(entity: T): T {
    made.push(entity);
    return entity;
  }

  before(async () => {
    connection = await new Connection(url!).connect();
  });
  after(async () => {
    for (const entity of made) await entity.delete(connection);
    await connection.close();
  });

  it('declare exchange, queue and binding at one call, so that messages flow', async () => {
    const exchange = keep(new Exchange(unique('topic'), { type: 'topic' }));
    const queue = keep(new Queue(unique('q'), exchange, { routingKey: 'a.*' }));
    assert.equal(await queue.declare(connection), queue.name);
    await using producer = connection.Producer({ exchange });
    await producer.publish({ n: 1 }, { routingKey: 'a.b', mandatory: true });
    await assert.rejects(producer.publish({}, { routingKey: 'b.b', mandatory: true }), { name: 'MessageReturned' });
    const message = await queue.get(connection);
    assert.deepEqual(message?.payload, { n: 1 });
    assert.equal(message?.deliveryInfo.routingKey, 'a.b');
    assert.equal(message?.deliveryInfo.queue, queue.name);
    message?.ack();
    await queue.unbind(connection);
    await assert.rejects(producer.publish({}, { routingKey: 'a.b', mandatory: true }), { name: 'MessageReturned' });
  });

  it('bind queues to several exchanges, and exchanges to each other', async () => {
    const [source, first, second] = ['s', 'a', 'b'].map((name) => keep(new Exchange(unique(name), { type: 'fanout' })));
    const queue = keep(new Queue(unique('q'), [binding(first!), binding(second!)]));
    await queue.declare(connection);
    await source!.declare(connection);
    await second!.bindTo(source!, { routingKey: '' }, connection);
    await using producer = connection.Producer();
    await producer.publish('1', { exchange: first!, mandatory: true });
    await producer.publish('2', { exchange: source!, mandatory: true });
    assert.equal(await queue.purge(connection), 2);
    await second!.unbindFrom(source!, {}, connection);
    await assert.rejects(producer.publish('3', { exchange: source!, mandatory: true }), { name: 'MessageReturned' });
  });

  it('match headers with the arguments of a binding, and undo a binding made by hand', async () => {
    const exchange = keep(new Exchange(unique('headers'), { type: 'headers' }));
    const queue = keep(new Queue(unique('q'), exchange, { bindingArguments: { 'x-match': 'all', kind: 'x', n: 300 } }));
    await queue.declare(connection);
    await using producer = connection.Producer({ exchange });
    await producer.publish('yes', { headers: { kind: 'x', n: 300 }, mandatory: true });
    await assert.rejects(producer.publish('no', { headers: { kind: 'y', n: 300 }, mandatory: true }), {
      name: 'MessageReturned',
    });
    const more = { arguments: { 'x-match': 'any', other: true } };
    await queue.bindTo(exchange, more, connection);
    await producer.publish('yes', { headers: { other: true }, mandatory: true });
    await queue.unbindFrom(exchange, more, connection);
    await assert.rejects(producer.publish('no', { headers: { other: true }, mandatory: true }), {
      name: 'MessageReturned',
    });
  });

  it('give a queue without a name the name that the broker makes', async () => {
    const queue = new Queue('', undefined, { exclusive: true });
    const name = await queue.declare(connection);
    assert.match(name, /^amq\.gen-/);
    assert.equal(await queue.named(name).delete(connection), 0);
  });

  it('take the durations of a queue in milliseconds, and its other limits', async () => {
    const queue = new Queue(unique('q'), undefined, {
      expires: 60_000,
      messageTtl: 1,
      maxLength: 10,
      maxLengthBytes: 10_000,
      maxPriority: 5,
    });
    await queue.declare(connection);
    // The broker compares the arguments of a second declaration.
    await queue.declare(connection);
    await assert.rejects(new Queue(queue.name, undefined, { expires: 60_000 }).declare(connection), PreconditionFailed);
    await queue.delete(connection);
  });

  it('reject with the class of what went wrong', async () => {
    const queue = keep(new Queue(unique('q')));
    await queue.declare(connection);
    await assert.rejects(
      new Queue(queue.name, undefined, { durable: false }).declare(connection),
      (error: PreconditionFailed) => {
        assert.ok(error instanceof PreconditionFailed);
        assert.match(error.message, /^declaring queue '.*': PRECONDITION_FAILED - inequivalent arg 'durable'/);
        assert.equal(error.details.replyCode, 406);
        return true;
      },
    );
    await assert.rejects(new Queue('no-such', undefined, { passive: true }).declare(connection), NotFound);
    await assert.rejects(new Exchange('no-such', { passive: true }).declare(connection), NotFound);
    await assert.rejects(new Queue('no-such').get(connection), NotFound);
    await assert.rejects(new Queue(unique('q'), 'amq.no-such', { exclusive: true }).declare(connection), NotFound);
    const exclusive = new Queue(unique('q'), undefined, { exclusive: true });
    await exclusive.declare(connection);
    await using other = new Connection(url!);
    await assert.rejects(exclusive.declare(other), ResourceLocked);
  });

  it('declare nothing when told so, nor the default exchange, nor those of the broker', async () => {
    await new Queue('no-such', undefined, { noDeclare: true }).declare(connection);
    await new Exchange('no-such', { noDeclare: true }).declare(connection);
    await new Exchange('').declare(connection);
    await new Exchange('amq.topic', { type: 'topic' }).bind(connection).declare();
    await assert.rejects(new Queue('no-such', undefined, { passive: true }).declare(connection), NotFound);
    await new Exchange('amq.topic', { passive: true }).declare(connection);
  });

  it('get messages one by one, settle them once, and give null when there is none', async () => {
    const queue = keep(new Queue(unique('q'))).bind(connection);
    await queue.declare();
    assert.equal(await queue.get(), null);
    await using producer = connection.Producer({ routingKey: queue.name });
    await producer.publish('one');
    await producer.publish('two');
    const first = (await queue.get())!;
    assert.equal(first.deliveryInfo.redelivered, false);
    first.requeue();
    assert.throws(() => first.ack(), MessageStateError);
    const again = (await queue.get())!;
    assert.deepEqual([again.payload, again.deliveryInfo.redelivered], ['one', true]);
    again.reject();
    const free = (await queue.get({ noAck: true }))!;
    assert.equal(free.payload, 'two');
    free.ack();
    assert.equal(await queue.get(), null);
  });

  it('delete with conditions', async () => {
    const queue = new Queue(unique('q'), undefined, { channel: connection });
    await queue.declare();
    await using producer = connection.Producer({ routingKey: queue.name });
    await producer.publish('x');
    await assert.rejects(queue.delete({ ifEmpty: true }), PreconditionFailed);
    assert.equal(await queue.delete(connection, { ifUnused: true }), 1);
    const exchange = new Exchange(unique('e'));
    const bound = new Queue(unique('q'), exchange, { exclusive: true });
    await bound.declare(connection);
    await assert.rejects(exchange.delete(connection, { ifUnused: true }), PreconditionFailed);
    await exchange.delete(connection);
    await bound.delete(connection);
  });

  it('are quorum queues, which count deliveries, where queueArguments say so', async () => {
    const queue = keep(
      new Queue(unique('quorum'), { queueArguments: { 'x-queue-type': 'quorum' }, channel: connection }),
    );
    await queue.declare();
    await using producer = connection.Producer({ routingKey: queue.name });
    await producer.publish('x');
    (await queue.get())!.requeue();
    let message = await queue.get();
    // A quorum queue puts back in its own time.
    while (message === null) message = await queue.get();
    assert.equal(message.headers['x-delivery-count'], 1);
    message.ack();
  });

  it('are streams, read from where consumerArguments say, by everybody anew', async () => {
    const stream = keep(
      new Queue(unique('stream'), {
        queueArguments: { 'x-queue-type': 'stream' },
        consumerArguments: { 'x-stream-offset': 'first' },
      }),
    );
    await stream.declare(connection);
    await using producer = connection.Producer({ routingKey: stream.name });
    for (const body of ['a', 'b', 'c']) await producer.publish(body);
    for (let reader = 0; reader < 2; reader++) {
      const bodies: unknown[] = [];
      for await (const message of connection.Consumer(stream, { prefetchCount: 10 })) {
        bodies.push(message.payload);
        message.ack();
        if (bodies.length === 3) break;
      }
      assert.deepEqual(bodies, ['a', 'b', 'c']);
    }
  });

  it('are declared on a channel of amqplib by declareQueue', async () => {
    const channel = await connection.channel();
    const plain = channel.raw;
    assert.match(
      await declareQueue(plain, new Queue('', 'amq.direct', { routingKey: 'k', exclusive: true })),
      /^amq\.gen-/,
    );
    await assert.rejects(declareQueue(plain, new Queue('no-such', undefined, { passive: true })), NotFound);
  });
});
