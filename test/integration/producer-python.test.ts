/** Messages between this library and Python's kombu, both ways. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { Connection } from '#src/main/connection';
import { Queue } from '#src/main/entities/queue';
import { pythonFor, runPython } from '../support/kombu.js';
import { brokerTest, uniqueName } from '../support/rabbitmq.js';

const RECEIVE = `
import sys, json, kombu
with kombu.Connection(sys.argv[1]) as connection:
    queue = kombu.Queue(sys.argv[2], channel=connection.default_channel)
    out = []
    for _ in range(int(sys.argv[3])):
        m = queue.get(no_ack=True, accept=['json', 'text/plain', 'application/data'])
        body = m.payload
        if isinstance(body, (bytes, memoryview)):
            body = {'bytes': list(bytes(body))}
        out.append({'body': body, 'headers': m.headers, 'type': m.content_type, 'properties': m.properties})
print(json.dumps(out))
`;

const SEND = `
import sys, kombu
with kombu.Connection(sys.argv[1]) as connection:
    producer = connection.Producer(routing_key=sys.argv[2])
    producer.publish({'a': [1, None, 'é']}, headers={'n': 300, 'big': 2**40, 'neg': -5, 'f': 0.5, 'l': [1, 'x'], 'd': {'k': True}})
    producer.publish('héllo', expiration=1.5, priority=3, correlation_id='c', reply_to='r', message_id='m')
    producer.publish(b'\\x00\\xff')
    producer.publish({'z': 'z' * 500}, compression='zlib')
    producer.publish({'b': 'b' * 500}, compression='bzip2', delivery_mode=1)
`;

interface Peers {
  readonly python: string;
  readonly url: string;
  readonly connection: Connection;
  readonly queue: Queue;
}

function withPython(name: string, run: (peers: Peers) => Promise<void>): void {
  brokerTest(name, async ({ url }, context: TestContext) => {
    const python = pythonFor(context);
    if (python === undefined) return;
    const connection = await new Connection(url).connect();
    const queue = new Queue(uniqueName('mozuku-python'), undefined, { channel: connection });
    try {
      await queue.declare();
      await run({ python, url, connection, queue });
    } finally {
      await queue.delete();
      await connection.close();
    }
  });
}

withPython('what we publish is what Python reads', async ({ python, url, connection, queue }) => {
  await using producer = connection.Producer({ routingKey: queue.name });
  const headers = {
    n: 300,
    small: -3,
    big: 2 ** 40,
    neg: -(2 ** 40),
    f: 0.5,
    t: true,
    none: null,
    l: [1, 'x'],
    d: { k: 1 },
  };
  await producer.publish({ a: [1, null, 'é'] }, { headers, correlationId: 'c', expiration: 60_000 });
  await producer.publish('héllo');
  await producer.publish(Buffer.from([0, 255]));
  await producer.publish({ z: 'z'.repeat(500) }, { compression: 'zlib' });
  const received = JSON.parse(await runPython(python, RECEIVE, [url, queue.name, '4'])) as {
    body: unknown;
    headers: unknown;
    type: string;
    properties: Record<string, unknown>;
  }[];
  assert.deepEqual(
    received.map(({ body }) => body),
    [{ a: [1, null, 'é'] }, 'héllo', { bytes: [0, 255] }, { z: 'z'.repeat(500) }],
  );
  assert.deepEqual(received[0]!.headers, headers);
  const { correlation_id, expiration, delivery_mode, priority } = received[0]!.properties;
  assert.deepEqual(
    { correlation_id, expiration, delivery_mode, priority },
    {
      correlation_id: 'c',
      expiration: '60000',
      delivery_mode: 2,
      priority: 0,
    },
  );
  assert.deepEqual(
    received.map(({ type }) => type),
    ['application/json', 'text/plain', 'application/data', 'application/json'],
  );
});

withPython('what Python publishes is what we read', async ({ python, url, queue }) => {
  await runPython(python, SEND, [url, queue.name]);
  const messages = [];
  for (let n = 0; n < 5; n++) messages.push((await queue.get({ noAck: true }))!);
  const [first, second, third, fourth, fifth] = messages;
  assert.deepEqual(first!.payload, { a: [1, null, 'é'] });
  assert.deepEqual(
    { ...first!.headers, d: { ...(first!.headers.d as object) } },
    {
      n: 300,
      big: 2 ** 40,
      neg: -5,
      f: 0.5,
      l: [1, 'x'],
      d: { k: true },
    },
  );
  assert.equal(second!.payload, 'héllo');
  const { expiration, priority, correlationId, replyTo, messageId, deliveryMode } = second!.properties;
  assert.deepEqual(
    [expiration, priority, correlationId, replyTo, messageId, deliveryMode],
    ['1500', 3, 'c', 'r', 'm', 2],
  );
  assert.deepEqual(third!.payload, Buffer.from([0, 255]));
  assert.deepEqual(fourth!.payload, { z: 'z'.repeat(500) });
  assert.equal(fourth!.headers.compression, 'application/x-gzip');
  assert.equal(fifth!.properties.deliveryMode, 1);
});
