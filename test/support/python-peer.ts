/** Python's kombu on the other side of a Redis: a process that does one thing after another, as it is told. */
import type { TestContext } from 'node:test';
import { type KombuFacts, kombuFacts } from './kombu.js';
import { PythonChild } from './line-child.js';
import { type RedisSpace, redisTest } from './redis.js';
import { pythonWithRedis } from './redis-python.js';
import { until } from './rig.js';

/** Values that JSON has not are `{ $kind: text }` on the way there. */
const PROGRAM = `
import base64, datetime, decimal, json, logging, socket, sys, time, uuid
import kombu, kombu.compression
logging.disable(logging.CRITICAL)
try:
    import lz4.frame
    kombu.compression.register(lz4.frame.compress, lz4.frame.decompress, 'application/x-lz4', aliases=['lz4'])
except ImportError: pass
MARKS = {
    '$bytes': base64.b64decode, '$int': int, '$decimal': decimal.Decimal, '$uuid': uuid.UUID,
    '$datetime': datetime.datetime.fromisoformat, '$date': datetime.date.fromisoformat,
}
def marked(item):
    (key, text), = item.items() if len(item) == 1 else [(None, None)]
    return MARKS[key](text) if key in MARKS else item
def plain(value):
    if isinstance(value, (bytes, memoryview)): return {'$bytes': base64.b64encode(bytes(value)).decode()}
    if isinstance(value, datetime.datetime): return {'$datetime': value.isoformat()}
    if isinstance(value, decimal.Decimal): return {'$decimal': str(value)}
    if isinstance(value, uuid.UUID): return {'$uuid': str(value)}
    raise TypeError(repr(value))
def described(message):
    return {'payload': message.payload, 'headers': message.headers, 'properties': message.properties,
            'info': message.delivery_info, 'type': message.content_type, 'encoding': message.content_encoding}

url, options = sys.argv[1], json.loads(sys.argv[2])
ACCEPT = ['json', 'msgpack', 'yaml', 'text/plain', 'application/data']
connection = kombu.Connection(url, transport_options=options)
channel = connection.default_channel
producer = kombu.Producer(connection)
held, consumers, simples = [], [], {}

def exchange(name, type): kombu.Exchange(name, type, channel=channel).declare()
def queue(name, exchange='', key='', type='direct', auto_delete=False):
    kombu.Queue(name, kombu.Exchange(exchange, type) if exchange else None, key, channel=channel,
                auto_delete=auto_delete).declare()
def publish(values, exchange='', key='', **more):
    for value in values: producer.publish(value, exchange=exchange, routing_key=key, **more)
def get(name, count=1):
    'messages that are there, acked'
    found, bound = [], kombu.Queue(name, channel=channel)
    while len(found) < count:
        message = bound.get(accept=ACCEPT)
        if message is None: break
        message.ack()
        found.append(described(message))
    return found
def consume(names, prefetch=0):
    consumer = kombu.Consumer(connection, [kombu.Queue(name) for name in names], accept=ACCEPT,
                              on_message=held.append, auto_declare=False)
    if prefetch: consumer.qos(prefetch_count=prefetch)
    consumer.consume()
    consumers.append(consumer)
    # whatever is asked of the server is asked before this returns: SUBSCRIBE and BRPOP go out with the first poll
    try: connection.drain_events(timeout=0.01)
    except socket.timeout: pass
def hold(count=1):
    'so many that are consumed, in all, not acked'
    while len(held) < count: connection.drain_events(timeout=60)
    return [described(message) for message in held[:count]]
def ack():
    while held: held.pop(0).ack()
def take(count):
    'so many that are consumed, acked'
    found = []
    while len(found) < count:
        while not held: connection.drain_events(timeout=60)
        message = held.pop(0)
        found.append(described(message))
        message.ack()
    return found
def reject(requeue): held.pop(0).reject(requeue=requeue)
def flow(last):
    'takes and acks until it has seen the value last: by itself, or because it was told on the other queue'
    found = []
    while True:
        while not held: connection.drain_events(timeout=60)
        message = held.pop(0)
        message.ack()
        if message.payload == last: return found
        found.append(message.payload)
def size(name): return channel._size(name)
def purge(name): return channel.queue_purge(name)
def delete(name): channel.queue_delete(name)
def restore(tag): channel.qos.restore_by_tag(tag)
def restore_visible(until):
    'its sweep, for all that was delivered before this time'
    channel.qos.visibility_timeout = time.time() - until
    channel.qos.restore_visible(num=channel.unacked_restore_limit, interval=1)
def simple_put(name, value, **more): connection.SimpleQueue(name, channel=channel).put(value, **more)
def simple_get(name):
    # one consumer a queue and connection, as kombu has it
    if name not in simples: simples[name] = connection.SimpleQueue(name, channel=channel)
    message = simples[name].get(timeout=60)
    message.ack()
    return described(message)

print('"ready"')
for line in sys.stdin:
    name, args, more = json.loads(line, object_hook=marked)
    print(json.dumps(globals()[name](*args, **more), default=plain))
`;

export interface PythonMessage {
  readonly payload: unknown;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly properties: Readonly<Record<string, unknown>>;
  readonly info: Readonly<Record<string, unknown>>;
  readonly type: string;
  readonly encoding: string;
}

type Named = Readonly<Record<string, unknown>>;

export class PythonPeer extends PythonChild {
  #last: Promise<unknown>;

  constructor(python: string, url: string, transportOptions: Named = {}) {
    super(python, PROGRAM, [url, JSON.stringify(transportOptions)]);
    this.#last = this.line();
    // told to who asks for something
    this.#last.catch(() => undefined);
  }

  /** What the function of the program returns. One after another, as they were called. */
  call(name: string, args: readonly unknown[] = [], named: Named = {}): Promise<unknown> {
    const answer = this.#last.then(() => {
      this.tell(toPython([name, args, named]));
      return this.json();
    });
    // whoever asked is told
    this.#last = answer.catch(() => undefined);
    return answer;
  }

  async publish(values: readonly unknown[], exchange: string, key: string, named: Named = {}): Promise<void> {
    await this.call('publish', [values, exchange, key], named);
  }

  /** Messages that are there, acked. */
  async get(queue: string, count = 1): Promise<PythonMessage[]> {
    return (await this.call('get', [queue, count])) as PythonMessage[];
  }

  async payloads(queue: string, count = 1): Promise<unknown[]> {
    return (await this.get(queue, count)).map(({ payload }) => payload);
  }
}

/** JSON with marks for what it has not. */
export function toPython(value: unknown): string {
  return JSON.stringify(value, function (this: Record<string, unknown>, key, inner: unknown) {
    const given = this[key];
    if (Buffer.isBuffer(given)) return { $bytes: given.toString('base64') };
    return typeof given === 'bigint' ? { $int: String(given) } : inner;
  });
}

export interface Peers extends RedisSpace {
  readonly python: string;
  readonly facts: KombuFacts;
  /** One that is told what to do; ended after the test. */
  readonly peer: PythonPeer;
  readonly context: TestContext;
}

/** A test with a database of its own and a Python on it; skipped by its name where there is none. */
export function pythonPeerTest(
  title: string,
  run: (peers: Peers) => Promise<void>,
  options: { readonly python?: Named; readonly timeout?: number; readonly modules?: readonly string[] } = {},
): void {
  redisTest(title, { timeout: options.timeout ?? 120_000 }, async (redis, context) => {
    const python = pythonWithRedis(context, ...(options.modules ?? []));
    if (python === undefined) return;
    await using peer = new PythonPeer(python, redis.url, options.python);
    await run({ ...redis, python, facts: kombuFacts(python), peer, context });
  });
}

/** So many clients on this database have subscribed: what is published before is not heard. */
export async function listening({ command, database }: Peers, count: number): Promise<void> {
  await until('they listen', async () => {
    const clients = String(await command('CLIENT', 'LIST')).split('\n');
    const ears = clients.filter((line) => line.includes(` db=${database} `) && / p?sub=[1-9]/.test(line));
    return ears.length === count;
  });
}
