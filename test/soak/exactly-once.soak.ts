/**
 * 100,000 messages through RabbitMQ, half of them published by Python's kombu: each handled exactly once by the handlers'
 * own effects log, every body as it was sent. 99.5 % are up to 16 KiB, 400 of 64 to 512 KiB, 100 of 1 to 4 MiB.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { Connection, compression, Queue, serialization } from '#src/index';
import { kombuPython } from '../support/kombu.js';
import { sharedBroker, uniqueName } from '../support/rabbitmq.js';
import { Random } from '../support/random.js';
import { consumerOf, EffectsLog, sha256, until } from '../support/rig.js';

const TOTAL = Number(process.env.MOZUKU_SOAK_MESSAGES ?? 100_000);
const KiB = 1024;

/** Prints `id sha256-of-the-body-on-the-wire` for each message that it has published. */
const PUBLISHER = `
import sys, json, hashlib, random
from kombu import Connection, Producer
from kombu.compression import compress
url, queue, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = random.Random(7)
def size(i):
    if i % (count // 50 or 1) == 1: return rng.randint(1 << 20, 4 << 20)
    if i % (count // 200 or 1) == 0: return rng.randint(64 << 10, 512 << 10)
    return 50 + int((rng.random() ** 3) * (16 << 10))
with Connection(url) as connection:
    producer = Producer(connection.channel())
    for i in range(count):
        id, length, kind = 'py-%d' % i, size(i), i % 4
        filler = ('%016x' % rng.getrandbits(64)) * (length // 16 + 1)
        packed = None
        if kind == 3:
            body, type, encoding = filler[:length].encode(), 'application/data', 'binary'
        elif kind == 2:
            body, type, encoding = filler[:length], 'text/plain', 'utf-8'
        else:
            body, type, encoding = json.dumps({'id': id, 'pad': filler[:length]}), 'application/json', 'utf-8'
            packed = 'zlib' if kind == 1 else None
        wire = body if isinstance(body, bytes) else body.encode()
        if packed: wire = compress(wire, packed)[0]
        producer.publish(body, routing_key=queue, content_type=type, content_encoding=encoding, compression=packed,
                         message_id=id, delivery_mode=2)
        print(id, hashlib.sha256(wire).hexdigest(), flush=i % 500 == 0)
`;

/** A generator of its own: the sizes must be the same at every run. */
async function publishFromPython(url: string, queue: string, count: number, sent: Map<string, string>): Promise<void> {
  const child = spawn(kombuPython!, ['-c', PUBLISHER, url, queue, String(count)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'close');
  for await (const line of createInterface({ input: child.stdout })) {
    const [id, hash] = line.split(' ');
    sent.set(id!, hash!);
  }
  const [code] = (await ended) as [number];
  assert.equal(code, 0, 'the Python publisher failed');
}

async function publishFromHere(url: string, queue: string, count: number, sent: Map<string, string>): Promise<void> {
  const connection = new Connection(url);
  const producer = connection.Producer({ routingKey: queue });
  const random = new Random(11);
  const large = Math.max(1, Math.floor(count / 50));
  const middle = Math.max(1, Math.floor(count / 200));
  let window: Promise<void>[] = [];
  for (let i = 0; i < count; i++) {
    const id = `js-${i}`;
    const length =
      i % large === 1
        ? Math.floor((1 + 3 * random.share()) * KiB * KiB)
        : i % middle === 0
          ? Math.floor((64 + 448 * random.share()) * KiB)
          : 50 + Math.floor(random.share() ** 3 * 16 * KiB);
    const value = {
      id,
      pad: sha256(id)
        .repeat(Math.ceil(length / 64))
        .slice(0, length),
    };
    const packed = i % 3 === 0;
    const { body } = serialization.dumps(value, 'json');
    sent.set(id, sha256(packed ? compression.compress(body, 'zlib').body : body));
    window.push(producer.publish(value, { messageId: id, ...(packed ? { compression: 'zlib' } : {}) }));
    if (window.length === 200) {
      await Promise.all(window);
      window = [];
    }
  }
  await Promise.all(window);
  await connection.close();
}

test('each of many messages is handled exactly once, with the bytes that were sent', {
  timeout: 1_800_000,
}, async (t) => {
  const broker = sharedBroker();
  assert.ok(broker !== undefined, 'this soak needs a RabbitMQ');
  assert.ok(kombuPython !== undefined, "this soak needs Python's kombu");
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('soak-once'));
  const connection = new Connection(broker.url);
  await queue.declare(connection);
  await using consumer = consumerOf(broker.url, queue, { workers: 2 });
  const errors: Error[] = [];
  consumer.on('error', (error) => errors.push(error));
  consumer.on('failed', ({ error }) => errors.push(error));
  await consumer.consume();
  const sent = new Map<string, string>();
  const started = performance.now();
  await Promise.all([
    publishFromPython(broker.url, queue.name, TOTAL / 2, sent),
    publishFromHere(broker.url, queue.name, TOTAL / 2, sent),
  ]);
  await until('everything is acked', () => consumer.stats().acked >= TOTAL, {
    timeoutMs: 600_000,
    state: () => consumer.stats(),
  });
  const stats = consumer.stats();
  await consumer.close();
  await queue.bind(connection).delete();
  await connection.close();
  const log = effects.read();
  const once = [...effects.counts().values()].filter((count) => count === 1).length;
  const wrong = log.filter(({ id, hash }) => sent.get(id) !== hash).length;
  const seconds = Math.round((performance.now() - started) / 1000);
  console.log(
    `exactly once: asked ${TOTAL}, measured ${once} of ${log.length} effects; payload hashes wrong: ${wrong}; ${seconds} s`,
  );
  t.diagnostic(JSON.stringify({ ...stats, workers: undefined }));
  assert.deepEqual(errors, []);
  assert.equal(sent.size, TOTAL);
  assert.equal(log.length, TOTAL);
  assert.equal(once, TOTAL);
  assert.equal(wrong, 0);
  assert.equal(stats.redelivered, stats.shed);
});
