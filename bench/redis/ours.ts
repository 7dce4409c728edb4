/** Peer: this library. A ShardedConsumer whose handler gets the body parsed on its worker thread. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection, errors, Queue, ShardedConsumer } from '#src/index';
import { ThreadTallies } from '../handlers/collect.js';
import { publishMany } from '../publishers/many.js';
import { bodyOf, checkTally, PREFETCH, QUEUE, runRedisPeer, Stopwatch, THREADS } from './peer.js';

/** Resolves with why there is nothing to measure; undefined when there is. */
async function missing(connection: Connection): Promise<string | undefined> {
  try {
    await connection.connect();
    return undefined;
  } catch (error) {
    if (error instanceof errors.TransportNotAvailable) return `not there yet: ${error.message}`;
    throw error;
  }
}

await runRedisPeer({
  fill: async (url, count) => {
    const connection = new Connection(url);
    // said by consume()
    if ((await missing(connection)) !== undefined) return;
    await new Queue(QUEUE).declare(connection);
    const producer = connection.Producer({ serializer: 'json', routingKey: QUEUE });
    let index = 0;
    await publishMany(count, () => producer.publish(bodyOf(++index)));
    await connection.close();
  },
  consume: async (url, count) => {
    const connection = new Connection(url);
    const reason = await missing(connection);
    if (reason !== undefined) return { missing: reason };
    const watch = new Stopwatch();
    const tallies = new ThreadTallies();
    const consumer = new ShardedConsumer(connection, [new Queue(QUEUE)], {
      handler: new URL('../handlers/parse.js', import.meta.url),
      workers: THREADS,
      prefetchCount: PREFETCH,
    });
    // No callback of ours runs on this thread, so the first delivery is looked for at every turn of the loop until then.
    const look = (): void => {
      if (consumer.stats().received > 0) watch.begin();
      else setImmediate(look);
    };
    look();
    await consumer.consume();
    while (consumer.stats().acked < count) await sleep(2);
    const figures = watch.end(count);
    await consumer.close();
    await connection.close();
    checkTally(await tallies.collect(THREADS), count);
    return figures;
  },
});
