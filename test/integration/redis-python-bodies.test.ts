/** Bodies and headers between this library and Python's kombu by way of Redis, both ways. */
import assert from 'node:assert/strict';
import { Connection, errors, type Message, Queue } from '#src/index';
import type { KombuFacts } from '../support/kombu.js';
import { type Peers, type PythonMessage, pythonPeerTest } from '../support/python-peer.js';

const ACCEPT = ['json', 'msgpack', 'yaml', 'text', 'raw'];

async function receive(connection: Connection, queue: string, count: number): Promise<Message[]> {
  await using consumer = connection.Consumer([new Queue(queue)], { accept: ACCEPT });
  const messages: Message[] = [];
  for await (const message of consumer) {
    message.ack();
    messages.push(message);
    if (messages.length === count) break;
  }
  return messages;
}

const COMPRESSIONS: Readonly<Record<string, string>> = {
  'application/x-gzip': 'zlib',
  'application/x-bz2': 'bzip2',
  'application/x-lzma': 'lzma',
  'application/x-brotli': 'brotli',
  'application/zstd': 'zstd',
};

interface Parcel {
  readonly value: unknown;
  readonly serializer?: string;
  readonly compression?: string;
}

const VALUE = {
  text: 'é ñ ß Ж 消息 もずく 🐙 \u0000 \u001f \u007f \u2028 "\\/ \ufeff',
  numbers: [0, -1, 0.1, 1e300, 2n ** 63n - 1n],
  nested: [{ a: [null, true, false, { 'a b': {} }] }],
  long: 'mozuku '.repeat(1500),
};
const BYTES = Buffer.from(Array.from({ length: 256 }, (_, i) => i));

function parcelsFor({ modules, compressions }: KombuFacts): Parcel[] {
  const names = compressions.map((type) => COMPRESSIONS[type] ?? assert.fail(`kombu has one more: ${type}`));
  if (modules.includes('lz4')) names.push('lz4');
  const serializers = ['json', 'msgpack', 'yaml'].filter((name) => name === 'json' || modules.includes(name));
  const parcels: Parcel[] = [];
  for (const compression of [undefined, ...names]) {
    const packed = compression === undefined ? {} : { compression };
    for (const serializer of serializers) parcels.push({ value: VALUE, serializer, ...packed });
    parcels.push({ value: VALUE.text, ...packed }, { value: VALUE.text, serializer: 'raw', ...packed });
    parcels.push({ value: BYTES, ...packed }, { value: BYTES, serializer: 'raw', ...packed });
  }
  return parcels;
}

async function exchangeAll(peers: Peers, transportOptions: Record<string, unknown>): Promise<void> {
  const { peer, facts, url, context } = peers;
  await using connection = new Connection(url, { transportOptions });
  const parcels = parcelsFor(facts);
  for (const { value, ...how } of parcels) await peer.publish([value], '', 'from-python', how);
  const messages = await receive(connection, 'from-python', parcels.length);
  for (const [i, { value, serializer, compression }] of parcels.entries()) {
    const name = `${serializer ?? 'none'}+${compression ?? 'none'}`;
    assert.deepEqual(messages[i]!.payload, value, name);
    assert.equal(messages[i]!.headers.compression !== undefined, compression !== undefined, name);
  }
  context.diagnostic(`${parcels.length} messages, kombu ${facts.version.join('.')}`);
  if (transportOptions.bodyEncoding === 'utf-8' && isBefore53(facts)) return;
  await using producer = connection.Producer({ routingKey: 'to-python' });
  for (const { value, ...how } of parcels) await producer.publish(value, how);
  const got = await peer.get('to-python', parcels.length);
  assert.equal(got.length, parcels.length);
  for (const [i, { value, serializer, compression }] of parcels.entries()) {
    assert.equal(
      toComparable(got[i]!.payload),
      toComparable(value),
      `${serializer ?? 'none'}+${compression ?? 'none'}`,
    );
  }
}

const isBefore53 = ({ version: [major, minor] }: KombuFacts): boolean => major === 5 && minor < 3;

/** As the program writes it, and as a JSON reader here takes its whole numbers. */
function toComparable(value: unknown): string {
  return JSON.stringify(value, function (this: Record<string, unknown>, key, inner: unknown) {
    const given = this[key];
    if (Buffer.isBuffer(given)) return { $bytes: given.toString('base64') };
    return typeof given === 'bigint' ? Number(given) : inner;
  });
}

pythonPeerTest('every serializer under every compression, both ways', (peers) => exchangeAll(peers, {}));

pythonPeerTest('bodies as text in the envelope: kombu’s without an encoding, ours as utf-8', async (peers) => {
  await exchangeAll(peers, { bodyEncoding: 'utf-8' });
});

pythonPeerTest(
  'a Python that writes bodies as text is read',
  async ({ peer, url, facts, context }) => {
    if (isBefore53(facts)) return context.skip('kombu older than 5.3 cannot write them');
    await using connection = new Connection(url);
    const values = [{ text: VALUE.text }, [1, 'zwei'], null];
    await peer.publish(values, '', 'q', { serializer: 'json' });
    await peer.publish([VALUE.text], '', 'q');
    const messages = await receive(connection, 'q', 4);
    assert.deepEqual(
      messages.map(({ payload }) => payload),
      [...values, VALUE.text],
    );
  },
  { python: { body_encoding: 'utf-8' } },
);

pythonPeerTest('properties and headers arrive as they were sent, both ways', async ({ peer, url }) => {
  await using connection = new Connection(url);
  const headers = {
    text: 'é もずく 🐙',
    number: 42,
    float: 0.5,
    yes: true,
    nothing: null,
    list: [1, 'b', [null]],
    table: { a: { b: [] }, 'x y': 1 },
    __proto: 1,
  };
  const properties = { correlation_id: 'c-é', reply_to: 'r', message_id: 'm', type: 't', user_id: 'u', app_id: 'a' };
  await peer.publish(['x'], '', 'q', { headers, ...properties, expiration: 90, priority: 5, timestamp: 1_700_000_000 });
  const [ours] = await receive(connection, 'q', 1);
  assert.deepEqual(JSON.parse(JSON.stringify(ours!.headers)), headers);
  assert.deepEqual(
    { ...ours!.properties },
    {
      contentType: 'text/plain',
      contentEncoding: 'utf-8',
      deliveryMode: 2,
      priority: 5,
      correlationId: 'c-é',
      replyTo: 'r',
      expiration: '90000',
      messageId: 'm',
      timestamp: 1_700_000_000,
      type: 't',
      userId: 'u',
      appId: 'a',
    },
  );
  await using producer = connection.Producer({ routingKey: 'p' });
  await producer.publish('x', {
    headers,
    correlationId: 'c-é',
    replyTo: 'r',
    messageId: 'm',
    type: 't',
    userId: 'u',
    appId: 'a',
    expiration: 90_000,
    priority: 5,
    timestamp: 1_700_000_000,
  });
  const [theirs] = await peer.get('p');
  assert.deepEqual(theirs!.headers, headers);
  const { delivery_tag, delivery_info, body_encoding, delivery_mode, ...rest } = theirs!.properties;
  assert.deepEqual(rest, { ...properties, expiration: '90000', priority: 5, timestamp: 1_700_000_000 });
  assert.deepEqual([delivery_info, body_encoding, delivery_mode], [{ exchange: '', routing_key: 'p' }, 'base64', 2]);
  assert.match(String(delivery_tag), /^[0-9a-f-]{36}$/);
});

pythonPeerTest('headers with values that JSON has not', async ({ peer, url, facts }) => {
  await using connection = new Connection(url);
  // a header's time has whole seconds, as AMQP's has
  const when = '2024-01-02T03:04:05+00:00';
  const uuid = 'b6febc3a-0c6e-5973-286b-ef29899918a7';
  await peer.publish(['x'], '', 'q', {
    headers: { when: { $datetime: when }, id: { $uuid: uuid }, price: { $decimal: '1.10' }, large: 2n ** 60n },
  });
  const [ours] = await receive(connection, 'q', 1);
  // older ones write text in their place
  const date = ours!.headers.when;
  assert.equal(new Date(date as string | Date).getTime(), Date.parse(when));
  assert.equal(date instanceof Date, !isBefore53(facts));
  assert.deepEqual([ours!.headers.id, ours!.headers.price, ours!.headers.large], [uuid, '1.10', 2n ** 60n]);

  await using producer = connection.Producer({ routingKey: 'p' });
  await producer.publish('x', { headers: { when: new Date(when), bytes: BYTES, large: 2n ** 60n } });
  const [theirs] = (await peer.get('p')) as [PythonMessage];
  const expected = isBefore53(facts)
    ? {
        when: { __type__: 'datetime', __value__: when.replace('+', '.000000+') },
        bytes: { __type__: 'base64', __value__: BYTES.toString('base64') },
      }
    : { when: { $datetime: when }, bytes: { $bytes: BYTES.toString('base64') } };
  assert.deepEqual({ ...theirs.headers }, { ...expected, large: Number(2n ** 60n) });
});

pythonPeerTest(
  'what is no envelope fails as a body that cannot be decoded, and Python’s messages behind it come',
  async ({ peer, url, command }) => {
    await using connection = new Connection(url);
    await command('LPUSH', 'q', 'no envelope');
    await peer.publish(['behind it'], '', 'q');
    await using consumer = connection.Consumer([new Queue('q')], { accept: ACCEPT });
    const seen: unknown[] = [];
    for await (const message of consumer) {
      try {
        seen.push(message.payload);
      } catch (error) {
        assert.ok(error instanceof errors.DecodeError || error instanceof errors.ContentDisallowed);
        seen.push('broken');
      }
      message.ack();
      if (seen.length === 2) break;
    }
    assert.deepEqual(seen, ['broken', 'behind it']);
  },
);
