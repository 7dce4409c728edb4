/** A Redis that loads its data, has lost its primary, or ends what waits: inline and sharded consumers and publishes wait, and go on. */
import assert from 'node:assert/strict';
import { Connection, ConsumerMixin, errors, Queue, ShardedConsumer } from '#src/index';
import { RedisServer, redisServerTest } from '../support/redis.js';
import { EFFECTS_HANDLER, EffectsLog, until } from '../support/rig.js';

const LIMIT = { timeout: 60_000 };

/** While it loads it looks at its clients after each KiB, and takes a millisecond a key: some two seconds. */
const SLOW_LOAD = { 'loading-process-events-interval-bytes': '1024', 'key-load-delay': '1000' };
const KEYS = 2000;

class Inline extends ConsumerMixin {
  readonly connection: Connection;
  readonly got: string[] = [];
  readonly problems: string[] = [];
  override readonly logger = {
    info: () => undefined,
    warn: (_: string, error: unknown) => this.problems.push(String(error)),
    error: (_: string, error: unknown) => this.problems.push(String(error)),
  };

  constructor(url: string) {
    super();
    this.connection = new Connection(url);
  }

  override getConsumers(Consumer: Parameters<ConsumerMixin['getConsumers']>[0]) {
    return [
      Consumer(new Queue('inline'), {
        onMessage: (message) => {
          this.got.push(String((message.decode() as { id: string }).id));
          message.ack();
        },
      }),
    ];
  }
}

/** An inline consumer, a sharded one, and what publishes to both, each with its own connections. */
class Program implements AsyncDisposable {
  readonly effects = new EffectsLog();
  readonly inline: Inline;
  readonly sharded: ShardedConsumer;
  /** What went wrong for each. */
  readonly problems = { sharded: [] as string[], publishing: [] as string[] };
  readonly #connection: Connection;
  readonly #running: Promise<void>;
  #published = 0;

  constructor({ url }: RedisServer) {
    this.#connection = new Connection(url);
    this.inline = new Inline(url);
    this.sharded = new ShardedConsumer(new Connection(url), new Queue('sharded'), {
      handler: EFFECTS_HANDLER,
      workers: 1,
    });
    const { sharded } = this.problems;
    this.sharded.on('error', (error) => sharded.push(String(error)));
    this.sharded.on('disconnected', (error) => sharded.push(String(error)));
    this.#running = this.inline.run();
  }

  /** Publishes some to each queue, with retry: resolves when all are confirmed. */
  async publish(count = 5): Promise<void> {
    const producer = this.#connection.Producer();
    const errback = (error: Error): number => this.problems.publishing.push(String(error));
    const options = { retry: true, timeout: 30_000, retryPolicy: { intervalStart: 20, intervalMax: 100, errback } };
    const first = this.#published;
    this.#published += count;
    await Promise.all(
      Array.from({ length: count }, (_, i) =>
        ['inline', 'sharded'].map((routingKey) =>
          producer.publish({ id: String(first + i) }, { ...options, routingKey }),
        ),
      ).flat(),
    );
  }

  /** All that was published has come, to each of both. */
  async allCame(): Promise<void> {
    const wanted = Array.from({ length: this.#published }, (_, i) => String(i));
    await until(
      'all have come',
      () => {
        const [inline, sharded] = [new Set(this.inline.got), this.effects.counts()];
        return wanted.every((id) => inline.has(id) && sharded.has(id));
      },
      {
        timeoutMs: 20_000,
        state: () => [wanted.length, this.inline.got.length, this.effects.counts().size, this.#told],
      },
    );
  }

  get #told(): unknown {
    return { inline: this.inline.problems, ...this.problems };
  }

  /** Each of the three was told so. */
  async heard(pattern: RegExp, ...who: ('inline' | 'sharded' | 'publishing')[]): Promise<void> {
    const told = { inline: this.inline.problems, ...this.problems };
    for (const each of who) {
      await until(`${each} hears ${pattern}`, () => told[each].some((text) => pattern.test(text)), {
        timeoutMs: 10_000,
        state: () => told,
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.inline.stop();
    await this.#running;
    await this.sharded.close();
    await this.#connection.close();
    await this.inline.connection.close();
    this.effects[Symbol.dispose]();
  }
}

async function started(server: RedisServer): Promise<Program> {
  const program = new Program(server);
  await program.sharded.consume();
  await program.publish();
  await program.allCame();
  return program;
}

const fill = (server: RedisServer) =>
  server.command('EVAL', `for i = 1, ${KEYS} do redis.call('SET', 'key' .. i, string.rep('x', 100)) end`, 0);

redisServerTest(
  'a server that is started again and loads its data: connect() says so, the rest waits',
  LIMIT,
  async () => {
    await using server = await RedisServer.start({ config: SLOW_LOAD });
    await fill(server);
    await using program = await started(server);
    await server.command('SAVE');
    const loaded = server.restart();
    let answers = 0;
    // The first that is let in meets a server that loads.
    await using connection = new Connection(server.url);
    await until('it is loading', async () => {
      try {
        await connection.connect();
        return false;
      } catch (error) {
        assert.ok(error instanceof errors.ConnectionError, String(error));
        return error.details.reply === 'LOADING';
      }
    });
    void loaded.then(() => answers++);
    const waits: unknown[] = [];
    const published = program.publish();
    await connection.ensureConnection({
      intervalStart: 50,
      intervalStep: 0,
      errback: (error: Error) => waits.push((error as errors.KombuError).details.reply),
    });
    assert.ok(waits.length > 0 && waits.every((reply) => reply === 'LOADING'), String(waits));
    await published;
    await loaded;
    await program.allCame();
    await program.heard(/LOADING/, 'publishing');
    assert.equal(await server.command('EXISTS', 'key1'), 1);
  },
);

redisServerTest('a server that loads its data anew while it is connected', LIMIT, async () => {
  await using server = await RedisServer.start({ config: { ...SLOW_LOAD, 'enable-debug-command': 'yes' } });
  await fill(server);
  await using program = await started(server);
  const reloaded = server.command('DEBUG', 'RELOAD');
  const watcher = await server.connect();
  await until('it is loading', async () => {
    try {
      return (await watcher.call('EXISTS', 'key1')) === null;
    } catch (error) {
      return /LOADING/.test(String(error));
    }
  });
  const published = program.publish();
  await program.heard(/LOADING/, 'publishing', 'sharded', 'inline');
  await published;
  await reloaded;
  watcher.close();
  await program.allCame();
});

redisServerTest('a replica that has lost its primary and answers nobody, until it is a primary', LIMIT, async () => {
  await using server = await RedisServer.start({ config: { 'replica-serve-stale-data': 'no' } });
  await using program = await started(server);
  // Nobody listens there.
  await server.command('REPLICAOF', '127.0.0.1', '1');
  await program.heard(/MASTERDOWN|UNBLOCKED|READONLY|is a replica/, 'sharded', 'inline');
  const published = program.publish();
  await program.heard(/MASTERDOWN|READONLY|is a replica/, 'publishing');
  await server.command('REPLICAOF', 'NO', 'ONE');
  await published;
  await program.allCame();
});

redisServerTest('waits that are ended with an error, and clients that are killed', LIMIT, async () => {
  await using server = await RedisServer.start();
  await using program = await started(server);
  const waiting = async (): Promise<string[]> =>
    [...String(await server.command('CLIENT', 'LIST')).matchAll(/id=(\d+) .*?name=mozuku\S* .*?cmd=blmove/g)].map(
      ([, id]) => id!,
    );
  for (let i = 0; i < 3; i++) {
    await until('both wait', async () => (await waiting()).length >= 2);
    for (const id of await waiting()) await server.command('CLIENT', 'UNBLOCK', id, 'ERROR');
    await program.publish();
    await program.allCame();
  }
  assert.deepEqual(program.problems, { sharded: [], publishing: [] }, 'a wait that ends is nobody’s trouble');
  await until('both wait', async () => (await waiting()).length >= 2);
  await server.command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
  await program.publish();
  await program.allCame();
  await program.heard(/lost/, 'sharded', 'inline');
});
