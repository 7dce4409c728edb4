/**
 * One behaviour, three brokers: RabbitMQ, the embedded one, and Redis, as far as it can, run the same test. A scene has a connection, makes queues and
 * exchanges with names of their own, and takes them away at the end.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type * as amqplib from 'amqplib';
import { type Channel, Connection, type Exchange, type errors, type Queue } from '#src/index';
import { forgetMemoryBroker } from '#src/main/transports/memory/broker';
import { brokerTest, uniqueName } from './rabbitmq.js';
import { redisTest } from './redis.js';
import { redisCan } from './redis-cannot.js';

type Raw = amqplib.ConfirmChannel;

/** What a consumer has been given, and waiting for more. */
export class Inbox {
  readonly messages: amqplib.ConsumeMessage[] = [];
  /** How often the broker cancelled it. */
  nulls = 0;
  readonly #waiting: (() => void)[] = [];
  #taken = 0;

  readonly take = (message: amqplib.ConsumeMessage | null): void => {
    if (message === null) this.nulls++;
    else this.messages.push(message);
    for (const wake of this.#waiting.splice(0)) wake();
  };

  get texts(): string[] {
    return this.messages.map(textOf);
  }

  /** The next one that nobody has asked for yet. */
  async next(): Promise<amqplib.ConsumeMessage> {
    const index = this.#taken++;
    await this.until(() => this.messages.length > index);
    return this.messages[index]!;
  }

  /** Resolves when so many have come in all. */
  async count(count: number): Promise<amqplib.ConsumeMessage[]> {
    await this.until(() => this.messages.length >= count);
    return this.messages;
  }

  async until(fact: () => boolean): Promise<void> {
    while (!fact()) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }
}

export class Scene {
  readonly connection: Connection;
  #others: Connection[] = [];
  #queues: string[] = [];
  #exchanges: string[] = [];
  #kept: (Queue | Exchange)[] = [];
  #first: Channel | undefined;

  constructor(
    readonly kind: 'rabbitmq' | 'memory' | 'redis',
    readonly url: string,
    readonly transportOptions: Readonly<Record<string, unknown>> = {},
  ) {
    this.connection = new Connection(url, { transportOptions });
  }

  unique(what: string): string {
    return uniqueName(`c-${what}`);
  }

  /** One more connection, closed at the end. */
  connect(): Connection {
    const { url, transportOptions } = this;
    const connection = new Connection(url, { transportOptions });
    this.#others.push(connection);
    return connection;
  }

  /** A new channel: amqplib's. */
  async open(connection = this.connection): Promise<Raw> {
    return (await connection.channel()).raw;
  }

  /** The channel of those who do nothing wrong. */
  async raw(): Promise<Raw> {
    if (this.#first === undefined || this.#first.closed) this.#first = await this.connection.channel();
    return this.#first.raw;
  }

  /** Deleted at the end, if it is there. */
  keep<T extends Queue | Exchange>(entity: T): T {
    this.#kept.push(entity);
    return entity;
  }

  async queue(options: amqplib.Options.AssertQueue = {}, name = this.unique('q')): Promise<string> {
    this.#queues.push(name);
    await (await this.raw()).assertQueue(name, options);
    return name;
  }

  async exchange(type: string, options: amqplib.Options.AssertExchange = {}): Promise<string> {
    const name = this.unique('x');
    this.#exchanges.push(name);
    await (await this.raw()).assertExchange(name, type, options);
    return name;
  }

  /** A queue that is bound: what it gets shows where messages go. */
  async bound(exchange: string, key: string, args?: object): Promise<string> {
    const queue = await this.queue();
    await (await this.raw()).bindQueue(queue, exchange, key, args);
    return queue;
  }

  /** Resolves when the broker has confirmed it. */
  async publish(exchange: string, key: string, body: string | Buffer, options: amqplib.Options.Publish = {}) {
    const raw = await this.raw();
    await publishOn(raw, exchange, key, body, options);
  }

  async send(queue: string, ...bodies: string[]): Promise<void> {
    for (const body of bodies) await this.publish('', queue, body);
  }

  /** Takes all that waits, without acks. */
  async drain(queue: string): Promise<amqplib.GetMessage[]> {
    const raw = await this.raw();
    const messages: amqplib.GetMessage[] = [];
    for (;;) {
      const message = await raw.get(queue, { noAck: true });
      if (message === false) return messages;
      messages.push(message);
    }
  }

  async texts(queue: string): Promise<string[]> {
    return (await this.drain(queue)).map(textOf);
  }

  async size(queue: string): Promise<number> {
    return (await (await this.raw()).checkQueue(queue)).messageCount;
  }

  /** Waits until so many are ready: RabbitMQ puts back what a closed channel had in a moment of its own. */
  async hasReady(queue: string, count: number): Promise<void> {
    while ((await this.size(queue)) !== count) await new Promise((resolve) => setImmediate(resolve));
  }

  /** Consumes on `raw`, the scene's own channel by default. */
  async inbox(queue: string, options: amqplib.Options.Consume = {}, raw?: Raw): Promise<Inbox & { tag: string }> {
    const inbox = new Inbox();
    const { consumerTag } = await (raw ?? (await this.raw())).consume(queue, inbox.take, options);
    return Object.assign(inbox, { tag: consumerTag });
  }

  /** Resolves when the queue is no more. To ask for it is to use it: it is asked for seldom enough to expire. */
  async gone(queue: string): Promise<void> {
    for (;;) {
      await sleep(100);
      const raw = await this.open();
      raw.on('error', () => undefined);
      try {
        await raw.checkQueue(queue);
        await raw.close();
      } catch (error) {
        if ((error as { code?: number }).code === 404) return;
        throw error;
      }
    }
  }

  async dispose(): Promise<void> {
    await Promise.all(this.#others.map((each) => each.close()));
    if (this.kind === 'rabbitmq') {
      const raw = await this.open();
      for (const queue of this.#queues) await raw.deleteQueue(queue);
      for (const exchange of this.#exchanges) await raw.deleteExchange(exchange);
      for (const entity of this.#kept) await entity.delete(this.connection);
    }
    await this.connection.close();
  }
}

export function publishOn(
  raw: Raw,
  exchange: string,
  key: string,
  body: string | Buffer,
  options: amqplib.Options.Publish = {},
): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (error: unknown): void => (error ? reject(error) : resolve());
    raw.publish(exchange, key, Buffer.from(body as string), options, settle);
  });
}

export function textOf(message: amqplib.Message): string {
  return message.content.toString();
}

/** Resolves with what the channel was closed with. */
export async function closure(channel: Channel): Promise<errors.KombuError> {
  const reason = await channel.ended;
  assert.ok(reason, 'the broker closed it');
  return reason;
}

/** What `ask` rejects with when the broker refuses it: its code, and its words. */
export async function refused(ask: Promise<unknown>): Promise<[number, string]> {
  try {
    await ask;
  } catch (error) {
    const { code, message } = error as Error & { code: number };
    return [code, /with message "(.*)"$/.exec(message)?.[1] ?? message];
  }
  return assert.fail('it was not refused');
}

export interface SceneOptions {
  readonly timeout?: number;
  /** `transportOptions` with which Redis does what the others do. */
  readonly onRedis?: Readonly<Record<string, unknown>>;
}

/** Registers the test for RabbitMQ and the embedded broker, and for Redis unless `redis-cannot.ts` says why not. */
export function onBothBrokers(name: string, run: (scene: Scene) => Promise<void>, options: SceneOptions = {}): void {
  const timeout = options.timeout ?? 30_000;
  const perform = async (scene: Scene): Promise<void> => {
    try {
      await run(scene);
    } finally {
      await scene.dispose();
    }
  };
  brokerTest(`RabbitMQ: ${name}`, ({ url }) => perform(new Scene('rabbitmq', url)), { timeout });
  test(`memory: ${name}`, { timeout }, async () => {
    const broker = uniqueName('broker');
    try {
      await perform(new Scene('memory', `memory://${broker}`));
    } finally {
      forgetMemoryBroker(broker);
    }
  });
  if (redisCan(name)) {
    redisTest(`Redis: ${name}`, { timeout }, ({ url }) => perform(new Scene('redis', url, options.onRedis)));
  }
}
