/** URLs and connection parameters: kombu's rules, by what kombu itself made of 23 URLs, and errors that keep secrets. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { InvalidUrl, KombuError, OptionError, TransportNotAvailable } from '#src/errors';
import { Connection } from '#src/main/connection';
import { parametersOf, parseUrl } from '#src/main/url';

interface Vector {
  url: string;
  info: Record<string, string | number | null>;
  alternates: string[];
  as_uri: string;
  as_uri_with_password: string;
}

const { urls } = JSON.parse(readFileSync(new URL('../../../test/vectors/urls.json', import.meta.url), 'utf8')) as {
  urls: Vector[];
};

describe('URLs that kombu parsed', () => {
  it('are all there', () => assert.equal(urls.length, 23));

  for (const { url, info, alternates, as_uri, as_uri_with_password } of urls) {
    it(url, () => {
      const connection = new Connection(url);
      const own = connection.info();
      assert.deepEqual(
        {
          hostname: own.hostname,
          userid: own.userid ?? null,
          password: own.password ?? null,
          virtual_host: own.virtualHost,
          port: own.port ?? null,
          transport: own.transport,
          // kombu says 0 for "not given"; here 0 means off, and not given is undefined.
          heartbeat: own.heartbeat ?? 0,
        },
        info,
      );
      assert.deepEqual([...own.alternates], alternates);
      assert.equal(connection.asUri(), as_uri);
      assert.equal(connection.asUri({ includePassword: true }), as_uri_with_password);
    });
  }

  it('come out the same when their own URI is parsed again', () => {
    for (const { url } of urls) {
      const first = new Connection(url);
      const again = new Connection(first.asUri({ includePassword: true }));
      assert.deepEqual(
        { ...again.info(), heartbeat: 0 },
        { ...first.info(), heartbeat: 0, alternates: [], connectTimeout: 5000 },
      );
    }
  });
});

describe('parseUrl', () => {
  it('leaves out what the URL leaves out', () => {
    assert.deepEqual(parseUrl('amqp://'), { transport: 'amqp', alternates: [] });
    assert.deepEqual(parseUrl('pyamqp://h'), { transport: 'pyamqp', hostname: 'h', alternates: [] });
  });

  it('takes a bare host, with or without a port, and IPv6 in brackets', () => {
    assert.deepEqual(parseUrl('h'), { transport: 'amqp', hostname: 'h', alternates: [] });
    assert.deepEqual(parseUrl('h:5673'), { transport: 'amqp', hostname: 'h', port: 5673, alternates: [] });
    assert.equal(parseUrl('::1').hostname, '::1');
    assert.deepEqual(parseUrl('amqp://u@[::1]:5673/v'), {
      transport: 'amqp',
      userid: 'u',
      hostname: '::1',
      port: 5673,
      virtualHost: 'v',
      alternates: [],
    });
    assert.equal(new Connection('amqp://[::1]').asUri(), 'amqp://guest:**@[::1]:5672//');
  });

  it('reads query keys with the names and units of kombu', () => {
    const { heartbeat, connectTimeout, failoverStrategy, ssl } = parseUrl(
      'amqps://h?heartbeat=2.5&connect_timeout=1.5&failover_strategy=shuffle&ssl_ca_certs=/ca.pem&ssl_cert_reqs=CERT_NONE&ssl_check_hostname=False',
    );
    assert.equal(heartbeat, 2.5);
    assert.equal(connectTimeout, 1500);
    assert.equal(failoverStrategy, 'shuffle');
    assert.deepEqual(ssl, { caCerts: '/ca.pem', certReqs: 'none', checkHostname: false });
    assert.equal(parseUrl('amqp://h?ssl=1').ssl, true);
    assert.equal(parseUrl('amqp://h?virtual_host=v').virtualHost, 'v');
  });

  it('tolerates an empty element at the end of a list, and a percent sign that is no escape', () => {
    assert.deepEqual(parseUrl('amqp://a;').alternates, ['amqp://a']);
    assert.equal(parseUrl('amqp://u:100%@h').password, '100%');
    assert.equal(parseUrl('amqp://u:caf%C3%A9@h').password, 'café');
    assert.equal(parseUrl('amqp://u:a@b@h').password, 'a@b');
  });

  it('reads the path of a socket file in the place of a host', () => {
    const url = 'redis+socket://u:p%40ss@/run/my%20redis.sock?virtual_host=3';
    const parsed = parseUrl(url);
    assert.deepEqual(parsed, {
      transport: 'redis+socket',
      hostname: '/run/my redis.sock',
      userid: 'u',
      password: 'p@ss',
      virtualHost: '3',
      alternates: [],
    });
    assert.equal(new Connection(url).asUri({ includePassword: true }), url);
    assert.equal(parseUrl('redis+socket:///r.sock').virtualHost, undefined);
  });

  it('never repeats a password in an error', () => {
    const secret = 'hunter2';
    const bad = [
      `amqp://u:${secret}/x@h/v`,
      `amqp://u:${secret}@h:port/v`,
      `amqp://u:${secret}@h:99999`,
      `amqp://u:x?${secret}@h/v`,
      `amqp://u:${secret}@h?unknown=1`,
      `amqp://u:${secret}@h?heartbeat=x`,
      `amqp://u:${secret}@[::1/v`,
      `://u:${secret}@h`,
      `kafka://u:${secret}@h`,
      `amq://u:${secret}@h`,
      `redis+socket://u:${secret}@host/p`,
      `redis+socket://u:${secret}@`,
      `amqp://a;amqp://u:${secret}@h:port`,
      ';',
    ];
    for (const url of bad) {
      assert.throws(
        () => parseUrl(url),
        (error: unknown) => {
          assert.ok(error instanceof InvalidUrl || error instanceof TransportNotAvailable, String(error));
          assert.ok(
            !`${error.message} ${JSON.stringify(error.details)} ${error.stack}`.includes(secret),
            error.message,
          );
          return true;
        },
        url,
      );
    }
  });

  it('says which transports there are, and suggests the nearest', () => {
    assert.throws(() => parseUrl('kafka://h'), {
      name: 'TransportNotAvailable',
      message: /'kafka' is kombu's, but not in mozuku; mozuku has amqp, amqps, pyamqp, librabbitmq, memory, redis/,
    });
    assert.throws(() => parseUrl('sqla+mysql://h'), { name: 'TransportNotAvailable', message: /'sqla'/ });
    assert.throws(() => parseUrl('ampq://h'), { message: "no such transport: 'ampq'; did you mean 'amqp'?" });
    assert.throws(() => parseUrl('amqp://h?hartbeat=1'), { name: 'InvalidUrl', message: /did you mean 'heartbeat'/ });
  });
});

describe('connection parameters', () => {
  it('are completed by options, over which the URL wins', () => {
    const { userid, port, virtualHost, heartbeat } = new Connection('amqp://a?heartbeat=5', {
      userid: 'me',
      port: 1234,
      virtualHost: 'v',
      heartbeat: 30,
    });
    assert.deepEqual([userid, port, virtualHost, heartbeat], ['me', 1234, 'v', 5]);
  });

  it('come from options alone, where the host may be a URL', () => {
    assert.equal(new Connection({ hostname: 'h', transport: 'amqps' }).asUri(), 'amqps://guest:**@h:5671//');
    assert.equal(new Connection({ hostname: 'amqp://x/v' }).asUri(), 'amqp://guest:**@x:5672/v');
    assert.equal(new Connection().asUri(), 'amqp://guest:**@localhost:5672//');
    assert.deepEqual([...new Connection(['amqp://a', 'amqp://b']).alternates], ['amqp://a', 'amqp://b']);
    assert.deepEqual(
      [...new Connection('amqp://a', { alternates: ['amqp://b'] }).alternates],
      ['amqp://a', 'amqp://b'],
    );
  });

  it('have lists in any form: URLs, hosts alone, both; the first is the one in use', () => {
    const mixed = new Connection('amqp://me:pw@a:1//v;b;c:3;');
    assert.deepEqual([...mixed.alternates], ['amqp://me:pw@a:1//v', 'b', 'c:3']);
    assert.equal(mixed.asUri(), 'amqp://me:**@a:1//v');
    const hosts = new Connection(['a', 'b:2']);
    assert.deepEqual([hosts.hostname, [...hosts.alternates]], ['a', ['a', 'b:2']]);
    assert.equal(parametersOf('b:2', hosts.parameters).port, 2);
    assert.equal(parametersOf('b', mixed.parameters).userid, 'me');
  });

  it('show a mask for the password, given or not', () => {
    assert.equal(new Connection('amqp://u:pw@h').asUri({ mask: '...' }), 'amqp://u:...@h:5672//');
    assert.equal(new Connection('redis://').asUri(), 'redis://:**@localhost:6379//');
  });

  it('are the same when they are read again, as a clone or another thread does', () => {
    const strategies = (urls: readonly string[]) => urls;
    const all = [
      new Connection('amqp://a;amqp://b'),
      new Connection('one;amqp://two:2/w', { port: 1, userid: 'me' }),
      new Connection('amqps://a;amqps://b', { failoverStrategy: strategies, ssl: { certReqs: 'none' } }),
      new Connection('memory://'),
      new Connection('amqp://', { heartbeat: 0, transportOptions: { frameMax: 9000 } }),
    ];
    for (const { parameters } of all) assert.deepEqual(new Connection({ ...parameters }).parameters, parameters);
  });

  it('are frozen, copied by clone(), and changed by its overrides', () => {
    const connection = new Connection('amqp://me:pw@a/v;amqp://b', { heartbeat: 7, port: 9 });
    assert.ok(Object.isFrozen(connection.parameters));
    const clone = connection.clone();
    assert.deepEqual(
      { ...clone.parameters, alternates: clone.alternates.length },
      { ...connection.parameters, alternates: 2 },
    );
    const other = connection.clone({ virtualHost: 'w', heartbeat: 0 });
    assert.deepEqual([other.virtualHost, other.heartbeat, other.hostname], ['w', 0, 'a']);
    assert.deepEqual([...connection.clone({ hostname: 'c' }).alternates], ['c', 'amqp://b']);
  });

  it('give alternates what these leave out', () => {
    const { parameters } = new Connection('amqp://me:pw@a/v;amqps://b');
    const second = parametersOf('amqps://b', parameters);
    assert.deepEqual(
      [second.userid, second.password, second.virtualHost, second.hostname, second.port, second.ssl],
      ['me', 'pw', 'v', 'b', 5671, true],
    );
    const plain = parametersOf('amqp://c', new Connection('amqps://a;amqp://c').parameters);
    assert.deepEqual([plain.ssl, plain.port], [false, 5672]);
  });

  it('are refused when unknown or wrong, transport options included', () => {
    assert.throws(() => new Connection({ heartbeet: 3 } as object), {
      name: 'OptionError',
      message: /did you mean 'heartbeat'/,
    });
    assert.throws(() => new Connection('amqp://h', { port: 0 }), OptionError);
    assert.throws(() => new Connection('amqp://h', { connectTimeout: -1 }), OptionError);
    assert.throws(() => new Connection('amqp://h', { transportOptions: { frameMax: 4096 } }), OptionError);
    assert.throws(() => new Connection('amqp://h', { transportOptions: { framemax: 9000 } }), {
      message: /'frameMax'/,
    });
    assert.throws(() => new Connection('amqp://h', { alternates: ['kafka://h'] }), TransportNotAvailable);
    assert.throws(() => new Connection([]), KombuError);
  });
});
