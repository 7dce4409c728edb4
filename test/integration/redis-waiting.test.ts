/** An idle sharded consumer waits with the take behind the look: what that take brings, or brought to nobody, is run once. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection, Queue, ShardedConsumer, type ShardedConsumerOptions } from '#src/index';
import { type ProxyConnection, TcpProxy } from '../support/proxy.js';
import { type RedisSpace, redisTest } from '../support/redis.js';
import { EFFECTS_HANDLER, EffectsLog, until } from '../support/rig.js';

const LIMIT = { timeout: 60_000 };

/** A consumer behind a proxy, which knows the socket that waits for queue `q`. */
class Waiting implements AsyncDisposable {
  readonly effects = new EffectsLog();
  readonly errors: string[] = [];
  readonly consumer: ShardedConsumer;
  readonly #redis: RedisSpace;
  readonly #proxy: TcpProxy;
  /** Looks of the list q. */
  looks = 0;
  #socket: ProxyConnection | undefined;

  private constructor(redis: RedisSpace, proxy: TcpProxy, options: Partial<ShardedConsumerOptions>) {
    this.#redis = redis;
    this.#proxy = proxy;
    proxy.observe((connection, direction, bytes) => {
      if (direction !== 'toServer' || !/blmove\r\n\$1\r\nq\r\n/.test(bytes.toString('latin1'))) return;
      this.looks++;
      this.#socket = connection;
    });
    this.consumer = new ShardedConsumer(new Connection(proxy.url), new Queue('q'), {
      handler: EFFECTS_HANDLER,
      workers: 1,
      ...options,
    });
    this.consumer.on('error', ({ message }) => this.errors.push(message));
  }

  static async start(redis: RedisSpace, options: Partial<ShardedConsumerOptions> = {}): Promise<Waiting> {
    const waiting = new Waiting(redis, await TcpProxy.listen(redis.url), options);
    await waiting.consumer.consume();
    return waiting;
  }

  /** The socket, once it has sent so many looks. */
  async socket(looks = 1): Promise<ProxyConnection> {
    await until('it waits', () => this.looks >= looks, { everyMs: 1 });
    return this.#socket!;
  }

  async publish(id: string): Promise<void> {
    const connection = new Connection(this.#redis.url);
    await connection.Producer({ routingKey: 'q' }).publish({ id });
    await connection.close();
  }

  /** [waiting, delivered] in the server. */
  async counts(): Promise<unknown[]> {
    return [await this.#redis.command('LLEN', 'q'), await this.#redis.command('HLEN', 'unacked')];
  }

  async handled(id: string): Promise<void> {
    await until(`'${id}' is run and acked`, async () => {
      return this.effects.counts().has(id) && String(await this.counts()) === '0,0';
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.consumer.close();
    await this.#proxy[Symbol.asyncDispose]();
    this.effects[Symbol.dispose]();
  }
}

redisTest('a lone message comes with the wait', LIMIT, async (redis) => {
  await using waiting = await Waiting.start(redis);
  const socket = await waiting.socket();
  const before = socket.forwarded.toClient;
  await waiting.publish('one');
  await waiting.handled('one');
  // The look's copy and the take's.
  const envelope = 150;
  assert.ok(socket.forwarded.toClient - before > 2 * envelope);
  assert.equal(waiting.effects.counts().get('one'), 1);
});

redisTest('with room for one message a wait is a look and no more', LIMIT, async (redis) => {
  await using waiting = await Waiting.start(redis, { prefetchCount: 1, concurrency: 1 });
  const socket = await waiting.socket();
  const sent = socket.forwarded.toServer;
  await waiting.publish('one');
  await waiting.handled('one');
  await until('it waits again', () => socket.forwarded.toServer > sent);
  assert.ok(socket.forwarded.toServer - sent < 150);
});

redisTest('what a wait took over a line that went silent is put back, and run once', LIMIT, async (redis) => {
  await using waiting = await Waiting.start(redis);
  (await waiting.socket()).blackHole('toClient');
  await waiting.publish('one');
  await until('the server has taken it', async () => String(await waiting.counts()) === '0,1');
  await waiting.handled('one');
  assert.equal(waiting.effects.counts().get('one'), 1);
  assert.deepEqual(waiting.errors, []);
});

redisTest('pause() puts back what a wait took over a line that went silent', LIMIT, async (redis) => {
  await using waiting = await Waiting.start(redis);
  (await waiting.socket()).blackHole('toClient');
  await waiting.publish('one');
  await until('the server has taken it', async () => String(await waiting.counts()) === '0,1');
  await waiting.consumer.pause();
  assert.deepEqual(await waiting.counts(), [1, 0]);
  await waiting.consumer.resume();
  await waiting.handled('one');
  assert.equal(waiting.effects.counts().get('one'), 1);
});

redisTest('waits that are cut under load lose nothing and run nothing twice', LIMIT, async (redis) => {
  await using waiting = await Waiting.start(redis);
  const ids: string[] = [];
  let looks = 1;
  for (let round = 0; round < 16; round++) {
    const socket = await waiting.socket(looks);
    const id = String(round);
    ids.push(id);
    // At any moment of the way there and back.
    const published = waiting.publish(id);
    await sleep(round % 8);
    looks = waiting.looks + 1;
    socket.cut();
    await published;
  }
  for (const id of ids) await waiting.handled(id);
  assert.ok([...waiting.effects.counts().values()].every((count) => count === 1));
});
