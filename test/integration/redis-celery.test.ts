/** Celery on the same Redis: its worker runs tasks that we publish, and we consume tasks that its clients publish. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { Connection, Exchange, Mailbox, type Message, type PublishOptions, Queue } from '#src/index';
import { LineChild } from '../support/line-child.js';
import { type Peers, pythonPeerTest } from '../support/python-peer.js';
import { until } from '../support/rig.js';

const APP = `
import json, os, sys, time
from celery import Celery
url = sys.argv[1]
# its banner goes elsewhere
OUT = os.dup(1)
os.dup2(2, 1)
app = Celery('mozuku', broker=url, backend=url)
app.conf.update(worker_redirect_stdouts=False, worker_hijack_root_logger=False,
                task_acks_late=True, broker_connection_retry_on_startup=True)
def tell(*what): os.write(OUT, (json.dumps(what) + '\\n').encode())
@app.task(name='add', bind=True)
def add(self, x, y, **more):
    tell('add', x, y, more, self.request.id, self.request.delivery_info.get('priority'), self.request.get('trace'))
    return x + y
@app.task(name='hang')
def hang(i):
    tell('hang', i)
    time.sleep(3600)
`;

const WORKER = `${APP}
from celery.signals import worker_ready
@worker_ready.connect
def ready(**_): tell('ready')
app.worker_main(['worker', '--pool', 'solo', '--without-gossip', '--without-mingle', '--without-heartbeat', '-l', 'ERROR',
                 '-n', 'w1@test'])
`;

/** Calls tasks as a line says: [name, args, kwargs, options]; prints their ids. */
const CLIENT = `${APP}
for line in sys.stdin:
    name, args, kwargs, more = json.loads(line)
    tell(app.tasks[name].apply_async(args, kwargs, **more).id)
`;

async function startWorker({ python, url }: Peers): Promise<LineChild> {
  const worker = new LineChild(python, ['-u', '-c', WORKER, url]);
  try {
    assert.deepEqual(await worker.json(), ['ready']);
    return worker;
  } catch (error) {
    await worker[Symbol.asyncDispose]();
    throw error;
  }
}

/** A task's message as Celery's protocol 2 has it. */
function task(name: string, args: readonly unknown[], kwargs: object = {}): { body: unknown; options: PublishOptions } {
  const id = randomUUID();
  return {
    body: [args, kwargs, { callbacks: null, errbacks: null, chain: null, chord: null }],
    options: {
      headers: {
        lang: 'js',
        task: name,
        id,
        root_id: id,
        parent_id: null,
        group: null,
        retries: 0,
        eta: null,
        expires: null,
      },
      correlationId: id,
      serializer: 'json',
    },
  };
}

const needsCelery = { modules: ['celery'] };

async function resultOf({ command }: Peers, id: string): Promise<unknown> {
  const text = await until('the result', () => command('GET', `celery-task-meta-${id}`));
  const { status, result } = JSON.parse(String(text)) as { status: string; result: unknown };
  assert.equal(status, 'SUCCESS');
  return result;
}

pythonPeerTest(
  'a celery worker runs tasks that we publish, by either exchange, and they are gone then',
  async (peers) => {
    await using connection = new Connection(peers.url);
    await using producer = connection.Producer();
    // before there is a worker, and while there is one
    const early = task('add', [1, 2], { é: 'もずく' });
    await producer.publish(early.body, { ...early.options, routingKey: 'celery', priority: 6 });
    await using worker = await startWorker(peers);
    assert.deepEqual(await worker.json(), ['add', 1, 2, { é: 'もずく' }, early.options.correlationId, 6, null]);
    assert.equal(await resultOf(peers, early.options.correlationId!), 3);

    const exchange = new Exchange('celery', { type: 'direct' });
    const ids: string[] = [];
    for (let i = 0; i < 20; i++) {
      const { body, options } = task('add', [i, 100]);
      ids.push(options.correlationId!);
      const headers = { ...options.headers, trace: `t${i}` };
      await producer.publish(body, { ...options, headers, exchange, routingKey: 'celery', compression: 'zlib' });
    }
    for (const [i, id] of ids.entries()) {
      assert.deepEqual(await worker.json(), ['add', i, 100, {}, id, 0, `t${i}`]);
      assert.equal(await resultOf(peers, id), i + 100);
    }
    await until('all are acked', async () => (await peers.command('HLEN', 'unacked')) === 0);
    assert.equal(await peers.command('EXISTS', 'celery'), 0);
  },
  needsCelery,
);

pythonPeerTest(
  'we consume tasks that celery publishes: arguments, headers, priorities; what we ack is gone',
  async (peers) => {
    const { python, url, command } = peers;
    await using client = new LineChild(python, ['-u', '-c', CLIENT, url]);
    const call = async (...what: unknown[]): Promise<string> => {
      client.tell(JSON.stringify(what));
      return ((await client.json()) as [string])[0];
    };
    const low = await call('add', [1, 2], { k: 'é' }, { priority: 9, headers: { trace: 'x' } });
    const first = await call('add', [3, 4], {}, { priority: 0, countdown: 60, expires: 120 });
    const packed = await call('add', ['もずく', 'b'.repeat(5000)], {}, { compression: 'zlib', priority: 3 });
    await using connection = new Connection(url);
    const messages: Message[] = [];
    await using consumer = connection.Consumer([new Queue('celery')], {
      onMessage: (message) => {
        messages.push(message);
        message.ack();
      },
    });
    await consumer.consume();
    await until('all have come', () => messages.length === 3);
    assert.deepEqual(
      messages.map(({ properties, headers }) => [
        headers.id,
        headers.task,
        properties.correlationId,
        properties.priority,
      ]),
      [
        [first, 'add', first, 0],
        [packed, 'add', packed, 3],
        [low, 'add', low, 9],
      ],
    );
    const bodies = messages.map(({ payload }) => payload as [unknown[], object, object]);
    assert.deepEqual(
      bodies.map(([args]) => args),
      [
        [3, 4],
        ['もずく', 'b'.repeat(5000)],
        [1, 2],
      ],
    );
    assert.deepEqual(bodies[2]![1], { k: 'é' });
    assert.equal(messages[2]!.headers.trace, 'x');
    const { eta, expires } = messages[0]!.headers as { eta: string; expires: string };
    assert.equal(Date.parse(expires) - Date.parse(eta), 60_000);
    await until('all are acked', async () => (await command('HLEN', 'unacked')) === 0);
    const left = (await command('KEYS', '*')) as string[];
    assert.deepEqual(
      left.filter((key) => key.startsWith('celery') && !key.startsWith('celery-task-meta')),
      [],
    );
  },
  needsCelery,
);

pythonPeerTest(
  'what a celery worker held when it was killed we have within the visibility timeout',
  async (peers) => {
    await using connection = new Connection(peers.url, { transportOptions: { visibilityTimeout: 1500 } });
    await using producer = connection.Producer({ routingKey: 'celery' });
    {
      await using worker = await startWorker(peers);
      for (const i of [1, 2, 3]) {
        const { body, options } = task('hang', [i]);
        await producer.publish(body, { ...options, priority: 9 });
      }
      assert.deepEqual(await worker.json(), ['hang', 1]);
      assert.equal(await peers.command('HLEN', 'unacked'), 1);
      worker.kill('SIGKILL');
    }
    const held: [number, boolean, unknown][] = [];
    await using consumer = connection.Consumer([new Queue('celery')], {
      onMessage: (message) => {
        const [args] = message.payload as [[number]];
        held.push([args[0], message.deliveryInfo.redelivered, message.properties.priority]);
        message.ack();
      },
    });
    await consumer.consume();
    await until('all have come', () => held.length >= 3);
    const sorted = held.sort((a, b) => a[0] - b[0]);
    assert.deepEqual(sorted, [
      [1, true, 9],
      [2, false, 9],
      [3, false, 9],
    ]);
    await until('all are acked', async () => (await peers.command('HLEN', 'unacked')) === 0);
  },
  needsCelery,
);

pythonPeerTest(
  'a celery worker answers our mailbox',
  async (peers) => {
    await using worker = await startWorker(peers);
    await using connection = new Connection(peers.url);
    await using mailbox = new Mailbox('celery', { type: 'fanout', connection });
    const replies = await mailbox.multiCall('ping', {}, { limit: 1, timeout: 60_000 });
    assert.deepEqual(replies, [{ 'w1@test': { ok: 'pong' } }]);
    worker.kill();
  },
  needsCelery,
);
