/** What both peers of BullMQ share: the producer, and a worker run until all is completed. */
import { type Processor, Queue, Worker, type WorkerOptions } from 'bullmq';
import { Tally } from '../tally.js';
import { type Body, bodyOf, checkTally, type PeerOutput, QUEUE, Stopwatch } from './peer.js';

const BULK = 1000;

export const connectionOf = (url: string): { host: string; port: number } => {
  const { hostname, port } = new URL(url);
  return { host: hostname, port: Number(port) };
};

export async function fillBullmq(url: string, count: number): Promise<void> {
  const queue = new Queue<Body>(QUEUE, { connection: connectionOf(url) });
  for (let done = 0; done < count; done += BULK) {
    const jobs = Array.from({ length: Math.min(BULK, count - done) }, (_, i) => ({
      name: 'message',
      data: bodyOf(done + i + 1),
      opts: { removeOnComplete: true },
    }));
    await queue.addBulk(jobs);
  }
  await queue.close();
}

/** The processor answers the id of its message. It begins to count at the first answer: until then threads start. */
export async function consumeBullmq(
  url: string,
  count: number,
  processor: URL | Processor<Body, number>,
  options: Partial<WorkerOptions>,
): Promise<PeerOutput> {
  const watch = new Stopwatch();
  const tally = new Tally();
  const worker = new Worker<Body, number>(QUEUE, processor, {
    ...options,
    connection: connectionOf(url),
    autorun: false,
  });
  const figures = await new Promise<PeerOutput>((resolve, reject) => {
    let completed = 0;
    worker.on('completed', (_job, id) => {
      tally.add(id);
      completed++;
      watch.begin();
      if (completed === count) resolve(watch.end(count - 1));
    });
    worker.on('failed', (_job, error) => reject(error));
    worker.on('error', reject);
    worker.run().catch(reject);
  });
  await worker.close();
  checkTally(tally.counts(), count);
  return figures;
}
