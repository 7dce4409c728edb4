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
import { execFile, execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { machine } from './machine.js';
import { type Spread, spread } from './stats.js';

const PEERS = ['ours', 'ours-worker', 'amqplib', 'kombu'] as const;
type Peer = (typeof PEERS)[number];

interface PublishSample {
  readonly peer: Peer;
  readonly round: number;
  /** Confirmed messages a second. */
  readonly rate: number;
  /** Of the whole process, microseconds a message; null for Python. */
  readonly cpuMicros: number | null;
}

const TARGETS = [
  { text: 'ours against kombu with confirm_publish', over: 'ours', under: 'kombu', asked: 20 },
  { text: "ours against amqplib's confirm channel", over: 'ours', under: 'amqplib', asked: 1 },
  { text: 'from a worker through main, against ours', over: 'ours-worker', under: 'ours', asked: 0.7 },
] as const satisfies readonly { text: string; over: Peer; under: Peer; asked: number }[];

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

/** @returns a Python that has kombu. */
function pythonWithKombu(): string | undefined {
  return [process.env.MOZUKU_TEST_PYTHON, '/usr/bin/python3', 'python3'].find((python) => {
    try {
      if (python === undefined) return false;
      execFileSync(python, ['-c', 'import kombu'], { stdio: 'ignore' });
      return true;
    } catch {
      return false;
    }
  });
}

const exec = promisify(execFile);

async function measure(
  peer: Peer,
  url: string,
  count: number,
  python: string | undefined,
): Promise<Omit<PublishSample, 'round'>> {
  if (peer === 'kombu') {
    const { stdout } = await exec(python!, ['-c', KOMBU, url, String(count), QUEUE]);
    return { peer, rate: Number(stdout), cpuMicros: null };
  }
  const program = fileURLToPath(new URL('publishers/run.js', import.meta.url));
  const { stdout } = await exec(process.execPath, [program, peer, url, String(count), QUEUE]);
  const { rate, cpuMicros } = JSON.parse(stdout) as { rate: number; cpuMicros: number };
  return { peer, rate, cpuMicros };
}

function compared(samples: readonly PublishSample[], over: Peer, under: Peer): Spread | undefined {
  const rate = (peer: Peer, round: number): number | undefined =>
    samples.find((sample) => sample.peer === peer && sample.round === round)?.rate;
  const rounds = [...new Set(samples.map(({ round }) => round))];
  const ratios = rounds.map((round) => (rate(over, round) ?? Number.NaN) / (rate(under, round) ?? Number.NaN));
  return spread(ratios.filter((each) => !Number.isNaN(each)));
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
  const python = pythonWithKombu();
  const peers = PEERS.filter((peer) => peer !== 'kombu' || python !== undefined);
  const samples: PublishSample[] = [];
  await withBroker(at < 0 ? undefined : args[at + 1], async (url) => {
    for (let round = 0; round < rounds; round++) {
      // Each comes first in turn.
      for (let i = 0; i < peers.length; i++) {
        const peer = peers[(i + round) % peers.length]!;
        const sample = { ...(await measure(peer, url, counts[peer], python)), round };
        samples.push(sample);
        if (process.stderr.isTTY) process.stderr.write(`round ${round + 1} ${peer} ${Math.round(sample.rate)}/s\n`);
      }
    }
  });
  const results = TARGETS.map((target) => {
    const measured = compared(samples, target.over, target.under);
    return { ...target, measured, met: measured === undefined ? undefined : measured.median >= target.asked };
  });
  if (args.includes('--json')) {
    process.stdout.write(`${JSON.stringify({ machine: machine(), samples, results }, undefined, 2)}\n`);
  } else {
    for (const peer of peers) {
      const of = samples.filter((sample) => sample.peer === peer);
      const rate = spread(of.map((sample) => sample.rate))!;
      const cpu = spread(of.flatMap(({ cpuMicros }) => (cpuMicros === null ? [] : [cpuMicros])));
      const cost = cpu === undefined ? '' : `, ${cpu.median.toFixed(1)} µs of CPU each`;
      process.stdout.write(
        `${peer.padEnd(12)} ${Math.round(rate.median)} messages a second (${Math.round(rate.min)} to ${Math.round(rate.max)})${cost}\n`,
      );
    }
    for (const { text, asked, measured, met } of results) {
      const figure =
        measured === undefined
          ? 'not measured: no Python with kombu'
          : `${measured.median.toFixed(2)} × (${measured.min.toFixed(2)} to ${measured.max.toFixed(2)})`;
      process.stdout.write(
        `${met === false ? 'MISSED' : met ? 'met   ' : '      '} ${text}: asked ${asked} ×, measured ${figure}\n`,
      );
    }
  }
  return results.some(({ met }) => met === false) ? 1 : 0;
}
