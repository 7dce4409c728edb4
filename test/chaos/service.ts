/** The service under test, as one life after another: in a process of its own, or in this one where the broker is. */
import { fileURLToPath } from 'node:url';
import {
  Connection,
  Queue,
  type QueueOptions,
  ShardedConsumer,
  type ShardedConsumerOptions,
  type ShardedConsumerStats,
} from '#src/index';
import { LineChild } from '../support/line-child.js';
import { EFFECTS_HANDLER } from '../support/rig.js';

export const PREFETCH = 64;

export interface ServiceSettings {
  readonly url: string;
  readonly queue: string;
  readonly options: QueueOptions;
  readonly transportOptions: Record<string, unknown>;
  readonly isOrdered: boolean;
}

export type Stats = ShardedConsumerStats & { readonly errors: readonly string[] };

export function serviceOptions({
  isOrdered,
}: Pick<ServiceSettings, 'isOrdered'>): Omit<ShardedConsumerOptions, 'handler'> {
  return {
    workers: 2,
    concurrency: 4,
    prefetchCount: PREFETCH,
    maxDeliveries: 2,
    // Of callbacks that never let their thread go.
    timeout: 1000,
    ...(isOrdered && { orderBy: { header: 'key' } }),
  };
}

export interface Service {
  readonly isLocal: boolean;
  scale(workers: number): Promise<void>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  stats(): Promise<Stats>;
  /** Orderly: resolves with the exit code. */
  stop(): Promise<number | null>;
  /** By SIGKILL, at once. */
  kill(): Promise<void>;
}

export class ChildService implements Service {
  readonly isLocal = false;
  readonly #child: LineChild;
  /** One question at a time: answers come in their order. */
  #asking: Promise<unknown> = Promise.resolve();

  private constructor(settings: ServiceSettings, effects: string) {
    const program = fileURLToPath(new URL('service-main.js', import.meta.url));
    this.#child = new LineChild(process.execPath, [program, JSON.stringify(settings)], { MOZUKU_EFFECTS: effects });
  }

  static async start(settings: ServiceSettings, effects: string): Promise<ChildService> {
    const service = new ChildService(settings, effects);
    const word = await service.#child.json();
    if (word !== 'consuming') throw new Error(`the service said ${JSON.stringify(word)}`);
    return service;
  }

  scale(workers: number): Promise<void> {
    return this.#order(`scale ${workers}`);
  }

  pause(): Promise<void> {
    return this.#order('pause');
  }

  resume(): Promise<void> {
    return this.#order('resume');
  }

  async stats(): Promise<Stats> {
    return (await this.#ask('stats')) as Stats;
  }

  async stop(): Promise<number | null> {
    this.#child.kill('SIGTERM');
    const [code] = (await this.#child.ended) as [number | null];
    return code;
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#child.ended;
  }

  /** What is refused is told by what comes of it: a pause while the connection is lost, say. */
  async #order(line: string): Promise<void> {
    await this.#ask(line);
  }

  #ask(line: string): Promise<unknown> {
    const answer = this.#asking.then(() => {
      this.#child.tell(line);
      return this.#child.json();
    });
    this.#asking = answer.catch(() => undefined);
    return answer;
  }
}

export class LocalService implements Service {
  readonly isLocal = true;
  readonly #consumer: ShardedConsumer;
  readonly #errors: string[] = [];

  private constructor({ url, queue, options, isOrdered }: ServiceSettings) {
    this.#consumer = new ShardedConsumer(new Connection(url), new Queue(queue, options), {
      handler: EFFECTS_HANDLER,
      ...serviceOptions({ isOrdered }),
    });
    this.#consumer.on('error', ({ message }) => this.#errors.push(message));
  }

  static async start(settings: ServiceSettings, effects: string): Promise<LocalService> {
    // Threads copy the environment.
    process.env.MOZUKU_EFFECTS = effects;
    const service = new LocalService(settings);
    await service.#consumer.consume();
    return service;
  }

  scale(workers: number): Promise<void> {
    return this.#consumer.scale(workers);
  }

  pause(): Promise<void> {
    return this.#consumer.pause();
  }

  resume(): Promise<void> {
    return this.#consumer.resume();
  }

  async stats(): Promise<Stats> {
    return { ...this.#consumer.stats(), errors: this.#errors };
  }

  async stop(): Promise<number | null> {
    await this.#consumer.close();
    return 0;
  }

  kill(): Promise<void> {
    throw new Error('its broker would go with it');
  }
}
