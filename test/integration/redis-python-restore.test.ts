/** What a consumer held that died: Python's kombu gives ours to others, we give Python's. */
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { Connection, Exchange, type Message, Queue } from '#src/index';
import { LineChild } from '../support/line-child.js';
import { listening, type Peers, type PythonMessage, PythonPeer, pythonPeerTest } from '../support/python-peer.js';
import { until } from '../support/rig.js';

const HOLDING = fileURLToPath(new URL('../support/holding-consumer.js', import.meta.url));
/** What it holds comes back to others so long after its last sign of life. */
const SHORT = { visibilityTimeout: 1500 };
/** Long enough that nobody but who is asked to restores anything. */
const LONG = { visibilityTimeout: 3_600_000 };

function holdingConsumer({ url }: Peers, queue: string, options: object = LONG): LineChild {
  return new LineChild(process.execPath, [HOLDING, url, queue, JSON.stringify(options)]);
}

/** Dies with messages in its hands. */
async function dieWith(peers: Peers, queue: string, count: number): Promise<unknown[]> {
  await using child = holdingConsumer(peers, queue);
  const held: unknown[] = [];
  while (held.length < count) held.push(await child.json());
  child.kill('SIGKILL');
  return held;
}

const payloads = (messages: readonly (Message | PythonMessage)[]): unknown[] => messages.map(({ payload }) => payload);

async function receive(connection: Connection, queue: string, count: number): Promise<Message[]> {
  await using consumer = connection.Consumer([new Queue(queue)], {});
  const messages: Message[] = [];
  for await (const message of consumer) {
    message.ack();
    messages.push(message);
    if (messages.length === count) break;
  }
  return messages;
}

async function nothingUnsettled({ command }: Peers): Promise<void> {
  await until('all is settled', async () => (await command('ZCARD', 'unacked_index')) === 0);
  assert.equal(await command('HLEN', 'unacked'), 0);
}

pythonPeerTest(
  'what our dead consumer held, Python restores by its tag: to exactly the queue it came from',
  async (peers) => {
    const { peer, command, url } = peers;
    await using connection = new Connection(url);
    const exchange = new Exchange('topic', { type: 'topic' });
    await new Queue('source', exchange, { routingKey: 'a.#' }).declare(connection);
    await new Queue('bystander', exchange, { routingKey: '#' }).declare(connection);
    await peer.call('exchange', ['topic', 'topic']);
    await using producer = connection.Producer({ exchange, routingKey: 'a.b' });
    const values = [{ i: 1 }, { i: 2, text: 'é "\\\u2028 もずく' }, { i: 3 }];
    for (const value of values) await producer.publish(value, { headers: { k: 'é' } });
    assert.equal(await peer.call('purge', ['bystander']), 3);

    assert.deepEqual(await dieWith(peers, 'source', 3), values);
    const records = (await command('HGETALL', 'unacked')) as string[];
    assert.equal(records.length, 6);
    for (let i = 0; i < records.length; i += 2) {
      const [envelope, ...rest] = JSON.parse(records[i + 1]!) as [Record<string, unknown>, ...string[]];
      assert.deepEqual(rest, ['', 'source']);
      assert.deepEqual(envelope.headers, { k: 'é' });
      await peer.call('restore', [records[i]]);
    }
    assert.deepEqual([await peer.call('size', ['source']), await peer.call('size', ['bystander'])], [3, 0]);
    await nothingUnsettled(peers);
    const messages = await receive(connection, 'source', 3);
    assert.deepEqual(new Set(payloads(messages)), new Set(values));
    for (const { deliveryInfo } of messages) {
      assert.deepEqual(
        [deliveryInfo.redelivered, deliveryInfo.exchange, deliveryInfo.routingKey],
        [true, 'topic', 'a.b'],
      );
    }
  },
);

pythonPeerTest(
  'Python’s own sweep restores what our dead consumer held, and nothing that a live one of ours holds',
  async (peers) => {
    const { peer, command } = peers;
    await peer.publish(['dead', 'dead too'], '', 'q');
    await dieWith(peers, 'q', 2);
    await peer.publish(['alive'], '', 'live');
    await using live = holdingConsumer(peers, 'live', { visibilityTimeout: 12_000 });
    assert.equal(await live.json(), 'alive');
    const tags = (await command('ZRANGE', 'unacked_index', 0, -1)) as string[];
    const scores = async (): Promise<number[]> =>
      Promise.all(tags.map(async (tag) => Number(await command('ZSCORE', 'unacked_index', tag))));
    const before = await scores();
    // the live one renews its lease, the dead one's grows old
    await until('the live one is two seconds ahead', async () => {
      const now = await scores();
      return Math.max(...now) > Math.max(...before) + 2;
    });
    const after = await scores();
    assert.equal(after.filter((score) => before.includes(score)).length, 2);
    await peer.call('restore_visible', [(Math.min(...after) + Math.max(...after)) / 2]);
    assert.deepEqual([await peer.call('size', ['q']), await peer.call('size', ['live'])], [2, 0]);
    const got = await peer.get('q', 2);
    assert.deepEqual(new Set(payloads(got)), new Set(['dead', 'dead too']));
    for (const { headers, info } of got) assert.deepEqual([headers.redelivered, info.redelivered], [true, true]);
    assert.equal(await command('ZCARD', 'unacked_index'), 1);
  },
);

pythonPeerTest(
  'what Python’s dead consumer held, we restore: to its queue, with its priority, redelivered',
  async (peers) => {
    const { peer, command, url, python } = peers;
    await peer.call('queue', ['direct-q', 'ex', 'k']);
    await peer.publish(['by the default exchange'], '', 'plain', { priority: 7, headers: { k: 'é' } });
    await peer.publish(['by ex'], 'ex', 'k', { priority: 9 });
    {
      await using dying = new PythonPeer(python, url);
      await dying.call('consume', [['plain', 'direct-q']]);
      await dying.call('hold', [2]);
      dying.kill('SIGKILL');
    }
    assert.equal(await command('HLEN', 'unacked'), 2);
    await using connection = new Connection(url, { transportOptions: SHORT });
    // whoever consumes anything looks for them
    await using other = connection.Consumer([new Queue('unrelated')], { onMessage: () => undefined });
    await other.consume();
    await until('they are restored', async () => (await command('HLEN', 'unacked')) === 0);
    const lists = ['plain\x06\x166', 'direct-q\x06\x169'];
    assert.deepEqual(await Promise.all(lists.map((list) => command('LLEN', list))), [1, 1]);
    assert.equal(await command('ZCARD', 'unacked_index'), 0);
    const [plain] = await receive(connection, 'plain', 1);
    assert.equal(plain!.payload, 'by the default exchange');
    assert.equal(plain!.properties.priority, 7);
    assert.equal(plain!.deliveryInfo.redelivered, true);
    assert.deepEqual({ ...plain!.headers }, { k: 'é', redelivered: true });
    // Python reads it as one of its own
    const [direct] = await peer.get('direct-q');
    assert.equal(direct!.payload, 'by ex');
    assert.deepEqual(direct!.info, { exchange: 'ex', routing_key: 'k', redelivered: true });
    assert.equal(direct!.headers.redelivered, true);
    assert.equal(direct!.properties.priority, 9);
  },
);

pythonPeerTest('what Python held of a topic exchange goes back once, though many look for it', async (peers) => {
  const { peer, command, url, python } = peers;
  await peer.call('queue', ['one', 'topic', 'a.*', 'topic']);
  await peer.call('queue', ['two', 'topic', '#', 'topic']);
  const values = Array.from({ length: 20 }, (_, i) => i);
  await peer.publish(values, 'topic', 'a.b');
  await peer.call('purge', ['two']);
  {
    await using dying = new PythonPeer(python, url);
    await dying.call('consume', [['one']]);
    await dying.call('hold', [values.length]);
    dying.kill('SIGKILL');
  }
  const connections = values.slice(0, 6).map(() => new Connection(url, { transportOptions: SHORT }));
  try {
    for (const connection of connections) {
      await connection.Consumer([new Queue('unrelated')], { onMessage: () => undefined }).consume();
    }
    await until('they are restored', async () => (await command('HLEN', 'unacked')) === 0);
    // Python's records do not say which of the queues it was. Leases end one by one, and what is found later goes in front: the
    // order among several that look is nobody's promise.
    const sorted = async (queue: string): Promise<unknown[]> =>
      ((await peer.payloads(queue, 100)) as number[]).sort((a, b) => a - b);
    assert.deepEqual(await sorted('one'), values);
    assert.deepEqual(await sorted('two'), values);
  } finally {
    await Promise.all(connections.map((connection) => connection.close()));
  }
});

pythonPeerTest('what one side gives back by itself the other gets marked as redelivered', async (peers) => {
  const { peer, url } = peers;
  await using connection = new Connection(url);
  await peer.publish(['m'], '', 'q', { priority: 4 });
  await peer.call('consume', [['q']]);
  await peer.call('hold');
  await peer.call('reject', [true]);
  const queue = new Queue('q').bind(connection);
  // kombu 5.2 consumes it again itself unless it is gone
  peer.kill('SIGKILL');
  const message = await until('it is back', () => queue.get());
  assert.equal(message.deliveryInfo.redelivered, true);
  message.requeue();
  await using fresh = new PythonPeer(peers.python, url);
  let got: PythonMessage[] = [];
  await until('Python gets it', async () => {
    got = await fresh.get('q');
    return got.length === 1;
  });
  assert.deepEqual([got[0]!.payload, got[0]!.headers.redelivered, got[0]!.info.redelivered], ['m', true, true]);
  await nothingUnsettled(peers);
});

pythonPeerTest(
  'what a dead consumer held goes back whatever it is, but for what only it was to hear',
  async (peers) => {
    const { peer, command, url, python, prefix } = peers;
    const fanout = `${prefix}fanout`;
    {
      await using dying = new PythonPeer(python, url);
      await dying.call('queue', ['ears', fanout, '', 'fanout']);
      await dying.call('consume', [['ears']]);
      await listening(peers, 1);
      await peer.call('exchange', [fanout, 'fanout']);
      await peer.publish(['heard'], fanout, '');
      await dying.call('hold');
      dying.kill('SIGKILL');
    }
    const odd = [
      'no JSON, "", "x"] é \\',
      '{"body": "no properties"}',
      '{"body": "eA==", "properties": {"priority": [1]}}',
      '[1]',
    ];
    for (const text of odd) await command('LPUSH', 'odd "q"', text);
    {
      await using child = holdingConsumer(peers, 'odd "q"');
      await until('it holds them', async () => (await command('LLEN', 'odd "q"')) === 0);
      child.kill('SIGKILL');
    }
    await using connection = new Connection(url, { transportOptions: SHORT });
    await new Exchange(fanout, { type: 'fanout' }).declare(connection);
    await using other = connection.Consumer([new Queue('unrelated')], { onMessage: () => undefined });
    await other.consume();
    await until('nothing is held', async () => (await command('HLEN', 'unacked')) === 0);
    const back = (await command('LRANGE', 'odd "q"', 0, -1)) as string[];
    assert.equal(back.length, odd.length);
    for (const text of [odd[0], odd[1], odd[3]]) assert.ok(back.includes(text!), text);
    assert.equal(await command('EXISTS', 'ears'), 0);
    assert.equal(await command('ZCARD', 'unacked_index'), 0);
  },
);
