/** Connections and channels against a broker: tuning, refusals, failover, loss, closing. Needs a broker. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { AccessRefused, ClosedError, ConnectionError, KombuError, NotFound, TimeoutError } from '#src/errors';
import { Connection } from '#src/main/connection';
import type { Channel } from '#src/main/entities/channel';
import { Queue } from '#src/main/entities/queue';
import { openAmqp } from '#src/main/transports/amqp/client';
import { brokerTest, sharedBroker, uniqueName } from '../support/rabbitmq.js';

const url = sharedBroker()?.url;
const skip = url === undefined ? 'NOT RUN: no broker; use npm test, or set MOZUKU_TEST_AMQP_URL' : false;

/** Cuts the connection of a channel as a broken network would. */
function cut(channel: Channel): void {
  (channel.raw.connection as unknown as { stream: Socket }).stream.destroy(new Error('the network is gone'));
}

/** A proxy in front of the broker that can stop passing anything on. */
async function freezer(target: URL): Promise<{ url: string; freeze: () => void; close: () => void }> {
  const pairs = new Set<Socket>();
  const server = createServer((client) => {
    const broker = connect(Number(target.port), target.hostname);
    for (const socket of [client, broker]) socket.on('error', () => undefined).on('close', () => pairs.delete(socket));
    client.pipe(broker).pipe(client);
    pairs.add(client).add(broker);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const through = new URL(target);
  through.hostname = '127.0.0.1';
  through.port = String((server.address() as AddressInfo).port);
  return {
    url: through.href,
    freeze: () => {
      for (const socket of pairs) socket.unpipe().pause();
    },
    close: () => {
      server.close();
      for (const socket of pairs) socket.destroy();
    },
  };
}

describe('connections to a broker', { skip }, () => {
  it('connect, say so, and close', async () => {
    const connection = new Connection(url!);
    const events: unknown[] = [];
    connection.on('connected', () => events.push('connected'));
    connection.on('disconnected', (error) => events.push(error));
    assert.equal(await connection.connect(), connection);
    await connection.connect();
    assert.equal(connection.connected, true);
    const channel = await connection.channel();
    await connection.close();
    await connection.close();
    assert.equal(connection.connected, false);
    assert.equal(channel.closed, true);
    assert.equal(await channel.ended, undefined);
    assert.deepEqual(events, ['connected', undefined]);
    await assert.rejects(
      channel.call('asking', async (raw) => raw.prefetch(1)),
      ClosedError,
    );
    await assert.rejects(connection.channel(), ClosedError);
    await connection.connect();
    assert.equal(connection.connected, true);
    await connection.release();
  });

  it('close when they are disposed of', async () => {
    let outer: Connection;
    {
      await using connection = new Connection(url!);
      outer = await connection.connect();
    }
    assert.deepEqual([outer.connected, outer.closed], [false, true]);
  });

  it('tune the heartbeat: at most 60 when it is not given, off at 0, in whole seconds', async () => {
    for (const [heartbeat, tuned] of [
      [undefined, 60],
      [0, 0],
      [7, 7],
      [0.5, 1],
    ] as const) {
      const { parameters } = new Connection(url!, heartbeat === undefined ? {} : { heartbeat });
      const amqp = await openAmqp(parameters);
      assert.ok(heartbeat === undefined ? amqp.heartbeat > 0 && amqp.heartbeat <= tuned : amqp.heartbeat === tuned);
      assert.ok(amqp.frameMax >= 8192);
      await amqp.close();
      assert.equal(await amqp.ended, undefined);
    }
  });

  it('pass socket options on: bytes can be read before amqplib sees them, also where a name has two addresses', async () => {
    const { hostname } = new Connection(url!);
    for (const host of new Set([hostname, 'localhost'])) {
      const target = new URL(url!);
      target.hostname = host;
      let bytes = 0;
      const socketOptions = () => ({
        onread: {
          buffer: Buffer.alloc(65536),
          callback(this: Socket, count: number, buffer: Buffer) {
            bytes += count;
            this.push(Buffer.from(buffer.subarray(0, count)));
            return true;
          },
        },
      });
      const amqp = await openAmqp(new Connection(target.href).parameters, {
        socketOptions,
        clientName: 'a test',
      });
      const channel = await amqp.model.createChannel();
      await channel.checkExchange('amq.direct');
      assert.ok(bytes > 0);
      await amqp.close();
    }
  });

  it('are refused with a wrong password, in words without it, and not tried again', async () => {
    const target = new URL(url!);
    target.username = 'nobody';
    target.password = 'hunter2';
    const connection = new Connection(target.href);
    const refused = (error: AccessRefused) => {
      assert.ok(error instanceof AccessRefused);
      assert.ok(error.message.includes(`nobody@${target.hostname}:${target.port}/`), error.message);
      assert.ok(!error.message.includes('hunter2'));
      assert.deepEqual([error.details.refused, error.details.replyCode], ['login', 403]);
      return true;
    };
    await assert.rejects(connection.connect(), refused);
    await assert.rejects(connection.ensureConnection({ errback: () => assert.fail('tried again') }), refused);
  });

  it('are refused where the virtual host is not there', async () => {
    const connection = new Connection(url!).clone({ virtualHost: 'no/such host' });
    await assert.rejects(connection.connect(), (error: AccessRefused) => {
      assert.ok(error instanceof AccessRefused);
      assert.match(error.message, /virtual host of .*\/no\/such host/);
      assert.equal(error.details.refused, 'virtualHost');
      return true;
    });
  });

  it('try the next host when one is gone, and begin there the next time', async () => {
    const dead = createServer();
    dead.listen(0, '127.0.0.1');
    await once(dead, 'listening');
    const { port } = dead.address() as AddressInfo;
    let touched = 0;
    dead.on('connection', (socket) => {
      touched++;
      socket.destroy();
    });
    await using connection = new Connection([`amqp://127.0.0.1:${port}`, url!]);
    await connection.connect();
    assert.equal(touched, 1);
    await connection.close();
    await connection.connect();
    assert.equal(touched, 1);
    dead.close();
  });

  it('tell of their loss by event and error, crash nobody, and open again when needed', async () => {
    await using connection = new Connection(url!);
    const channel = await connection.channel();
    // Not `once` of node:events, which listens to 'error' too.
    const lost = new Promise((resolve) => connection.once('disconnected', resolve));
    const asking = channel.call('asking', (raw) => raw.checkExchange('amq.direct'));
    asking.catch(() => undefined);
    cut(channel);
    const reason = (await lost) as ConnectionError;
    assert.ok(reason instanceof ConnectionError);
    assert.match(reason.message, /was lost: the network is gone/);
    await assert.rejects(asking, (error) => error === reason);
    assert.equal(await channel.ended, reason);
    assert.equal(connection.connected, false);
    await assert.rejects(
      channel.call('asking', (raw) => raw.checkExchange('amq.direct')),
      (error: ClosedError) => error instanceof ClosedError && error.cause === reason,
    );
    const errors: unknown[] = [];
    connection.on('error', (error) => errors.push(error));
    cut(await connection.channel());
    await new Promise((resolve) => connection.once('disconnected', resolve));
    assert.equal(errors.length, 1);
    assert.equal((await connection.channel()).closed, false);
  });

  it('share one default channel, and open another after the broker closed it', async () => {
    await using connection = new Connection(url!);
    const [first, same] = await Promise.all([connection.defaultChannel(), connection.defaultChannel()]);
    assert.equal(first, same);
    await assert.rejects(new Queue('no-such-queue', undefined, { passive: true }).declare(connection), NotFound);
    assert.ok((await first.ended) instanceof NotFound);
    const second = await connection.defaultChannel();
    assert.notEqual(second, first);
    assert.equal(second.closed, false);
  });
});

brokerTest(
  'transport options reach the broker: the size of frames, the number of channels, the properties of the client',
  async ({ url, ctl }) => {
    const mine = uniqueName('client');
    const transportOptions = { frameMax: 8192, channelMax: 2, clientProperties: { mine } };
    await using connection = new Connection(url, { transportOptions });
    const channels = [await connection.channel(), await connection.channel()];
    await assert.rejects(connection.channel(), KombuError);
    assert.ok(channels.every((channel) => !channel.closed));
    await channels[0]!.close();
    assert.equal((await connection.channel()).closed, false, 'a number that is free again is used again');
    const columns = ['client_properties', 'frame_max', 'channel_max'];
    const rows = JSON.parse(await ctl('list_connections', '--formatter', 'json', ...columns)) as object[];
    const row = rows.find((each) => JSON.stringify(each).includes(mine)) as Record<string, unknown> | undefined;
    assert.deepEqual([row?.frame_max, row?.channel_max], [8192, 2]);
  },
  { ctl: true },
);

describe('a broker that does not answer any more', { skip }, () => {
  it('holds up nobody for longer than the deadline: calls, publishes, new channels, closing', async () => {
    const proxy = await freezer(new URL(url!));
    const connection = new Connection(proxy.url);
    const channel = await connection.channel();
    const producer = connection.Producer();
    await producer.publish('before', { routingKey: 'no-such-queue' });
    proxy.freeze();
    await assert.rejects(
      channel.call('asking', (raw) => raw.checkExchange('amq.direct'), { timeout: 30 }),
      { name: 'TimeoutError', message: 'asking: no answer within 30 ms' },
    );
    await assert.rejects(producer.publish('x', { routingKey: 'no-such-queue', timeout: 30 }), TimeoutError);
    await assert.rejects(connection.channel({ timeout: 30 }), TimeoutError);
    const reason = new Error('enough');
    await assert.rejects(
      producer.publish('x', { routingKey: 'q', signal: AbortSignal.any([AbortSignal.abort(reason)]) }),
      reason,
    );
    const later = new AbortController();
    const waiting = assert.rejects(producer.publish('x', { routingKey: 'q', signal: later.signal }), reason);
    later.abort(reason);
    await waiting;
    await connection.close({ timeout: 30 });
    assert.equal(connection.connected, false);
    proxy.close();
  });
});
