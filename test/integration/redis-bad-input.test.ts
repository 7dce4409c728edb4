/** Redis with something wrong in it: each is told by a typed error that names the place, on what the user watches, and nothing is lost. */
import assert from 'node:assert/strict';
import { afterEach } from 'node:test';
import { inspect } from 'node:util';
import { Connection, Consumer, Queue, ShardedConsumer } from '#src/index';
import { storedIn } from '../support/envelopes.js';
import { RedisServer, redisServerTest, redisTest } from '../support/redis.js';
import { EFFECTS_HANDLER, EffectsLog, publishAll, until } from '../support/rig.js';

const open: { close(): Promise<unknown> }[] = [];
afterEach(() => Promise.all(open.splice(0).map((each) => each.close())));

function connect(url: string, transportOptions: Record<string, unknown> = {}): Connection {
  const connection = new Connection(url, { transportOptions });
  open.push(connection);
  return connection;
}

function sharded(
  redis: { readonly url: string },
  queues: Queue | readonly Queue[],
  transportOptions: Record<string, unknown> = {},
) {
  const consumer = new ShardedConsumer(connect(redis.url, transportOptions), queues, {
    handler: EFFECTS_HANDLER,
    workers: 1,
    deadLetter: 'dead',
  });
  const errors: Error[] = [];
  consumer.on('error', (error) => errors.push(error));
  open.unshift(consumer);
  return Object.assign(consumer, { errors });
}

const good = (id: string): string => storedIn('q', id);

const changed = (change: (envelope: Record<string, unknown>) => void): string => {
  const envelope = JSON.parse(good('bad'));
  change(envelope);
  return JSON.stringify(envelope);
};

const BROKEN: Readonly<Record<string, string>> = {
  'no JSON': 'no json',
  'half of it': good('x').slice(0, 60),
  nothing: '',
  'a list': '[1, 2]',
  'an object without members': '{}',
  'a body that is no base64': changed((envelope) => Object.assign(envelope, { body: '!!!' })),
  'an unknown __type__': changed((envelope) =>
    Object.assign(envelope, { headers: { h: { __type__: 'spam', __value__: 1 } } }),
  ),
  'headers that are a text': changed((envelope) => Object.assign(envelope, { headers: 'x' })),
  'properties that are a list': changed((envelope) => Object.assign(envelope, { properties: [] })),
};

for (const [what, envelope] of Object.entries(BROKEN)) {
  redisTest(`${what} in a list: dead-lettered, and settled at once`, async (redis) => {
    using effects = new EffectsLog();
    await redis.command('LPUSH', 'q', envelope, good('after'));
    const consumer = sharded(redis, new Queue('q'));
    await consumer.consume();
    await until('the good one', () => effects.counts().get('after') === 1, {
      state: () => [consumer.stats(), consumer.errors],
    });
    // Without any headers of a body's type it is a message like others: an empty one.
    await until('it is over', async () => (await redis.command('EXISTS', 'q', 'unacked')) === 0, {
      state: async () => [await redis.command('HGETALL', 'unacked'), consumer.stats()],
    });
    const dead = (await redis.command('LRANGE', 'dead', 0, -1)) as string[];
    assert.equal(dead.length, 1, JSON.stringify(consumer.stats()));
    const { headers } = JSON.parse(dead[0]!);
    assert.equal(headers['x-mozuku-reason'], 'decode');
    assert.equal(headers['x-mozuku-queue'], 'q');
    assert.ok(headers['x-mozuku-error'].length > 10);
  });

  redisTest(`${what} for an inline consumer: onDecodeError hears of it`, async (redis) => {
    await redis.command('LPUSH', 'q', envelope, good('after'));
    const errors: Error[] = [];
    const bodies: unknown[] = [];
    const consumer = new Consumer(connect(redis.url), new Queue('q'), {
      callbacks: [
        (body, message) => {
          bodies.push(body);
          message.ack();
        },
      ],
      onDecodeError: (message, error) => {
        errors.push(error as Error);
        message.reject();
      },
    });
    await consumer.consume();
    await until('both', () => bodies.length === 1 && errors.length === 1, {
      state: () => [bodies, errors.map(String)],
    });
    assert.equal(errors[0]!.name, 'DecodeError');
    await until('nothing is left', async () => (await redis.command('DBSIZE')) === 0);
    await consumer.close();
  });
}

redisTest('a list that is none: told once with its name, and others go on', async (redis) => {
  using effects = new EffectsLog();
  await redis.command('SET', 'bad', 'x');
  const consumer = sharded(redis, [new Queue('bad', { noDeclare: true }), new Queue('q')]);
  await consumer.consume();
  await until('it is told', () => consumer.errors.length > 0);
  assert.equal(consumer.errors[0]!.name, 'PreconditionFailed');
  assert.match(consumer.errors[0]!.message, /'bad'/);
  await publishAll(redis.url, new Queue('q'), [{ body: { id: 'a' } }]);
  await until('the other queue', () => effects.counts().get('a') === 1);
  await redis.command('DEL', 'bad');
  await redis.command('LPUSH', 'bad', good('mended'));
  await until('the mended one', () => effects.counts().get('mended') === 1);
  assert.equal(consumer.errors.length, 1);
});

redisTest('asking for a list that is none rejects with its name', async (redis) => {
  await redis.command('SET', 'bad', 'x');
  const connection = connect(redis.url);
  const queue = new Queue('bad').bind(connection);
  for (const ask of [
    () => queue.declare(),
    () => queue.get(),
    () => queue.purge(),
    () => connection.Producer().publish('x', { routingKey: 'bad' }),
  ]) {
    await assert.rejects(ask, (error: Error) => {
      assert.equal(error.name, 'PreconditionFailed', error.message);
      assert.match(error.message, /'bad'|bad/);
      return true;
    });
  }
  assert.equal(await redis.command('GET', 'bad'), 'x');
});

redisTest('a message that was taken goes back if the queue’s length cannot be asked for', async (redis) => {
  const connection = connect(redis.url);
  await connection.Producer().publish('x', { routingKey: 'q' });
  await redis.command('SET', 'q\x06\x169', 'x');
  await assert.rejects(new Queue('q').get(connection), { name: 'PreconditionFailed', message: /the list 'q.+9'/ });
  await until('it is back', async () => (await redis.command('LLEN', 'q')) === 1);
  assert.equal(await redis.command('EXISTS', 'unacked', 'unacked_index'), 0);
});

redisTest('an inline consumer of a list that is none ends with the reason', async (redis) => {
  await redis.command('SET', 'bad', 'x');
  const consumer = new Consumer(connect(redis.url), new Queue('bad', { noDeclare: true }), {
    onMessage: () => undefined,
  });
  await consumer.consume();
  await assert.rejects(consumer.closed, { name: 'PreconditionFailed' });
});

for (const key of ['unacked', 'unacked_index']) {
  redisTest(`'${key}' of the wrong type: told with its name, and messages stay in their list`, async (redis) => {
    using effects = new EffectsLog();
    await redis.command('SET', key, 'x');
    await redis.command('LPUSH', 'q', good('a'));
    const consumer = sharded(redis, new Queue('q'));
    await consumer.consume();
    await until('it is told', () => consumer.errors.length > 0);
    assert.match(consumer.errors[0]!.message, new RegExp(`'${key}'`));
    assert.equal(consumer.errors[0]!.name, 'PreconditionFailed');
    assert.equal(await redis.command('LLEN', 'q'), 1);
    await redis.command('DEL', key);
    await until('it is run', () => effects.counts().get('a') === 1);
    await until('nothing is left', async () => (await redis.command('DBSIZE')) === 0);
  });
}

redisTest('records that nobody can read stay, are told, and stand in nobody’s way', async (redis) => {
  using effects = new EffectsLog();
  const records = {
    junk: 'junk',
    nowhere: `[${good('x')}, "exchange", "key"]`,
    wrongType: `[${good('x')}, "", "text"]`,
    broken: '[no json, "", "q"]',
    fine: `[${good('fine')}, "", "q"]`,
  };
  await redis.command('SET', 'text', 'x');
  for (const [tag, record] of Object.entries(records)) {
    await redis.command('HSET', 'unacked', tag, record);
    await redis.command('ZADD', 'unacked_index', '1', tag);
  }
  const consumer = sharded(redis, new Queue('q'), { visibilityTimeout: 60_000, unackedRestoreLimit: 1 });
  await consumer.consume();
  await until('the good one', () => effects.counts().get('fine') === 1, { state: () => consumer.errors.map(String) });
  await until('the broken one', async () => (await redis.command('LLEN', 'dead')) === 1);
  await until('all are told', () => consumer.errors.length === 3, { state: () => consumer.errors.map(String) });
  for (const tag of ['junk', 'nowhere', 'wrongType']) {
    assert.ok(
      consumer.errors.some(({ message }) => message.includes(`'${tag}' in 'unacked'`)),
      tag,
    );
  }
  assert.deepEqual(((await redis.command('HKEYS', 'unacked')) as string[]).sort(), ['junk', 'nowhere', 'wrongType']);
});

redisServerTest('takes that are refused are told once, and asked again in peace', async () => {
  await using server = await RedisServer.start({
    acl: {
      default: { password: 'root', rules: '~* &* +@all' },
      narrow: { password: 'narrow', rules: '~unacked* ~q &* +@all' },
    },
  });
  await server.command('LPUSH', 'q', good('a'));
  const consumer = sharded({ url: server.urlFor('narrow') }, [
    new Queue('q', { noDeclare: true }),
    new Queue('secret', { noDeclare: true }),
  ]);
  using effects = new EffectsLog();
  const asked = async (): Promise<number> => {
    const stats = String(await server.command('INFO', 'commandstats'));
    const calls = /cmdstat_evalsha:.*?rejected_calls=(\d+)/.exec(stats)?.[1];
    return Number(calls ?? 0);
  };
  await consumer.consume();
  await until('it is asked again', async () => (await asked()) >= 3);
  const [before, start] = [await asked(), performance.now()];
  await until('and again', async () => (await asked()) >= before + 3);
  // Every 250 ms; without a pause it is thousands of times a second.
  assert.ok(performance.now() - start > 400, `${(await asked()) - before} times at once`);
  const told = consumer.errors.map(({ name, message }) => `${name} ${message}`);
  assert.equal(new Set(told).size, told.length, told.join('\n'));
  assert.ok(told.length > 0 && told.every((each) => /^AccessRefused taking messages: NOPERM/.test(each)));
  await server.command('ACL', 'SETUSER', 'narrow', '~secret*', '~q*');
  await until('it is let in', () => effects.counts().get('a') === 1);
});

redisTest('databases, passwords and options that are wrong', async (redis) => {
  const address = new URL(redis.url);
  const at = (path: string, login = '') => `redis://${login}${address.host}/${path}`;
  await assert.rejects(connect(at('99999')).connect(), { name: 'InvalidPath' });
  await assert.rejects(connect(at('name')).connect(), { name: 'InvalidPath', message: /'name'/ });
  await assert.rejects(connect(at('0', 'user:secret@')).connect(), (error: Error) => {
    assert.equal(error.name, 'AccessRefused');
    // Neither in what caused it: whoever logs an error logs all of that.
    assert.doesNotMatch(inspect(error, { depth: Number.POSITIVE_INFINITY, showHidden: true }), /secret/);
    return true;
  });
  assert.throws(() => new Connection(redis.url, { transportOptions: { visibilityTimeuot: 1 } }), {
    name: 'OptionError',
    message: /did you mean 'visibilityTimeout'/,
  });
  await assert.rejects(connect('sentinel://127.0.0.1:1').connect(), { name: 'OptionError', message: /masterName/ });
});

redisServerTest('a server that is full is consumed from, and refuses what is published', async () => {
  await using server = await RedisServer.start();
  using effects = new EffectsLog();
  const queue = new Queue('q');
  await publishAll(
    server.url,
    queue,
    Array.from({ length: 500 }, (_, id) => ({ body: { id } })),
  );
  await server.command('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
  await server.command('CONFIG', 'SET', 'maxmemory', '1mb');
  const producer = connect(server.url).Producer();
  await assert.rejects(producer.publish('x', { routingKey: 'q' }), { name: 'ResourceError', message: /OOM/ });
  const consumer = sharded(server, queue);
  await consumer.consume();
  await until('all', () => consumer.stats().acked === 500, {
    state: () => [consumer.stats(), consumer.errors.map(String)],
  });
  assert.deepEqual(consumer.errors, []);
  assert.equal(effects.counts().size, 500);
});
