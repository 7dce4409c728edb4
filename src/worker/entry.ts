/**
 * What the thread pool runs, once for each wanted worker: opens shared memory, loads the handler, says so, and consumes
 * until it is told to stop.
 */
import { inspect } from 'node:util';
import { receiveMessageOnPort } from 'node:worker_threads';
import { prepareAcceptContent } from '../codec/serialization.js';
import type { FromWorker, ToWorker, WorkerTask } from '../pool/worker-protocol.js';
import { makeLogger, ThreadContext } from './context.js';
import { loadHandler } from './handler.js';
import { ConsumeLoop } from './loop.js';
import { Producers } from './producer.js';
import { Publisher } from './publisher.js';
import { QueueNames } from './queue-names.js';

export default async function work(task: WorkerTask): Promise<void> {
  const { port } = task;
  const post = (message: FromWorker): void => port.postMessage(message);
  const publisher = new Publisher((message, transfer) => port.postMessage(message, transfer));
  const base = new ThreadContext(
    task.worker,
    makeLogger((level, text, fields) => {
      try {
        post({ type: 'log', level, text, ...(fields === undefined ? {} : { fields }) });
      } catch {
        // A field that cannot be cloned, such as a function: a line of a log is no reason for a message to fail.
        post({ type: 'log', level, text, fields: { fields: inspect(fields) } });
      }
    }),
    new Producers(publisher),
    task.connection,
  );
  let loop: ConsumeLoop | undefined;
  const names = new QueueNames(task.queues, () => {
    // A delivery can be here before the message that names its queue.
    for (let next = receiveMessageOnPort(port); next !== undefined; next = receiveMessageOnPort(port)) {
      receive(next.message as ToWorker);
    }
  });
  const receive = (message: ToWorker): void => {
    if (message.type === 'generation') loop?.endGenerations(message.generation);
    else if (message.type === 'abort') loop?.abortAll(message.reason);
    else if (message.type === 'published') publisher.answered(message);
    else names.set(message.queues);
  };
  // A port that is listened to is referenced: it keeps the thread alive, which waitAsync does not.
  port.on('message', receive);
  try {
    const handler = await loadHandler(task.handler);
    await handler.setup?.(base);
    loop = new ConsumeLoop(task, handler, base, prepareAcceptContent(task.accept), names);
    post({ type: 'ready' });
    await loop.run();
    post({ type: 'drained' });
    await handler.teardown?.(base);
    await publisher.idle();
  } finally {
    port.close();
  }
}
