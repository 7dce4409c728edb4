/** For comparison: kombu's way, the same work in callbacks on the main thread. */
import { type Connection, Consumer, type Message, Queue } from '#src/index';
import type { Measured } from '../peers/meter.js';
import { Meter } from '../peers/meter.js';
import type { Book } from './book.js';
import { Progress, whole } from './progress.js';
import { contentOf, work } from './work.js';

export async function runInline(
  connection: Connection,
  queue: string,
  messages: number,
  prefetch: number,
  book: Book,
  signal: AbortSignal,
): Promise<Measured> {
  const progress = new Progress('main thread', messages);
  const meter = new Meter();
  let done = 0;
  let finish: () => void = () => undefined;
  let fail: (error: unknown) => void = () => undefined;
  const finished = new Promise<void>((resolve, reject) => {
    finish = resolve;
    fail = reject;
  });
  const callback = (body: unknown, message: Message): void => {
    meter.begin();
    const id = Number(message.properties.messageId);
    book.handled(id, work(contentOf(body, id)));
    message.ack();
    done++;
    progress.update(done);
    if (done === messages) finish();
  };
  const consumer = new Consumer(connection, new Queue(queue), {
    callbacks: [callback],
    accept: ['json', 'msgpack'],
    prefetchCount: prefetch,
    // The queue is there; declared here it would have to have the same arguments.
    autoDeclare: false,
  });
  consumer.on('error', (error) => fail(error));
  signal.addEventListener('abort', () => fail(signal.reason), { once: true });
  try {
    signal.throwIfAborted();
    await consumer.consume();
    await finished;
    const measured = meter.end();
    progress.end(`${whole(messages)} messages in ${measured.seconds.toFixed(1)} s`);
    return measured;
  } catch (error) {
    progress.erase();
    throw error;
  } finally {
    await consumer.close();
  }
}
