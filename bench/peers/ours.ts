/** Peer: this library. A ShardedConsumer whose handler gets the body parsed on its worker thread. */
import { ThreadTallies } from '../handlers/collect.js';
import type { TallyCounts } from '../protocol.js';
import { runPeer } from './peer.js';

/** The part of the library that is measured: spelled out, so that the harness builds without it. */
interface Library {
  readonly Connection: new (url: string) => { close(): Promise<void> };
  readonly Queue: new (name: string) => object;
  readonly ShardedConsumer: new (
    connection: object,
    queues: readonly object[],
    options: { handler: URL; workers: number; prefetchCount: number },
  ) => {
    consume(): Promise<unknown>;
    close(): Promise<void>;
    stats(): { readonly received: number };
  };
}

const specifier: string = '#src/index';

await runPeer(async (task, meter) => {
  const { Connection, Queue, ShardedConsumer } = (await import(specifier)) as Library;
  const tallies = new ThreadTallies();
  let counts: TallyCounts;

  const connection = new Connection(task.url);
  const consumer = new ShardedConsumer(connection, [new Queue('bench')], {
    handler: new URL('../handlers/parse.js', import.meta.url),
    workers: task.workers,
    prefetchCount: task.prefetch,
  });
  // No callback of ours runs on this thread, so the first delivery is looked for at every turn of the loop until then.
  let looking = true;
  const look = (): void => {
    if (consumer.stats().received > 0) meter.begin();
    else if (looking) setImmediate(look);
  };
  look();
  await consumer.consume();
  return {
    close: async () => {
      looking = false;
      await consumer.close();
      await connection.close();
      counts = await tallies.collect(task.workers);
    },
    handled: () => ({ handled: counts.count, tally: counts }),
  };
});
