/** Trying again, and switching hosts, without a broker. kombu's B03, B04, B06. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { describe, it } from 'node:test';
import { Connection, errors } from '#src/index';

const { AccessRefused, ConnectionError, OperationalError, TimeoutError } = errors;

/** Ports that nothing listens on. */
async function deadUrls(count: number): Promise<string[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, '127.0.0.1');
      await once(server, 'listening');
      return server;
    }),
  );
  const urls = servers.map((server) => `amqp://127.0.0.1:${(server.address() as AddressInfo).port}`);
  for (const server of servers) server.close();
  return urls;
}

const portsOf = (urls: readonly string[]) => urls.map((url) => Number(new URL(url).port));
const portOf = (error: Error) => Number(/:(\d+)\//.exec(error.message)?.[1]);

describe('ensureConnection() over several hosts', () => {
  it('tells errback of each host with 0 ms until the next, and waits longer after each whole cycle', async () => {
    const urls = await deadUrls(2);
    const [a, b] = portsOf(urls);
    const told: [number, number][] = [];
    const errback = (error: Error, interval: number) => void told.push([portOf(error), interval]);
    const connection = new Connection(urls);
    const options = { maxRetries: 2, intervalStart: 2, intervalStep: 3, intervalMax: 4, errback };
    await assert.rejects(connection.ensureConnection(options), (error: Error) => {
      assert.ok(error instanceof ConnectionError && error.cause instanceof AggregateError);
      return true;
    });
    assert.deepEqual(told, [
      [a, 0],
      [b, 2],
      [a, 0],
      [b, 4],
      [a, 0],
    ]);
  });

  it('goes on at the next host after an errback that throws', async () => {
    const urls = await deadUrls(3);
    const connection = new Connection(urls);
    const tried: number[] = [];
    const reason = new Error('the errback failed');
    for (let i = 0; i < 4; i++) {
      const errback = (error: Error) => {
        tried.push(portOf(error));
        throw reason;
      };
      await assert.rejects(connection.ensureConnection({ errback }), reason);
    }
    const [a, b, c] = portsOf(urls);
    assert.deepEqual(tried, [a, b, c, a]);
  });

  it('shuffles: each host once in a cycle', async () => {
    const urls = await deadUrls(4);
    const connection = new Connection(urls, { failoverStrategy: 'shuffle' });
    const tried: number[] = [];
    const errback = (error: Error) => void tried.push(portOf(error));
    await assert.rejects(connection.ensureConnection({ maxRetries: 1, intervalStart: 1, errback }), ConnectionError);
    assert.equal(tried.length, 7);
    assert.deepEqual([...new Set(tried.slice(0, 4))].sort(), portsOf(urls).sort());
  });
});

describe('switch()', () => {
  it('takes on another host, and keeps what its URL leaves out', async () => {
    const connection = new Connection('amqp://me:pw@a:1234/v', { heartbeat: 7 });
    await connection.switch('amqps://b');
    assert.equal(connection.asUri({ includePassword: true }), 'amqps://me:pw@b:5671/v');
    assert.deepEqual([connection.heartbeat, connection.ssl, connection.host], [7, true, 'b:5671']);
    await connection.switch('c:99');
    assert.equal(connection.host, 'c:99');
    await assert.rejects(connection.switch('kafka://x'), errors.TransportNotAvailable);
  });

  it('turns to the next of the hosts, and comes back to the first as options had completed it', async () => {
    const connection = new Connection('one;amqp://two:2/w;amqp://three', { port: 1, userid: 'me', virtualHost: 'v' });
    const seen: string[] = [];
    for (let i = 0; i < 4; i++) {
      seen.push(connection.asUri());
      assert.equal(connection.alternates.length, 3);
      await connection.maybeSwitchNext();
    }
    assert.deepEqual(seen, [
      'amqp://me:**@one:1/v',
      'amqp://me:**@two:2/w',
      'amqp://me:**@three:5672/w',
      'amqp://me:**@one:1/v',
    ]);
  });

  it('stays where it is without alternates', async () => {
    const connection = new Connection('amqp://h');
    const { parameters } = connection;
    await connection.maybeSwitchNext();
    assert.equal(connection.parameters, parameters);
  });

  it('completesCycle() counts whole rounds of the hosts', () => {
    const two = new Connection('amqp://a;amqp://b');
    assert.deepEqual(
      [0, 1, 2, 3].map((retries) => two.completesCycle(retries)),
      [false, true, false, true],
    );
    assert.ok(new Connection('amqp://a').completesCycle(0));
  });
});

describe('ensure()', () => {
  const lost = () => new ConnectionError('lost');
  const connection = new Connection('memory://ensure-of-this-file');

  it('passes arguments and results through, and errors that no reconnect mends', async () => {
    const add = connection.ensure((a: number, b: number) => a + b);
    assert.equal(await add(1, 2), 3);
    for (const error of [new Error('mine'), new AccessRefused('no'), new errors.NotFound('none')]) {
      let runs = 0;
      const failing = connection.ensure(() => {
        runs++;
        throw error;
      });
      await assert.rejects(failing(), error);
      assert.equal(runs, 1);
    }
  });

  it('runs again after a lost connection: errback, reconnect, onRevive with a channel, the same arguments', async () => {
    const events: unknown[] = [];
    const flaky = connection.ensure(
      (value: string) => {
        events.push(value);
        if (events.length === 1) throw lost();
        return value;
      },
      {
        errback: (error, interval) => events.push([(error as Error).message, interval]),
        onRevive: (channel) => events.push(channel.closed),
      },
    );
    assert.equal(await flaky('it'), 'it');
    assert.deepEqual(events, ['it', ['lost', 0], false, 'it']);
    assert.equal(connection.connected, true);
    await connection.close();
  });

  it('gives up after maxRetries with OperationalError, and after timeout', async () => {
    await connection.connect();
    for (const options of [{ maxRetries: 3, intervalStart: 1 }, { timeout: 0 }]) {
      let runs = 0;
      const failing = connection.ensure(() => {
        runs++;
        throw lost();
      }, options);
      await assert.rejects(failing(), (error: Error) => {
        assert.equal(error.constructor, OperationalError);
        assert.ok(error.cause instanceof ConnectionError);
        return true;
      });
      assert.equal(runs, 'maxRetries' in options ? 4 : 1);
    }
    await connection.close();
  });

  it('runs again after the errors of retryErrors, and rejects with the last of them', async () => {
    await connection.connect();
    class Nacked extends Error {}
    let runs = 0;
    const waits: number[] = [];
    const errback = (_: unknown, interval: number) => void waits.push(interval);
    const options = { maxRetries: 3, intervalStart: 1, intervalStep: 1, retryErrors: [Nacked], errback };
    const failing = connection.ensure(() => {
      throw new Nacked(`no. ${++runs}`);
    }, options);
    await assert.rejects(failing(), (error: Error) => error instanceof Nacked && error.message === 'no. 4');
    assert.deepEqual(waits, [0, 1, 2]);
    const channels = connection.ensure(() => {
      if (++runs < 6) throw new errors.ResourceLocked('taken');
      return runs;
    });
    assert.equal(await channels(), 6);
    await connection.close();
  });

  it('ends by its signal, when the connection is closed, and when no host answers any more', async () => {
    await connection.connect();
    const reason = new Error('enough');
    const abort = new AbortController();
    const endless = connection.ensure(
      () => {
        throw lost();
      },
      { signal: abort.signal, errback: () => abort.abort(reason) },
    );
    await assert.rejects(endless(), reason);
    const closing = connection.ensure(async () => {
      await connection.close();
      throw lost();
    });
    await assert.rejects(closing(), { message: 'lost' });
    const [url] = await deadUrls(1);
    const dead = new Connection(url!).ensure(
      () => {
        throw lost();
      },
      { maxRetries: 1, intervalStart: 1 },
    );
    await assert.rejects(dead(), /ECONNREFUSED/);
  });

  it('refuses options it does not know, as connect(), close(), channel() and the others do', async () => {
    const unknown = { name: 'OptionError' };
    assert.throws(() => connection.ensure(() => 1, { maxRetry: 1 } as object), unknown);
    assert.throws(() => connection.autoretry(() => 1, { chanel: 1 } as object), unknown);
    assert.throws(() => connection.ensure(() => 1, { retryErrors: ['x'] } as never), unknown);
    await assert.rejects(connection.connect({ timeout: 1 } as object), unknown);
    await assert.rejects(connection.close({ signal: 1 } as object), unknown);
    await assert.rejects(connection.channel({ timout: 1 } as object), unknown);
    assert.throws(() => connection.clone({ hostnam: 'x' } as object), unknown);
    assert.throws(() => connection.asUri({ password: true } as object), unknown);
    assert.throws(() => connection.Pool(-1), unknown);
    assert.throws(() => connection.ChannelPool(0.5), unknown);
  });
});

describe('classes of errors', () => {
  const connection = new Connection('amqp://h');
  const is = (error: unknown, classes: typeof connection.connectionErrors) =>
    classes.some((Class) => error instanceof Class);

  it('tell what a reconnect mends from what it does not', () => {
    const rows: [error: Error, connection: boolean, channel: boolean, recoverable: boolean, again: boolean][] = [
      [new ConnectionError('x'), true, false, true, false],
      [new errors.ConnectionForced('x'), true, false, true, false],
      [new errors.ConsumerCancelled('x'), true, false, true, false],
      [new TimeoutError('x'), true, false, true, false],
      [new AccessRefused('x'), true, true, false, false],
      [new errors.NotFound('x'), false, true, false, false],
      [new errors.PreconditionFailed('x'), false, true, false, false],
      [new errors.ResourceLocked('x'), false, true, false, true],
      [new errors.ContentTooLarge('x'), false, true, false, true],
      [new errors.NoConsumers('x'), false, true, false, true],
      [new errors.RecoverableConnectionError('x'), true, false, true, false],
      [new errors.LimitExceeded('x'), false, false, false, false],
      [new Error('x'), false, false, false, false],
    ];
    for (const [error, ...wanted] of rows) {
      const { connectionErrors, channelErrors, recoverableConnectionErrors, recoverableChannelErrors } = connection;
      const sets = [connectionErrors, channelErrors, recoverableConnectionErrors, recoverableChannelErrors];
      assert.deepEqual(
        sets.map((set) => is(error, set)),
        wanted,
        error.constructor.name,
      );
    }
  });

  it('have kombu’s family: what is a limit, what is a connection’s, what is a channel’s', () => {
    assert.ok(new errors.ConnectionLimitExceeded('x') instanceof errors.LimitExceeded);
    assert.ok(new errors.ChannelLimitExceeded('x') instanceof errors.LimitExceeded);
    assert.ok(new errors.InconsistencyError('x') instanceof ConnectionError);
    assert.ok(new ConnectionError('x') instanceof OperationalError);
    assert.ok(new OperationalError('x') instanceof errors.KombuError);
    assert.ok(new errors.ContentDisallowed('x') instanceof errors.SerializerNotInstalled);
    assert.ok(new errors.EncodeError('x') instanceof errors.SerializationError);
    const codes = Object.values(errors).map(({ code }) => code);
    assert.equal(new Set(codes).size, codes.length);
  });
});
