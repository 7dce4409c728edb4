/**
 * One message that takes its worker down in the middle of many, in every way there is; and what must hold then. Small in the
 * integration tests, 10,000 messages each in the soak.
 */
import assert from 'node:assert/strict';
import { Connection, Queue, type ShardedConsumerOptions, type WorkerEvent } from '#src/index';
import { AmqpTrace } from './amqp-trace.js';
import { TcpProxy } from './proxy.js';
import { type SharedBroker, uniqueName, waitForQueue } from './rabbitmq.js';
import { consumerOf, EffectsLog, publishAll, sha256, until } from './rig.js';

export interface Death {
  readonly order: object;
  readonly options: Partial<ShardedConsumerOptions>;
  readonly reason: RegExp;
}

export const deaths: Record<string, Death> = {
  'calls process.exit()': { order: { do: 'exit' }, options: {}, reason: /exited with code 3/ },
  'throws outside of its callback': { order: { do: 'stray' }, options: {}, reason: /stray: culprit/ },
  'fills its heap': {
    order: { do: 'heap' },
    // Without a limit of its own for what is young, Node 24 can end the whole process instead of the thread.
    options: { resourceLimits: { maxOldGenerationSizeMb: 48, maxYoungGenerationSizeMb: 4 } },
    reason: /memory/i,
  },
  'loops for ever': { order: { do: 'loop' }, options: { timeout: 300 }, reason: /past its timeout/ },
  'does not return from a native call': {
    order: { do: 'native', ms: 4_000 },
    options: { timeout: 300, terminateGrace: 300 },
    reason: /does not exit/,
  },
};

export interface Aftermath {
  readonly handled: number;
  readonly handledTwice: number;
  readonly deadLettered: number;
  readonly exits: number;
  readonly wrongAcks: number;
}

/** Throws if anything is not as it must be. */
export async function dieInTheMiddle(
  broker: SharedBroker,
  { order, options, reason }: Death,
  count: number,
): Promise<Aftermath> {
  await using proxy = await TcpProxy.listen(broker.url);
  const trace = AmqpTrace.attach(proxy);
  using effects = new EffectsLog();
  const queue = new Queue(uniqueName('deaths'));
  const dead = new Queue(`${queue.name}.dead`);
  const culprit = { id: 'culprit', ...order };
  await publishAll(
    broker.url,
    queue,
    Array.from({ length: count }, (_, i) => ({ body: i === count / 2 ? culprit : { id: i, do: 'sleep', ms: 1 } })),
  );
  const consumer = consumerOf(proxy.url, queue, { maxDeliveries: 2, ...options });
  const exits: WorkerEvent[] = [];
  const failures: string[] = [];
  consumer.on('worker', (event) => event.state === 'exited' && exits.push(event));
  consumer.on('failed', ({ outcome }) => failures.push(outcome ?? '?'));
  try {
    await consumer.consume();
    await until('all are handled but the culprit', () => consumer.stats().acked === count - 1, {
      state: () => [consumer.stats(), exits],
    });
    await until('the culprit is dead-lettered', () => consumer.stats().deadLettered === 1, {
      state: () => [consumer.stats(), exits],
    });
    await waitForQueue(broker.ctl, queue.name, ({ ready, unacked }) => ready === 0 && unacked === 0);
    assert.equal(exits.length, 2, 'it took its worker down twice, alone');
    for (const exit of exits) assert.match(`${exit.reason} ${exit.error?.message}`, reason);
    assert.deepEqual(failures, ['again', 'deadLetter']);
    const counts = effects.counts();
    counts.delete('culprit');
    assert.equal(counts.size, count - 1);
    const handledTwice = [...counts.values()].filter((times) => times > 1).length;
    assert.equal(handledTwice, 0, 'a death runs again only what was not settled');
    trace.assertClean();
    const connection = new Connection(broker.url);
    const letter = await dead.bind(connection).get();
    assert.ok(letter !== null);
    assert.equal(sha256(letter.body), sha256(JSON.stringify(culprit)));
    assert.equal(letter.headers['x-mozuku-reason'], 'deaths');
    assert.equal(letter.headers['x-mozuku-deaths'], 2);
    letter.ack();
    assert.equal(await dead.bind(connection).get(), null, 'no innocent is dead-lettered');
    await queue.bind(connection).delete();
    await dead.bind(connection).delete();
    await connection.close();
    return {
      handled: counts.size,
      handledTwice,
      deadLettered: consumer.stats().deadLettered,
      exits: exits.length,
      wrongAcks: trace.violations.length,
    };
  } finally {
    await consumer.close();
  }
}
