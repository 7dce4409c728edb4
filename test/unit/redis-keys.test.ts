/** Names of keys, the pattern of topics, records of deliveries, errors of the server: nothing here needs one. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  AccessRefused,
  ConnectionError,
  DecodeError,
  InvalidPath,
  OperationalError,
  PreconditionFailed,
  ResourceError,
  TimeoutError,
} from '#src/errors';
import { Connection } from '#src/main/connection';
import { databaseOf, placeOf } from '#src/main/transports/redis/client';
import { errorFromRedis, errorOfReply, leadsNowhere } from '#src/main/transports/redis/errors';
import { Keys, topicPattern } from '#src/main/transports/redis/keys';
import { readRecord, recordEnd } from '#src/main/transports/redis/record';
import { redisTransportOptions } from '#src/redis-options';

const SEP = '\x06\x16';
const keysOf = (options: Record<string, unknown> = {}, db = 0) => new Keys(redisTransportOptions(options), db);

describe('keys', () => {
  it('have the step at or below the priority', () => {
    const keys = keysOf();
    const lists = [0, 1, 2, 3, 5, 6, 8, 9, 313, -1, Number.NaN].map((priority) => keys.list('q', priority));
    const [p0, p3, p6, p9] = ['q', `q${SEP}3`, `q${SEP}6`, `q${SEP}9`];
    assert.deepEqual(lists, [p0, p0, p0, p3, p3, p6, p6, p9, p9, p0, p0]);
    assert.deepEqual(keys.lists('q'), [p0, p3, p6, p9]);
    assert.deepEqual(keysOf({ priorityOrder: 'highestFirst' }).lists('q'), [p9, p6, p3, p0]);
  });

  it('have the prefix and the separator of the options', () => {
    const keys = keysOf({ globalKeyprefix: 'p.', sep: ':', prioritySteps: [0, 5] });
    assert.deepEqual(keys.lists('q'), ['p.q', 'p.q:5']);
    assert.deepEqual([keys.unacked, keys.unackedIndex], ['p.unacked', 'p.unacked_index']);
    assert.equal(keys.bindings('x'), 'p._kombu.binding.x');
    assert.equal(keys.binding('k', 'q', false), 'k::q');
    assert.deepEqual(keys.readBinding('k::q'), { routingKey: 'k', isTopic: false, queue: 'q' });
    assert.equal(keys.readBinding('k:q'), undefined);
  });

  it('name the channels of fanout exchanges as kombu does', () => {
    assert.equal(keysOf({}, 3).fanout('x', ''), '/3.x');
    assert.equal(keysOf({}, 3).fanout('x', 'a.b'), '/3.x/a.b');
    assert.equal(keysOf({}, 3).subscription('x', 'a.#'), '/3.x/a.*');
    assert.equal(keysOf({ fanoutPrefix: false }).fanout('x', 'a'), 'x/a');
    assert.equal(keysOf({ fanoutPrefix: 'own.' }).fanout('x', ''), 'own.x');
    assert.equal(keysOf({ fanoutPatterns: false }).fanout('x', 'a'), '/0.x');
    assert.equal(keysOf({ globalKeyprefix: 'p.' }).fanout('x', ''), 'p./0.x');
  });
});

describe('the pattern of a topic', () => {
  it('is written as Python writes it', () => {
    assert.equal(topicPattern('a.*.#'), '^a\\..*?[^\\.]\\..*?$');
    assert.equal(topicPattern('a_b-c.d e'), '^a\\_b\\-c\\.d\\ e$');
    assert.equal(topicPattern(''), '^$');
  });

  it('takes whole words only for wildcards', () => {
    const matches = (binding: string, key: string) => new RegExp(topicPattern(binding)).test(key);
    assert.ok(matches('a.*.c', 'a.b.c'));
    assert.ok(matches('a.*.c', 'a.b.b.c'));
    assert.ok(!matches('a.*', 'a.'));
    assert.ok(matches('#', ''));
    assert.ok(!matches('a.#', 'a'));
    assert.ok(matches('a.#', 'a.'));
  });
});

describe('a record of a delivery', () => {
  const read = (text: string) => {
    const { envelope, exchange, routingKey } = readRecord(Buffer.from(text));
    return [envelope.toString(), exchange, routingKey];
  };

  it('gives the octets of the envelope, whoever wrote it', () => {
    const envelope = '{"a": "x, \\"y\\"}", "n": NaN, "b": {"c": "}"}}';
    assert.deepEqual(read(`[${envelope}, "ex", "r\\u00e4"]`), [envelope, 'ex', 'rä']);
    assert.deepEqual(read(` [ ${envelope} ,"ex","ü" ] `), [envelope, 'ex', 'ü']);
    assert.deepEqual(read(`[${envelope}${recordEnd('q"\\ü')}`), [envelope, '', 'q"\\ü']);
  });

  it('gives what is no envelope by what follows it', () => {
    for (const broken of ['no json', '{', '{"a": "', '', '"text"', '[1, 2]', 'a, "b", "c"']) {
      assert.deepEqual(read(`[${broken}${recordEnd('schlange-ü')}`), [broken, '', 'schlange-ü']);
    }
  });

  it('is refused when it is no such list', () => {
    for (const text of [
      '',
      '[]',
      '{}',
      'x',
      '[{}]',
      '[{}, "a"]',
      '[{}, 1, "b"]',
      '[{}, "a", "b", "c"',
      '{}, "a", "b"]',
    ]) {
      assert.throws(() => read(text), DecodeError, text);
    }
  });
});

describe('errors', () => {
  const reply = (message: string) => Object.assign(new Error(message), { name: 'ReplyError' });

  it('of the server are our classes', () => {
    for (const [text, kind] of [
      ['WRONGPASS invalid username-password pair', AccessRefused],
      ['NOAUTH Authentication required.', AccessRefused],
      ['NOPERM this user has no permissions', AccessRefused],
      ['ERR invalid password', AccessRefused],
      ['ERR AUTH <password> called without any password configured', AccessRefused],
      ['ERR DB index is out of range', InvalidPath],
      ['WRONGTYPE Operation against a key', PreconditionFailed],
      ['OOM command not allowed', ResourceError],
      ["READONLY You can't write against a read only replica.", ConnectionError],
      ['LOADING Redis is loading the dataset in memory', ConnectionError],
      ['UNBLOCKED client unblocked', ConnectionError],
      ['ERR something else', OperationalError],
      // As Redis 5 and 6 tell what befell a command of a script: raised by it, and caught in it.
      [
        `ERR Error running script (call to f_${'0'.repeat(40)}): @user_script:31: WRONGTYPE Operation against a key`,
        PreconditionFailed,
      ],
      [
        `ERR Error running script (call to f_${'0'.repeat(40)}): @user_script:8: @user_script: 8: -READONLY You can't write`,
        ConnectionError,
      ],
      ["@user_script: 40: -OOM command not allowed when used memory > 'maxmemory'.", ResourceError],
    ] as const) {
      const error = errorFromRedis(reply(text), 'doing it');
      assert.equal(error.name, kind.name, text);
      assert.equal(error.message, `doing it: ${text}`);
      assert.ok(error.cause instanceof Error);
      assert.equal(errorOfReply(Buffer.from(text), 'doing it').name, kind.name);
    }
  });

  it('of the socket too', () => {
    assert.ok(errorFromRedis(new Error('connect ETIMEDOUT'), 'x') instanceof TimeoutError);
    assert.ok(errorFromRedis(Object.assign(new Error('no'), { code: 'ECONNREFUSED' }), 'x') instanceof ConnectionError);
    assert.match(errorFromRedis(new AggregateError([new Error('one'), new Error('two')]), 'x').message, /one; two/);
    const own = new TimeoutError('own');
    assert.equal(errorFromRedis(own, 'x'), own);
  });

  it('say whether the server is of any use', () => {
    assert.ok(leadsNowhere(reply('READONLY no')));
    assert.ok(
      leadsNowhere(reply('ERR Error running script (call to f_0): @user_script:8: @user_script: 8: -READONLY no')),
    );
    assert.ok(!leadsNowhere(reply('OOM no')));
    assert.ok(!leadsNowhere(new Error('READONLY no')));
  });
});

describe('the database', () => {
  const of = (url: string) => databaseOf(new Connection(url).parameters);

  it('is the number in the path', () => {
    assert.deepEqual(['redis://h', 'redis://h/', 'redis://h/0', 'redis://h/12'].map(of), [0, 0, 0, 12]);
  });

  it('is nothing else', () => {
    for (const url of ['redis://h/x', 'redis://h/-1', 'redis://h/1.5']) assert.throws(() => of(url), InvalidPath);
  });
});

describe('what a process knows of exchanges, and has to put back', () => {
  const of = (url: string, transportOptions: Record<string, unknown>) =>
    placeOf(new Connection(url, { transportOptions }).parameters);

  it('is of one primary, database and prefix', () => {
    const places = [
      of('redis://h/0', {}),
      of('redis://h/1', {}),
      of('redis://h/0', { globalKeyprefix: 'a' }),
      of('sentinel://h/0', { masterName: 'one' }),
      of('sentinel://h/0', { masterName: 'two' }),
    ];
    assert.equal(new Set(places).size, places.length);
    assert.equal(of('redis://h/0', { visibilityTimeout: 1 }), places[0]);
  });
});
