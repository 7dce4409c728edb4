/**
 * `npm run bench -- publish [--broker URL] [--quick] [--json]`: confirmed publishing to a durable queue of RabbitMQ, persistent
 * messages of 200 bytes of JSON. Peers are processes of their own that take turns in rounds; ratios are of the same round.
 *
 *   ours            one Producer on the main thread, 1024 publishes under way
 *   ours-worker     a handler's context.producer(), through the main thread, 1024 under way
 *   amqplib         its ConfirmChannel, 1024 under way, encoded by hand
 *   kombu           Python, confirm_publish: one at a time, as it works. Absent where no Python has kombu
 *
 * Exit code 1 where a figure misses what is asked.
 */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { machine } from './machine.js';
import { pythonWith } from './python.js';
import { inTurn, judge, peerLine, type RoundSample, type RoundTarget, targetLine } from './rounds.js';

const PEERS = ['ours', 'ours-worker', 'amqplib', 'kombu'] as const;
type Peer = (typeof PEERS)[number];

const TARGETS = [
  { text: 'ours against kombu with confirm_publish', over: 'ours', under: 'kombu', asked: 20 },
  { text: "ours against amqplib's confirm channel", over: 'ours', under: 'amqplib', asked: 1 },
  { text: 'from a worker through main, against ours', over: 'ours-worker', under: 'ours', asked: 0.7 },
] as const satisfies readonly RoundTarget<Peer>[];

const KOMBU = `
import sys, time
from kombu import Connection, Producer, Queue
url, count = sys.argv[1], int(sys.argv[2])
with Connection(url, transport_options={'confirm_publish': True}) as connection:
    producer = Producer(connection.channel(), serializer='json')
    body = {'id': 1, 'pad': 'x' * 170}
    begun = time.monotonic()
    for _ in range(count):
        producer.publish(body, routing_key=sys.argv[3])
    print(count / (time.monotonic() - begun))
`;

const QUEUE = 'mozuku-bench-publish';

const exec = promisify(execFile);

async function measure(
  peer: Peer,
  url: string,
  count: number,
  python: string | undefined,
): Promise<Pick<RoundSample<Peer>, 'rate' | 'cpuMicros'>> {
  if (peer === 'kombu') {
    const { stdout } = await exec(python!, ['-c', KOMBU, url, String(count), QUEUE]);
    return { rate: Number(stdout), cpuMicros: null };
  }
  const program = fileURLToPath(new URL('publishers/run.js', import.meta.url));
  const { stdout } = await exec(process.execPath, [program, peer, url, String(count), QUEUE]);
  return JSON.parse(stdout) as { rate: number; cpuMicros: number };
}

async function withBroker<T>(given: string | undefined, use: (url: string) => Promise<T>): Promise<T> {
  if (given !== undefined) return use(given);
  const path = new URL('../../scripts/lib/rabbitmq.mjs', import.meta.url).href;
  const { RabbitNode } = (await import(path)) as typeof import('../scripts/lib/rabbitmq.mjs');
  const node = await RabbitNode.start();
  try {
    return await use(node.url);
  } finally {
    await node.dispose();
  }
}

export async function benchPublish(args: readonly string[]): Promise<number> {
  const at = args.indexOf('--broker');
  const quick = args.includes('--quick');
  const rounds = quick ? 3 : 7;
  const counts: Record<Peer, number> = {
    ours: 60_000,
    'ours-worker': 60_000,
    amqplib: 60_000,
    kombu: quick ? 1500 : 4000,
  };
  const python = pythonWith('kombu');
  const peers = PEERS.filter((peer) => peer !== 'kombu' || python !== undefined);
  const samples = await withBroker(at < 0 ? undefined : args[at + 1], (url) =>
    inTurn(peers, rounds, (peer) => measure(peer, url, counts[peer], python)),
  );
  const results = judge(samples, TARGETS);
  if (args.includes('--json')) {
    process.stdout.write(`${JSON.stringify({ machine: machine(), samples, results }, undefined, 2)}\n`);
  } else {
    for (const peer of peers) process.stdout.write(peerLine(peer, samples));
    for (const result of results) process.stdout.write(targetLine(result, 'no Python with kombu'));
  }
  return results.some(({ met }) => met === false) ? 1 : 0;
}
