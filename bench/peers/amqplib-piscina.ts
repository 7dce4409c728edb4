/** Peer: amqplib with one `pool.run()` per message, parsed on the worker thread, acked when that resolves. */
import { connect } from 'amqplib';
import { Piscina } from 'piscina';
import { Tally } from '../tally.js';
import { runPeer } from './peer.js';

/** More than one task posted to a thread at a time: the setting that is kinder to this peer. */
const TASKS_PER_WORKER = 8;

await runPeer(async (task, meter) => {
  const pool = new Piscina<Uint8Array, number>({
    filename: new URL('./piscina-task.js', import.meta.url).href,
    minThreads: task.workers,
    maxThreads: task.workers,
    maxQueue: Number.POSITIVE_INFINITY,
    concurrentTasksPerWorker: TASKS_PER_WORKER,
  });
  const connection = await connect(task.url);
  const channel = await connection.createChannel();
  await channel.prefetch(task.prefetch);
  const tally = new Tally();
  let count = 0;
  await channel.consume('bench', async (message) => {
    if (message === null) throw new Error('the consumer was cancelled');
    meter.begin();
    tally.add(await pool.run(message.content));
    count++;
    channel.ack(message);
  });
  return {
    close: async () => {
      await connection.close();
      await pool.destroy();
    },
    handled: () => ({ handled: count, tally: tally.counts() }),
  };
});
