/** What a producer makes of a body: type, encoding, compression, and the properties that go with it. */
import assert from 'node:assert/strict';
import type * as amqplib from 'amqplib';
import { compression, errors, type PublishOptions, Queue } from '#src/index';
import { onBothBrokers, type Scene } from '../support/both-brokers.js';

/** Publishes to a new queue, and gives what is in it as the broker hands it out. */
async function published(scene: Scene, body: unknown, options: PublishOptions = {}): Promise<amqplib.GetMessage> {
  const queue = await scene.queue();
  await using producer = scene.connection.Producer({ routingKey: queue });
  await producer.publish(body, options);
  const [message] = await scene.drain(queue);
  return message!;
}

const facts = ({ content, properties }: amqplib.GetMessage): unknown[] => [
  properties.contentType,
  properties.contentEncoding,
  properties.headers?.compression,
  content.toString(),
];

onBothBrokers('a body gets the type and encoding of its kind', async (scene) => {
  const cases: [unknown, PublishOptions, unknown[]][] = [
    [{ a: 'é' }, {}, ['application/json', 'utf-8', undefined, '{"a":"é"}']],
    ['é', {}, ['text/plain', 'utf-8', undefined, 'é']],
    [Buffer.from('é'), {}, ['application/data', 'binary', undefined, 'é']],
    ['é', { serializer: 'json' }, ['application/json', 'utf-8', undefined, '"é"']],
    ['é', { serializer: 'raw' }, ['application/data', 'utf-8', undefined, 'é']],
    [{ a: 1 }, { serializer: 'yaml' }, ['application/x-yaml', 'utf-8', undefined, 'a: 1\n']],
  ];
  for (const [body, options, wanted] of cases) assert.deepEqual(facts(await published(scene, body, options)), wanted);
});

onBothBrokers(
  'a body with a content type is sent as it is: bytes as binary, text as utf-8, or as it is told',
  async (scene) => {
    const type = { contentType: 'application/x-own' };
    const cases: [string | Buffer, PublishOptions, unknown[]][] = [
      [Buffer.from('b'), type, ['application/x-own', 'binary', undefined, 'b']],
      ['é', type, ['application/x-own', 'utf-8', undefined, 'é']],
      [Buffer.from('b'), { ...type, contentEncoding: 'utf-8' }, ['application/x-own', 'utf-8', undefined, 'b']],
      [Buffer.from('b'), { ...type, contentEncoding: 'x-mine' }, ['application/x-own', 'x-mine', undefined, 'b']],
    ];
    for (const [body, options, wanted] of cases) assert.deepEqual(facts(await published(scene, body, options)), wanted);
    const latin = await published(scene, 'é', { contentType: 'text/plain', contentEncoding: 'iso-8859-1' });
    assert.deepEqual([latin.properties.contentEncoding, latin.content], ['iso-8859-1', Buffer.of(0xe9)]);
  },
);

onBothBrokers('text in every charset that can be written is the same text for a consumer', async (scene) => {
  const name = await scene.queue();
  const queue = new Queue(name, undefined, { channel: scene.connection });
  await using producer = scene.connection.Producer({ routingKey: name });
  for (const contentEncoding of ['utf-8', 'iso-8859-1', 'latin1', 'utf-16', 'utf16le', 'ucs2', 'utf-16be']) {
    await producer.publish('déjà vu', { contentType: 'text/plain', contentEncoding });
    assert.equal((await queue.get({ noAck: true }))?.payload, 'déjà vu', contentEncoding);
  }
  for (const contentEncoding of ['us-ascii', 'hex', 'base64', 'binary', 'klingon']) {
    await assert.rejects(
      producer.publish('déjà vu', { contentType: 'text/plain', contentEncoding }),
      errors.EncodeError,
    );
  }
  assert.equal(await scene.size(name), 0, 'what was refused was not sent');
});

onBothBrokers(
  'a compressed body says in a header how, whatever name was asked for, and keeps its own type',
  async (scene) => {
    for (const [name, type] of [
      ['gzip', 'application/x-gzip'],
      ['application/x-bz2', 'application/x-bz2'],
      ['xz', 'application/x-lzma'],
    ] as const) {
      const headers = { mine: 1 };
      const { properties, content } = await published(scene, { a: 1 }, { compression: name, headers });
      assert.deepEqual([properties.contentType, properties.contentEncoding], ['application/json', 'utf-8']);
      assert.deepEqual({ ...properties.headers }, { mine: 1, compression: type });
      assert.deepEqual(headers, { mine: 1 }, "the caller's headers are left alone");
      assert.equal(compression.decompress(content, type).toString(), '{"a":1}');
    }
  },
);

onBothBrokers('what is not said is as in kombu: priority 0, delivery mode 2; what is said arrives', async (scene) => {
  const plain = await published(scene, {});
  assert.deepEqual(
    [plain.properties.priority, plain.properties.deliveryMode, plain.properties.expiration],
    [0, 2, undefined],
  );
  const replyTo = new Queue('answers');
  const told = await published(scene, {}, { deliveryMode: 'transient', expiration: 60_000, replyTo, priority: 3 });
  const { priority, deliveryMode, expiration } = told.properties;
  assert.deepEqual([priority, deliveryMode, expiration, told.properties.replyTo], [3, 1, '60000', 'answers']);
});
