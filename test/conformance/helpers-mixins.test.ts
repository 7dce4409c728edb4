/** ConsumerMixin and ConsumerProducerMixin, on both brokers. */
import assert from 'node:assert/strict';
import {
  type Channel,
  Connection,
  Consumer,
  type ConsumerFactory,
  ConsumerMixin,
  ConsumerProducerMixin,
  errors,
  type Message,
  Queue,
  utils,
} from '#src/index';
import { forgetMemoryBroker } from '#src/main/transports/memory/broker';
import { onBothBrokers, type Scene } from '../support/both-brokers.js';
import { TcpProxy } from '../support/proxy.js';

const { AccessRefused, ChannelError, DecodeError, TimeoutError } = errors;

/** Writes down what happens, and acks. */
class Worker extends ConsumerMixin {
  readonly log: string[] = [];
  readonly logged: string[] = [];
  override restartLimit = new utils.TokenBucket(1000, 1000);
  override logger = {
    info: () => undefined,
    warn: (text: string) => void this.logged.push(`warn: ${text}`),
    error: (text: string) => void this.logged.push(`error: ${text}`),
  };
  onTask: (body: unknown, message: Message) => unknown = (_, message) => message.ack();
  channel: Channel | undefined;

  constructor(
    readonly connection: Connection,
    readonly queue: Queue,
  ) {
    super();
  }

  getConsumers(Consumer: ConsumerFactory, channel: Channel): Consumer[] {
    this.channel = channel;
    const task = (body: unknown, message: Message) => {
      this.log.push(`task ${body}`);
      return this.onTask(body, message);
    };
    return [Consumer(this.queue, { callbacks: [task] })];
  }

  override onConnectionRevived() {
    this.log.push('revived');
  }
  override onConsumeReady(_connection: Connection, channel: Channel, consumers: readonly Consumer[]) {
    this.log.push(`ready ${consumers.length} ${channel === this.channel}`);
  }
  override onConsumeEnd(connection: Connection) {
    this.log.push(`end ${connection.connected ? 'connected' : 'lost'}`);
  }
}

async function send(scene: Scene, queue: Queue, ...bodies: unknown[]): Promise<void> {
  await using producer = scene.connection.Producer({ routingKey: queue.name });
  for (const body of bodies) await producer.publish(body);
}

onBothBrokers('ConsumerMixin: consumes until it is stopped, and tells its hooks', async (scene) => {
  const queue = new Queue(await scene.queue());
  await send(scene, queue, 1, 2, 3);
  const worker = new Worker(scene.connection, queue);
  const disposed: string[] = [];
  worker.extraContext = () => ({
    async [Symbol.asyncDispose]() {
      disposed.push(worker.log.at(-1)!);
    },
  });
  worker.onTask = (body, message) => {
    message.ack();
    if (body === 3) worker.stop();
  };
  await worker.run();
  assert.deepEqual(worker.log, ['revived', 'ready 1 true', 'task 1', 'task 2', 'task 3', 'end connected']);
  assert.deepEqual(disposed, ['task 3']);
  assert.equal(await scene.size(queue.name), 0);
  // Once stopped it does nothing, until it is told otherwise.
  await worker.run();
  assert.equal(worker.log.length, 6);
  worker.shouldStop = false;
  worker.onConsumeReady = () => worker.stop();
  await worker.run();
  assert.equal(worker.log.at(-1), 'end connected');
  assert.equal(worker.log.length, 8);
});

onBothBrokers('ConsumerMixin: callbacks that run are waited for, and a signal is as good as stop', async (scene) => {
  const queue = new Queue(await scene.queue());
  await send(scene, queue, 'slow');
  const worker = new Worker(scene.connection, queue);
  const abort = new AbortController();
  worker.onTask = async (_, message) => {
    abort.abort();
    await new Promise((resolve) => setImmediate(resolve));
    await scene.size(queue.name);
    message.ack();
    worker.log.push('acked');
  };
  await worker.run({ signal: abort.signal });
  assert.deepEqual(worker.log.slice(-3), ['task slow', 'acked', 'end connected']);
  await scene.hasReady(queue.name, 0);
  await worker.run({ signal: abort.signal });
  assert.equal(worker.log.length, 5);
});

onBothBrokers('ConsumerMixin: onIteration for each message, and while there are none', async (scene) => {
  const queue = new Queue(await scene.queue());
  await send(scene, queue, 1, 2);
  const worker = new Worker(scene.connection, queue);
  let idle = 0;
  worker.onIteration = () => {
    if (worker.log.at(-1) === 'task 2' && ++idle === 3) worker.stop();
  };
  await worker.run({ safetyInterval: 1 });
  assert.equal(idle, 3);
});

onBothBrokers('ConsumerMixin: what cannot be decoded is logged and acked', async (scene) => {
  const queue = new Queue(await scene.queue());
  await scene.publish('', queue.name, '{', { contentType: 'application/json' });
  await scene.publish('', queue.name, '1', { contentType: 'application/json' });
  const worker = new Worker(scene.connection, queue);
  worker.onTask = (_, message) => {
    message.ack();
    worker.stop();
  };
  await worker.run();
  assert.match(worker.logged[0]!, /^error: a message cannot be decoded \(type 'application\/json'/);
  assert.equal(worker.logged.length, 1);
  await scene.hasReady(queue.name, 0);
  // A hook of one's own.
  await scene.publish('', queue.name, '{', { contentType: 'application/json' });
  const other = new Worker(scene.connection, queue);
  other.onDecodeError = (message, error) => {
    assert.ok(error instanceof DecodeError);
    message.requeue();
    other.stop();
  };
  await other.run();
  await scene.hasReady(queue.name, 1);
});

onBothBrokers('ConsumerMixin: what a callback throws ends it, unless its consumer has a listener', async (scene) => {
  const queue = new Queue(await scene.queue());
  await send(scene, queue, 'bad');
  const worker = new Worker(scene.connection, queue);
  worker.onTask = () => {
    throw new RangeError('mine');
  };
  await assert.rejects(worker.run(), RangeError);
  assert.equal(worker.log.at(-1), 'end connected');
  await scene.hasReady(queue.name, 1);
  const heard: unknown[] = [];
  const other = new Worker(scene.connection, queue);
  const { getConsumers } = other;
  other.getConsumers = (Consumer, channel) => {
    const consumers = getConsumers.call(other, Consumer, channel);
    consumers[0]!.on('error', (error, message) => {
      heard.push(error);
      message?.reject();
      other.stop();
    });
    return consumers;
  };
  other.onTask = worker.onTask;
  await other.run();
  assert.ok(heard[0] instanceof RangeError);
  await scene.hasReady(queue.name, 0);
});

onBothBrokers('ConsumerMixin: begins anew when its channel is lost, as often as it may', async (scene) => {
  const queue = new Queue(await scene.queue());
  await send(scene, queue, 'again');
  const worker = new Worker(scene.connection, queue);
  const asked: string[] = [];
  worker.restartLimit = new (class extends utils.TokenBucket {
    override canConsume(): boolean {
      asked.push('may');
      return asked.length !== 2;
    }
    override expectedTime(): number {
      asked.push('when');
      return 1;
    }
  })(1);
  worker.onTask = (_, message) => {
    if (message.deliveryInfo.redelivered) {
      message.ack();
      worker.stop();
    } else {
      // A mistake, for which the broker closes the channel.
      worker.channel!.raw.ack({ fields: { deliveryTag: 99 } } as never);
    }
  };
  await worker.run();
  const once = ['revived', 'ready 1 true', 'task again', 'end connected'];
  assert.deepEqual(worker.log, [...once, ...once]);
  assert.deepEqual(worker.logged, ['warn: the connection to the broker was lost']);
  assert.deepEqual(asked, ['may', 'may', 'when', 'may']);
});

onBothBrokers('ConsumerMixin: begins anew when the connection is lost', async (scene) => {
  const proxy = scene.kind !== 'memory' ? await TcpProxy.listen(scene.url) : undefined;
  const url = new URL(scene.url);
  if (proxy !== undefined) url.host = `127.0.0.1:${proxy.port}`;
  const connection = new Connection(url);
  const queue = new Queue(scene.unique('q'));
  const worker = new Worker(connection, queue);
  let rounds = 0;
  worker.onConsumeReady = () => {
    if (++rounds === 2) worker.stop();
    else if (proxy === undefined) forgetMemoryBroker(connection.hostname);
    else proxy.cutAll();
  };
  await worker.run();
  assert.equal(rounds, 2);
  assert.deepEqual(worker.log, ['revived', 'end lost', 'revived', 'end connected']);
  assert.equal(worker.logged.length, 1);
  await proxy?.close();
  await queue.delete(scene.connection);
});

onBothBrokers('ConsumerMixin: consume() is one round, with a limit of messages or of silence', async (scene) => {
  const queue = new Queue(await scene.queue());
  await send(scene, queue, 1, 2, 3);
  const worker = new Worker(scene.connection, queue);
  let events = 0;
  worker.getConsumers = (Consumer) => [
    Consumer(queue, { prefetchCount: 1, onMessage: (message) => worker.onTask(undefined, message) }),
  ];
  for await (const _ of worker.consume({ limit: 2 })) events++;
  assert.equal(events, 2);
  assert.equal(worker.log.at(-1), 'end connected');
  // One more may have come, and been acked, by the time the consumer was cancelled.
  await scene.drain(queue.name);
  await assert.rejects(async () => {
    for await (const _ of worker.consume({ timeout: 20, safetyInterval: 10 })) assert.fail();
  }, TimeoutError);
  // run() does not begin anew for that.
  await assert.rejects(worker.run({ timeout: 20, safetyInterval: 10 }), TimeoutError);
  await assert.rejects(worker.run({ limit: 1 } as object), errors.OptionError);
});

onBothBrokers('ConsumerMixin: counts and holds back messages of every consumer, however it was made', async (scene) => {
  const queue = new Queue(await scene.queue());
  class Receiver extends Consumer {
    override async receive(body: unknown, message: Message) {
      await worker.onTask(body, message);
    }
  }
  const kinds: Record<string, (make: ConsumerFactory, channel: Channel) => Consumer> = {
    registered: (make) => {
      const consumer = make(queue);
      consumer.registerCallback((body, message) => worker.onTask(body, message));
      return consumer;
    },
    own: (_, channel) => new Consumer(channel, queue, { onMessage: (message) => worker.onTask('', message) }),
    subclass: (_, channel) => new Receiver(channel, queue),
  };
  const worker = new Worker(scene.connection, queue);
  worker.onTask = (_, message) => {
    worker.log.push('task');
    message.ack();
  };
  // The broker has sent its message by then, and been answered.
  worker.onConsumeReady = async (_, channel) => {
    await channel.call('asking after the delivery', (raw) => raw.checkQueue(queue.name));
    worker.log.push('ready');
  };
  for (const [kind, make] of Object.entries(kinds)) {
    await send(scene, queue, 1);
    worker.log.length = 0;
    worker.getConsumers = (Consumer, channel) => [make(Consumer, channel)];
    for await (const _ of worker.consume({ limit: 1, timeout: 20_000 })) worker.log.push('counted');
    assert.deepEqual(
      worker.log.filter((line) => line !== 'counted'),
      ['revived', 'ready', 'task', 'end connected'],
      kind,
    );
    assert.equal(worker.log.filter((line) => line === 'counted').length, 1, kind);
  }
  // One that has nothing to call says so.
  worker.getConsumers = (Consumer) => [Consumer(queue)];
  await assert.rejects(worker.run(), errors.OptionError);
});

onBothBrokers('ConsumerMixin: gives up after connectMaxRetries, or when the broker refuses it', async (scene) => {
  const worker = new Worker(new Connection('amqp://127.0.0.1:1'), new Queue('q'));
  worker.connectMaxRetries = 2;
  const told: number[] = [];
  worker.onConnectionError = (error, interval) => {
    assert.ok(error instanceof errors.ConnectionError);
    told.push(interval);
  };
  await assert.rejects(worker.run(), errors.ConnectionError);
  assert.equal(told.length, 2);
  if (scene.kind === 'rabbitmq') {
    const url = new URL(scene.url);
    url.password = 'wrong';
    await assert.rejects(new Worker(new Connection(url), new Queue('q')).run(), AccessRefused);
  }
  // Stopped while it tries to connect, it ends.
  const trying = new Worker(new Connection('amqp://127.0.0.1:1'), new Queue('q'));
  trying.onConnectionError = () => trying.stop();
  await trying.run();
  assert.deepEqual(trying.log, []);
});

onBothBrokers('ConsumerMixin: what a hook throws is thrown, and all is closed', async (scene) => {
  const queue = new Queue(await scene.queue());
  const worker = new Worker(scene.connection, queue);
  worker.onConsumeReady = () => {
    throw new RangeError('hook');
  };
  await assert.rejects(worker.run(), RangeError);
  assert.deepEqual(worker.log, ['revived', 'end connected']);
  assert.ok(worker.channel!.closed);
  const missing = new Worker(scene.connection, new Queue(scene.unique('no'), { passive: true }));
  let tries = 0;
  missing.onConnectionRevived = () => {
    if (++tries === 2) missing.stop();
  };
  await missing.run();
  assert.deepEqual([tries, missing.logged.length], [2, 1]);
  assert.ok(ChannelError.prototype instanceof errors.OperationalError);
});

onBothBrokers('ConsumerProducerMixin: answers through a connection of its own', async (scene) => {
  const queue = new Queue(await scene.queue());
  const replies = new Queue(await scene.queue());
  class Server extends ConsumerProducerMixin {
    connections: Connection[] = [];
    constructor(readonly connection: Connection) {
      super();
    }
    getConsumers(Consumer: ConsumerFactory) {
      const onMessage = async (message: Message) => {
        assert.equal(this.producer, this.producer);
        const { replyTo, correlationId } = message.properties;
        await this.producer.publish(`${message.payload}!`, { routingKey: replyTo!, correlationId: correlationId! });
        message.ack();
        if (message.payload === 'last') this.stop();
      };
      return [Consumer(queue, { onMessage })];
    }
    override onConsumeReady(connection: Connection) {
      this.connections = [connection, this.producerConnection];
    }
  }
  await using producer = scene.connection.Producer({ routingKey: queue.name });
  for (const body of ['first', 'last']) await producer.publish(body, { replyTo: replies, correlationId: body });
  const server = new Server(scene.connection);
  await server.run();
  const [consuming, producing] = server.connections;
  assert.notEqual(consuming, producing);
  assert.deepEqual([consuming!.connected, producing!.connected, producing!.closed], [false, false, true]);
  const texts = (await scene.drain(replies.name)).map(
    ({ content, properties }) => `${content} ${properties.correlationId}`,
  );
  assert.deepEqual(texts, ['first! first', 'last! last']);
});
