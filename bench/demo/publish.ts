/** The first phase: fills the two queues, every publish confirmed by the broker. */
import type { Connection } from '#src/index';
import { Book } from './book.js';
import { publishSound, type Trouble, troublesAmong } from './messages.js';
import { Progress, whole } from './progress.js';

/** Publishes under way at a time. */
const WINDOW = 1000;

export interface Published {
  readonly book: Book;
  readonly troubles: ReadonlyMap<number, Trouble>;
}

export interface Load {
  readonly queue: string;
  readonly messages: number;
  /** Whether some of them go wrong on purpose. */
  readonly withTroubles: boolean;
}

export async function publishAll(
  connection: Connection,
  loads: readonly Load[],
  signal: AbortSignal,
): Promise<Published[]> {
  const total = loads.reduce((sum, load) => sum + load.messages, 0);
  const progress = new Progress('publishing', total);
  const begun = performance.now();
  let confirmed = 0;
  const published: Published[] = [];
  try {
    for (const load of loads) {
      const count = (): void => {
        confirmed++;
        progress.update(confirmed);
      };
      published.push(await publishLoad(connection, load, signal, count));
    }
  } catch (error) {
    progress.erase();
    throw error;
  }
  const seconds = (performance.now() - begun) / 1000;
  progress.end(`${whole(total)} messages in ${seconds.toFixed(1)} s, each confirmed`);
  return published;
}

async function publishLoad(
  connection: Connection,
  { queue, messages, withTroubles }: Load,
  signal: AbortSignal,
  confirmed: () => void,
): Promise<Published> {
  const book = new Book(messages);
  const troubles = withTroubles ? troublesAmong(messages) : new Map<number, Trouble>();
  const producer = connection.Producer({ routingKey: queue });
  let next = 0;
  const publishSome = async (): Promise<void> => {
    while (next < messages) {
      signal.throwIfAborted();
      const id = next++;
      const trouble = troubles.get(id);
      if (trouble === undefined) book.expect(id, await publishSound(producer, id));
      else await trouble.publish(producer, String(id));
      confirmed();
    }
  };
  try {
    await Promise.all(Array.from({ length: WINDOW }, publishSome));
  } finally {
    await producer.close();
  }
  return { book, troubles };
}
