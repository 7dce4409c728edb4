/** Declarations of this library and of Python's kombu: each takes what the other has declared, and sees what differs. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { Connection, Exchange, errors, Queue, type QueueOptions } from '#src/index';
import { pythonFor, runPython } from '../support/kombu.js';
import { brokerTest, uniqueName } from '../support/rabbitmq.js';

/** Declares what it is given as keyword arguments of Exchange and Queue; prints each refusal's code, or null. */
const DECLARE = `
import sys, json, kombu
from amqp.exceptions import ChannelError
out = []
with kombu.Connection(sys.argv[1]) as connection:
    for kind, keywords in json.load(sys.stdin):
        exchange = keywords.pop('exchange', None)
        if kind == 'queue' and exchange:
            keywords['exchange'] = kombu.Exchange(**exchange)
        entity = (kombu.Exchange if kind == 'exchange' else kombu.Queue)(**keywords)
        channel = connection.channel()
        try:
            entity(channel).declare()
            out.append(None)
        except ChannelError as exc:
            out.append(exc.code)
print(json.dumps(out))
`;

/** Python's from_dict and as_dict. */
const DICTS = `
import sys, json, kombu
out = []
for name, options in json.load(sys.stdin):
    queue = kombu.Queue.from_dict(name, **options)
    out.append(queue.as_dict(recurse=True))
print(json.dumps(out))
`;

type Spec = ['exchange' | 'queue', Record<string, unknown>];

interface Case {
  readonly what: string;
  readonly ours: (name: string) => Exchange | Queue;
  /** The keyword arguments of Python's. */
  readonly theirs: (name: string) => Record<string, unknown>;
}

function exchangeCase(what: string, ours: object, theirs: Record<string, unknown>): Case {
  return {
    what: `exchange: ${what}`,
    ours: (name) => new Exchange(name, ours),
    theirs: (name) => ({ name, ...theirs }),
  };
}

function queueCase(what: string, ours: QueueOptions, theirs: Record<string, unknown>): Case {
  return { what: `queue: ${what}`, ours: (name) => new Queue(name, ours), theirs: (name) => ({ name, ...theirs }) };
}

/** Durations are milliseconds here and seconds there. */
const CASES: readonly Case[] = [
  ...['direct', 'topic', 'fanout', 'headers'].map((type) => exchangeCase(type, { type }, { type })),
  exchangeCase('transient', { durable: false }, { durable: false }),
  exchangeCase('auto-delete', { autoDelete: true }, { auto_delete: true }),
  exchangeCase(
    'arguments',
    { arguments: { 'alternate-exchange': 'amq.fanout' } },
    { arguments: { 'alternate-exchange': 'amq.fanout' } },
  ),
  queueCase('no options', {}, {}),
  queueCase('auto-delete', { autoDelete: true }, { auto_delete: true }),
  queueCase('transient', { durable: false, autoDelete: true }, { durable: false, auto_delete: true }),
  queueCase('expires', { expires: 60_000 }, { expires: 60 }),
  queueCase('a fraction of a second', { messageTtl: 1500 }, { message_ttl: 1.5 }),
  queueCase('max length', { maxLength: 10, maxLengthBytes: 2 ** 33 }, { max_length: 10, max_length_bytes: 2 ** 33 }),
  queueCase('max priority', { maxPriority: 10 }, { max_priority: 10 }),
  ...[
    { 'x-dead-letter-exchange': 'amq.direct', 'x-dead-letter-routing-key': 'dead' },
    { 'x-overflow': 'reject-publish', 'x-max-length': 5 },
    { 'x-single-active-consumer': true },
    { 'x-queue-mode': 'lazy' },
    { 'x-queue-type': 'quorum', 'x-delivery-limit': 3 },
    { 'x-queue-type': 'stream', 'x-max-length-bytes': 2 ** 34, 'x-max-age': '1h' },
    // The highest level of delayed delivery: beyond 32 bits.
    { 'x-queue-type': 'quorum', 'x-message-ttl': 2 ** 27 * 1000, 'x-dead-letter-strategy': 'at-least-once' },
  ].map((args) =>
    queueCase(`arguments ${Object.keys(args).join(' ')}`, { queueArguments: args }, { queue_arguments: args }),
  ),
];

function withPython(name: string, run: (python: string, connection: Connection, url: string) => Promise<void>): void {
  brokerTest(
    name,
    async ({ url }, context: TestContext) => {
      const python = pythonFor(context);
      if (python === undefined) return;
      await using connection = new Connection(url);
      await run(python, connection, url);
    },
    { timeout: 120_000 },
  );
}

async function pythonDeclares(python: string, url: string, specs: readonly Spec[]): Promise<(number | null)[]> {
  return JSON.parse(await runPython(python, DECLARE, [url], JSON.stringify(specs)));
}

function kindOf(entity: Exchange | Queue): Spec[0] {
  return entity instanceof Exchange ? 'exchange' : 'queue';
}

withPython('what Python has declared is the same to us, and the reverse', async (python, connection, url) => {
  for (const pythonFirst of [true, false]) {
    const made = CASES.map(({ what, ours, theirs }) => {
      const name = uniqueName('mozuku-py');
      return { what, ours: ours(name), theirs: theirs(name) };
    });
    try {
      const specs = made.map(({ ours, theirs }): Spec => [kindOf(ours), theirs]);
      const declareOurs = async (): Promise<void> => {
        for (const { what, ours } of made) {
          await ours.declare(connection).catch((error: unknown) => assert.fail(`${what}: ${error}`));
        }
      };
      if (!pythonFirst) await declareOurs();
      const answers = await pythonDeclares(python, url, specs);
      assert.deepEqual(
        made.map(({ what }, index) => [what, answers[index]]),
        made.map(({ what }) => [what, null]),
      );
      await declareOurs();
    } finally {
      for (const { ours } of made) await ours.delete(connection);
    }
  }
});

withPython('both are refused where they differ', async (python, connection, url) => {
  const queue = new Queue(uniqueName('mozuku-py'), { messageTtl: 1000 });
  const exchange = new Exchange(uniqueName('mozuku-py'), { type: 'topic' });
  await queue.declare(connection);
  await exchange.declare(connection);
  try {
    const answers = await pythonDeclares(python, url, [
      ['queue', { name: queue.name, message_ttl: 2 }],
      ['exchange', { name: exchange.name, type: 'direct' }],
    ]);
    assert.deepEqual(answers, [406, 406]);
    await assert.rejects(new Queue(queue.name).declare(connection), errors.PreconditionFailed);
    await assert.rejects(new Exchange(exchange.name).declare(connection), errors.PreconditionFailed);
  } finally {
    await queue.delete(connection);
    await exchange.delete(connection);
  }
});

withPython('a binding of Python is undone by ours: key and arguments are the same', async (python, connection, url) => {
  const table = { 'x-match': 'all', text: 'é', small: 1, middle: 300, negative: -5, large: 2 ** 40, yes: true };
  const exchange = new Exchange(uniqueName('mozuku-py'), { type: 'headers' });
  const queue = new Queue(uniqueName('mozuku-py'), exchange, { bindingArguments: table, channel: connection });
  const message = exchange.Message('x', { headers: { ...table, more: 1 } });
  const sends = () => exchange.publish(message, { mandatory: true }, connection);
  try {
    const keywords = { name: queue.name, binding_arguments: table, exchange: { name: exchange.name, type: 'headers' } };
    assert.deepEqual(await pythonDeclares(python, url, [['queue', keywords]]), [null]);
    await sends();
    await queue.queueUnbind();
    await assert.rejects(sends(), errors.MessageReturned);
    await queue.declare();
    assert.deepEqual(await pythonDeclares(python, url, [['queue', keywords]]), [null]);
    await sends();
    assert.equal(await queue.purge(), 2, 'one binding, not two');
  } finally {
    await queue.delete();
    await exchange.delete(connection);
  }
});

withPython("the flat options mean what Python's from_dict makes of them", async (python) => {
  const dicts = [
    { exchange: 'e', exchange_type: 'topic', binding_key: 'b', routing_key: 'r', durable: false },
    { exchange: 'e', exchange_durable: false, queue_durable: true, auto_delete: true, delivery_mode: 1 },
    { exchange: 'e', exchange_auto_delete: true, queue_auto_delete: false, no_ack: true, exclusive: true },
    { exchange: 'e', exchange_arguments: { a: 1 }, queue_arguments: { b: 2 }, binding_arguments: { c: 3 } },
    { consumer_arguments: { d: 4 }, queue_arguments: null },
  ];
  const input = JSON.stringify(dicts.map((dict, index) => [`q${index}`, dict]));
  const theirs = JSON.parse(await runPython(python, DICTS, [], input)) as Record<string, unknown>[];
  for (const [index, dict] of dicts.entries()) {
    const ours = Queue.fromDict(`q${index}`, dict as object);
    const exchange = ours.exchange!;
    const { name, routingKey, durable, exclusive, autoDelete, noAck, queueArguments } = ours;
    const seen = { name, routing_key: routingKey, durable, exclusive, auto_delete: autoDelete, no_ack: noAck };
    const tables = {
      queue_arguments: queueArguments ?? null,
      binding_arguments: ours.bindingArguments ?? null,
      consumer_arguments: ours.consumerArguments ?? null,
    };
    const from = theirs[index]!.exchange as Record<string, unknown>;
    for (const [key, value] of Object.entries({ ...seen, ...tables })) {
      assert.deepEqual(value, theirs[index]![key], `q${index} ${key}`);
    }
    assert.deepEqual(
      [exchange.name, exchange.type, exchange.durable, exchange.autoDelete, exchange.arguments ?? null],
      [from.name, from.type, from.durable, from.auto_delete, from.arguments],
      `q${index} exchange`,
    );
    assert.equal(exchange.deliveryMode ?? null, from.delivery_mode, `q${index} delivery mode`);
  }
});
