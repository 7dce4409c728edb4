/** One peer of `bench -- publish`: `run.js PEER URL COUNT QUEUE`; prints its rate and CPU as JSON. */
import { setTimeout as sleep } from 'node:timers/promises';
import * as amqplib from 'amqplib';
import { Connection, Queue, ShardedConsumer } from '#src/index';
import { publishMany } from './many.js';

const BODY = { id: 1, pad: 'x'.repeat(170) };

async function measured(count: number, work: () => Promise<void>): Promise<void> {
  const cpu = process.cpuUsage();
  const begun = performance.now();
  await work();
  const ms = performance.now() - begun;
  const { user, system } = process.cpuUsage(cpu);
  process.stdout.write(JSON.stringify({ rate: (count / ms) * 1000, cpuMicros: (user + system) / count }));
}

async function ours(url: string, count: number, queue: string): Promise<void> {
  const connection = new Connection(url);
  const producer = connection.Producer({ serializer: 'json', routingKey: queue });
  await connection.connect();
  await measured(count, () => publishMany(count, () => producer.publish(BODY)));
  await producer.close();
  await connection.close();
}

async function byAmqplib(url: string, count: number, queue: string): Promise<void> {
  const connection = await amqplib.connect(url);
  const channel = await connection.createConfirmChannel();
  const options = {
    contentType: 'application/json',
    contentEncoding: 'utf-8',
    deliveryMode: 2,
    priority: 0,
    headers: {},
  };
  const publish = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const settle = (error: unknown): void => (error ? reject(error) : resolve());
      channel.publish('', queue, Buffer.from(JSON.stringify(BODY)), options, settle);
    });
  await measured(count, () => publishMany(count, publish));
  await connection.close();
}

/** One message tells the handler what to do; it is acked when all is confirmed. */
async function fromWorker(url: string, count: number, queue: string): Promise<void> {
  const connection = new Connection(url);
  const orders = new Queue(`${queue}-orders`);
  await orders.declare(connection);
  await orders.purge(connection);
  const handler = new URL('handler.js', import.meta.url);
  const consumer = new ShardedConsumer(connection, orders, { handler, workers: 1, drainTimeout: 1000 });
  await consumer.consume();
  const producer = connection.Producer({ routingKey: orders.name });
  // Opens the publishing connection.
  await producer.publish({ count: 1, queue });
  const acked = async (total: number): Promise<void> => {
    while (consumer.stats().acked < total) await sleep(2);
  };
  await acked(1);
  await measured(count, async () => {
    await producer.publish({ count, queue });
    await acked(2);
  });
  await consumer.close();
  await orders.delete(connection);
  await connection.close();
}

const PEERS: Record<string, (url: string, count: number, queue: string) => Promise<void>> = {
  ours,
  amqplib: byAmqplib,
  'ours-worker': fromWorker,
};

const [peer = '', url = '', count = '0', queue = ''] = process.argv.slice(2);
const connection = new Connection(url);
const target = new Queue(queue);
await target.declare(connection);
await target.purge(connection);
await PEERS[peer]!(url, Number(count), queue);
await target.purge(connection);
await connection.close();
