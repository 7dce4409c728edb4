/**
 * What the thread pool runs, once for each wanted worker: opens shared memory, loads the handler, says so, and consumes
 * until it is told to stop.
 */
import { threadId } from 'node:worker_threads';
import { prepareAcceptContent } from '../codec/serialization.js';
import type { FromWorker, ToWorker, WorkerTask } from '../pool/worker-protocol.js';
import { makeLogger, type WorkerContext } from './context.js';
import { loadHandler } from './handler.js';
import { ConsumeLoop } from './loop.js';

export default async function work(task: WorkerTask): Promise<void> {
  const { port } = task;
  const post = (message: FromWorker): void => port.postMessage(message);
  // Main learns which thread this is before user code runs, so that it can end a thread that never finishes loading.
  post({ type: 'started', threadId });
  const base: WorkerContext = {
    worker: task.worker,
    logger: makeLogger((level, text, fields) =>
      post({ type: 'log', level, text, ...(fields === undefined ? {} : { fields }) }),
    ),
  };
  let loop: ConsumeLoop | undefined;
  // A port that is listened to is referenced: it keeps the thread alive, which waitAsync does not.
  port.on('message', (message: ToWorker) => {
    if (message.type === 'generation') loop?.endGenerations(message.generation);
    else if (message.type === 'abort') loop?.abortAll(message.reason);
    else loop?.setQueues(message.queues);
  });
  try {
    const handler = await loadHandler(task.handler);
    await handler.setup?.(base);
    loop = new ConsumeLoop(task, handler, base, prepareAcceptContent(task.accept));
    post({ type: 'ready' });
    await loop.run();
    post({ type: 'drained' });
    await handler.teardown?.(base);
  } finally {
    port.close();
  }
}
