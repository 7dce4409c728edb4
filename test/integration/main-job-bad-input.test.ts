/** Bad input: a typed error that names what is wrong, where the user looks; the message goes where it was told to. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { deflateSync } from 'node:zlib';
import {
  Connection,
  errors,
  type FailedMessage,
  Queue,
  ShardedConsumer,
  type ShardedConsumerOptions,
} from '#src/index';
import { SHARDED_CONSUMER_OPTIONS } from '#src/main/runtime/options';
import { brokerTest, uniqueName, waitForQueue } from '../support/rabbitmq.js';
import { consumerOf, EFFECTS_HANDLER, EffectsLog, publishAll, until } from '../support/rig.js';

const queue = new Queue('q');
const elsewhere = new Connection('amqp://127.0.0.1:1//');

type KombuErrorClass = typeof errors.KombuError;

function refused(options: object, kind: KombuErrorClass, text: RegExp): void {
  assert.throws(
    () => new ShardedConsumer(elsewhere, queue, options as ShardedConsumerOptions),
    (error) => error instanceof kind && text.test(error.message),
  );
}

test('options that are wrong are refused when the consumer is made', () => {
  refused({}, errors.OptionError, /'handler' is required/);
  refused({ handler: () => undefined }, errors.OptionError, /cannot cross threads/);
  refused({ handler: new URL('file:///no/such/module.js') }, errors.HandlerLoadError, /does not exist/);
  refused({ handler: 'https://example.org/handler.js' }, errors.KombuError, /handler/);
  refused({ handler: EFFECTS_HANDLER, worker: 2 }, errors.OptionError, /did you mean 'workers'/);
  refused({ handler: EFFECTS_HANDLER, maxMemory: 1000 }, errors.OptionError, /'maxMemory' must be a number of bytes/);
  for (const name of Object.keys(SHARDED_CONSUMER_OPTIONS)) {
    const wrong = Symbol('wrong') as unknown;
    refused({ handler: EFFECTS_HANDLER, [name]: wrong }, errors.OptionError, new RegExp(`'${name}' must be`));
  }
  assert.throws(() => new ShardedConsumer({} as Connection, queue, { handler: EFFECTS_HANDLER }), errors.OptionError);
  assert.throws(() => new ShardedConsumer(elsewhere, [], { handler: EFFECTS_HANDLER }), errors.OptionError);
  assert.throws(
    () => new Connection('amqp://user:hunter2@[bad'),
    (error) => {
      return error instanceof errors.InvalidUrl && !error.message.includes('hunter2');
    },
  );
  assert.throws(() => new Connection('kafka://host'), errors.TransportNotAvailable);
});

const modules: Record<string, { readonly source: string; readonly text: RegExp }> = {
  'throws while it loads': { source: 'throw new Error("no licence");', text: /no licence/ },
  'has a syntax error': { source: 'export default function (', text: /Unexpected/ },
  'never finishes loading': { source: 'await new Promise(() => setInterval(() => 0, 1e6));', text: /startTimeout/ },
  'exports nothing': { source: 'export const x = 1;', text: /exactly one of/ },
  'exports two kinds': {
    source: 'export default () => 0; export const onMessage = () => 0;',
    text: /default and onMessage/,
  },
  'exports no function': { source: 'export default 5;', text: /must be a function/ },
  'has a setup that fails': {
    source: 'export default () => 0; export async function setup() { throw new Error("no model"); }',
    text: /no model/,
  },
};

for (const [name, { source, text }] of Object.entries(modules)) {
  test(`a handler module that ${name} rejects consume(), and nothing is left running`, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'mozuku-handler-'));
    const path = join(folder, 'handler.mjs');
    writeFileSync(path, source);
    try {
      // A busy machine takes its time to load the others.
      const startTimeout = name === 'never finishes loading' ? 1000 : 120_000;
      const consumer = new ShardedConsumer(elsewhere, queue, { handler: path, workers: 2, startTimeout });
      await assert.rejects(
        consumer.consume(),
        (error) => error instanceof errors.HandlerLoadError && text.test(error.message),
      );
      await assert.rejects(consumer.closed, errors.HandlerLoadError);
      assert.equal(consumer.stats().state, 'closed');
      assert.deepEqual(consumer.stats().workers, []);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

test('a broker that is not there rejects consume()', async () => {
  const consumer = consumerOf('amqp://127.0.0.1:1//', queue);
  await assert.rejects(consumer.consume(), errors.ConnectionError);
  assert.equal(consumer.stats().state, 'closed');
});

brokerTest('a refused login, virtual host or queue rejects consume() by name', async (broker) => {
  const { host } = new URL(broker.url);
  const login = consumerOf(`amqp://guest:hunter2@${host}//`, queue);
  await assert.rejects(
    login.consume(),
    (error) => error instanceof errors.AccessRefused && !/hunter2/.test(error.message),
  );
  await assert.rejects(consumerOf(`amqp://guest:guest@${host}/nowhere`, queue).consume(), errors.AccessRefused);
  const missing = consumerOf(broker.url, new Queue(uniqueName('missing')), { autoDeclare: false });
  await assert.rejects(missing.consume(), errors.NotFound);
  const name = uniqueName('differs');
  const connection = new Connection(broker.url);
  await new Queue(name, { maxLength: 5 }).declare(connection);
  await assert.rejects(consumerOf(broker.url, new Queue(name)).consume(), errors.PreconditionFailed);
  await new Queue(name).bind(connection).delete();
  await connection.close();
});

const MiB = 1024 * 1024;
const bodies: Record<string, { readonly body: Buffer; readonly options: object; readonly error: string }> = {
  'is not JSON': {
    body: Buffer.from('{"id":'),
    options: { contentType: 'application/json', contentEncoding: 'utf-8' },
    error: 'DecodeError',
  },
  'is of a type that is not accepted': {
    body: Buffer.from('x'),
    options: { contentType: 'application/x-yaml' },
    error: 'ContentDisallowed',
  },
  'is pickled': {
    body: Buffer.from('x'),
    options: { contentType: 'application/x-python-serialize' },
    error: 'ContentDisallowed',
  },
  'is compressed in an unknown way': {
    body: Buffer.from('x'),
    options: { contentType: 'application/json', headers: { compression: 'application/x-rot13' } },
    error: 'DecodeError',
  },
  'is cut off': {
    body: deflateSync('{"id":1}').subarray(0, 8),
    options: { contentType: 'application/json', headers: { compression: 'application/x-gzip' } },
    error: 'DecodeError',
  },
  'is a bomb': {
    body: deflateSync(Buffer.alloc(64 * MiB)),
    options: { contentType: 'application/json', headers: { compression: 'application/x-gzip' } },
    error: 'MessageTooLarge',
  },
  'is over the limit': {
    body: Buffer.alloc(300_000, 32),
    options: { contentType: 'application/json' },
    error: 'tooLarge',
  },
};

for (const [name, { body, options, error }] of Object.entries(bodies)) {
  brokerTest(`a body that ${name} is dead-lettered with its bytes, and disturbs nothing else`, async (broker) => {
    using effects = new EffectsLog();
    const here = new Queue(uniqueName('decode'));
    const dead = new Queue(`${here.name}.dead`);
    await publishAll(broker.url, here, [
      { body: { id: 'before' } },
      { body, options: { contentEncoding: 'utf-8', messageId: 'bad', ...options } },
      { body: { id: 'after' } },
    ]);
    const before = process.memoryUsage().rss;
    const consumer = consumerOf(broker.url, here, { workers: 1, maxDecodedBytes: 4 * MiB, maxMessageBytes: 200_000 });
    const failures: FailedMessage[] = [];
    consumer.on('failed', (failure) => failures.push(failure));
    try {
      await consumer.consume();
      await until('it is dead-lettered', () => consumer.stats().deadLettered === 1, { state: () => consumer.stats() });
      await waitForQueue(broker.ctl, here.name, ({ ready, unacked }) => ready === 0 && unacked === 0);
      assert.deepEqual([...effects.counts().keys()].sort(), ['after', 'before']);
      if (error === 'tooLarge') assert.deepEqual(failures, []);
      else
        assert.deepEqual(
          failures.map((failure) => [failure.error.name, failure.messageId, failure.outcome]),
          [[error, 'bad', 'deadLetter']],
        );
      const connection = new Connection(broker.url);
      const letter = await dead.bind(connection).get({ accept: [] });
      assert.ok(letter);
      assert.deepEqual(letter.body, body);
      assert.equal(letter.headers['x-mozuku-reason'], error === 'tooLarge' ? 'tooLarge' : 'decode');
      assert.equal(letter.properties.messageId, 'bad');
      assert.ok(process.memoryUsage().rss - before < 200 * MiB);
      letter.ack();
      await here.bind(connection).delete();
      await dead.bind(connection).delete();
      await connection.close();
    } finally {
      await consumer.close();
    }
  });
}
