/** Groups of pools: which connections share one, the limit of the process, resetting. kombu's B21. On `memory://`. */
import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { inspect } from 'node:util';
import { Connection, errors, pools } from '#src/index';

const url = 'memory://pools-of-this-file';

describe('groups', () => {
  const group = new pools.Connections({ limit: 2 });
  const same = (a: pools.PoolTarget, b: pools.PoolTarget) => group.get(a) === group.get(b);

  it('have one pool for connections that are equal, however they are given', () => {
    const text = 'amqp://me:secret@host:5673/v?heartbeat=7';
    const connection = new Connection(text);
    assert.ok(same(connection, new Connection(text)));
    assert.ok(same(connection, connection.clone()));
    assert.ok(same(connection, text));
    assert.ok(same(connection, new URL(text)));
    assert.ok(same(connection, connection.parameters));
    assert.ok(same(connection, structuredClone(connection.info())));
    assert.ok(
      same(connection, {
        hostname: 'host',
        port: 5673,
        userid: 'me',
        password: 'secret',
        virtualHost: 'v',
        heartbeat: 7,
      }),
    );
    assert.ok(same('amqp://', new Connection()));
    assert.ok(same('amqp://a;amqp://b', ['amqp://a', 'amqp://b']));
    assert.ok(same('amqp://a;amqp://b', new Connection('amqp://a;amqp://b').parameters));
    assert.ok(same('amqps://a', new Connection('amqps://a').info()));
    const tls = (ca: string) => ({ ssl: { ca: Buffer.from(ca), servername: 'x' } });
    assert.ok(same(new Connection('amqp://a', tls('one')), new Connection('amqp://a', tls('one'))));
    const frame = { frameMax: 9000, channelMax: 7 };
    const turned = { channelMax: 7, frameMax: 9000 };
    assert.ok(
      same(new Connection(url, { transportOptions: frame }), new Connection(url, { transportOptions: turned })),
    );
  });

  it('have different pools for whatever makes a connection different', () => {
    const check = () => undefined;
    const different: pools.PoolTarget[] = [
      'amqp://h',
      'amqp://h:5673',
      'amqp://other',
      'amqps://h',
      'memory://h',
      'amqp://u@h',
      'amqp://u:p@h',
      'amqp://h/v',
      'amqp://h?heartbeat=1',
      'amqp://h?connect_timeout=1',
      'amqp://h;amqp://i',
      'amqp://h;amqp://i?failover_strategy=shuffle',
      'amqp://h?ssl=1',
      new Connection('amqp://h', { transportOptions: { frameMax: 9000 } }),
      new Connection('amqp://h', { transportOptions: { clientProperties: { a: 1 } } }),
      new Connection('amqp://h', { ssl: { ca: Buffer.from('one') } }),
      new Connection('amqp://h', { ssl: { ca: Buffer.from('two') } }),
      new Connection('amqp://h', { ssl: { checkServerIdentity: check } }),
      new Connection('amqp://h', { ssl: { checkServerIdentity: () => undefined } }),
    ];
    assert.equal(new Set(different.map((each) => group.get(each))).size, different.length);
    assert.ok(different.every((each) => group.has(each)));
    assert.equal(group.has('amqp://nobody-asked'), false);
  });

  it('compare connections as equals() does', () => {
    assert.ok(new Connection('amqp://h').equals(new Connection('amqp://h')));
    assert.ok(!new Connection('amqp://h').equals(new Connection('amqp://h/v')));
    assert.ok(!new Connection('amqp://h').equals('amqp://h'));
  });

  it('have no key that holds a password', () => {
    const secret = 'hunter2';
    const guarded = new pools.Connections({ limit: 1 });
    guarded.get(`amqp://u:${secret}@h`);
    assert.ok(!inspect(guarded, { depth: 5, showHidden: true }).includes(secret));
  });

  it('refuse what is no connection, and options they do not know', () => {
    assert.throws(() => group.get(7 as never), { name: 'OptionError', message: /expected a Connection, a URL/ });
    assert.throws(() => group.get({ hostnam: 'h' } as never), /did you mean 'hostname'/);
    assert.throws(() => group.get('kafka://h'), errors.TransportNotAvailable);
    assert.throws(() => new pools.Connections({ limt: 1 } as object), /did you mean 'limit'/);
    assert.throws(() => new pools.Connections({ limit: -1 }), { name: 'OptionError' });
    assert.throws(() => new pools.Producers({ connections: {} } as never), { name: 'OptionError' });
  });

  it('of one’s own have a limit of their own, none if none is given', async () => {
    await using limited = own(new pools.Connections({ limit: 1 }));
    const pool = limited.group.get(url);
    await pool.acquire();
    await assert.rejects(pool.acquire(), errors.ConnectionLimitExceeded);
    await using unlimited = own(new pools.Connections());
    const leases = await Promise.all(Array.from({ length: 15 }, () => unlimited.group.get(url).acquire()));
    assert.equal(unlimited.group.get(url).inUse, leases.length);
  });

  it('of producers with a limit of their own are held up by no other limit', async () => {
    const connections = new pools.Connections({ limit: 100 });
    await using producers = own(new pools.Producers({ limit: connections.limit }));
    const pool = producers.group.get(url);
    const leases = await Promise.all(Array.from({ length: 30 }, () => pool.acquire()));
    assert.deepEqual([leases.length, pool.inUse, pool.limit, connections.size], [30, 30, 100, 0]);
    await using shared = own(new pools.Producers({ limit: 5, connections }));
    assert.equal(shared.group.get(url).connections, connections.get(url));
  });
});

describe('the pools of the process', () => {
  afterEach(async () => {
    await pools.reset();
    pools.setLimit(10);
  });

  it('lend at most ten of each kind for each place unless told otherwise', async () => {
    assert.equal(pools.getLimit(), 10);
    const pool = pools.connections.get(url);
    await Promise.all(Array.from({ length: 10 }, () => pool.acquire()));
    await assert.rejects(pool.acquire(), errors.ConnectionLimitExceeded);
    await pools.connections.get(`${url}/other`).acquire();
  });

  it('share connections between producers and those who acquire them', async () => {
    const producer = await pools.producers.get(url).acquire();
    assert.equal(pools.producers.get(url).connections, pools.connections.get(url));
    assert.equal(pools.connections.get(url).inUse, 1);
    await producer.release();
    assert.deepEqual([pools.connections.get(url).inUse, pools.connections.get(url).idle], [0, 1]);
  });

  it('have a limit that grows while in use and does not shrink', async () => {
    const pool = pools.connections.get(url);
    const leases = await Promise.all(Array.from({ length: 10 }, () => pool.acquire()));
    const waiting = pool.acquire({ block: true });
    assert.equal(pools.setLimit(12), 12);
    leases.push(await waiting, await pool.acquire());
    assert.deepEqual([pools.getLimit(), pool.limit, pool.inUse], [12, 12, 12]);
    assert.throws(() => pools.setLimit(11), errors.LimitExceeded);
    assert.deepEqual([pools.getLimit(), pool.limit], [12, 12]);
    for (const lease of leases) await lease.release();
    assert.equal(pools.setLimit(3), 3);
    assert.deepEqual([pool.limit, pool.idle], [3, 3]);
    assert.equal(pools.connections.get(`${url}/later`).limit, 3);
    assert.throws(() => pools.setLimit(-1), { name: 'OptionError' });
  });

  it('are all unchanged if one of them cannot shrink', async () => {
    const free = pools.connections.get(`${url}/free`);
    const busy = pools.connections.get(`${url}/busy`);
    await busy.acquire();
    assert.throws(() => pools.setLimit(2), errors.LimitExceeded);
    assert.deepEqual([free.limit, busy.limit, pools.getLimit()], [10, 10, 10]);
  });

  it('are closed by reset(), with those who wait, and begin anew', async () => {
    pools.setLimit(1);
    const before = pools.producers.get(url);
    const producer = await before.acquire();
    await producer.publish('x', { routingKey: 'nowhere' });
    const waiting = assert.rejects(before.acquire({ block: true }), errors.ClosedError);
    await pools.reset();
    await waiting;
    await assert.rejects(producer.publish('x', { routingKey: 'nowhere' }), errors.ClosedError);
    await assert.rejects(before.acquire(), errors.ClosedError);
    assert.deepEqual([pools.connections.size, pools.producers.size], [0, 0]);
    const after = pools.producers.get(url);
    assert.notEqual(after, before);
    await using again = await after.acquire();
    await again.publish('x', { routingKey: 'nowhere' });
    await producer.release();
    assert.equal(after.inUse, 1);
  });

  it('are joined by registered groups, whose own limit stays', async () => {
    const joined = pools.registerGroup(new pools.Connections({ limit: pools.useGlobalLimit }));
    const own = pools.registerGroup(new pools.Connections({ limit: 4 }));
    assert.deepEqual([joined.get(url).limit, own.get(url).limit], [10, 4]);
    pools.setLimit(20);
    assert.deepEqual([joined.get(url).limit, own.get(url).limit], [20, 4]);
    const lease = await own.get(url).acquire();
    await pools.reset();
    assert.deepEqual([joined.size, own.size, lease.closed], [0, 0, true]);
  });
});

function own<Group extends { reset(): Promise<void> }>(group: Group) {
  return { group, [Symbol.asyncDispose]: () => group.reset() };
}
