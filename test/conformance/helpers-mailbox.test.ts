/** Mailboxes and their nodes, on both brokers. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  type Connection,
  type Consumer,
  Exchange,
  errors,
  LamportClock,
  Mailbox,
  type MailboxOptions,
  type Node,
  Queue,
} from '#src/index';
import { onBothBrokers, type Scene } from '../support/both-brokers.js';

const { ClosedError, ContentDisallowed, InconsistencyError, NotBoundError, OptionError } = errors;

interface Office {
  readonly mailbox: Mailbox;
  readonly scene: Scene;
  /** A node of the same namespace on a connection of its own, that listens. */
  node(name: string, handlers?: Parameters<Mailbox['Node']>[1]): Promise<Node & { consumer: Consumer }>;
}

function withOffice(name: string, run: (office: Office) => Promise<void>, options: MailboxOptions = {}): void {
  onBothBrokers(name, async (scene) => {
    const mailbox = new Mailbox(scene.unique('ns'), { connection: scene.connection, ...options });
    const office: Office = {
      mailbox,
      scene,
      node: async (hostname, given) => {
        const node = mailbox.bind(scene.connect()).Node(hostname, given);
        return Object.assign(node, { consumer: await node.listen() });
      },
    };
    try {
      await run(office);
    } finally {
      await mailbox.close();
      for (const exchange of [mailbox.exchange, mailbox.replyExchange]) await exchange.delete(scene.connection);
    }
  });
}

const echo = (state: unknown, args: object) => ({ state, ...args });

for (const type of ['direct', 'fanout'] as const) {
  withOffice(
    `Mailbox (${type}): the nodes that are named do as they are told and answer`,
    async ({ mailbox, node }) => {
      await node('a', { state: 1, handlers: { echo } });
      await node('b', { state: 2, handlers: { echo } });
      await node('c', { state: 3, handlers: { echo } });
      const replies = await mailbox.call(['a', 'c'], 'echo', { x: 'y' });
      replies.sort((one, other) => (Object.keys(one)[0]! < Object.keys(other)[0]! ? -1 : 1));
      assert.deepEqual(replies, [{ a: { state: 1, x: 'y' } }, { c: { state: 3, x: 'y' } }]);
    },
    { type },
  );
}

withOffice('Mailbox: all nodes, or those whose name matches', async ({ mailbox, node }) => {
  for (const name of ['east.1', 'east.2', 'west.1']) await node(name, { handlers: { ping: () => 'pong' } });
  const names = (replies: object[]) => replies.map((reply) => Object.keys(reply)[0]).sort();
  const heard: object[] = [];
  const all = await mailbox.multiCall(
    'ping',
    {},
    { limit: 3, timeout: 20_000, callback: (reply) => heard.push(reply) },
  );
  assert.deepEqual(names(all), ['east.1', 'east.2', 'west.1']);
  assert.deepEqual(heard, all);
  const options = { limit: 2, timeout: 20_000 };
  const east = await mailbox.multiCall('ping', {}, { ...options, pattern: 'east.*', matcher: 'glob' });
  assert.deepEqual(names(east), ['east.1', 'east.2']);
  const ones = await mailbox.multiCall('ping', {}, { ...options, pattern: '\\w+\\.1$', matcher: 'pcre' });
  assert.deepEqual(names(ones), ['east.1', 'west.1']);
});

withOffice('Mailbox: cast and abcast ask for no answer', async ({ mailbox, node }) => {
  const did: string[] = [];
  let done: () => void = () => undefined;
  const all = new Promise<void>((resolve) => {
    done = resolve;
  });
  for (const name of ['a', 'b']) {
    const mark = (_: unknown, { what }: Record<string, unknown>) => {
      if (did.push(`${name} ${what}`) === 4) done();
    };
    await node(name, { handlers: { mark } });
  }
  await mailbox.cast(['b'], 'mark', { what: 'cast' });
  await mailbox.abcast('mark', { what: 'all' });
  await mailbox.abcast('mark', { what: 'matched' }, { pattern: 'a', matcher: 'glob' });
  await all;
  assert.deepEqual(did.sort(), ['a all', 'a matched', 'b all', 'b cast']);
});

withOffice('Mailbox: calls at the same time get their own answers, each by its ticket', async ({ mailbox, node }) => {
  await node('a', { handlers: { echo: (_, args) => args.n } });
  await node('b', { handlers: { echo: (_, args) => args.n } });
  const calls = Array.from({ length: 10 }, (_, n) => mailbox.call(['a', 'b'], 'echo', { n }));
  for (const [n, replies] of (await Promise.all(calls)).entries()) {
    assert.deepEqual(
      replies.map((reply) => Object.values(reply)[0]),
      [n, n],
    );
  }
  assert.equal(mailbox.unclaimed, 0);
  // One after another too: the queue for replies comes and goes.
  assert.deepEqual(await mailbox.call(['a'], 'echo', { n: 'x' }), [{ a: 'x' }]);
  assert.deepEqual(await mailbox.call(['a'], 'echo', { n: 'y' }), [{ a: 'y' }]);
});

withOffice('Mailbox: after the timeout, the replies that came; later ones are nobody’s', async ({ mailbox, node }) => {
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  await node('a', { handlers: { slow: () => held.then(() => 'late'), quick: () => 'now' } });
  // Keeps the queue for replies there.
  const waiting = mailbox.multiCall('quick', {}, { limit: 2, timeout: 20_000 });
  waiting.catch(() => undefined);
  assert.deepEqual(await mailbox.call(['a'], 'slow', {}, { timeout: 1 }), []);
  release();
  assert.deepEqual(await mailbox.call(['a'], 'quick'), [{ a: 'now' }]);
  await mailbox.close();
  await assert.rejects(waiting, ClosedError);
  assert.equal(mailbox.unclaimed, 1);
});

withOffice('Mailbox: what a handler throws is its answer, and told at the node', async ({ mailbox, node }) => {
  const a = await node('a', {
    handlers: {
      fail: () => {
        throw new RangeError('too far');
      },
      nothing: () => undefined,
    },
  });
  const told = once(a, 'error');
  assert.deepEqual(await mailbox.call(['a'], 'fail'), [{ a: { error: 'RangeError: too far' } }]);
  const [error, method] = await told;
  assert.ok(error instanceof RangeError && method === 'fail');
  const missing = once(a, 'error');
  const [reply] = await mailbox.call(['a'], 'constructor');
  assert.match((reply!.a as { error: string }).error, /no handler for 'constructor'/);
  assert.ok((await missing)[0] instanceof OptionError);
  assert.deepEqual(await mailbox.call(['a'], 'nothing'), [{ a: null }]);
});

withOffice(
  'Mailbox: a node that runs lives on when its connection is lost, until it is told to stop',
  async (office) => {
    const { mailbox, scene } = office;
    const connection = scene.connect();
    const made: Connection[] = [];
    connection.clone = () => {
      made.push(scene.connect());
      return made.at(-1)!;
    };
    const node = mailbox.bind(connection).Node('a', { handlers: { ping: () => 'pong' } });
    const told: unknown[] = [];
    node.on('error', (error) => told.push(error));
    const stop = new AbortController();
    const run = node.run({ signal: stop.signal });
    const listens = async () => {
      // What comes before it listens is lost, as with every mailbox.
      for (;;) {
        const replies = await mailbox.call(['a'], 'ping', {}, { timeout: 100 });
        if (replies.length > 0) return replies;
      }
    };
    assert.deepEqual(await listens(), [{ a: 'pong' }]);
    made[0]!.collect();
    assert.deepEqual(await listens(), [{ a: 'pong' }]);
    assert.equal(made.length, 2);
    assert.equal(told.length, 1);
    stop.abort();
    await run;
    assert.ok(made.every((each) => each.closed));
    await assert.rejects(node.run({ sginal: 1 } as object), OptionError);
    await assert.rejects(
      mailbox
        .bind(await connection.channel())
        .Node('a')
        .run(),
      OptionError,
    );
    await assert.rejects(new Mailbox('ns').Node('a').run(), NotBoundError);
  },
);

withOffice('Mailbox: clocks go with every request and reply', async ({ mailbox, node }) => {
  const a = await node('a', { handlers: { time: () => a.mailbox.clock.value } });
  assert.equal(a.mailbox.clock, mailbox.clock, 'bind() keeps the clock');
  const clock = new LamportClock(100);
  const other = new Mailbox(mailbox.namespace, { connection: mailbox.connection!, clock });
  await other.call(['a'], 'time');
  // Sent at 101, so the node heard of it at 102, answered at 103, and that was heard of at 104.
  assert.deepEqual([mailbox.clock.value, clock.value], [103, 104]);
  // Whatever somebody writes there: it is not to be sent on for ever.
  for (const wrong of [Number.NaN, Number.POSITIVE_INFINITY, Number.MAX_SAFE_INTEGER, 'x', 2n ** 60n]) {
    await a.handleMessage({ method: 'time' }, { headers: { clock: wrong } } as never);
  }
  assert.equal(mailbox.clock.value, 108);
  await other.close();
});

withOffice(
  'Mailbox: an answer that may not be read fails the call; requests likewise are told',
  async ({ mailbox, scene }) => {
    const msgpack = new Mailbox(mailbox.namespace, {
      connection: scene.connect(),
      accept: ['json', 'msgpack'],
      serializer: 'msgpack',
    });
    const picky = msgpack.Node('a', { handlers: { ping: () => 'pong' } });
    await picky.listen();
    await assert.rejects(mailbox.call(['a'], 'ping'), ContentDisallowed);
    const node = mailbox.bind(scene.connect()).Node('b');
    await node.listen();
    const told = once(node, 'error');
    await msgpack.cast(['b'], 'ping');
    assert.ok((await told)[0] instanceof ContentDisallowed);
    await msgpack.close();
  },
);

withOffice('Mailbox: what is no request is told, and the node goes on', async ({ mailbox, node, scene }) => {
  const a = await node('a', { handlers: { ping: () => 'pong' } });
  const bad = [
    'text',
    null,
    [],
    {},
    { method: 'ping', destination: 'a' },
    { method: 'ping', arguments: [1] },
    { method: 'ping', reply_to: { exchange: 'x' } },
    { method: 'ping', pattern: '(', matcher: 'pcre' },
    { method: 'ping', pattern: 'a', matcher: 'sql' },
  ];
  const told: unknown[] = [];
  let done: () => void = () => undefined;
  const all = new Promise<void>((resolve) => {
    done = resolve;
  });
  a.on('error', (error) => {
    if (told.push((error as Error).name) === bad.length) done();
  });
  await using producer = scene.connection.Producer({ exchange: mailbox.exchange, serializer: 'json' });
  for (const body of bad) await producer.publish(body);
  await all;
  assert.deepEqual(told, [...Array(7).fill('DecodeError'), 'OptionError', 'MatcherNotInstalled']);
  assert.deepEqual(await mailbox.call(['a'], 'ping'), [{ a: 'pong' }]);
});

withOffice('Mailbox: a second node of the same name is refused', async ({ mailbox, node, scene }) => {
  const first = await node('a');
  const second = mailbox.bind(scene.connect()).Node('a');
  await assert.rejects(second.listen(), InconsistencyError);
  await first.consumer.close();
  await (await second.listen()).close();
});

withOffice(
  'Mailbox: or warned of, where queues are not exclusive',
  async ({ mailbox, node, scene }) => {
    await node('a', { handlers: { ping: () => 1 } });
    const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
    const second = await mailbox.bind(scene.connect()).Node('a').listen();
    assert.match((await warned).message, /a node named 'a' uses this mailbox already/);
    await second.close();
  },
  { queueExclusive: false },
);

withOffice('Mailbox: waits end with the connection, the signal and close', async ({ mailbox, scene, node }) => {
  let asked: () => void = () => undefined;
  const heard = new Promise<void>((resolve) => {
    asked = resolve;
  });
  await node('a', {
    handlers: {
      never: () => {
        asked();
        return new Promise<never>(() => undefined);
      },
    },
  });
  const abort = new AbortController();
  const aborted = mailbox.call(['a'], 'never', {}, { signal: abort.signal });
  abort.abort(new Error('enough'));
  await assert.rejects(aborted, /enough/);
  const connection = scene.connect();
  const other = mailbox.bind(connection);
  const lost = other.call(['a'], 'never');
  lost.catch(() => undefined);
  await heard;
  await connection.close();
  await assert.rejects(lost, ClosedError);
  const throwing = () => {
    throw new RangeError('from the callback');
  };
  await node('b', { handlers: { ping: () => 1 } });
  await assert.rejects(mailbox.call(['b'], 'ping', {}, { callback: throwing }), RangeError);
});

withOffice('Mailbox: handlers are added by name, and a node can be told without a broker', async ({ mailbox }) => {
  const node = mailbox.Node<{ count: number }>('a', { state: { count: 0 } });
  function add(state: { count: number }, { by = 1 }: Record<string, unknown>) {
    state.count += Number(by);
    return state.count;
  }
  assert.equal(node.handler(add), add);
  node.handler('more', async (state) => add(state, { by: 10 }));
  assert.throws(() => node.handler('x' as never), OptionError);
  assert.throws(
    () =>
      node.handler(
        (
          () => () =>
            1
        )(),
      ),
    OptionError,
  );
  assert.equal(await node.dispatch('add'), 1);
  assert.equal(await node.dispatch('more'), 11);
  assert.equal(await node.handleMessage({ method: 'add', arguments: { by: 5 }, destination: ['a'] }), 16);
  assert.equal(await node.handleMessage({ method: 'add', destination: ['b'] }), undefined);
  assert.equal(await node.handleMessage({ method: 'add', destination: [], pattern: 'b*', matcher: 'glob' }), undefined);
  assert.equal(await node.handleMessage({ method: 'add' }), 17);
});

withOffice('Mailbox: a pool of producers is borrowed from', async ({ mailbox, scene, node }) => {
  await node('a', { handlers: { ping: () => 'pong' } });
  let lent = 0;
  const producer = scene.connection.Producer();
  const producerPool = {
    acquire: async () => {
      lent++;
      return { publish: producer.publish.bind(producer), release: () => undefined };
    },
  };
  await using pooled = new Mailbox(mailbox.namespace, { connection: scene.connection, producerPool });
  assert.deepEqual(await pooled.call(['a'], 'ping'), [{ a: 'pong' }]);
  assert.equal(lent, 1);
});

withOffice('Mailbox: its queues and exchanges are those of kombu', async ({ mailbox }) => {
  const { namespace: ns, exchange, replyExchange, replyQueue, oid } = mailbox;
  assert.deepEqual([exchange.name, exchange.type, exchange.durable], [`${ns}.pidbox`, 'direct', false]);
  assert.deepEqual([replyExchange.name, replyExchange.type], [`reply.${ns}.pidbox`, 'direct']);
  assert.deepEqual(
    [replyQueue.name, replyQueue.routingKey, replyQueue.expires, replyQueue.durable, replyQueue.autoDelete],
    [`${oid}.reply.${ns}.pidbox`, oid, 10_000, false, true],
  );
  const queue = new Mailbox('n', { queueTtl: 5, queueExpires: 7, queueDurable: true }).getQueue('h');
  assert.ok(queue instanceof Queue && exchange instanceof Exchange);
  assert.deepEqual(
    [queue.name, queue.messageTtl, queue.expires, queue.durable, queue.exclusive, queue.autoDelete],
    ['h.n.pidbox', 5, 7, true, false, false],
  );
  assert.throws(() => new Mailbox('n', { queueDurable: true, queueExclusive: true }), OptionError);
  assert.throws(() => new Mailbox(''), OptionError);
  await assert.rejects(new Mailbox('n').call(['a'], 'x'), NotBoundError);
  assert.throws(() => new Mailbox('n').Node('a').Consumer(), NotBoundError);
  await assert.rejects(mailbox.call([], 'x'), OptionError);
  await assert.rejects(mailbox.call('a' as never, 'x'), OptionError);
  await assert.rejects(mailbox.abcast('x', {}, { pattern: 'a' }), OptionError);
  await assert.rejects(mailbox.abcast('x', [] as never), OptionError);
  assert.notEqual(mailbox.oid, mailbox.bind(mailbox.connection!).oid);
});
