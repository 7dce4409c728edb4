// RabbitMQ for tests: the node that `npm test` starts for all of them, and nodes of a test's own to stop, kill and restart.
// A test without its broker is skipped with the reason, or fails where CI=true: it never passes silently.

import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { uniqueName } from './names.js';
import { testThatNeeds } from './needs.js';
import { importScript } from './scripts.js';

export { uniqueName };

type RabbitModule = typeof import('../../scripts/lib/rabbitmq.mjs');
type ProgramsModule = typeof import('../../scripts/lib/rabbitmq-programs.mjs');

const { ctlSettingsFromEnv, findRabbitMQ, runCtl } = await importScript<ProgramsModule>('rabbitmq-programs.mjs');

/** A RabbitMQ node of the test's own. Dispose of it: `await using node = await RabbitNode.start()`. */
export const { RabbitNode } = await importScript<RabbitModule>('rabbitmq.mjs');
export type RabbitNode = import('../../scripts/lib/rabbitmq.mjs').RabbitNode;

/** Runs rabbitmqctl and gives what it printed; about half a second. */
export type Ctl = (...args: string[]) => Promise<string>;

export interface SharedBroker {
  readonly url: string;
  /** Fails where only MOZUKU_TEST_AMQP_URL is known. */
  readonly ctl: Ctl;
  readonly hasCtl: boolean;
}

/** The node all test files share: never stop it, and name everything with `uniqueName`. */
export function sharedBroker(): SharedBroker | undefined {
  const url = process.env.MOZUKU_TEST_AMQP_URL;
  if (!url) return undefined;
  const settings = ctlSettingsFromEnv(process.env);
  return {
    url,
    hasCtl: settings !== undefined,
    ctl: async (...args) => {
      if (!settings) throw new Error('rabbitmqctl is not known for the broker of MOZUKU_TEST_AMQP_URL');
      return runCtl(settings, args);
    },
  };
}

const NO_BROKER = 'no broker: run the tests with npm test, or set MOZUKU_TEST_AMQP_URL';
const NO_CTL = 'no rabbitmqctl for the broker of MOZUKU_TEST_AMQP_URL';
const NO_SERVER = 'rabbitmq-server is not installed';

/** A test on the shared broker. `ctl: true` if it calls rabbitmqctl. */
export function brokerTest(
  name: string,
  run: (broker: SharedBroker, context: TestContext) => Promise<void>,
  { ctl = false, ...options }: { ctl?: boolean; timeout?: number } = {},
): void {
  const broker = sharedBroker();
  const missing = broker ? (ctl && !broker.hasCtl ? NO_CTL : undefined) : NO_BROKER;
  testThatNeeds(missing, name, options, async (context) => {
    if (broker) await run(broker, context);
  });
}

/** A test that starts nodes of its own. */
export function nodeTest(
  name: string,
  run: (context: TestContext) => Promise<void>,
  options: { timeout?: number } = {},
): void {
  testThatNeeds(findRabbitMQ() ? undefined : NO_SERVER, name, options, run);
}

export interface QueueStats {
  ready: number;
  unacked: number;
  consumers: number;
}

interface QueueRow {
  name: string;
  messages_ready: number;
  messages_unacknowledged: number;
  consumers: number;
}

/** What the broker itself counts for a queue of the default vhost; undefined if there is no such queue. */
export async function findQueueStats(ctl: Ctl, queue: string): Promise<QueueStats | undefined> {
  const columns = ['name', 'messages_ready', 'messages_unacknowledged', 'consumers'];
  const rows = JSON.parse(await ctl('list_queues', '--formatter', 'json', ...columns)) as QueueRow[];
  const row = rows.find(({ name }) => name === queue);
  return row && { ready: row.messages_ready, unacked: row.messages_unacknowledged, consumers: row.consumers };
}

export async function queueStats(ctl: Ctl, queue: string): Promise<QueueStats> {
  const stats = await findQueueStats(ctl, queue);
  if (!stats) throw new Error(`the broker has no queue ${queue}`);
  return stats;
}

/** Asks until the counts are as wanted: the broker publishes some of them a moment late. */
export async function waitForQueue(
  ctl: Ctl,
  queue: string,
  wanted: (stats: QueueStats) => boolean,
  timeoutMs = 15_000,
): Promise<QueueStats> {
  for (const until = Date.now() + timeoutMs; ; await sleep(100)) {
    const stats = await queueStats(ctl, queue);
    if (wanted(stats)) return stats;
    if (Date.now() > until) throw new Error(`queue ${queue} stays at ${JSON.stringify(stats)} after ${timeoutMs} ms`);
  }
}
