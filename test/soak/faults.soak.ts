/**
 * 50,000 messages while the broker stops and starts 8 times, is killed twice, and the socket is reset 20 times at a random
 * byte. A proxy decodes both directions: every settled tag was delivered on that very connection and its effect was in the
 * log before its ack passed; every confirmed message is handled.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection, Queue } from '#src/index';
import { AmqpTrace, type TracedDelivery } from '../support/amqp-trace.js';
import { EffectsFollower, type FollowedEffect } from '../support/effects-follower.js';
import { TcpProxy } from '../support/proxy.js';
import { RabbitNode, uniqueName } from '../support/rabbitmq.js';
import { Random } from '../support/random.js';
import { consumerOf, EffectsLog, until } from '../support/rig.js';

const TOTAL = Number(process.env.MOZUKU_SOAK_MESSAGES ?? 50_000);
const SEED = Number(process.env.MOZUKU_SOAK_SEED ?? 1);
const STOPS = Number(process.env.MOZUKU_SOAK_STOPS ?? 8);
const KILLS = Number(process.env.MOZUKU_SOAK_KILLS ?? 2);
const CUTS = Number(process.env.MOZUKU_SOAK_CUTS ?? 20);
const WORKERS = 2;
const PREFETCH = 200;

interface Published {
  readonly confirmed: Set<string>;
  /** Sent more than once, since no confirm came: a second effect of theirs proves nothing. */
  readonly unsure: Set<string>;
}

/** Publishes to the node itself, past the proxy, as many as `upTo` says; again what is not confirmed. */
async function publish(
  url: string,
  queue: string,
  published: Published,
  upTo: () => number,
  signal: AbortSignal,
): Promise<void> {
  const connection = new Connection(url);
  const producer = connection.Producer({ routingKey: queue });
  const send = async (id: string): Promise<void> => {
    while (!signal.aborted) {
      try {
        await producer.publish({ id, do: 'busy', ms: 0.2 }, { messageId: id, timeout: 5_000 });
        published.confirmed.add(id);
        return;
      } catch {
        // Whatever the broker's state is just now: the next attempt says the same or works.
        published.unsure.add(id);
        await sleep(100);
      }
    }
  };
  for (let from = 0; from < TOTAL && !signal.aborted; from += 200) {
    const ids = Array.from({ length: Math.min(200, TOTAL - from) }, (_, i) => `m-${from + i}`);
    await Promise.all(ids.map(send));
    await until('more is wanted', () => signal.aborted || published.confirmed.size < upTo() || upTo() === TOTAL, {
      timeoutMs: 600_000,
    });
  }
  await connection.close();
}

interface ConnectionLife {
  delivered: number;
  /** Effects of what it delivered. */
  runs: number;
  /** Of these, the ones whose message had another effect later: their acks were lost with the connection. */
  repeats: number;
}

function connectionLives(
  deliveries: readonly TracedDelivery[],
  runs: readonly FollowedEffect[],
  unsure: ReadonlySet<string>,
): Map<number, ConnectionLife> {
  const lives = new Map<number, ConnectionLife>();
  const deliveredAs = new Map<string, TracedDelivery[]>();
  for (const delivery of deliveries) {
    const { connection, messageId = '?', tag } = delivery;
    const life = lives.get(connection) ?? { delivered: 0, runs: 0, repeats: 0 };
    lives.set(connection, life);
    life.delivered++;
    const key = `${messageId} ${tag}`;
    deliveredAs.set(key, [...(deliveredAs.get(key) ?? []), delivery]);
  }
  const lastRun = new Map<string, ConnectionLife>();
  for (const { id, tag, start } of runs) {
    // A tag may be the same message's on several connections.
    const { connection } = deliveredAs.get(`${id} ${tag}`)!.findLast(({ at }) => at <= start)!;
    const life = lives.get(connection)!;
    life.runs++;
    const before = lastRun.get(id);
    lastRun.set(id, life);
    if (before !== undefined && !unsure.has(id)) before.repeats++;
  }
  return lives;
}

/** Resolves with the time at which the broker accepts an AMQP connection. */
async function accepts(url: string): Promise<number> {
  for (;;) {
    const connection = new Connection(url, { connectTimeout: 1000 });
    try {
      await connection.connect();
      const time = performance.now();
      await connection.close();
      return time;
    } catch {
      await sleep(20);
    }
  }
}

test('nothing confirmed is lost and no ack goes astray while broker and network fail', {
  timeout: 3_000_000,
}, async ({ signal }) => {
  await using node = await RabbitNode.start();
  await using proxy = await TcpProxy.listen(node.url);
  const trace = AmqpTrace.attach(proxy);
  using effects = new EffectsLog();
  using log = new EffectsFollower(effects.path);
  const queue = new Queue(uniqueName('soak-faults'));
  const random = new Random(SEED);
  const early: string[] = [];
  trace.onSettle((delivery, settlement) => {
    if (settlement.kind !== 'ack') return;
    const id = delivery.messageId ?? '?';
    if (!log.counts.has(id)) log.read();
    if (!log.counts.has(id)) early.push(id);
  });
  const setup = new Connection(node.url);
  await queue.declare(setup);
  await setup.close();

  // Disposed of first if anything fails: it would go on reconnecting for ever.
  await using consumer = consumerOf(proxy.url, queue, { workers: WORKERS, prefetchCount: PREFETCH });
  const failures: string[] = [];
  consumer.on('failed', ({ error }) => failures.push(error.message));
  consumer.on('error', (error) => failures.push(`error: ${error.message}`));
  await consumer.consume();
  const published: Published = { confirmed: new Set(), unsure: new Set() };
  const handled = (): number => {
    log.read();
    return log.counts.size;
  };
  const plan = [...Array(STOPS).fill('stop'), ...Array(KILLS).fill('kill'), ...Array(CUTS).fill('cut')] as string[];
  const faults: { kind: string; resumeMs: number; connection: number | undefined }[] = [];
  /** When the fault began that is under way. */
  let faultSince: number | undefined;
  const share = Math.floor(TOTAL / (plan.length + 6));
  // Ahead of the consumer, so that every fault meets traffic, and in a trickle while it lasts: the commands take seconds. Never
  // so far that there is nothing left for the faults to come.
  const publishing = publish(
    node.url,
    queue.name,
    published,
    () => {
      if (plan.length === 0 && faultSince === undefined) return TOTAL;
      const trickle = faultSince === undefined ? 0 : (performance.now() - faultSince) / 2;
      return Math.min(TOTAL - share * (plan.length + 1), share * (faults.length + 3) + trickle);
    },
    signal,
  );
  while (plan.length > 0) {
    const mark = share * (faults.length + 1);
    await until(`${mark} are handled`, () => handled() >= mark, { timeoutMs: 300_000, state: () => consumer.stats() });
    const [kind] = plan.splice(random.between(0, plan.length - 1), 1);
    const connections = proxy.connections.length;
    const live = proxy.connections.filter(({ isOpen }) => isOpen).at(-1);
    log.read();
    faultSince = performance.now();
    if (kind === 'cut') {
      const direction = random.share() < 0.5 ? 'toClient' : 'toServer';
      live?.cutAfter(live.forwarded[direction] + random.between(0, direction === 'toClient' ? 20_000 : 200), direction);
      await Promise.race([live?.closed, sleep(5000).then(() => live?.cut())]);
    } else if (kind === 'stop') {
      await node.stopApp();
    } else {
      await node.kill();
      await live?.closed;
    }
    log.read();
    const delivered = trace.deliveries.length;
    const back = kind === 'stop' ? node.startApp() : kind === 'kill' ? node.restart() : Promise.resolve();
    // Asked all the while, since the commands return long after the broker accepts.
    const [accepted] = await Promise.all([accepts(node.url), back]);
    await until(
      'deliveries come again',
      () => trace.deliveries.length > delivered && proxy.connections.length > connections,
      {
        everyMs: 2,
        state: () => [kind, consumer.stats(), failures.slice(-3)],
      },
    );
    console.log(
      `fault ${faults.length + 1}: ${kind} at ${mark} handled, resumed after ${Math.round(performance.now() - accepted)} ms`,
    );
    faultSince = undefined;
    faults.push({ kind: kind!, resumeMs: Math.max(0, performance.now() - accepted), connection: live?.id });
  }
  await publishing;
  await until(
    'everything confirmed is handled',
    () => [...published.confirmed].every((id) => log.counts.has(id)) || handled() < 0,
    {
      timeoutMs: 120_000,
      state: () => consumer.stats(),
    },
  );
  await until('nothing is outstanding', () => consumer.stats().unsettled === 0);
  await consumer.close();
  log.read();

  const lives = connectionLives(trace.deliveries, log.all, published.unsure);
  const perCut = faults.map(({ kind, connection = -1 }) => {
    const { delivered, runs, repeats } = lives.get(connection) ?? { delivered: 0, runs: 0, repeats: 0 };
    // The broker sends no more than the prefetch ahead of the acks it has read: so many it has read for certain.
    return { kind, repeats, allowed: runs - Math.max(0, delivered - PREFETCH) };
  });
  const cuts = perCut.filter(({ kind }) => kind === 'cut');
  const slowest = Math.round(Math.max(...faults.map(({ resumeMs }) => resumeMs)));
  const lost = [...published.confirmed].filter((id) => !log.counts.has(id)).length;
  console.log(
    `faults (seed ${SEED}): asked 8 stops, 2 kills, 20 cuts, measured ${STOPS} stops, ${KILLS} kills, ${CUTS} cuts`,
  );
  console.log(`confirmed and not handled: asked 0, measured ${lost} of ${published.confirmed.size}`);
  console.log(`wrong acks: asked 0, measured ${trace.violations.length} of ${trace.acks.length} settle frames`);
  console.log(`acks that passed before their effect: asked 0, measured ${early.length}`);
  console.log(`resumed after the broker accepts: asked at most 5000 ms, measured at most ${slowest} ms`);
  console.log(
    `duplicates a cut: asked at most workers + acks in flight, measured ${cuts.map(({ repeats, allowed }) => `${repeats}/${allowed}`).join(' ')}`,
  );
  console.log(
    `duplicates a broker stop or kill: measured ${perCut
      .filter(({ kind }) => kind !== 'cut')
      .map(({ kind, repeats }) => `${kind} ${repeats}`)
      .join(', ')}`,
  );
  assert.equal(published.confirmed.size, TOTAL);
  assert.equal(lost, 0);
  assert.deepEqual(trace.violations, []);
  assert.deepEqual(early, []);
  for (const { repeats, allowed } of cuts) assert.ok(repeats <= allowed, `${repeats} duplicates, ${allowed} allowed`);
  assert.ok(slowest <= 5000, `resumed only after ${slowest} ms`);
});
