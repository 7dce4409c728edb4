/**
 * 50,000 messages while the broker stops and starts 8 times, is killed twice, and the socket is reset 20 times at a random
 * byte. A proxy decodes both directions: every settled tag was delivered on that very connection and its effect was in the
 * log before its ack passed; every confirmed message is handled.
 */
import assert from 'node:assert/strict';
import { closeSync, openSync, readSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection, Queue } from '#src/index';
import { AmqpTrace } from '../support/amqp-trace.js';
import { TcpProxy } from '../support/proxy.js';
import { RabbitNode, uniqueName } from '../support/rabbitmq.js';
import { consumerOf, EffectsLog, until } from '../support/rig.js';

const TOTAL = Number(process.env.MOZUKU_SOAK_MESSAGES ?? 50_000);
const SEED = Number(process.env.MOZUKU_SOAK_SEED ?? 1);
const STOPS = Number(process.env.MOZUKU_SOAK_STOPS ?? 8);
const KILLS = Number(process.env.MOZUKU_SOAK_KILLS ?? 2);
const CUTS = Number(process.env.MOZUKU_SOAK_CUTS ?? 20);
const WORKERS = 2;
const PREFETCH = 200;
/** Acks that the proxy passed this shortly before a cut count as in flight: the broker need not have read them. */
const IN_FLIGHT_MS = 100;

function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state >>> 0) / 2 ** 32;
  };
}

/** Reads the effects log as it grows: how often each id is there. */
class Follower {
  readonly counts = new Map<string, number>();
  #file: number | undefined;
  #rest = '';
  readonly #chunk = Buffer.alloc(1 << 20);

  constructor(readonly path: string) {}

  read(): void {
    try {
      this.#file ??= openSync(this.path, 'r');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      throw error;
    }
    for (let count = readSync(this.#file, this.#chunk); count > 0; count = readSync(this.#file, this.#chunk)) {
      const lines = (this.#rest + this.#chunk.toString('latin1', 0, count)).split('\n');
      this.#rest = lines.pop()!;
      for (const line of lines) {
        const id = line.slice(0, line.indexOf(' '));
        this.counts.set(id, (this.counts.get(id) ?? 0) + 1);
      }
    }
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
  }
}

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
  const log = new Follower(effects.path);
  const queue = new Queue(uniqueName('soak-faults'));
  const next = random(SEED);
  const early: string[] = [];
  /** Acks that have passed the proxy, by time: those of the last moments may not have reached the broker. */
  const ackTimes: number[] = [];
  trace.onSettle((delivery, settlement) => {
    if (settlement.kind !== 'ack') return;
    ackTimes.push(performance.now());
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
  /** Effects whose acks had not reached the broker when the consumer noticed that its connection was gone, by connection. */
  const inFlightOf = new Map<number, number>();
  consumer.on('disconnected', () => {
    const time = performance.now();
    log.read();
    const connection = trace.deliveries.at(-1)?.connection;
    if (connection === undefined || inFlightOf.has(connection)) return;
    const unacked = trace.deliveries.filter((each) => {
      return each.connection === connection && each.settled === undefined && log.counts.has(each.messageId ?? '');
    }).length;
    const passed = ackTimes.filter((at) => at > time - IN_FLIGHT_MS).length;
    inFlightOf.set(connection, Math.min(PREFETCH, unacked + passed));
  });
  await consumer.consume();
  const published: Published = { confirmed: new Set(), unsure: new Set() };
  const handled = (): number => {
    log.read();
    return log.counts.size;
  };
  const plan = [...Array(STOPS).fill('stop'), ...Array(KILLS).fill('kill'), ...Array(CUTS).fill('cut')] as string[];
  const faults: { kind: string; resumeMs: number; connection: number | undefined }[] = [];
  let inFault = false;
  const share = Math.floor(TOTAL / (plan.length + 2));
  // Ahead of the consumer, so that every fault meets traffic; and never so far that the faults come too late.
  const publishing = publish(
    node.url,
    queue.name,
    published,
    () => {
      if (plan.length === 0 && !inFault) return TOTAL;
      return Math.min(TOTAL, Math.max(share * (faults.length + 3), inFault ? handled() + 1000 : 0));
    },
    signal,
  );
  while (plan.length > 0) {
    const mark = share * (faults.length + 1);
    await until(`${mark} are handled`, () => handled() >= mark, { timeoutMs: 300_000, state: () => consumer.stats() });
    const [kind] = plan.splice(Math.floor(next() * plan.length), 1);
    const connections = proxy.connections.length;
    const live = proxy.connections.filter(({ isOpen }) => isOpen).at(-1);
    log.read();
    inFault = true;
    if (kind === 'cut') {
      const direction = next() < 0.5 ? 'toClient' : 'toServer';
      live?.cutAfter(
        live.forwarded[direction] + Math.floor(next() * (direction === 'toClient' ? 20_000 : 200)),
        direction,
      );
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
  log.close();

  // A repeat belongs to the connection that had delivered the message before and was lost with it.
  const routes = new Map<string, number[]>();
  for (const { messageId = '?', connection } of trace.deliveries) {
    routes.set(messageId, [...(routes.get(messageId) ?? []), connection]);
  }
  const repeatsOf = new Map<number, number>();
  for (const [id, count] of log.counts) {
    if (count < 2 || published.unsure.has(id)) continue;
    for (const lost of routes.get(id)!.slice(0, count - 1)) repeatsOf.set(lost, (repeatsOf.get(lost) ?? 0) + 1);
  }
  const perCut = faults.map(({ kind, connection = -1 }) => ({
    kind,
    repeats: repeatsOf.get(connection) ?? 0,
    allowed: Math.min(PREFETCH, WORKERS + (inFlightOf.get(connection) ?? 0)),
  }));
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
