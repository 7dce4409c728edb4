/** Delayed delivery: the levels as they are declared, and messages that come when they are due. */
import assert from 'node:assert/strict';
import { type Connection, delayedDelivery, Exchange, errors, Queue } from '#src/index';
import { onBothBrokers, type Scene } from '../support/both-brokers.js';
import { brokerTest, uniqueName } from '../support/rabbitmq.js';

type QueueType = 'classic' | 'quorum';

/** What kombu calls them, told anew: the tests must not take the library's word for it. */
function names(prefix: string): { levels: string[]; delivery: string } {
  const levels = Array.from({ length: 28 }, (_, level) => `${prefix}_celery_delayed_${level}`);
  return { levels, delivery: `${prefix}_celery_delayed_delivery` };
}

/** Declared, and deleted at the end. */
async function declared(scene: Scene, queueType: QueueType = 'classic'): Promise<string> {
  const prefix = scene.unique('d');
  const { levels, delivery } = names(prefix);
  for (const name of levels) {
    scene.keep(new Queue(name));
    scene.keep(new Exchange(name));
  }
  scene.keep(new Exchange(delivery));
  await delayedDelivery.declareNativeDelayedDeliveryExchangesAndQueues(scene.connection, queueType, { prefix });
  return prefix;
}

async function destination(connection: Connection, exchange: Exchange, key: string): Promise<Queue> {
  const queue = new Queue(`${exchange.name}-q`, exchange, { routingKey: key, channel: connection });
  await queue.declare();
  return queue;
}

/** Resolves when a message comes. */
async function next(connection: Connection, queue: Queue): Promise<{ body: unknown; at: number }> {
  await using consumer = connection.Consumer(queue);
  for await (const message of consumer) {
    message.ack();
    return { body: message.payload, at: performance.now() };
  }
  return assert.fail('no message came');
}

onBothBrokers('a message arrives through its exchange when its delay is over, not before', async (scene) => {
  const prefix = await declared(scene);
  const exchange = scene.keep(new Exchange(scene.unique('x'), { type: 'topic' }));
  const queue = scene.keep(await destination(scene.connection, exchange, 'mail.send'));
  await delayedDelivery.bindQueueToNativeDelayedDeliveryExchange(scene.connection, queue, { prefix });
  await using producer = scene.connection.Producer();
  const began = performance.now();
  const delays = { now: 0, soon: 1000, late: 2000 };
  for (const [body, delay] of Object.entries(delays)) {
    const way =
      delay === 0 ? { exchange, routingKey: 'mail.send' } : delayedDelivery.delayed(delay, 'mail.send', { prefix });
    await producer.publish(body, { ...way, mandatory: true });
  }
  const arrived = new Map<unknown, number>();
  while (arrived.size < 3) {
    const { body, at } = await next(scene.connection, queue);
    assert.ok(!arrived.has(body), `${body} came twice`);
    arrived.set(body, at - began);
  }
  for (const [body, delay] of Object.entries(delays)) {
    // Timers of the broker count whole milliseconds.
    assert.ok(arrived.get(body)! >= delay - 5, `${body} came after ${arrived.get(body)} ms`);
  }
});

onBothBrokers('each level keeps what its digit says and hands the rest down', async (scene) => {
  const prefix = await declared(scene);
  const { levels } = names(prefix);
  await using producer = scene.connection.Producer();
  for (const level of [27, 26, 13, 2]) {
    // One second more than the level's own, so that a lower digit is set too.
    const delay = (2 ** level + 1) * 1000;
    await producer.publish('x', { ...delayedDelivery.delayed(delay, 'k', { prefix }), mandatory: true });
    const facts = await new Queue(levels[level]!).queueDeclare(scene.connection, { passive: true });
    assert.equal(facts.messages, 1, `level ${level}`);
  }
});

onBothBrokers('declaring it again changes nothing; another queue type is refused', async (scene) => {
  const prefix = await declared(scene, 'quorum');
  const again = (queueType: QueueType) =>
    delayedDelivery.declareNativeDelayedDeliveryExchangesAndQueues(scene.connection, queueType, { prefix });
  await again('quorum');
  await assert.rejects(again('classic'), errors.PreconditionFailed);
  await assert.rejects(again('stream' as never), { name: 'OptionError', message: /'classic' or 'quorum'/ });
  await assert.rejects(
    delayedDelivery.declareNativeDelayedDeliveryExchangesAndQueues(scene.connection, 'quorum', { prefx: 'x' } as never),
    errors.OptionError,
  );
});

onBothBrokers('all bindings of a queue take part, but direct exchanges are left out with a warning', async (scene) => {
  const prefix = await declared(scene);
  const { delivery } = names(prefix);
  const [topic, fanout, direct] = ['topic', 'fanout', 'direct'].map((type) =>
    scene.keep(new Exchange(scene.unique(type), { type })),
  );
  const ways = [topic!.binding('#.mine'), fanout!.binding('any'), direct!.binding('d')];
  const queue = scene.keep(new Queue(scene.unique('q'), ways, { channel: scene.connection }));
  await queue.declare();
  const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
  await delayedDelivery.bindQueueToNativeDelayedDeliveryExchange(scene.connection, queue, { prefix });
  assert.match((await warned).message, /'.*direct.*' is a direct exchange/);
  const due = new Exchange(delivery, { channel: scene.connection });
  // As a message comes out of level 0.
  for (const key of ['mine', 'any', 'd']) {
    const routingKey = delayedDelivery.calculateRoutingKey(1000, key);
    const publishing = due.publish(key, { routingKey, mandatory: true });
    if (key === 'd') await assert.rejects(publishing, errors.MessageReturned);
    else await publishing;
  }
  const bodies = [await queue.get({ noAck: true }), await queue.get({ noAck: true })].map((each) =>
    each?.body.toString(),
  );
  assert.deepEqual(bodies, ['mine', 'any']);
  await assert.rejects(
    delayedDelivery.bindQueueToNativeDelayedDeliveryExchange(scene.connection, 'q' as never),
    errors.OptionError,
  );
});

interface Row {
  readonly [column: string]: unknown;
}

for (const queueType of ['classic', 'quorum'] as const) {
  brokerTest(
    `RabbitMQ has for ${queueType} queues what kombu declares`,
    async ({ url, ctl }) => {
      const { Connection } = await import('#src/index');
      await using connection = new Connection(url);
      const prefix = uniqueName('d');
      const { levels, delivery } = names(prefix);
      await delayedDelivery.declareNativeDelayedDeliveryExchangesAndQueues(connection, queueType, { prefix });
      try {
        const list = async (what: string, ...columns: string[]): Promise<Row[]> =>
          JSON.parse(await ctl(what, '--formatter', 'json', ...columns)) as Row[];
        const ours = (rows: Row[], column: string) => rows.filter((row) => String(row[column]).startsWith(prefix));

        const queues = new Map(
          ours(await list('list_queues', 'name', 'durable', 'auto_delete', 'arguments'), 'name').map((row) => [
            row.name,
            row,
          ]),
        );
        assert.equal(queues.size, 28);
        for (const [level, name] of levels.entries()) {
          const { durable, auto_delete: autoDelete, arguments: args } = queues.get(name)!;
          assert.deepEqual([durable, autoDelete], [true, false]);
          assert.deepEqual(byName(args), {
            'x-queue-type': queueType,
            'x-overflow': 'reject-publish',
            'x-message-ttl': 2 ** level * 1000,
            'x-dead-letter-exchange': level === 0 ? delivery : levels[level - 1],
            ...(queueType === 'quorum' ? { 'x-dead-letter-strategy': 'at-least-once' } : {}),
          });
        }

        const exchanges = ours(await list('list_exchanges', 'name', 'type', 'durable', 'auto_delete'), 'name');
        assert.deepEqual(exchanges.map((row) => row.name).sort(), [...levels, delivery].sort());
        for (const row of exchanges) {
          assert.deepEqual([row.type, row.durable, row.auto_delete], ['topic', true, false]);
        }

        const bindings = ours(await list('list_bindings'), 'source_name').map((row) =>
          [row.source_name, row.destination_kind, row.destination_name, row.routing_key].join(' '),
        );
        const wanted = levels.flatMap((name, level) => {
          const above = '*.'.repeat(27 - level);
          const below = level === 0 ? delivery : levels[level - 1];
          return [`${name} queue ${name} ${above}1.#`, `${name} exchange ${below} ${above}0.#`];
        });
        assert.deepEqual(bindings.sort(), wanted.sort());
      } finally {
        for (const name of levels) {
          await new Queue(name).delete(connection);
          await new Exchange(name).delete(connection);
        }
        await new Exchange(delivery).delete(connection);
      }
    },
    { ctl: true, timeout: 60_000 },
  );
}

/** rabbitmqctl prints tables as lists of name, type and value, or as objects. */
function byName(table: unknown): Row {
  if (!Array.isArray(table)) return table as Row;
  return Object.fromEntries((table as [string, string, unknown][]).map(([name, , value]) => [name, value]));
}
