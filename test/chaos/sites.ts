/** Where a campaign takes place: a broker of its own, the way there through a proxy, and what can happen to both. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection, type QueueOptions } from '#src/index';
import { AmqpTrace } from '../support/amqp-trace.js';
import { TcpProxy } from '../support/proxy.js';
import { findQueueStats, RabbitNode } from '../support/rabbitmq.js';
import type { Random } from '../support/random.js';
import { RedisServer } from '../support/redis.js';

export const SITES = ['classic', 'quorum', 'redis', 'memory'] as const;
export type SiteName = (typeof SITES)[number];

/** Something bad, and its end: resolves when all is as it was. */
export interface Fault {
  readonly name: string;
  readonly happens: (random: Random) => Promise<void>;
}

export interface Site extends AsyncDisposable {
  readonly name: SiteName;
  /** For the service, through the proxy. */
  readonly url: string;
  /** For publishers and for the books, past it. */
  readonly ownUrl: string;
  readonly queue: QueueOptions;
  readonly transportOptions: Record<string, unknown>;
  readonly proxy: TcpProxy | undefined;
  readonly trace: AmqpTrace | undefined;
  readonly faults: readonly Fault[];
  /** Whether the service may be killed: its broker is another process. */
  readonly isApart: boolean;
  /** Of this queue: in the broker's hands, and in a consumer's. */
  left(queue: string): Promise<{ readonly waiting: number; readonly delivered: number }>;
}

export function openSite(name: SiteName): Promise<Site> {
  if (name === 'memory') return Promise.resolve(memorySite());
  return name === 'redis' ? redisSite() : rabbitSite(name);
}

async function rabbitSite(name: 'classic' | 'quorum'): Promise<Site> {
  const node = await RabbitNode.start();
  const proxy = await TcpProxy.listen(node.url);
  const trace = AmqpTrace.attach(proxy);
  const url = new URL(proxy.url);
  url.searchParams.set('heartbeat', '2');
  return {
    name,
    url: url.href,
    ownUrl: node.url,
    queue: { durable: true, queueArguments: { 'x-queue-type': name } },
    transportOptions: {},
    proxy,
    trace,
    isApart: true,
    faults: [
      ...lineFaults(proxy),
      { name: 'broker stops and starts', happens: () => node.stopApp().then(() => node.startApp()) },
      { name: 'broker is killed', happens: () => node.kill().then(() => node.restart()) },
      { name: 'broker stands still', happens: (random) => standsStill(node, random) },
      {
        name: 'connections are closed by an operator',
        happens: async () => void (await node.ctl('close_all_connections', 'chaos')),
      },
      {
        name: 'memory alarm',
        happens: async (random) => {
          await node.ctl('set_vm_memory_high_watermark', '0.00001');
          await sleep(random.between(500, 3000));
          await node.ctl('set_vm_memory_high_watermark', '0.4');
        },
      },
    ],
    left: async (queue) => {
      const { ready, unacked } = (await findQueueStats((...args) => node.ctl(...args), queue)) ?? {
        ready: 0,
        unacked: 0,
      };
      return { waiting: ready, delivered: unacked };
    },
    [Symbol.asyncDispose]: async () => {
      await proxy[Symbol.asyncDispose]();
      await node.dispose();
    },
  };
}

async function redisSite(): Promise<Site> {
  const server = await RedisServer.start({ config: { appendonly: 'yes', appendfsync: 'always' } });
  const proxy = await TcpProxy.listen(server.url);
  const url = new URL(proxy.url);
  url.searchParams.set('heartbeat', '2');
  return {
    name: 'redis',
    url: url.href,
    ownUrl: server.url,
    queue: {},
    transportOptions: { visibilityTimeout: 4000 },
    proxy,
    trace: undefined,
    isApart: true,
    faults: [
      ...lineFaults(proxy),
      { name: 'server is killed', happens: () => server.kill().then(() => server.restart()) },
      { name: 'server stands still', happens: (random) => standsStill(server, random) },
      {
        name: 'connections are killed by an operator',
        happens: async () => void (await server.command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')),
      },
    ],
    left: async (queue) => {
      const lists = await Promise.all(
        ['', '3', '6', '9'].map((step) => server.command('LLEN', step === '' ? queue : `${queue}\x06\x16${step}`)),
      );
      const waiting = lists.reduce<number>((sum, length) => sum + Number(length), 0);
      return { waiting, delivered: Number(await server.command('HLEN', 'unacked')) };
    },
    [Symbol.asyncDispose]: async () => {
      await proxy[Symbol.asyncDispose]();
      await server.dispose();
    },
  };
}

function memorySite(): Site {
  const url = `memory://chaos-${process.pid}-${performance.now()}`;
  // The broker lives as long as somebody is connected to it.
  const connection = new Connection(url);
  return {
    name: 'memory',
    url,
    ownUrl: url,
    queue: {},
    transportOptions: {},
    proxy: undefined,
    trace: undefined,
    isApart: false,
    faults: [],
    left: async (queue) => {
      const channel = await connection.defaultChannel();
      const { messageCount } = await channel.call('counting messages', (raw) => raw.checkQueue(queue));
      return { waiting: messageCount, delivered: 0 };
    },
    [Symbol.asyncDispose]: () => connection.close(),
  };
}

async function standsStill(broker: { freeze(): void; thaw(): void }, random: Random): Promise<void> {
  broker.freeze();
  await sleep(random.between(200, 3000));
  broker.thaw();
}

function lineFaults(proxy: TcpProxy): Fault[] {
  const direction = (random: Random) => random.pick(['toClient', 'toServer', undefined] as const);
  return [
    {
      name: 'line is cut at some byte',
      happens: async (random) => {
        for (const line of proxy.live) {
          const way = random.pick(['toClient', 'toServer'] as const);
          line.cutAfter(line.forwarded[way] + random.between(1, way === 'toClient' ? 20_000 : 300), way);
        }
        await sleep(1000);
        proxy.cutAll();
      },
    },
    {
      name: 'line is silent',
      happens: async (random) => {
        const lines = proxy.live;
        const way = direction(random);
        for (const line of lines) line.blackHole(way);
        await sleep(random.between(200, 6000));
        for (const line of lines) line.resume(way);
      },
    },
    {
      name: 'line is slow',
      happens: async (random) => {
        const lines = proxy.live;
        const way = direction(random);
        for (const line of lines) {
          line.throttle(20_000, way);
          line.delay(random.between(10, 200), way);
        }
        await sleep(random.between(500, 3000));
        for (const line of lines) {
          line.throttle(Number.POSITIVE_INFINITY, way);
          line.delay(0, way);
        }
      },
    },
    {
      name: 'nobody answers at the port',
      happens: async (random) => {
        proxy.refuse();
        proxy.cutAll();
        await sleep(random.between(100, 3000));
        await proxy.accept();
      },
    },
  ];
}
