/** Exchanges, queues and priorities in one Redis together with Python's kombu, both ways. */
import assert from 'node:assert/strict';
import { Connection, Exchange, type Message, Queue } from '#src/index';
import { listening, type Peers, type PythonMessage, pythonPeerTest } from '../support/python-peer.js';
import { consumerOf, EffectsLog, until } from '../support/rig.js';

type Options = Readonly<Record<string, unknown>>;

function connectionOf({ url }: Peers, transportOptions: Options = {}): Connection {
  return new Connection(url, { transportOptions });
}

/** So many, by a consumer, acked. */
async function receive(connection: Connection, queue: Queue | string, count: number): Promise<Message[]> {
  const queues = [typeof queue === 'string' ? new Queue(queue) : queue];
  await using consumer = connection.Consumer(queues, { accept: ['json', 'text', 'raw'] });
  const messages: Message[] = [];
  for await (const message of consumer) {
    message.ack();
    messages.push(message);
    if (messages.length === count) break;
  }
  return messages;
}

const payloadsOf = (messages: readonly (Message | PythonMessage)[]): unknown[] =>
  messages.map(({ payload }) => payload);

/** No message is left that somebody has not settled. */
async function nothingUnsettled({ command }: Peers, prefix = ''): Promise<void> {
  await until('all is settled', async () => (await command('ZCARD', `${prefix}unacked_index`)) === 0);
  assert.equal(await command('HLEN', `${prefix}unacked`), 0);
}

pythonPeerTest('the default exchange: what either side publishes the other consumes, in order', async (peers) => {
  const { peer } = peers;
  await using connection = connectionOf(peers);
  const values = Array.from({ length: 50 }, (_, i) => ({ i, text: 'é もずく 🐙 \u2028 "\\' }));
  await peer.publish(values, '', 'to-us');
  const messages = await receive(connection, 'to-us', values.length);
  assert.deepEqual(payloadsOf(messages), values);
  const { deliveryInfo, properties } = messages[0]!;
  assert.deepEqual(
    [deliveryInfo.exchange, deliveryInfo.routingKey, deliveryInfo.redelivered, properties.deliveryMode],
    ['', 'to-us', false, 2],
  );

  await using producer = connection.Producer({ routingKey: 'to-python' });
  await Promise.all(values.map((value) => producer.publish(value)));
  const got = await peer.get('to-python', values.length);
  assert.deepEqual(payloadsOf(got), values);
  assert.equal(got[0]!.properties.delivery_mode, 2);
  assert.deepEqual(got[0]!.info, { exchange: '', routing_key: 'to-python' });

  // by its consumer, too
  await peer.call('consume', [['to-python']]);
  await Promise.all(values.map((value) => producer.publish(value)));
  assert.deepEqual(payloadsOf((await peer.call('take', [values.length])) as PythonMessage[]), values);
  await nothingUnsettled(peers);
});

pythonPeerTest('a sharded consumer runs what Python publishes', async (peers) => {
  using effects = new EffectsLog();
  await using consumer = consumerOf(peers.url, new Queue('sharded'));
  await consumer.consume();
  await peers.peer.publish(
    Array.from({ length: 200 }, (_, id) => ({ id, do: 'ok' })),
    '',
    'sharded',
  );
  await until('all are acked', () => consumer.stats().acked === 200, { state: () => consumer.stats() });
  const counts = effects.counts();
  assert.equal(counts.size, 200);
  assert.ok([...counts.values()].every((times) => times === 1));
  await nothingUnsettled(peers);
});

pythonPeerTest('a direct exchange: bindings of either side count for both', async (peers) => {
  const { peer } = peers;
  await using connection = connectionOf(peers);
  const exchange = new Exchange('direct', { type: 'direct' });
  await new Queue('ours', exchange, { routingKey: 'k' }).declare(connection);
  await peer.call('queue', ['theirs', 'direct', 'k']);
  await peer.call('queue', ['other', 'direct', 'another']);
  await peer.publish(['from Python'], 'direct', 'k');
  await using producer = connection.Producer({ exchange });
  await producer.publish('from us', { routingKey: 'k' });
  await producer.publish('unbound', { routingKey: 'nobody' });
  for (const queue of ['ours', 'theirs']) {
    assert.equal(await peer.call('size', [queue]), 2);
    assert.equal(await new Queue(queue, undefined, { passive: true }).declare(connection), queue);
  }
  assert.deepEqual(payloadsOf(await receive(connection, 'theirs', 2)), ['from Python', 'from us']);
  assert.deepEqual(await peer.payloads('ours', 2), ['from Python', 'from us']);
  assert.equal(await peer.call('size', ['other']), 0);
  // one that only Python has declared
  await peer.call('exchange', ['pythons', 'direct']);
  await peer.call('queue', ['pythons-queue', 'pythons', 'k']);
  await producer.publish('by name', { exchange: 'pythons', routingKey: 'k' });
  assert.deepEqual(await peer.payloads('pythons-queue'), ['by name']);
});

// biome-ignore format: a table
const TOPICS = [
  'a.*.c', '#', 'a.#', '*.b', 'x-y_z.$1.é', 'a.b', '#.c', '*', 'a*.b', 'stock.us.*', '(a|b).[c]', 'a+.b?', '%d.^',
];
// biome-ignore format: a table
const KEYS = [
  'a', 'a.b', 'a.b.c', 'a.x.y.c', 'x-y_z.$1.é', 'xyz', 'a.c', 'aa.b', '', '.', 'a.', '.b', 'stock.us.nyse', 'stock.us.',
  'stock.us', '(a|b).[c]', 'b.c', 'aa.b', '%d.^', 'é.b',
];

pythonPeerTest(
  'a topic exchange: the same queues get a message, whoever bound them and whoever publishes',
  async (peers) => {
    const { peer } = peers;
    await using connection = connectionOf(peers);
    const exchange = new Exchange('topic', { type: 'topic' });
    await exchange.declare(connection);
    await peer.call('exchange', ['topic', 'topic']);
    const queues: string[] = [];
    for (const [i, routingKey] of TOPICS.entries()) {
      await new Queue(`ours-${i}`, exchange, { routingKey }).declare(connection);
      await peer.call('queue', [`theirs-${i}`, 'topic', routingKey, 'topic']);
      queues.push(`ours-${i}`, `theirs-${i}`);
    }
    // the members of the set, too, for older Pythons compile the pattern in it
    const members = (await peers.command('SMEMBERS', '_kombu.binding.topic')) as string[];
    const patterns = new Map<string, Set<string>>();
    for (const member of members) {
      const [key, pattern] = member.split('\x06\x16') as [string, string];
      patterns.set(key, (patterns.get(key) ?? new Set()).add(pattern));
    }
    for (const [key, found] of patterns) assert.equal(found.size, 1, `${key}: ${[...found]}`);

    await using producer = connection.Producer({ exchange });
    const whereTo = async (publish: () => Promise<void>): Promise<string[]> => {
      await publish();
      const reached: string[] = [];
      for (const queue of queues) if (((await peer.call('purge', [queue])) as number) > 0) reached.push(queue);
      return reached;
    };
    for (const routingKey of KEYS) {
      const byUs = await whereTo(() => producer.publish('m', { routingKey }));
      const byPython = await whereTo(() => peer.publish(['m'], 'topic', routingKey));
      assert.deepEqual(byUs, byPython, `the routing key '${routingKey}'`);
    }
  },
);

pythonPeerTest('a fanout exchange reaches listeners of both sides, whoever publishes', async (peers) => {
  const { peer } = peers;
  await using connection = connectionOf(peers);
  const exchange = new Exchange(`${peers.prefix}fanout`, { type: 'fanout' });
  const heard: unknown[] = [];
  const queue = new Queue('ears', exchange, { autoDelete: true });
  await using consumer = connection.Consumer([queue], {
    onMessage: (message) => {
      heard.push([message.payload, message.deliveryInfo.exchange]);
      message.ack();
    },
  });
  await consumer.consume();
  await peer.call('queue', ['python-ears', exchange.name, '', 'fanout', true]);
  await peer.call('consume', [['python-ears']]);
  await listening(peers, 2);
  await peer.publish([{ from: 'Python' }], exchange.name, '');
  assert.deepEqual(payloadsOf((await peer.call('take', [1])) as PythonMessage[]), [{ from: 'Python' }]);
  await until('we hear Python', () => heard.length === 1);
  await using producer = connection.Producer({ exchange });
  await producer.publish({ from: 'us' });
  assert.deepEqual(payloadsOf((await peer.call('take', [1])) as PythonMessage[]), [{ from: 'us' }]);
  await until('we hear ourselves', () => heard.length === 2);
  assert.deepEqual(heard, [
    [{ from: 'Python' }, exchange.name],
    [{ from: 'us' }, exchange.name],
  ]);
});

pythonPeerTest('a fanout exchange with routing keys: patterns of both sides', async (peers) => {
  const { peer } = peers;
  await using connection = connectionOf(peers);
  const exchange = new Exchange(`${peers.prefix}news`, { type: 'fanout' });
  const heard: unknown[] = [];
  await using consumer = connection.Consumer([new Queue('news', exchange, { routingKey: 'eu.*' })], {
    onMessage: (message) => {
      heard.push([message.payload, message.deliveryInfo.routingKey]);
      message.ack();
    },
  });
  await consumer.consume();
  await peer.call('queue', ['python-news', exchange.name, 'eu.#', 'fanout']);
  await peer.call('consume', [['python-news']]);
  await listening(peers, 2);
  await using producer = connection.Producer({ exchange });
  await producer.publish('no', { routingKey: 'us.ny' });
  await producer.publish('yes', { routingKey: 'eu.de' });
  await peer.publish(['also'], exchange.name, 'eu.fr.x');
  const taken = payloadsOf((await peer.call('take', [2])) as PythonMessage[]);
  await until('we hear both', () => heard.length === 2);
  assert.deepEqual(taken, ['yes', 'also']);
  assert.deepEqual(heard, [
    ['yes', 'eu.de'],
    ['also', 'eu.fr.x'],
  ]);
});

pythonPeerTest('priorities 0 to 9 stand in the same lists, and come in the same order', async (peers) => {
  const { peer, command } = peers;
  await using connection = connectionOf(peers);
  const priorities = [9, 4, 0, 7, 3, 1, 8, 2, 6, 5];
  await using producer = connection.Producer({ routingKey: 'ours' });
  for (const priority of priorities) {
    await producer.publish(priority, { priority });
    await peer.publish([priority], '', 'theirs', { priority });
  }
  const listsOf = async (queue: string): Promise<unknown[]> => {
    const keys = ['', '\x06\x163', '\x06\x166', '\x06\x169'].map((suffix) => `${queue}${suffix}`);
    const lists = await Promise.all(keys.map((key) => command('LRANGE', key, 0, -1)));
    return (lists as string[][]).map((list) => list.map((text) => JSON.parse(text).properties.priority));
  };
  const expected = [[2, 1, 0], [5, 3, 4], [6, 8, 7], [9]];
  assert.deepEqual(await listsOf('theirs'), expected);
  assert.deepEqual(await listsOf('ours'), expected);
  assert.equal(await peer.call('size', ['ours']), 10);
  const order = [0, 1, 2, 4, 3, 5, 7, 8, 6, 9];
  const got = await peer.get('ours', 10);
  assert.deepEqual(payloadsOf(got), order);
  assert.deepEqual(
    got.map(({ properties }) => properties.priority),
    order,
  );
  const messages = await receive(connection, 'theirs', 10);
  assert.deepEqual(payloadsOf(messages), order);
  assert.deepEqual(
    messages.map(({ properties }) => properties.priority),
    order,
  );
});

pythonPeerTest('our highestFirst takes the highest of what Python published', async (peers) => {
  await using connection = connectionOf(peers, { priorityOrder: 'highestFirst' });
  for (const priority of [0, 9, 3, 6]) await peers.peer.publish([priority], '', 'q', { priority });
  assert.deepEqual(payloadsOf(await receive(connection, 'q', 4)), [9, 6, 3, 0]);
});

/** kombu cuts prefixes off by characters of bytes: only ASCII is sure. */
const PREFIX = 'mozuku:{x}:';

pythonPeerTest(
  'with a prefix of all keys both sides meet, and nobody else is met',
  async (peers) => {
    const { peer, command } = peers;
    await using connection = connectionOf(peers, { globalKeyprefix: PREFIX });
    await using stranger = connectionOf(peers);
    const exchange = new Exchange(`${peers.prefix}topic`, { type: 'topic' });
    const fanout = new Exchange(`${peers.prefix}fanout`, { type: 'fanout' });
    await new Queue('q', exchange, { routingKey: 'a.#' }).declare(connection);
    await peer.call('exchange', [exchange.name, 'topic']);
    await peer.publish([1, 2], exchange.name, 'a.b', { priority: 6 });
    await using producer = connection.Producer();
    await producer.publish(3, { exchange, routingKey: 'a.c' });
    await stranger.Producer().publish('stranger', { routingKey: 'q' });
    assert.equal(await peer.call('size', ['q']), 3);
    assert.deepEqual(await peer.payloads('q'), [3]);
    assert.deepEqual(payloadsOf(await receive(connection, 'q', 2)), [1, 2]);
    assert.equal(await command('LLEN', 'q'), 1);
    await nothingUnsettled(peers, PREFIX);
    await command('DEL', 'q');
    const keys = (await command('KEYS', '*')) as string[];
    assert.deepEqual(
      keys.filter((key) => !key.startsWith(PREFIX)),
      [],
    );

    let heard: ((payload: unknown) => void) | undefined;
    const hearing = new Promise<unknown>((resolve) => {
      heard = resolve;
    });
    await using consumer = connection.Consumer([new Queue('ears', fanout)], {
      noAck: true,
      onMessage: (message) => heard?.(message.payload),
    });
    await consumer.consume();
    await peer.call('queue', ['python-ears', fanout.name, '', 'fanout']);
    await peer.call('consume', [['python-ears']]);
    await listening(peers, 2);
    await peer.publish(['heard'], fanout.name, '');
    assert.deepEqual(payloadsOf((await peer.call('take', [1])) as PythonMessage[]), ['heard']);
    assert.equal(await hearing, 'heard');
  },
  { python: { global_keyprefix: PREFIX } },
);

pythonPeerTest('both sides see the same size, purge and delete each other’s queues', async (peers) => {
  const { peer, command } = peers;
  await using connection = connectionOf(peers);
  const exchange = new Exchange('ex', { type: 'direct' });
  const queue = new Queue('q', exchange, { routingKey: 'k' });
  await peer.call('queue', ['q', 'ex', 'k']);
  for (const priority of [0, 5, 9]) await peer.publish([priority], 'ex', 'k', { priority });
  const bound = queue.bind(connection);
  const { messageCount } = (await (await connection.channel()).raw.checkQueue('q')) as { messageCount: number };
  assert.deepEqual([messageCount, await peer.call('size', ['q'])], [3, 3]);
  assert.equal(await bound.purge(), 3);
  assert.equal(await peer.call('size', ['q']), 0);
  await using producer = connection.Producer({ exchange, routingKey: 'k' });
  for (const priority of [1, 7]) await producer.publish(priority, { priority });
  assert.equal(await peer.call('purge', ['q']), 2);
  // a queue that Python bound, and that we delete: its binding is gone for both
  await bound.declare();
  await bound.delete();
  assert.equal(await command('EXISTS', '_kombu.binding.ex'), 0);
  await peer.publish(['lost'], 'ex', 'k');
  assert.equal(await peer.call('size', ['q']), 0);
});

pythonPeerTest('SimpleQueue: what one side puts the other gets', async (peers) => {
  const { peer } = peers;
  await using connection = connectionOf(peers);
  await using queue = connection.SimpleQueue('simple');
  await peer.call('simple_put', ['simple', { from: 'Python' }], { headers: { k: 'é' } });
  await peer.call('simple_put', ['simple', 'text']);
  assert.equal(await queue.qsize(), 2);
  const first = await queue.get();
  assert.deepEqual([first.payload, first.headers.k], [{ from: 'Python' }, 'é']);
  first.ack();
  const second = await queue.get();
  assert.equal(second.payload, 'text');
  second.ack();
  await queue.close();
  await using again = connection.SimpleQueue('simple');
  await again.put({ from: 'Node' }, { headers: { k: 'é' }, compression: 'zlib' });
  const got = (await peer.call('simple_get', ['simple'])) as PythonMessage;
  assert.deepEqual([got.payload, got.headers.k], [{ from: 'Node' }, 'é']);
  await nothingUnsettled(peers);
});
