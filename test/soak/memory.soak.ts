/**
 * A million messages of 500 keys through the embedded broker, in order by key, while the number of workers changes every second
 * and workers are killed: none lost, none out of order, memory flat.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection, Queue, ShardedConsumer } from '#src/index';
import { Random } from '../support/random.js';

const TOTAL = Number(process.env.MOZUKU_SOAK_MESSAGES ?? 1_000_000);
const KEYS = 500;
const KILLS = Number(process.env.MOZUKU_SOAK_KILLS ?? 200);
/** So many wait in the queue at most, so that the broker's own memory is no part of the picture. */
const AHEAD = 5000;
const MiB = 1024 * 1024;
/** One line of the log: worker, key, sequence, as three words of 32 bits. */
const RECORD = 12;

test('a million messages in order over scaling and deaths', { timeout: 3_000_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mozuku-order-'));
  const log = join(folder, 'log');
  process.env.MOZUKU_ORDER_LOG = log;
  const connection = new Connection('memory://soak');
  const queue = new Queue('order');
  await queue.declare(connection);
  const producer = connection.Producer({ routingKey: queue.name });
  const random = new Random(Number(process.env.MOZUKU_SOAK_SEED ?? 1));
  const consumer = new ShardedConsumer(connection, queue, {
    handler: new URL('./handlers-order.js', import.meta.url),
    workers: 3,
    prefetchCount: 1000,
    orderBy: { header: 'key' },
    maxDeliveries: 1_000_000,
  });
  const deaths: string[] = [];
  consumer.on('worker', ({ state, reason }) => state === 'exited' && deaths.push(String(reason)));
  const handled = (): number => {
    try {
      return statSync(log).size / RECORD;
    } catch {
      return 0;
    }
  };
  let published = 0;
  let killers = 0;
  const sequences = new Uint32Array(KEYS);
  let over = false;
  const publishing = (async () => {
    while (published < TOTAL) {
      const batch: Promise<void>[] = [];
      for (let i = 0; i < 500 && published < TOTAL; i++, published++) {
        const key = Math.floor(random.share() * KEYS);
        const kill = killers < KILLS && published > ((killers + 0.5) * TOTAL) / KILLS;
        if (kill) killers++;
        batch.push(producer.publish([key, sequences[key]!++, kill], { headers: { key } }));
      }
      await Promise.all(batch);
      while (published - consumer.stats().acked > AHEAD) await sleep(5);
    }
  })();
  await consumer.consume();
  let scales = 0;
  const refused: string[] = [];
  const scaling = (async () => {
    while (!over) {
      // Not waited for: while workers die all the time there is hardly a moment with just so many.
      consumer.scale(1 + Math.floor(random.share() * 6)).catch((error: Error) => refused.push(error.name));
      scales++;
      await sleep(1000);
    }
  })();
  const rss: number[] = [];
  const started = performance.now();
  let told = 0;
  while (consumer.stats().acked < TOTAL) {
    await sleep(200);
    rss.push(process.memoryUsage().rss / MiB);
    if (performance.now() - told > 15_000) {
      told = performance.now();
      console.log(`${consumer.stats().acked} acked, ${deaths.length} exits, RSS ${rss.at(-1)!.toFixed(0)} MiB`);
    }
  }
  const seconds = (performance.now() - started) / 1000;
  over = true;
  await Promise.all([publishing, scaling]);
  const { held, waiting, inFlight, unsettled, arena } = consumer.stats();
  await consumer.close();
  await connection.close();

  const bytes = readFileSync(log);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const seen = new Uint32Array(KEYS);
  let goesBack = 0;
  let gaps = 0;
  let repeats = 0;
  for (let at = 0; at < words.length; at += 3) {
    const [key, sequence] = [words[at + 1]!, words[at + 2]!];
    if (sequence === seen[key]) seen[key]!++;
    else if (sequence === seen[key]! - 1) repeats++;
    else if (sequence < seen[key]!) goesBack++;
    else gaps++;
  }
  const lost = sequences.reduce((sum, count, key) => sum + (count - seen[key]!), 0);
  rmSync(folder, { recursive: true });
  const exits = deaths.filter((reason) => reason.includes('exited with code')).length;
  const early = Math.max(...rss.slice(0, Math.ceil(rss.length * 0.3)));
  const late = Math.max(...rss.slice(Math.floor(rss.length * 0.7)));
  console.log(
    `messages: asked ${TOTAL}, measured ${handled() || words.length / 3} effects in ${seconds.toFixed(0)} s, ${scales} times scaled`,
  );
  console.log(
    `kills: asked ${KILLS}, measured ${exits}; lost: asked 0, measured ${lost}; run again after a kill: ${repeats}`,
  );
  console.log(`out of order: asked 0, measured ${goesBack} back, ${gaps} ahead of their turn`);
  console.log(
    `RSS: asked flat, measured at most ${early.toFixed(0)} MiB in the first third, ${late.toFixed(0)} MiB in the last`,
  );
  assert.deepEqual([lost, goesBack, gaps], [0, 0, 0]);
  assert.ok(exits >= KILLS);
  // The last one, by the consumer's close.
  assert.ok(refused.length <= 1 && refused.every((name) => name === 'ClosedError'));
  assert.deepEqual([held, waiting, inFlight, unsettled, arena.used], [0, 0, 0, 0, 0]);
  assert.ok(late <= early * 1.1 + 20);
});
