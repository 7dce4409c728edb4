/** Simple queues, broadcasts and mailboxes of this library with those of Python's kombu, both ways. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { Broadcast, Connection, Exchange, Mailbox, Queue } from '#src/index';
import { pythonFor, runPython } from '../support/kombu.js';
import { PythonChild } from '../support/line-child.js';
import { brokerTest, uniqueName } from '../support/rabbitmq.js';

interface Peers {
  readonly python: string;
  readonly url: string;
  readonly connection: Connection;
  /** For queues and exchanges. */
  readonly name: string;
}

function withPython(name: string, run: (peers: Peers) => Promise<void>): void {
  const registered = async ({ url }: { url: string }, context: TestContext) => {
    const python = pythonFor(context);
    if (python === undefined) return;
    const connection = await new Connection(url).connect();
    try {
      await run({ python, url, connection, name: uniqueName('mozuku-helpers') });
    } finally {
      await connection.close();
    }
  };
  brokerTest(name, registered, { timeout: 60_000 });
}

const SIMPLE = `
import sys, json, kombu
url, name, what = sys.argv[1:]
with kombu.Connection(url) as connection:
    queue = connection.SimpleQueue(name)
    if what == 'put':
        queue.put({'from': 'Python', 'é': [1, None]}, headers={'k': 'v'})
        queue.put('text')
        queue.put({'z': 'z' * 500}, compression='zlib')
    else:
        out = []
        for _ in range(3):
            message = queue.get(timeout=30)
            out.append([message.payload, message.headers])
            message.ack()
        try:
            queue.get_nowait()
        except queue.Empty:
            out.append('empty')
        print(json.dumps(out))
    queue.close()
`;

withPython('SimpleQueue: what Python puts is got, and what is put here is got by Python', async (peers) => {
  const { python, url, connection, name } = peers;
  await using queue = connection.SimpleQueue(name);
  await runPython(python, SIMPLE, [url, name, 'put']);
  assert.equal(await queue.qsize(), 3);
  const first = await queue.get();
  assert.deepEqual([first.payload, first.headers.k], [{ from: 'Python', é: [1, null] }, 'v']);
  first.ack();
  for (const expected of ['text', { z: 'z'.repeat(500) }]) {
    const message = await queue.getNowait();
    assert.deepEqual(message.payload, expected);
    message.ack();
  }
  await queue.close();

  await using again = connection.SimpleQueue(name);
  await again.put({ from: 'Node', é: [1, null] }, { headers: { k: 'v' } });
  await again.put('text');
  await again.put({ z: 'z'.repeat(500) }, { compression: 'zlib' });
  const got = JSON.parse(await runPython(python, SIMPLE, [url, name, 'get']));
  assert.deepEqual(got, [
    [{ from: 'Node', é: [1, null] }, { k: 'v' }],
    ['text', {}],
    [{ z: 'z'.repeat(500) }, { compression: 'application/x-gzip' }],
    'empty',
  ]);
  await again.close();
  await new Queue(name).delete(connection);
  await new Exchange(name).delete(connection);
});

const BUFFER = `
import sys, json, kombu
url, name, what = sys.argv[1:]
with kombu.Connection(url) as connection:
    buffer = connection.SimpleBuffer(name)
    if what == 'put':
        buffer.put({'from': 'Python'})
    else:
        print(json.dumps(buffer.get(timeout=30).payload))
`;

withPython(
  'SimpleBuffer: one that is not exclusive is shared with Python',
  async ({ python, url, connection, name }) => {
    const options = { queueOpts: { exclusive: false } };
    await using first = connection.SimpleBuffer(`${name}-1`, options);
    await first.put({ from: 'Node' });
    assert.deepEqual(JSON.parse(await runPython(python, BUFFER, [url, `${name}-1`, 'get'])), { from: 'Node' });
    await using second = connection.SimpleBuffer(`${name}-2`, options);
    const getting = second.get({ timeout: 50_000 });
    await second.qsize();
    await runPython(python, BUFFER, [url, `${name}-2`, 'put']);
    assert.deepEqual((await getting).payload, { from: 'Python' });
  },
);

const BROADCAST = `
import sys, json, kombu
from kombu.common import Broadcast
url, name = sys.argv[1:]
with kombu.Connection(url) as connection:
    got = []
    def on_message(body, message):
        message.ack()
        got.append(body)
    with connection.Consumer([Broadcast(name)], callbacks=[on_message]):
        print('ready')
        while len(got) < 2:
            connection.drain_events(timeout=30)
        print(json.dumps(got))
    connection.Producer().publish('from Python', exchange=name)
`;

withPython('Broadcast: both sides get what either publishes', async ({ python, url, connection, name }) => {
  const bodies: unknown[] = [];
  let came: () => void = () => undefined;
  const all = new Promise<void>((resolve) => {
    came = resolve;
  });
  const onMessage = (message: { payload: unknown; ack(): void }) => {
    message.ack();
    if (bodies.push(message.payload) === 3) came();
  };
  await using consumer = connection.Consumer(new Broadcast(name), { onMessage });
  await consumer.consume();
  await using child = new PythonChild(python, BROADCAST, [url, name]);
  assert.equal(await child.line(), 'ready');
  await using producer = connection.Producer({ exchange: name });
  await producer.publish({ n: 1 });
  await producer.publish({ n: 2 });
  assert.deepEqual(await child.json(), [{ n: 1 }, { n: 2 }]);
  await all;
  assert.deepEqual(bodies, [{ n: 1 }, { n: 2 }, 'from Python']);
  await consumer.close();
  await new Exchange(name).delete(connection);
});

const CALLS = `
import sys, json, kombu
from kombu.pidbox import Mailbox
url, namespace, type = sys.argv[1:]
with kombu.Connection(url) as connection:
    mailbox = Mailbox(namespace, type=type, connection=connection)
    out = []
    out.append(mailbox.call(['node.1'], 'echo', {'x': 'é'}, timeout=30))
    out.append(mailbox.call(['node.1'], 'fail', timeout=30))
    out.append(sorted(mailbox.multi_call('name', timeout=30, limit=2), key=lambda reply: list(reply)[0]))
    out.append(mailbox._broadcast('name', reply=True, timeout=30, limit=1, pattern='*.2', matcher='glob'))
    mailbox.cast(['node.2'], 'mark', {'what': 'cast'})
    mailbox.abcast('mark', {'what': 'abcast'})
    out.append(mailbox.clock.value > 100)
    print(json.dumps(out))
`;

for (const type of ['direct', 'fanout'] as const) {
  withPython(`Mailbox (${type}): Python's calls our nodes`, async ({ python, url, connection, name }) => {
    const mailbox = new Mailbox(name, { type, connection });
    mailbox.clock.adjust(100);
    const marks: string[] = [];
    let done: () => void = () => undefined;
    const marked = new Promise<void>((resolve) => {
      done = resolve;
    });
    const consumers = [];
    for (const hostname of ['node.1', 'node.2']) {
      const node = mailbox.Node(hostname, {
        state: { hostname },
        handlers: {
          echo: (_, args) => args,
          name: (state) => state,
          fail: () => {
            throw new RangeError('too far');
          },
          mark: (_, { what }) => {
            if (marks.push(`${hostname} ${what}`) === 3) done();
          },
        },
      });
      // The failure that is asked for.
      node.on('error', () => undefined);
      consumers.push(await node.listen());
    }
    const out = JSON.parse(await runPython(python, CALLS, [url, name, type]));
    assert.deepEqual(out, [
      [{ 'node.1': { x: 'é' } }],
      [{ 'node.1': { error: 'RangeError: too far' } }],
      [{ 'node.1': { hostname: 'node.1' } }, { 'node.2': { hostname: 'node.2' } }],
      [{ 'node.2': { hostname: 'node.2' } }],
      true,
    ]);
    await marked;
    assert.deepEqual(marks.sort(), ['node.1 abcast', 'node.2 abcast', 'node.2 cast']);
    for (const consumer of consumers) await consumer.close();
    await mailbox.close();
    for (const exchange of [mailbox.exchange, mailbox.replyExchange]) await exchange.delete(connection);
  });
}

const NODE = `
import sys, json, socket, kombu
from kombu.pidbox import Mailbox
url, namespace, type, name = sys.argv[1:]
with kombu.Connection(url) as connection:
    mailbox = Mailbox(namespace, type=type, connection=connection)
    stopped = []
    node = mailbox.Node(name, state={'name': name}, channel=connection.default_channel)
    @node.handler
    def echo(state, **arguments):
        return dict(arguments, state=state)
    @node.handler
    def fail(state):
        raise ValueError('from Python')
    @node.handler
    def clock(state):
        return mailbox.clock.value
    @node.handler
    def stop(state, why):
        stopped.append(why)
    with node.listen():
        print('ready')
        while not stopped:
            connection.drain_events(timeout=30)
    print(json.dumps(stopped))
`;

for (const type of ['direct', 'fanout'] as const) {
  withPython(`Mailbox (${type}): ours calls Python's nodes`, async ({ python, url, connection, name }) => {
    await using mailbox = new Mailbox(name, { type, connection });
    await using first = new PythonChild(python, NODE, [url, name, type, 'py.1']);
    await using second = new PythonChild(python, NODE, [url, name, type, 'py.2']);
    assert.deepEqual([await first.line(), await second.line()], ['ready', 'ready']);
    const options = { timeout: 30_000 };
    assert.deepEqual(await mailbox.call(['py.1'], 'echo', { x: 'é' }, options), [
      { 'py.1': { x: 'é', state: { name: 'py.1' } } },
    ]);
    const replies = await mailbox.multiCall('echo', { n: 1 }, { ...options, limit: 2 });
    assert.deepEqual(replies.map((reply) => Object.keys(reply)[0]).sort(), ['py.1', 'py.2']);
    assert.deepEqual(await mailbox.call(['py.2'], 'fail', {}, options), [
      { 'py.2': { error: "ValueError('from Python')" } },
    ]);
    const matched = { ...options, limit: 1, pattern: '*.2', matcher: 'glob' };
    assert.deepEqual(Object.keys((await mailbox.multiCall('echo', {}, matched))[0]!), ['py.2']);
    mailbox.clock.adjust(1000);
    const [reply] = await mailbox.call(['py.1'], 'clock', {}, options);
    assert.ok((reply!['py.1'] as number) > 1000, 'Python takes notice of our clock');
    await mailbox.cast(['py.1'], 'stop', { why: 'cast' });
    assert.deepEqual(await first.json(), ['cast']);
    await mailbox.abcast('stop', { why: 'all' });
    assert.deepEqual(await second.json(), ['all']);
    for (const exchange of [mailbox.exchange, mailbox.replyExchange]) await exchange.delete(connection);
  });
}
