/**
 * Bodies between this library and Python's kombu over RabbitMQ, both ways: every serializer under every compression that
 * this Python has. Both sides are given the values beforehand, and each compares what it received with what it was given.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { Connection, type Message, Queue, serialization } from '#src/index';
import { type KombuFacts, kombuFacts, pythonFor, runPython } from '../support/kombu.js';
import { brokerTest, uniqueName } from '../support/rabbitmq.js';
import { ROOT } from '../support/scripts.js';

/** What both Python programs begin with: the arguments, and values as JSON with marks for what JSON has not. */
const COMMON = `
import base64, decimal, datetime, json, sys, uuid
import kombu, kombu.compression
try:
    import lz4.frame
    kombu.compression.register(lz4.frame.compress, lz4.frame.decompress, 'application/x-lz4', aliases=['lz4'])
except ImportError: pass
MARKS = {
    '$bytes': base64.b64decode, '$int': int, '$decimal': decimal.Decimal, '$uuid': uuid.UUID,
    '$datetime': datetime.datetime.fromisoformat, '$date': datetime.date.fromisoformat, '$time': datetime.time.fromisoformat,
}
def marked(item):
    (key, text), = item.items() if len(item) == 1 else [(None, None)]
    return MARKS[key](text) if key in MARKS else item
url, queue = sys.argv[1:]
parcels = json.load(sys.stdin, object_hook=marked)
ACCEPT = ['json', 'msgpack', 'yaml', 'text/plain', 'application/data']
`;

const SEND = `${COMMON}
with kombu.Connection(url) as connection:
    producer = connection.Producer(routing_key=queue)
    for parcel in parcels:
        producer.publish(parcel['value'], serializer=parcel['serializer'], compression=parcel['compression'])
`;

/** Prints what was not what it should be. */
const RECEIVE = `${COMMON}
wrong = []
with kombu.Connection(url) as connection:
    queue = kombu.Queue(queue, channel=connection.default_channel)
    for parcel in parcels:
        message = queue.get(no_ack=True, accept=ACCEPT)
        if message is None: wrong.append([parcel['name'], 'no message']); break
        value, expected = message.payload, parcel['value']
        if isinstance(value, memoryview): value = bytes(value)
        if value != expected or isinstance(value, bool) != isinstance(expected, bool):
            wrong.append([parcel['name'], repr(value)[:200], repr(expected)[:200]])
    if queue.get(no_ack=True, accept=ACCEPT) is not None: wrong.append(['', 'one message more'])
print(json.dumps(wrong))
`;

interface Parcel {
  readonly name: string;
  readonly value: unknown;
  readonly serializer: string | undefined;
  readonly compression: string | undefined;
}

const deep = (levels: number): unknown => (levels === 0 ? 'bottom' : [{ down: deep(levels - 1) }]);

const VALUES: Readonly<Record<string, unknown>> = {
  null: null,
  true: true,
  false: false,
  zero: 0,
  negative: -1,
  'over 32 bits': 1_700_000_000_123,
  'the last safe integer': Number.MAX_SAFE_INTEGER,
  'the first that is not': 2n ** 53n,
  '63 bits': 2n ** 63n - 1n,
  '64 bits': 2n ** 64n - 1n,
  'below -2^53': -(2n ** 63n),
  float: 0.1,
  'large float': 1.7976931348623157e308,
  'small float': 5e-324,
  'empty text': '',
  text: 'plain',
  'text of many alphabets': 'é ñ ß Ж 消息 もずく 🐙 \u0000 \u001f \u007f \u0085 \u2028 "\\/ \ufeff',
  'text that looks like something else': [
    'yes',
    'null',
    '1e5',
    '12:30',
    '010',
    '2024-01-02',
    '~',
    '=',
    '- a',
    '#',
    'a: b',
    '',
  ],
  'long text': 'mozuku もずく 🐙 '.repeat(1500),
  'empty list': [],
  'empty map': {},
  nested: { list: [1, [2, [3, []]]], map: { a: { b: { c: null } } }, mixed: [{}, [], '', 0, false, null] },
  deep: deep(40),
  'keys of many alphabets': { '': 0, もずく: 1, 'a b': 2, '🐙': 3, ['__proto__']: 4, constructor: 5, '1': 6 },
};

/** JSON has no bytes before kombu 5.3. */
const BYTES = { bytes: Buffer.from(Array.from({ length: 256 }, (_, i) => i)), 'no bytes': Buffer.alloc(0) };

const NAMES: Readonly<Record<string, readonly string[]>> = {
  'application/x-gzip': ['zlib', 'gzip'],
  'application/x-bz2': ['bzip2', 'bzip'],
  'application/x-lzma': ['lzma', 'xz'],
  'application/x-brotli': ['brotli'],
  'application/zstd': ['zstd', 'zstandard'],
};

/** All names of all that this Python has, lz4 with them if it has the module; and none. */
function compressionsOf({ modules, compressions }: KombuFacts): (string | undefined)[] {
  assert.deepEqual(
    compressions.filter((type) => !(type in NAMES)),
    [],
    'kombu has one that this test does not know',
  );
  const names = compressions.flatMap((type) => NAMES[type]!);
  return [undefined, ...names, ...(modules.includes('lz4') ? ['lz4'] : [])];
}

function parcelsFor(facts: KombuFacts): Parcel[] {
  const parcels: Parcel[] = [];
  const [major, minor] = facts.version;
  const hasTypes = major > 5 || minor >= 3;
  for (const compression of compressionsOf(facts)) {
    const add = (what: string, value: unknown, serializer?: string): void => {
      parcels.push({
        name: `${serializer ?? 'none'}+${compression ?? 'none'}: ${what}`,
        value,
        serializer,
        compression,
      });
    };
    for (const serializer of ['json', 'msgpack', 'yaml']) {
      if (serializer !== 'json' && !facts.modules.includes(serializer)) continue;
      for (const [what, value] of Object.entries(VALUES)) add(what, value, serializer);
      if (serializer !== 'json' || hasTypes)
        for (const [what, value] of Object.entries(BYTES)) add(what, { b: value }, serializer);
    }
    add('a map', { a: [1, null, 'é'] });
    for (const what of ['text', 'text of many alphabets', 'long text']) {
      add(what, VALUES[what]);
      add(what, VALUES[what], 'raw');
    }
    add('bytes', BYTES.bytes);
    add('bytes', BYTES.bytes, 'raw');
  }
  return parcels;
}

/** For Python: JSON has neither bytes nor integers that survive a JavaScript writer. */
function toPython(parcels: readonly Parcel[]): string {
  return JSON.stringify(
    parcels.map((parcel) => ({
      ...parcel,
      serializer: parcel.serializer ?? null,
      compression: parcel.compression ?? null,
    })),
    function (this: Record<string, unknown>, key, value: unknown) {
      const given = this[key];
      if (Buffer.isBuffer(given)) return { $bytes: given.toString('base64') };
      return typeof given === 'bigint' ? { $int: String(given) } : value;
    },
  );
}

interface Peers {
  readonly python: string;
  readonly facts: KombuFacts;
  readonly url: string;
  readonly connection: Connection;
  readonly queue: Queue;
  readonly context: TestContext;
}

function withPython(name: string, run: (peers: Peers) => Promise<void>): void {
  brokerTest(name, async ({ url }, context) => {
    const python = pythonFor(context);
    if (python === undefined) return;
    const connection = await new Connection(url).connect();
    const queue = new Queue(uniqueName('mozuku-interop'), undefined, { channel: connection });
    try {
      await queue.declare();
      await run({ python, facts: kombuFacts(python), url, connection, queue, context });
    } finally {
      await queue.delete();
      await connection.close();
    }
  });
}

/** Takes as many messages as are expected, by a consumer. */
async function receive({ connection, queue }: Peers, count: number): Promise<Message[]> {
  await using consumer = connection.Consumer([queue], { accept: ['json', 'msgpack', 'yaml', 'text', 'raw'] });
  const messages: Message[] = [];
  if (count === 0) return messages;
  for await (const message of consumer) {
    message.ack();
    messages.push(message);
    if (messages.length === count) break;
  }
  return messages;
}

withPython('Python reads what we send: every serializer, every compression, every kind of value', async (peers) => {
  const { python, facts, url, connection, queue, context } = peers;
  const parcels = parcelsFor(facts);
  await using producer = connection.Producer({ routingKey: queue.name });
  for (const { value, serializer, compression } of parcels) {
    await producer.publish(value, {
      ...(serializer === undefined ? {} : { serializer }),
      ...(compression === undefined ? {} : { compression }),
    });
  }
  const wrong = JSON.parse(await runPython(python, RECEIVE, [url, queue.name], toPython(parcels))) as unknown;
  assert.deepEqual(wrong, []);
  context.diagnostic(`${parcels.length} messages, kombu ${facts.version.join('.')}`);
});

withPython('we read what Python sends: every serializer, every compression, every kind of value', async (peers) => {
  const { python, facts, url, queue, context } = peers;
  const parcels = parcelsFor(facts);
  await runPython(python, SEND, [url, queue.name], toPython(parcels));
  const messages = await receive(peers, parcels.length);
  for (const [i, { name, value, compression }] of parcels.entries()) {
    const message = messages[i]!;
    assert.deepEqual(message.payload, value, name);
    assert.equal(message.headers.compression !== undefined, compression !== undefined, name);
  }
  context.diagnostic(`${parcels.length} messages, kombu ${facts.version.join('.')}`);
});

interface Vector {
  readonly name: string;
  readonly value: unknown;
  readonly content_type: string;
  readonly content_encoding: string;
  readonly body_base64: string;
}
const EXTENDED = /^json\/(datetime|date|time|decimal|uuid|bytes)/;

/** Reads messages as JSON without its types, as kombu before 5.3 does. */
const RECEIVE_PLAIN = `${COMMON}
text = lambda body: json.loads(body if isinstance(body, str) else bytes(body))
with kombu.Connection(url) as connection:
    queue = kombu.Queue(queue, channel=connection.default_channel)
    print(json.dumps([text(queue.get(no_ack=True, accept=ACCEPT).body) for _ in parcels]))
`;

withPython(
  'extended types that kombu 5.6 wrote, read exactly and sent on, are the same JSON for Python',
  async (peers) => {
    const { python, url, connection, queue } = peers;
    const text = readFileSync(join(ROOT, 'test/vectors/codec.json'), 'utf8');
    const vectors = (JSON.parse(text) as { vectors: Vector[] }).vectors.filter(({ name }) => EXTENDED.test(name));
    assert.equal(vectors.length, 9);
    await using producer = connection.Producer({ routingKey: queue.name });
    for (const { body_base64, content_type: contentType, content_encoding: contentEncoding } of vectors) {
      await producer.publish(Buffer.from(body_base64, 'base64'), { contentType, contentEncoding });
    }
    for (const message of await receive(peers, vectors.length)) {
      const { contentType, contentEncoding } = message.properties;
      const value = serialization.loads(message.body, contentType, contentEncoding, { types: 'exact' });
      await producer.publish(value, { serializer: 'json' });
    }
    const got: unknown = JSON.parse(await runPython(python, RECEIVE_PLAIN, [url, queue.name], JSON.stringify(vectors)));
    assert.deepEqual(
      got,
      vectors.map((vector) => JSON.parse(Buffer.from(vector.body_base64, 'base64').toString())),
    );
  },
);

const PYTHON_TYPES = [
  { $datetime: '2024-01-02T03:04:05.678901+00:00' },
  { $datetime: '2031-12-31T23:59:59' },
  { $datetime: '2020-02-29T01:02:03+05:30' },
  { $date: '1999-12-31' },
  { $time: '13:37:00.000005' },
  { $decimal: '12345678901234567890.1234567890' },
  { $uuid: 'b6febc3a-0c6e-5973-286b-ef29899918a7' },
  { $bytes: 'cGxhaW4gdGV4dA==' },
  { $bytes: '//4A' },
];

withPython('extended types go from Python to us and back as what they were', async (peers) => {
  const { python, facts, url, connection, queue, context } = peers;
  const [major, minor] = facts.version;
  if (major === 5 && minor < 3) return context.skip('kombu older than 5.3 has no extended types');
  const parcels = PYTHON_TYPES.map((value, i) => ({
    name: String(i),
    value: [value],
    serializer: 'json',
    compression: null,
  }));
  await runPython(python, SEND, [url, queue.name], JSON.stringify(parcels));
  await using producer = connection.Producer({ routingKey: queue.name });
  for (const message of await receive(peers, parcels.length)) {
    const { contentType, contentEncoding } = message.properties;
    const value = serialization.loads(message.body, contentType, contentEncoding, { types: 'exact' });
    await producer.publish(value, { serializer: 'json' });
  }
  const wrong: unknown = JSON.parse(await runPython(python, RECEIVE, [url, queue.name], JSON.stringify(parcels)));
  assert.deepEqual(wrong, []);
});

const SEND_PYTHONS_OWN = `${COMMON}
from collections import namedtuple
with kombu.Connection(url) as connection:
    producer = connection.Producer(routing_key=queue)
    pair = namedtuple('pair', 'a b')
    for value in [(1, (2, ())), pair(1, 'x'), {1: 'a', None: 'b', True: 'c', 0.5: 'd'}, [float('nan'), float('inf')], 2**70]:
        producer.publish(value, serializer='json')
`;

withPython('values go as Python has them: tuples, keys that are no text, floats that are no numbers', async (peers) => {
  const { python, url, queue } = peers;
  await runPython(python, SEND_PYTHONS_OWN, [url, queue.name], '[]');
  const messages = await receive(peers, 5);
  assert.deepEqual(
    messages.map(({ payload }) => payload),
    [
      [1, [2, []]],
      [1, 'x'],
      { 1: 'c', null: 'b', '0.5': 'd' }, // True is the key 1 to Python
      [Number.NaN, Number.POSITIVE_INFINITY],
      2n ** 70n,
    ],
  );
});
