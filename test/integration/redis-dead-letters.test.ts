/** Where the sharded consumer puts what it gives up on Redis, and what the letter says of it. */
import assert from 'node:assert/strict';
import { afterEach } from 'node:test';
import { Connection, Exchange, errors, Queue, ShardedConsumer, type ShardedConsumerOptions } from '#src/index';
import { type RedisSpace, redisTest } from '../support/redis.js';
import { EFFECTS_HANDLER, EffectsLog, publishAll, until } from '../support/rig.js';

const LIMIT = { timeout: 60_000 };

const open: { close(): Promise<unknown> }[] = [];
afterEach(() => Promise.all(open.splice(0).map((each) => each.close())));

function connect({ url }: RedisSpace): Connection {
  const connection = new Connection(url);
  open.push(connection);
  return connection;
}

async function consume(redis: RedisSpace, options: Partial<ShardedConsumerOptions>, queue = new Queue('q')) {
  const consumer = new ShardedConsumer(new Connection(redis.url), queue, {
    handler: EFFECTS_HANDLER,
    workers: 1,
    ...options,
  });
  const problems: Error[] = [];
  consumer.on('error', (error) => problems.push(error));
  open.unshift(consumer);
  await consumer.consume();
  return Object.assign(consumer, { problems });
}

interface Letter {
  readonly body: string;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly properties: Readonly<Record<string, unknown>>;
}

/** What lies in a list, the oldest first. */
async function letters({ command }: RedisSpace, list: string): Promise<Letter[]> {
  const envelopes = (await command('LRANGE', list, 0, -1)) as string[];
  return envelopes.reverse().map((text) => {
    const { body, headers, properties } = JSON.parse(text);
    return { body: Buffer.from(body, 'base64').toString(), headers, properties };
  });
}

/** Nothing of it is left but the letters. */
const settled = ({ command }: RedisSpace, queue = 'q'): Promise<boolean> =>
  until('it is settled', async () => (await command('EXISTS', queue, 'unacked', 'unacked_index')) === 0);

const bad = (id: string) => ({ body: { id, do: 'throw' }, options: { messageId: id, headers: { own: id } } });

for (const type of ['direct', 'topic'] as const) {
  redisTest(`deadLetter can be a ${type} exchange, by a routing key or by the message’s own`, LIMIT, async (redis) => {
    using _effects = new EffectsLog();
    const connection = connect(redis);
    // What this process declares is known for longer than the test.
    const name = `graveyard-${type}`;
    const graveyard = new Exchange(name, { type });
    const source = new Exchange('source', { type: 'direct' });
    await new Queue('chosen', graveyard, { routingKey: 'grave' }).declare(connection);
    await new Queue('own', graveyard, { routingKey: 'k' }).declare(connection);
    const queue = new Queue('q', source, { routingKey: 'k' });
    await queue.declare(connection);
    for (const [routingKey, list] of [
      ['grave', 'chosen'],
      [undefined, 'own'],
    ] as const) {
      const target = { exchange: name, ...(routingKey !== undefined && { routingKey }) };
      const consumer = await consume(redis, { deadLetter: target }, queue);
      const { body, options } = bad(list);
      await connection.Producer().publish(body, { exchange: source, routingKey: 'k', ...options });
      await until('it is given up', () => consumer.stats().deadLettered === 1, { state: () => consumer.problems });
      await settled(redis);
      await consumer.close();
      const [letter, ...more] = await letters(redis, list);
      assert.deepEqual(more, []);
      assert.deepEqual(JSON.parse(letter!.body), body);
      const { own, 'x-mozuku-reason': reason, 'x-mozuku-error': error } = letter!.headers;
      assert.deepEqual([own, reason], [list, 'failed']);
      assert.match(String(error), new RegExp(`^RangeError: asked to fail: ${list}`));
      assert.deepEqual(
        [
          letter!.headers['x-mozuku-queue'],
          letter!.headers['x-mozuku-exchange'],
          letter!.headers['x-mozuku-routing-key'],
          letter!.headers['x-mozuku-attempts'],
          letter!.headers['x-mozuku-deaths'],
        ],
        ['q', 'source', 'k', 1, 0],
      );
      assert.deepEqual(letter!.properties.delivery_info, { exchange: name, routing_key: routingKey ?? 'k' });
      assert.equal(letter!.properties.message_id, list);
    }
    assert.deepEqual(
      (await letters(redis, 'chosen')).map(({ headers }) => headers.own),
      ['chosen'],
      'a letter goes where its key says, and nowhere else',
    );
  });
}

redisTest('an exchange that leads nowhere keeps the message unsettled until a queue is bound', LIMIT, async (redis) => {
  using _effects = new EffectsLog();
  const connection = connect(redis);
  await publishAll(redis.url, new Queue('q'), [bad('x')]);
  const consumer = await consume(redis, { deadLetter: { exchange: 'graveyard', routingKey: 'grave' } });
  await until('it is missed', () => consumer.problems.length > 0);
  const [problem] = consumer.problems;
  assert.ok(problem instanceof errors.MessageReturned, String(problem));
  assert.match(problem.message, /'graveyard' with the routing key 'grave'/);
  assert.equal(consumer.stats().deadLettered, 0);
  assert.equal(await redis.command('HLEN', 'unacked'), 1);
  await new Queue('grave', new Exchange('graveyard', { type: 'direct' }), { routingKey: 'grave' }).declare(connection);
  await until('it is given up', () => consumer.stats().deadLettered === 1, { state: () => consumer.problems });
  await settled(redis);
  assert.equal((await letters(redis, 'grave')).length, 1);
});

redisTest('without deadLetter each queue has its own dead-letter queue', LIMIT, async (redis) => {
  using _effects = new EffectsLog();
  const [one, two] = [new Queue('one'), new Queue('two')];
  await publishAll(redis.url, one, [bad('1')]);
  await publishAll(redis.url, two, [bad('2')]);
  const consumer = new ShardedConsumer(new Connection(redis.url), [one, two], { handler: EFFECTS_HANDLER, workers: 1 });
  open.unshift(consumer);
  const dead: [string, string, string | undefined][] = [];
  consumer.on('dead', ({ queue, target, messageId }) => dead.push([queue, target, messageId]));
  await consumer.consume();
  await until('both', () => consumer.stats().deadLettered === 2);
  for (const [queue, id] of [
    ['one', '1'],
    ['two', '2'],
  ] as const) {
    await settled(redis, queue);
    const found = await letters(redis, `${queue}.dead`);
    assert.deepEqual(
      found.map(({ headers }) => [headers.own, headers['x-mozuku-queue'], headers['x-mozuku-reason']]),
      [[id, queue, 'failed']],
    );
  }
  assert.deepEqual(dead.sort(), [
    ['one', 'one.dead', '1'],
    ['two', 'two.dead', '2'],
  ]);
  // Put back by hand, it is a message like others.
  const connection = connect(redis);
  const letter = await new Queue('one.dead').bind(connection).get();
  assert.deepEqual([letter!.decode(), letter!.headers.own], [{ id: '1', do: 'throw' }, '1']);
  letter!.ack();
});

redisTest(
  'a letter says why: what failed, could not be read, was too large, took workers down',
  LIMIT,
  async (redis) => {
    using _effects = new EffectsLog();
    const queue = new Queue('q');
    const raw = { contentType: 'application/json', contentEncoding: 'utf-8' };
    await publishAll(redis.url, queue, [
      { body: { id: 'gave up', do: 'giveUp' } },
      { body: Buffer.from('{"broken'), options: raw },
      { body: { id: 'large', pad: 'x'.repeat(5000) } },
      { body: { id: 'killer', do: 'exit' } },
      { body: { id: 'tried', do: 'throw' } },
    ]);
    const options = { maxMessageBytes: 4000, maxDeliveries: 2, retry: { attempts: 3, initial: 1 } } as const;
    const consumer = await consume(redis, options);
    await until('all five', () => consumer.stats().deadLettered === 5, { state: () => consumer.stats() });
    await settled(redis);
    const facts = new Map(
      (await letters(redis, 'q.dead')).map(({ body, headers }) => [
        body.slice(0, 15),
        [headers['x-mozuku-reason'], headers['x-mozuku-attempts'], headers['x-mozuku-deaths']],
      ]),
    );
    assert.deepEqual(Object.fromEntries(facts), {
      '{"id":"gave up"': ['failed', 1, 0],
      '{"broken': ['decode', 1, 0],
      '{"id":"large","': ['tooLarge', 1, 0],
      '{"id":"killer",': ['deaths', 2, 2],
      '{"id":"tried","': ['failed', 3, 0],
    });
  },
);

redisTest("deadLetter 'drop' keeps nothing of what was given up", LIMIT, async (redis) => {
  using _effects = new EffectsLog();
  await publishAll(redis.url, new Queue('q'), [
    bad('1'),
    { body: Buffer.from('{"broken'), options: { contentType: 'application/json', contentEncoding: 'utf-8' } },
    { body: { id: 'good' } },
  ]);
  const consumer = await consume(redis, { deadLetter: 'drop' });
  await until('all are over', () => consumer.stats().acked === 3, { state: () => consumer.stats() });
  await consumer.close();
  assert.equal(await redis.command('DBSIZE'), 0);
});
