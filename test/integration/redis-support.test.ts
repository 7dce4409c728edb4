// The support code for Redis, tried with its own small client and with ioredis: servers of one's own, their stops and deaths,
// the shared server, Sentinel, and the proxy in front of Redis.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, watch } from 'node:fs';
import { createServer } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { Redis } from 'ioredis';
import { runPython } from '../support/kombu.js';
import { LineChild } from '../support/line-child.js';
import { TcpProxy } from '../support/proxy.js';
import {
  connectRedis,
  RedisServer,
  RespClient,
  redisServerTest,
  redisTest,
  SentinelSet,
  uniqueName,
} from '../support/redis.js';
import { pythonWithRedis } from '../support/redis-python.js';
import { ROOT } from '../support/scripts.js';

const refusal = /ECONNREFUSED/;

redisServerTest('a Redis of its own dies, comes back with its data, and leaves nothing behind', async () => {
  await using server = await RedisServer.start({ config: { appendonly: 'yes' } });
  const { port, pid, folder, url } = server;
  assert.ok(pid);
  assert.equal(url, `redis://127.0.0.1:${port}`);
  await server.command('RPUSH', 'list', 'a', 'b');

  const client = await server.connect();
  await server.kill();
  await client.closed;
  await assert.rejects(client.call('PING'), /closed|ECONNRESET/);
  assert.equal(server.pid, undefined);
  await assert.rejects(connectRedis(url), refusal);
  await server.restart();
  assert.equal(server.port, port);
  assert.notEqual(server.pid, pid);
  assert.deepEqual(await server.command('LRANGE', 'list', 0, -1), ['a', 'b']);

  // while it runs, too
  await server.command('RPUSH', 'list', 'c');
  await server.restart();
  assert.equal(await server.command('LLEN', 'list'), 3);

  await server.dispose();
  await assert.rejects(connectRedis(url), refusal);
  assert.equal(existsSync(folder), false);
  await assert.rejects(server.restart(), /disposed of/);
});

redisServerTest('a Redis of its own keeps nothing that it was not told to keep', async () => {
  await using server = await RedisServer.start();
  await server.command('SET', 'key', 'value');
  await server.restart();
  assert.equal(await server.command('GET', 'key'), null);
});

redisServerTest('a frozen Redis does not answer, and dies all the same', async () => {
  await using server = await RedisServer.start();
  const client = await server.connect();
  server.freeze();
  let answered = false;
  const answer = client.call('PING').then((reply) => {
    answered = true;
    return reply;
  });
  // the kernel still takes connections for it
  (await RespClient.connect({ port: server.port })).close();
  assert.equal(answered, false);
  server.thaw();
  assert.equal(await answer, 'PONG');
  server.freeze();
  await server.kill('SIGTERM');
  await client.closed;
});

redisServerTest('a Redis does not outlive a process that is killed', async () => {
  const module = pathToFileURL(join(ROOT, 'scripts/lib/redis.mjs')).href;
  const program = `
    const { RedisServer } = await import(${JSON.stringify(module)});
    const { url, folder } = await RedisServer.start();
    console.log(JSON.stringify({ url, folder }));
    setInterval(() => undefined, 1000);`;
  await using owner = new LineChild(process.execPath, ['--input-type=module', '-e', program]);
  const { url, folder } = (await owner.json()) as { url: string; folder: string };
  const client = await connectRedis(url);
  const watcher = watch(dirname(folder));
  const removed = new Promise<void>((resolve) => {
    watcher.on('change', (_event, name) => {
      if (name === basename(folder) && !existsSync(folder)) resolve();
    });
  });
  owner.kill('SIGKILL');
  await client.closed;
  await removed;
  watcher.close();
  await assert.rejects(connectRedis(url), refusal);
});

redisServerTest('a Redis whose configuration is wrong fails with what it printed', async () => {
  const start = RedisServer.start({ config: { 'no-such-setting': 'x' } });
  await assert.rejects(start, /ended while it started:[\s\S]*no-such-setting/);
});

redisServerTest(
  'a port that is not to be had is an error, and a Redis of somebody else is not taken for ours',
  async () => {
    await using first = await RedisServer.start();
    await assert.rejects(RedisServer.start({ port: first.port }), /ended while it started:[\s\S]*in use/);
    assert.equal(await first.command('PING'), 'PONG');
  },
);

redisServerTest('a Redis that loads its data is not yet there', async () => {
  await using server = await RedisServer.start({
    // while it loads, Redis looks at its clients after each KiB; a millisecond a key
    config: { 'loading-process-events-interval-bytes': '1024', 'key-load-delay': '1000' },
  });
  await server.command('EVAL', "for i = 1, 300 do redis.call('SET', 'key' .. i, string.rep('x', 100)) end", 0);
  await server.command('SAVE');
  await server.kill();
  await server.restart();
  // the first command after restart() is answered, with all of the data
  assert.equal(await server.command('DBSIZE'), 300);
});

redisServerTest('requirepass and users: each is let in by its own password, to its own keys', async () => {
  await using closed = await RedisServer.start({ config: { requirepass: 'p%40ss' } });
  await assert.rejects((await RespClient.connect({ port: closed.port })).call('PING'), { code: 'NOAUTH' });
  await using withPassword = disposable(new Redis(closed.url));
  assert.equal(await withPassword.client.ping(), 'PONG');

  await using server = await RedisServer.start({
    acl: {
      default: { password: 'none', rules: 'resetkeys -@all' },
      ada: { password: 's/3:@', rules: '~ada:* allchannels allcommands' },
    },
  });
  await using ada = disposable(new Redis(server.urlFor('ada')));
  assert.equal(await ada.client.set('ada:1', 'x'), 'OK');
  await assert.rejects(ada.client.set('other', 'x'), /NOPERM/);
  assert.equal(await server.command('GET', 'ada:1'), 'x');
  await assert.rejects(connectRedis(server.urlFor('ada').replace('s%2F3', 'wrong')), { code: 'WRONGPASS' });
});

redisServerTest('TLS: its own certificate is what clients check', { tls: true }, async () => {
  await using server = await RedisServer.start({ tls: true, config: { requirepass: 'secret' } });
  assert.match(server.url, /^rediss:\/\/:secret@127\.0\.0\.1:\d+$/);
  const { ca, cert, key } = server.certificate!;
  await using trusting = disposable(new Redis(server.url, { tls: { ca } }));
  assert.equal(await trusting.client.ping(), 'PONG');
  await using doubtful = disposable(new Redis(server.url, { lazyConnect: true, retryStrategy: () => null }));
  doubtful.client.on('error', (error) => assert.match(error.message, /self.signed certificate/));
  await assert.rejects(doubtful.client.connect());

  await using mutual = await RedisServer.start({ tls: { clientCertificates: true } });
  await using known = disposable(
    new Redis(mutual.url, { tls: { ca, cert, key }, lazyConnect: true, retryStrategy: () => null }),
  );
  // the first server's certificate is not the second one's
  await assert.rejects(known.client.connect());
  await using shown = disposable(new Redis(mutual.url, { tls: { ...mutual.certificate! } }));
  assert.equal(await shown.client.ping(), 'PONG');
});

redisServerTest('Sentinel: a failover and the death of the primary are announced as +switch-master', async () => {
  await using set = await SentinelSet.start({ masterName: 'm1' });
  const first = set.primary;
  const [replica] = set.replicas;
  await using client = disposable(new Redis({ name: 'm1', sentinels: [...set.addresses] }));
  await client.client.set('key', '1');
  assert.equal(await client.client.wait(1, 0), 1);

  assert.deepEqual(await set.failover(), { name: 'm1', from: first.port, to: replica!.port });
  assert.equal(set.primary, replica);
  for (const sentinel of set.sentinels) {
    const named = await sentinel.command('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'm1');
    assert.deepEqual(named, ['127.0.0.1', String(replica!.port)]);
  }
  assert.equal(await set.primary.command('GET', 'key'), '1');

  assert.deepEqual(await set.killPrimary(), { name: 'm1', from: replica!.port, to: first.port });
  assert.equal(set.primary, first);
  assert.equal(await client.client.get('key'), '1');
  await replica!.restart();
  assert.ok(replica!.pid);
});

redisTest('the shared Redis: each test has a database of its own, empty at its beginning', async (redis) => {
  assert.equal(await redis.command('DBSIZE'), 0);
  assert.equal(redis.url.endsWith(`/${redis.database}`), true);
  await using client = disposable(new Redis(redis.url));
  await client.client.set('key', 'value');
  assert.equal(await redis.command('GET', 'key'), 'value');
});

redisTest('the shared Redis: what the test before left is gone', async (redis) => {
  assert.equal(await redis.command('DBSIZE'), 0);
  assert.notEqual(redis.prefix, uniqueName('test'));
});

redisTest('the proxy cuts a Redis connection after any byte', async (redis) => {
  await using proxy = await TcpProxy.listen(redis.url);
  assert.equal(new URL(proxy.url).pathname, `/${redis.database}`);
  await redis.command('RPUSH', 'list', 'first', 'second');
  // the reply to LRANGE is `*2\r\n$5\r\nfirst\r\n$6\r\nsecond\r\n`, behind `+OK\r\n` for SELECT
  const [ok, all] = [5, 5 + 4 + 11 + 12];
  let at = 0;
  proxy.onConnection((connection) => connection.cutAfter(at, 'toClient'));
  for (at = ok; at < all; at++) {
    const client = await connectRedis(proxy.url);
    await assert.rejects(client.call('LRANGE', 'list', 0, -1), /closed|ECONNRESET/);
    await client.closed;
    assert.equal(proxy.connections.at(-1)!.forwarded.toClient, at);
  }
  at = all + 1;
  const whole = await connectRedis(proxy.url);
  assert.deepEqual(await whole.call('LRANGE', 'list', 0, -1), ['first', 'second']);
  whole.close();
});

redisTest("Python's kombu speaks to the shared Redis", async (redis, context) => {
  const python = pythonWithRedis(context, 'celery');
  if (python === undefined) return;
  const program = `
import sys
from kombu import Connection
with Connection(sys.argv[1]) as connection:
    with connection.SimpleQueue('q') as queue:
        queue.put({'n': 1})
        message = queue.get(timeout=10)
        message.ack()
        print(message.payload['n'])
`;
  assert.equal((await runPython(python, program, [redis.url])).trim(), '1');
});

test('the small client reads what comes in pieces, and errors of what is no Redis', async () => {
  const reply = Buffer.from('*4\r\n$5\r\nh\u00e9\r\n\r\n:-7\r\n$-1\r\n*-1\r\n-ERR no\r\n');
  const server = createServer((socket) => {
    socket.setNoDelay(true);
    // a write each: one piece at a time, in order
    const send = (i: number): void => {
      if (i < reply.length) socket.write(reply.subarray(i, i + 1), () => setImmediate(send, i + 1));
      else socket.once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n'));
    };
    socket.once('data', () => send(0));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const client = await RespClient.connect({ port });
  const [first, second] = [client.call('A'), client.call('B')];
  const refused = assert.rejects(second, { name: 'RespError', message: 'ERR no', code: 'ERR' });
  assert.deepEqual(await first, ['hé\r\n', -7, null, null]);
  await refused;
  await assert.rejects(client.call('C'), /not Redis/);
  server.close();
});

test('a test that needs Redis fails where CI=true and is skipped elsewhere', async () => {
  const module = new URL('../support/redis.js', import.meta.url).href;
  const program = `
    const { redisTest } = await import(${JSON.stringify(module)});
    redisTest('needs one', () => Promise.resolve());`;
  const outcome = (CI: string | undefined) =>
    new Promise<string>((resolve) => {
      const { MOZUKU_TEST_REDIS_URL: _url, NODE_TEST_CONTEXT: _context, ...env } = process.env;
      const args = ['--test-reporter=tap', '--input-type=module', '-e', program];
      execFile(process.execPath, args, { env: { ...env, CI } }, (_error, stdout) => resolve(stdout));
    });
  assert.match(await outcome(undefined), /ok 1 - needs one # SKIP no Redis: run the tests with npm test/);
  assert.match(await outcome('true'), /not ok 1 - needs one/);
});

/** An ioredis client that a failed test does not leave open: it would keep the process alive. */
function disposable(client: Redis) {
  // what matters of an error is told by the command that it fails
  client.on('error', () => undefined);
  return { client, [Symbol.asyncDispose]: async () => client.disconnect() };
}
