// The faults of the TCP proxy: that it passes bytes on untouched, and breaks a connection exactly where it was told to.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { TcpProxy } from '../support/proxy.js';

/** What a socket got, and how it ended. */
class Received {
  bytes = Buffer.alloc(0);
  readonly ended: Promise<string>;
  #waiting: (() => void)[] = [];

  constructor(readonly socket: Socket) {
    socket.on('data', (bytes) => {
      this.bytes = Buffer.concat([this.bytes, bytes]);
      for (const wake of this.#waiting.splice(0)) wake();
    });
    let how = 'end';
    socket.on('error', (error: NodeJS.ErrnoException) => {
      how = error.code ?? 'error';
    });
    this.ended = new Promise((resolve) => socket.on('close', () => resolve(how)));
  }

  async atLeast(count: number): Promise<Buffer> {
    while (this.bytes.length < count) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return this.bytes;
  }
}

/** A server that records, a proxy before it, and a way to connect through it. */
async function setUp() {
  const accepted: Received[] = [];
  const server = createServer((socket) => accepted.push(new Received(socket)));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const proxy = await TcpProxy.listen({ port: (server.address() as AddressInfo).port });
  return {
    proxy,
    async open() {
      const number = accepted.length;
      const client = new Received(connect(proxy.port, '127.0.0.1'));
      const connection = await proxy.connection(proxy.connections.length + 1);
      if (accepted.length === number) await once(server, 'connection');
      return { client, server: accepted[number]!, connection };
    },
    async [Symbol.asyncDispose]() {
      await proxy.close();
      server.close();
    },
  };
}

test('bytes pass both ways untouched and the end of one side reaches the other', async () => {
  await using setup = await setUp();
  const { client, server, connection } = await setup.open();
  const [up, down] = [randomBytes(3_000_000), randomBytes(2_000_000)];
  client.socket.end(up);
  server.socket.write(down);
  assert.ok((await server.atLeast(up.length)).equals(up));
  assert.ok((await client.atLeast(down.length)).equals(down));
  server.socket.end();
  assert.deepEqual(await Promise.all([client.ended, server.ended]), ['end', 'end']);
  await connection.closed;
  assert.deepEqual(connection.forwarded, { toServer: up.length, toClient: down.length });
  assert.deepEqual(setup.proxy.live, []);
});

for (const direction of ['toServer', 'toClient'] as const) {
  test(`cutAfter resets both sides after exactly so many bytes ${direction}`, async () => {
    await using setup = await setUp();
    for (const limit of [1, 2, 9, 1000, 70_000]) {
      const { client, server, connection } = await setup.open();
      const [sender, receiver] = direction === 'toServer' ? [client, server] : [server, client];
      connection.cutAfter(limit, direction);
      const bytes = randomBytes(100_000);
      sender.socket.write(bytes.subarray(0, 5));
      sender.socket.write(bytes.subarray(5));
      assert.equal(await receiver.ended, 'ECONNRESET');
      assert.match(await sender.ended, /ECONNRESET|EPIPE/);
      assert.ok(receiver.bytes.equals(bytes.subarray(0, limit)), `${receiver.bytes.length} instead of ${limit}`);
    }
  });
}

test('cutAfter in onConnection counts from the first byte, and 0 cuts at once', async () => {
  await using setup = await setUp();
  setup.proxy.onConnection((connection) => connection.cutAfter(connection.id === 1 ? 3 : 0, 'toServer'));
  const { client, server } = await setup.open();
  client.socket.write('abcdef');
  assert.equal(await server.ended, 'ECONNRESET');
  assert.equal(server.bytes.toString(), 'abc');
  const second = new Received(connect(setup.proxy.port, '127.0.0.1'));
  assert.equal(await second.ended, 'ECONNRESET');
});

test('observers see bytes before they arrive, and may cut so that they never do', async () => {
  await using setup = await setUp();
  const seen: string[] = [];
  setup.proxy.observe((connection, direction, bytes) => {
    seen.push(`${connection.id} ${direction} ${bytes}`);
    if (bytes.toString() === 'poison') connection.cut();
  });
  const { client, server } = await setup.open();
  client.socket.write('hello');
  await server.atLeast(5);
  server.socket.write('world');
  await client.atLeast(5);
  client.socket.write('poison');
  assert.equal(await server.ended, 'ECONNRESET');
  assert.equal(server.bytes.toString(), 'hello');
  assert.deepEqual(seen, ['1 toServer hello', '1 toClient world', '1 toServer poison']);
});

test('a black hole passes nothing in its direction, and nothing is lost', async () => {
  await using setup = await setUp();
  const { client, server, connection } = await setup.open();
  connection.blackHole('toServer');
  client.socket.end('late');
  server.socket.write('through');
  await client.atLeast(7);
  assert.equal(server.bytes.length, 0);
  connection.resume();
  assert.equal((await server.atLeast(4)).toString(), 'late');
  server.socket.end();
  assert.equal(await client.ended, 'end');
});

test('delay holds each byte back, throttle spreads them', async () => {
  await using setup = await setUp();
  const { client, server, connection } = await setup.open();
  connection.delay(60, 'toServer');
  const started = performance.now();
  client.socket.write('x');
  await server.atLeast(1);
  assert.ok(performance.now() - started >= 59);

  connection.throttle(100_000, 'toClient');
  const throttled = performance.now();
  server.socket.write(randomBytes(10_000));
  await client.atLeast(10_000);
  assert.ok(performance.now() - throttled >= 80, 'ten kilobytes at 100 kB/s take 100 ms');
});

test('refuse turns new connections away and leaves the open ones; accept takes the same port again', async () => {
  await using setup = await setUp();
  const { client, server } = await setup.open();
  const port = setup.proxy.port;
  setup.proxy.refuse();
  assert.equal(await new Received(connect(port, '127.0.0.1')).ended, 'ECONNREFUSED');
  client.socket.write('still');
  await server.atLeast(5);
  await setup.proxy.accept();
  assert.equal(setup.proxy.port, port);
  const next = await setup.open();
  next.client.socket.write('again');
  await next.server.atLeast(5);
  setup.proxy.cutAll();
  assert.deepEqual(await Promise.all([client.ended, next.client.ended]), ['ECONNRESET', 'ECONNRESET']);
});

test('a target that does not listen is a reset for the client', async () => {
  const closed = createServer().listen(0, '127.0.0.1');
  await once(closed, 'listening');
  const { port } = closed.address() as AddressInfo;
  closed.close();
  await using proxy = await TcpProxy.listen(`amqp://user:pass@127.0.0.1:${port}/vhost`);
  assert.equal(proxy.url, `amqp://user:pass@127.0.0.1:${proxy.port}/vhost`);
  assert.equal(await new Received(connect(proxy.port, '127.0.0.1')).ended, 'ECONNRESET');
});
