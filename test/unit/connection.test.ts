/** Connections to what is no broker: deadlines, refusals, aborts, failover, and that nothing tells a password. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { inspect } from 'node:util';
import { AccessRefused, ClosedError, ConnectionError, OperationalError, TimeoutError } from '#src/errors';
import { Connection } from '#src/main/connection';
import { withDeadline } from '#src/main/deadline';
import { openAmqp } from '#src/main/transports/amqp/client';
import { errorFromAmqp } from '#src/main/transports/amqp/errors';
import { LongIntegers } from '#src/main/transports/amqp/long-integers';
import { reconnectDelay } from '#src/main/transports/reconnect';

const SECRET = 'hunter2';

async function listen(onSocket: (socket: Socket) => void): Promise<{ server: Server; port: number }> {
  const server = createServer(onSocket);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, port: (server.address() as AddressInfo).port };
}

/** A port that nothing listens on. */
async function deadPort(): Promise<number> {
  const { server, port } = await listen(() => undefined);
  server.close();
  await once(server, 'close');
  return port;
}

describe('connecting to what is no broker', () => {
  let silent: Server;
  let silentPort: number;
  const sockets = new Set<Socket>();

  before(async () => {
    const made = await listen((socket) => {
      sockets.add(socket);
      socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
      socket.resume();
    });
    silent = made.server;
    silentPort = made.port;
  });
  after(() => silent.close());

  it('constructs without I/O, and shows no password when inspected, printed or put into JSON', () => {
    const connection = new Connection(`amqp://u:${SECRET}@nowhere.invalid/v`);
    assert.equal(connection.connected, false);
    assert.equal(inspect(connection), 'Connection <amqp://u:**@nowhere.invalid:5672/v, not connected>');
    assert.ok(
      !`${connection}${JSON.stringify({ connection })}${inspect({ connection }, { depth: 9 })}`.includes(SECRET),
    );
  });

  it('rejects with ConnectionError and its cause when the port is closed', async () => {
    const port = await deadPort();
    const connection = new Connection(`amqp://u:${SECRET}@127.0.0.1:${port}/v`);
    await assert.rejects(connection.connect(), (error: ConnectionError) => {
      assert.ok(error instanceof ConnectionError);
      assert.match(error.message, new RegExp(`cannot connect to u@127.0.0.1:${port}/v: .*ECONNREFUSED`));
      assert.equal((error.cause as NodeJS.ErrnoException).code, 'ECONNREFUSED');
      assert.equal(error.details.code, 'ECONNREFUSED');
      assert.ok(!inspect(error, { depth: 9 }).includes(SECRET));
      return true;
    });
    // A name with two addresses fails with an AggregateError that has no text of its own.
    await assert.rejects(new Connection(`amqp://localhost:${port}`).connect(), /ECONNREFUSED/);
  });

  for (const scheme of ['amqp', 'amqps']) {
    it(`rejects with TimeoutError when a host takes the connection and stays silent (${scheme})`, async () => {
      const connection = new Connection(`${scheme}://u:${SECRET}@127.0.0.1:${silentPort}`, { connectTimeout: 60 });
      const accepted = once(silent, 'connection');
      await assert.rejects(connection.connect(), (error: TimeoutError) => {
        assert.ok(error instanceof TimeoutError);
        assert.match(error.message, /within 60 ms/);
        return true;
      });
      const [socket] = (await accepted) as [Socket];
      if (!socket.destroyed) await once(socket, 'close');
      assert.equal(connection.connected, false);
    });

    it(`gives up at once when its signal aborts (${scheme})`, async () => {
      const connection = new Connection(`${scheme}://127.0.0.1:${silentPort}`);
      const abort = new AbortController();
      const connecting = connection.connect({ signal: abort.signal });
      const [socket] = (await once(silent, 'connection')) as [Socket];
      const reason = new Error('changed my mind');
      abort.abort(reason);
      await assert.rejects(connecting, reason);
      if (!socket.destroyed) await once(socket, 'close');
    });
  }

  it('shares one attempt, which ends only when nobody waits for it any more', async () => {
    const connection = new Connection(`amqp://127.0.0.1:${silentPort}`, { connectTimeout: 5000 });
    const first = new AbortController();
    const second = new AbortController();
    const accepted = once(silent, 'connection');
    const waits = [connection.connect({ signal: first.signal }), connection.connect({ signal: second.signal })];
    const settled = Promise.allSettled(waits);
    const [socket] = (await accepted) as [Socket];
    first.abort(new Error('one'));
    await assert.rejects(waits[0]!, /one/);
    assert.equal(socket.destroyed, false);
    second.abort(new Error('two'));
    await settled;
    if (!socket.destroyed) await once(socket, 'close');
  });

  it('rejects with ClosedError when closed while it connects, and stays closed', async () => {
    const connection = new Connection(`amqp://127.0.0.1:${silentPort}`);
    const accepted = once(silent, 'connection');
    const refused = assert.rejects(connection.connect(), ClosedError);
    await accepted;
    await connection.close();
    await refused;
    await assert.rejects(connection.channel(), ClosedError);
    await assert.rejects(connection.defaultChannel(), ClosedError);
  });

  it('opens no channel where nobody answers: channel() says so at once, defaultChannel() after its time', async () => {
    const dead = new Connection(`amqp://127.0.0.1:${await deadPort()}`, { connectTimeout: 1000 });
    await assert.rejects(dead.channel(), (error: ConnectionError) => {
      assert.ok(error instanceof ConnectionError && error instanceof OperationalError);
      assert.equal(error.details.code, 'ECONNREFUSED');
      return true;
    });
    await assert.rejects(dead.defaultChannel(), (error: TimeoutError) => {
      assert.ok(error instanceof TimeoutError && error instanceof OperationalError);
      assert.ok(error.cause instanceof ConnectionError);
      assert.match(error.message, /no connection to .* within 1000 ms: .*ECONNREFUSED/);
      return true;
    });
    const mute = new Connection(`amqp://127.0.0.1:${silentPort}`, { connectTimeout: 60 });
    await assert.rejects(mute.channel(), TimeoutError);
    await assert.rejects(mute.defaultChannel(), TimeoutError);
  });

  it('defaultChannel() tries again within its time', async () => {
    let times = 0;
    let twice: () => void = () => undefined;
    const tried = new Promise<void>((resolve) => {
      twice = resolve;
    });
    const { server, port } = await listen((socket) => {
      socket.destroy();
      if (++times === 2) twice();
    });
    const connection = new Connection(`amqp://127.0.0.1:${port}`, { connectTimeout: 60_000 });
    const opening = assert.rejects(connection.defaultChannel(), ClosedError);
    await tried;
    await connection.close();
    await opening;
    server.close();
  });

  it('names every host when none answers', async () => {
    const ports = [await deadPort(), await deadPort()];
    const connection = new Connection(ports.map((port) => `amqp://127.0.0.1:${port}`));
    await assert.rejects(connection.connect(), (error: ConnectionError) => {
      assert.ok(error instanceof ConnectionError && error.cause instanceof AggregateError);
      assert.equal(error.cause.errors.length, 2);
      for (const port of ports) assert.match(error.message, new RegExp(`:${port}/`));
      return true;
    });
  });

  it('asks a strategy of the user for the order, and takes each host once even if it goes round for ever', async () => {
    const ports = [await deadPort(), await deadPort()];
    const urls = ports.map((port) => `amqp://127.0.0.1:${port}`);
    function* backwards(given: readonly string[]): Generator<string> {
      for (;;) yield* [...given].reverse();
    }
    const connection = new Connection(urls, { failoverStrategy: backwards });
    await assert.rejects(connection.connect(), (error: Error) => {
      const tried = (error.cause as AggregateError).errors.map(({ message }) => Number(/:(\d+)\//.exec(message)?.[1]));
      assert.deepEqual(tried, [...ports].reverse());
      return true;
    });
  });

  it('asks for socket options anew for each host', async () => {
    const urls = [await deadPort(), await deadPort()].map((port) => `amqp://127.0.0.1:${port}`);
    let asked = 0;
    const socketOptions = () => {
      asked++;
      return {};
    };
    await assert.rejects(openAmqp(new Connection(urls).parameters, { socketOptions }), ConnectionError);
    assert.equal(asked, 2);
  });

  it('ensureConnection() tries again after failures, tells errback, and gives up after maxRetries', async () => {
    const connection = new Connection(`amqp://127.0.0.1:${await deadPort()}`);
    const waits: number[] = [];
    const errback = (error: Error, interval: number) => {
      assert.ok(error instanceof ConnectionError);
      waits.push(interval);
    };
    await assert.rejects(connection.ensureConnection({ maxRetries: 2, intervalStart: 2, errback }), ConnectionError);
    assert.equal(waits.length, 2);
    assert.ok(waits[0]! >= 1.6 && waits[0]! <= 2.4 && waits[1]! >= 3.2 && waits[1]! <= 4.8, String(waits));
  });

  it('ensureConnection() ends at its timeout, at its signal, and when the connection is closed', async () => {
    const connection = new Connection(`amqp://127.0.0.1:${await deadPort()}`);
    await assert.rejects(connection.ensureConnection({ timeout: 50, intervalStart: 5 }), (error: TimeoutError) => {
      return error instanceof TimeoutError && error.cause instanceof ConnectionError;
    });
    const abort = new AbortController();
    const errback = () => abort.abort(new Error('enough'));
    await assert.rejects(connection.ensureConnection({ signal: abort.signal, errback }), /enough/);
    const closing = connection.ensureConnection({ intervalStart: 1, errback: () => void connection.close() });
    await assert.rejects(closing, ClosedError);
    await assert.rejects(connection.ensureConnection({ maxRetrys: 1 } as object), { name: 'OptionError' });
  });

  it('emits no error event that nobody listens to', async () => {
    const connection = new Connection(`amqp://127.0.0.1:${await deadPort()}`);
    await assert.rejects(connection.connect(), ConnectionError);
    await connection.close();
    await connection.release();
  });
});

describe('errors of amqplib', () => {
  const withCode = (message: string, code: number | string) => Object.assign(new Error(message), { code });

  it('become our classes by reply code', () => {
    const names = [
      [403, 'AccessRefused'],
      [404, 'NotFound'],
      [405, 'ResourceLocked'],
      [406, 'PreconditionFailed'],
      [311, 'ContentTooLarge'],
      [312, 'ChannelError'],
      [313, 'NoConsumers'],
      [320, 'ConnectionForced'],
      [402, 'InvalidPath'],
      [501, 'FrameError'],
      [502, 'FrameSyntaxError'],
      [503, 'InvalidCommand'],
      [504, 'ChannelNotOpen'],
      [505, 'UnexpectedFrame'],
      [506, 'ResourceError'],
      [530, 'NotAllowed'],
      [540, 'AMQPNotImplementedError'],
      [541, 'InternalError'],
      [599, 'ConnectionError'],
    ] as const;
    for (const [code, name] of names) {
      const cause = withCode('Operation failed: QueueDeclare; 404 (X) with message "the broker\'s words"', code);
      const error = errorFromAmqp(cause, 'doing it');
      assert.equal(error.name, name);
      assert.equal(error.message, "doing it: the broker's words");
      assert.equal(error.cause, cause);
      assert.equal(error.details.replyCode, code);
    }
  });

  it('become our classes by what they say', () => {
    assert.equal(errorFromAmqp(withCode('connect ETIMEDOUT', 'ETIMEDOUT'), 'x').name, 'TimeoutError');
    assert.equal(errorFromAmqp(new Error('Heartbeat timeout'), 'x').name, 'ConnectionError');
    assert.equal(errorFromAmqp(new Error('Channel ended, no reply will be forthcoming'), 'x').name, 'ClosedError');
    assert.equal(errorFromAmqp(new Error('Invalid frame'), 'x').name, 'FrameError');
    assert.equal(errorFromAmqp('a string', 'x').name, 'ConnectionError');
    const ours = new AccessRefused('no');
    assert.equal(errorFromAmqp(ours, 'x'), ours);
  });
});

describe('waiting', () => {
  it('withDeadline passes values and errors on, and ends by time or signal', async () => {
    assert.equal(await withDeadline(Promise.resolve(1), 'x', 1000), 1);
    await assert.rejects(withDeadline(Promise.reject(new Error('inner')), 'x', 1000), /inner/);
    const never = new Promise(() => undefined);
    await assert.rejects(withDeadline(never, 'thinking', 5), {
      name: 'TimeoutError',
      message: 'thinking: no answer within 5 ms',
    });
    await assert.rejects(withDeadline(never, 'x', 1000, AbortSignal.abort(new Error('gone'))), /gone/);
  });

  it('reconnectDelay doubles from 100 ms to at most 2 s, give or take 20 %', () => {
    assert.deepEqual(
      [0, 1, 2, 3, 4, 5, 500].map((attempt) => reconnectDelay(attempt, { random: 0.5 })),
      [100, 200, 400, 800, 1600, 2000, 2000],
    );
    assert.equal(reconnectDelay(0, { random: 0 }), 80);
    assert.ok(reconnectDelay(0, { random: 0.999 }) < 120);
  });
});

describe('LongIntegers', () => {
  const frame = (type: number, payload: Buffer) => {
    const head = Buffer.from([type, 0, 1, 0, 0, 0, 0]);
    head.writeUInt32BE(payload.length, 3);
    return Buffer.concat([head, payload, Buffer.from([0xce])]);
  };
  const field = (key: string, type: string, ...bytes: number[]) =>
    Buffer.concat([Buffer.from([key.length]), Buffer.from(key + type), Buffer.from(bytes)]);
  const long = (type: string) => field('LLL', type, 0x4c, 0, 0, 1, 0, 0, 0, 0x4c);
  const sized = (...parts: Buffer[]) => {
    const size = Buffer.alloc(4);
    size.writeUInt32BE(Buffer.concat(parts).length);
    return Buffer.concat([size, ...parts]);
  };
  /** A content header with the content type 'L' and headers of every shape, whose long integers have the type `type`. */
  function header(type: string): Buffer {
    const table = sized(
      long(type),
      field('t', 't', 0x4c),
      field('s', 'S', ...sized(Buffer.from('LLLLLLLL'))),
      field('a', 'A', ...sized(Buffer.from(type), Buffer.alloc(8, 'L'), Buffer.from('V'))),
      field('f', 'F', ...sized(long(type), field('D', 'D', 2, 0x4c, 0, 0, 0))),
      field('d', 'd', ...Buffer.alloc(8, 'L')),
      long(type),
    );
    const start = Buffer.from([0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0xa0, 0, 1, 0x4c]);
    return frame(2, Buffer.concat([start, table]));
  }
  const stream = (type: string) => [
    frame(1, Buffer.alloc(40, 'L')),
    header(type),
    frame(3, Buffer.from('LLL')),
    header(type),
  ];

  it('changes the type of long integers, and nothing else, wherever the bytes are cut', () => {
    const input = Buffer.concat(stream('L'));
    const wanted = Buffer.concat(stream('l'));
    for (let size = 1; size <= input.length; size++) {
      const integers = new LongIntegers();
      const output: Buffer[] = [];
      for (let at = 0; at < input.length; at += size) {
        output.push(Buffer.from(integers.pass(Buffer.from(input.subarray(at, at + size)))));
      }
      assert.ok(Buffer.concat(output).equals(wanted), `in pieces of ${size}`);
    }
  });

  it('passes on what it does not understand', () => {
    const strange = [
      Buffer.from('AMQP\0\0\x09\x01'),
      frame(2, Buffer.from([0, 60])),
      frame(2, Buffer.from([0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0x20, 0, 0xff, 0xff, 0xff, 0xff, 1, 0x4c, 0x4c])),
      frame(2, Buffer.from([0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0xe0, 0, 0xff, 1, 0x4c])),
      frame(
        2,
        Buffer.concat([
          Buffer.from([0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0x20, 0]),
          sized(field('k', '?', 0x4c, 0x4c)),
        ]),
      ),
    ];
    for (const bytes of strange) assert.ok(new LongIntegers().pass(Buffer.from(bytes)).equals(bytes));
  });
});
