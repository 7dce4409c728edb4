/** Where a message goes that failed for good: each kind of `deadLetter`, and one that cannot be published yet. */
import assert from 'node:assert/strict';
import { Connection, type DeadLetter, Exchange, errors, type FailedMessage, type Message, Queue } from '#src/index';
import { brokerTest, uniqueName, waitForQueue } from '../support/rabbitmq.js';
import { consumerOf, EffectsLog, publishAll, until } from '../support/rig.js';

const failing = (id: string) => ({ body: { id, do: 'throw' }, options: { messageId: id, headers: { tenant: 'a' } } });

/** A broker connection and what the test made on it, removed at its end. */
class Scene implements AsyncDisposable {
  readonly connection: Connection;
  readonly #queues: Queue[] = [];
  readonly #exchanges: Exchange[] = [];

  constructor(url: string) {
    this.connection = new Connection(url);
  }

  async queue(queue: Queue): Promise<Queue> {
    this.#queues.push(queue);
    await queue.declare(this.connection);
    return queue;
  }

  async exchange(exchange: Exchange): Promise<Exchange> {
    this.#exchanges.push(exchange);
    await exchange.declare(this.connection);
    return exchange;
  }

  /** Waits for a message, takes it, acks it. */
  async take(queue: Queue): Promise<Message> {
    const bound = queue.bind(this.connection);
    const message = await until(`a message in ${queue.name}`, () => bound.get({ accept: ['json'] }));
    message.ack();
    return message;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const queue of this.#queues) await queue.bind(this.connection).delete();
    for (const exchange of this.#exchanges) await exchange.bind(this.connection).delete();
    await this.connection.close();
  }
}

brokerTest('deadLetter can be an exchange, with a routing key or with the message’s own', async (broker) => {
  await using scene = new Scene(broker.url);
  using _effects = new EffectsLog();
  const queue = await scene.queue(new Queue(uniqueName('work')));
  const exchange = await scene.exchange(new Exchange(uniqueName('dlx'), { type: 'direct' }));
  const graves = await scene.queue(new Queue(uniqueName('graves'), exchange, { routingKey: 'grave' }));
  const own = await scene.queue(new Queue(uniqueName('own'), exchange, { routingKey: queue.name }));
  for (const [deadLetter, target] of [
    [{ exchange: exchange.name, routingKey: 'grave' }, graves],
    [{ exchange: exchange.name }, own],
  ] as const) {
    const letters: DeadLetter[] = [];
    const consumer = consumerOf(broker.url, queue, { deadLetter });
    consumer.on('dead', (letter) => letters.push(letter));
    await consumer.consume();
    await publishAll(broker.url, queue, [failing('x')]);
    const letter = await scene.take(target);
    await consumer.close();
    assert.deepEqual(letter.payload, { id: 'x', do: 'throw' });
    assert.equal(letter.headers.tenant, 'a');
    assert.equal(letter.headers['x-mozuku-reason'], 'failed');
    assert.match(String(letter.headers['x-mozuku-error']), /RangeError: asked to fail: x/);
    assert.equal(letter.headers['x-mozuku-queue'], queue.name);
    assert.equal(letter.headers['x-mozuku-attempts'], 1);
    assert.deepEqual(
      letters.map((each) => [each.reason, each.queue, each.messageId, each.target]),
      [['failed', queue.name, 'x', exchange.name]],
    );
    assert.equal(consumer.stats().deadLettered, 1);
  }
  await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
});

brokerTest('deadLetter can name a queue, with the name of the message’s own in it', async (broker) => {
  await using scene = new Scene(broker.url);
  using _effects = new EffectsLog();
  const queue = await scene.queue(new Queue(uniqueName('work')));
  const graves = await scene.queue(new Queue(`graves-of-${queue.name}`));
  await publishAll(broker.url, queue, [failing('x')]);
  const consumer = consumerOf(broker.url, queue, { deadLetter: 'graves-of-<queue>' });
  await consumer.consume();
  assert.deepEqual((await scene.take(graves)).payload, { id: 'x', do: 'throw' });
  await consumer.close();
});

brokerTest("deadLetter: 'broker' rejects, and the queue's own policy decides", async (broker) => {
  await using scene = new Scene(broker.url);
  using _effects = new EffectsLog();
  const graves = await scene.queue(new Queue(uniqueName('graves')));
  const queue = await scene.queue(
    new Queue(uniqueName('work'), {
      queueArguments: { 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': graves.name },
    }),
  );
  await publishAll(broker.url, queue, [failing('x')]);
  const failed: FailedMessage[] = [];
  const consumer = consumerOf(broker.url, queue, { deadLetter: 'broker' });
  consumer.on('failed', (failure) => failed.push(failure));
  await consumer.consume();
  const letter = await scene.take(graves);
  assert.deepEqual(letter.payload, { id: 'x', do: 'throw' });
  assert.equal((letter.headers['x-death'] as { reason: string }[])[0]!.reason, 'rejected');
  await consumer.close();
  assert.deepEqual(
    failed.map(({ error, outcome }) => [error.message, outcome]),
    [['asked to fail: x', 'reject']],
  );
  const { rejected, deadLettered } = consumer.stats();
  assert.deepEqual({ rejected, deadLettered }, { rejected: 1, deadLettered: 0 });
});

brokerTest("deadLetter: 'drop' acks what failed, and says so", async (broker) => {
  await using scene = new Scene(broker.url);
  using _effects = new EffectsLog();
  const queue = await scene.queue(new Queue(uniqueName('work')));
  await publishAll(broker.url, queue, [failing('x')]);
  const failed: FailedMessage[] = [];
  const consumer = consumerOf(broker.url, queue, { deadLetter: 'drop' });
  consumer.on('failed', (failure) => failed.push(failure));
  await consumer.consume();
  await until('it has failed', () => failed.length === 1);
  await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
  await consumer.close();
  assert.equal(failed[0]!.outcome, 'drop');
});

brokerTest('what cannot be dead-lettered stays unsettled, and is once it can', async (broker) => {
  await using scene = new Scene(broker.url);
  using effects = new EffectsLog();
  const queue = await scene.queue(new Queue(uniqueName('work')));
  const exchange = new Exchange(uniqueName('dlx'), { type: 'direct' });
  const problems: Error[] = [];
  const consumer = consumerOf(broker.url, queue, { deadLetter: { exchange: exchange.name, routingKey: 'grave' } });
  consumer.on('error', (error) => problems.push(error));
  try {
    await consumer.consume();
    await publishAll(broker.url, queue, [failing('x'), { body: { id: 'fine' } }]);
    // First there is no such exchange at all, then one that no queue is bound to.
    await until('the exchange is missed', () => problems.some((error) => error instanceof errors.NotFound), {
      state: () => problems.map(String),
    });
    await scene.exchange(exchange);
    await until('the queue is missed', () => problems.some((error) => error instanceof errors.MessageReturned), {
      state: () => problems.map(String),
    });
    await until('the other is handled', () => effects.counts().has('fine'));
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 0 && unacked === 1);
    assert.equal(consumer.stats().held, 1);
    const graves = await scene.queue(new Queue(uniqueName('graves'), exchange, { routingKey: 'grave' }));
    assert.deepEqual((await scene.take(graves)).payload, { id: 'x', do: 'throw' });
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
    const { deadLettered, held, redelivered } = consumer.stats();
    assert.deepEqual({ deadLettered, held, redelivered }, { deadLettered: 1, held: 0, redelivered: 0 });
  } finally {
    await consumer.close();
  }
});

brokerTest(
  'a dead-letter queue that is there already is used as it is; one bad target holds up no other',
  async (broker) => {
    await using scene = new Scene(broker.url);
    using _effects = new EffectsLog();
    const [first, second] = [
      await scene.queue(new Queue(uniqueName('work'))),
      await scene.queue(new Queue(uniqueName('work'))),
    ];
    // An exclusive queue of another connection cannot be used by anybody else.
    const owner = new Connection(broker.url);
    await new Queue(`${first.name}.dead`, { exclusive: true, durable: false }).declare(owner);
    const quorum = { queueArguments: { 'x-queue-type': 'quorum' } };
    const graves = await scene.queue(new Queue(`${second.name}.dead`, quorum));
    const problems: Error[] = [];
    const consumer = consumerOf(broker.url, [first, second]);
    consumer.on('error', (error) => problems.push(error));
    try {
      await consumer.consume();
      await publishAll(broker.url, first, [failing('held')]);
      await until('its target is refused', () => problems.some((error) => error instanceof errors.ResourceLocked), {
        state: () => problems.map(String),
      });
      await publishAll(broker.url, second, [failing('through')]);
      assert.deepEqual((await scene.take(graves)).payload, { id: 'through', do: 'throw' });
      await owner.close();
      const late = new Queue(`${first.name}.dead`);
      await until('the other is dead-lettered when it can be', () => consumer.stats().deadLettered === 2);
      assert.deepEqual((await scene.take(late)).payload, { id: 'held', do: 'throw' });
      await late.bind(scene.connection).delete();
    } finally {
      await consumer.close();
      await owner.close();
    }
  },
);

brokerTest(
  'headers that would route a dead letter elsewhere, or cannot be sent, do not go with it as they are',
  async (broker) => {
    await using scene = new Scene(broker.url);
    using _effects = new EffectsLog();
    const queue = await scene.queue(new Queue(uniqueName('work')));
    const graves = await scene.queue(new Queue(`${queue.name}.dead`));
    const copies = await scene.queue(new Queue(uniqueName('copies')));
    const headers = { CC: [copies.name], nested: { '!': 'bogus' }, large: 'x'.repeat(60_000), tenant: 'a' };
    await publishAll(broker.url, queue, [{ body: { id: 'x', do: 'throw' }, options: { headers } }]);
    const consumer = consumerOf(broker.url, queue);
    await consumer.consume();
    const letter = await scene.take(graves);
    await consumer.close();
    assert.equal(letter.headers.tenant, 'a');
    assert.deepEqual({ ...(letter.headers.nested as object) }, { '!': 'bogus' });
    assert.equal(letter.headers['x-mozuku-dropped-headers'], 'large');
    assert.deepEqual(letter.headers['x-mozuku-cc'], [copies.name]);
    // The message's own copy, and none of its dead letter.
    await waitForQueue(broker.ctl, copies.name, ({ ready }) => ready === 1);
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready + unacked === 0);
  },
);
