/** Clocks, matchers, prefetch counts, identifiers, retries and taking turns: no broker is asked. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import {
  Broadcast,
  binding,
  Connection,
  Exchange,
  errors,
  generateOid,
  LamportClock,
  matcher,
  oidFrom,
  QoS,
  TimeTuple,
  timetuple,
  utils,
  uuid,
} from '#src/index';
import { kombuTest, runPython } from '../support/kombu.js';

const { Empty, MatcherNotInstalled, OptionError, TimeoutError } = errors;

describe('LamportClock', () => {
  it('is always later than what it has seen', () => {
    const clock = new LamportClock();
    assert.deepEqual([clock.forward(), clock.adjust(10), clock.adjust(3), clock.forward()], [1, 11, 12, 13]);
    assert.equal(String(clock), '13');
    assert.throws(() => new LamportClock(Number.NaN), OptionError);
  });

  it('sorts events of one time by their process', () => {
    const clock = new LamportClock();
    assert.deepEqual(
      clock.sortHeap([
        [1, 'b'],
        [1, 'a', 'x'],
        [2, 'A'],
      ]),
      [1, 'a', 'x'],
    );
    assert.deepEqual(
      clock.sortHeap([
        [1, 'b'],
        [2, 'a'],
      ]),
      [1, 'b'],
    );
    assert.equal(clock.sortHeap([]), undefined);
  });
});

describe('timetuple', () => {
  it('orders by clock, then by id, and by time where a clock is missing', () => {
    const a = timetuple(2, 100, 'a');
    const b = timetuple(2, 50, 'b');
    const later = timetuple(3, 1, 'A', { any: 'thing' });
    const unknown = timetuple(undefined, 75, 'z');
    assert.deepEqual([later, b, a].sort(TimeTuple.compare), [a, b, later]);
    assert.equal(TimeTuple.compare(a, timetuple(2, 7, 'a')), 0);
    assert.ok(unknown.before(a) && b.before(unknown) && !a.before(unknown));
    assert.ok(timetuple(0, 1, 'z').before(a));
    assert.deepEqual(later.obj, { any: 'thing' });
  });
});

const GLOBS = [
  '*',
  '?',
  'a*c',
  '[abc]x',
  '[!a]b',
  'a[',
  '[]x]',
  '[a-c]*z',
  '[z-a]',
  'w??-*',
  '[a-]',
  '[!]a]',
  '**a**',
  'é?',
];
const NAMES = [
  '',
  'a',
  'abc',
  'ax',
  'bb',
  'a[',
  ']',
  'x',
  'bz',
  'bxyz',
  'w12-node',
  '-',
  'b',
  'baa',
  'é\u{1f600}',
  'a\nc',
];

describe('matcher', () => {
  it('matches by glob unless told otherwise, and refuses names that it does not know', () => {
    assert.ok(matcher.match('worker1.example', 'worker?.*'));
    assert.ok(!matcher.match('worker1.example', 'worker?.'));
    assert.ok(matcher.match('worker1', 'w\\w+\\d', 'pcre'));
    assert.ok(matcher.match('worker1', 'work', 'pcre'), 'from the beginning, not to the end');
    assert.ok(!matcher.match('worker1', 'orker', 'pcre'));
    assert.throws(() => matcher.match('a', '(', 'pcre'), OptionError);
    assert.throws(() => matcher.match('a', 'a', 'sql'), { name: 'MatcherNotInstalled', message: /glob, pcre/ });
  });

  it('takes other matchers, and lets them go', () => {
    matcher.register('length', (data, pattern) => data.length === Number(pattern));
    assert.ok(matcher.match('abc', '3', 'length'));
    matcher.unregister('length');
    assert.throws(() => matcher.match('abc', '3', 'length'), MatcherNotInstalled);
    assert.throws(() => matcher.unregister('length'), MatcherNotInstalled);
    assert.throws(() => matcher.register('', () => true), OptionError);
  });

  it('needs no more than a moment for a pattern that was made to take long', () => {
    assert.ok(!matcher.match('a'.repeat(2000), `${'a*'.repeat(500)}b`));
  });

  kombuTest("says of a glob what Python's says", async (python) => {
    const program = `
import sys, json
from kombu.matcher import match
globs, names = json.load(sys.stdin)
print(json.dumps([[bool(match(name, glob)) for name in names] for glob in globs]))
`;
    const theirs = JSON.parse(await runPython(python, program, [], JSON.stringify([GLOBS, NAMES])));
    const ours = GLOBS.map((glob) => NAMES.map((name) => matcher.match(name, glob)));
    assert.deepEqual(ours, theirs);
  });
});

describe('QoS', () => {
  const counter = (initial: number, options = {}) => {
    const told: number[] = [];
    return { told, qos: new QoS(({ prefetchCount }) => told.push(prefetchCount), initial, options) };
  };

  it('tells what is new, and only when it is asked to', async () => {
    const { qos, told } = counter(10);
    assert.equal(qos.incrementEventually(), 11);
    assert.equal(qos.incrementEventually(3), 14);
    assert.equal(qos.incrementEventually(-30), 14);
    assert.equal(qos.decrementEventually(5), 9);
    assert.deepEqual([told, qos.prev], [[], undefined]);
    assert.equal(await qos.update(), 9);
    assert.equal(await qos.update(), 9);
    assert.deepEqual([told, qos.prev], [[9], 9]);
  });

  it('does not go below 1, stays without limit where it was so, and keeps to maxPrefetch', () => {
    assert.equal(counter(10).qos.decrementEventually(100), 1);
    const { qos } = counter(0);
    assert.deepEqual([qos.incrementEventually(5), qos.decrementEventually(5)], [0, 0]);
    const capped = counter(10, { maxPrefetch: 12 }).qos;
    assert.deepEqual([capped.incrementEventually(1), capped.incrementEventually(9)], [11, 12]);
    assert.throws(() => counter(-1), OptionError);
    assert.throws(() => counter(1, { maxPrefetch: 0 }), OptionError);
    assert.throws(() => capped.incrementEventually(Number.NaN), OptionError);
    assert.throws(() => capped.decrementEventually('1' as never), OptionError);
    assert.equal(capped.value, 12);
  });

  it('tells 0 and warns when 16 bits do not hold the count', async () => {
    const { qos, told } = counter(0xffff);
    await qos.update();
    const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
    assert.equal(qos.incrementEventually(), 0x10000);
    await qos.update();
    assert.match((await warned).message, /65536 exceeds 65535/);
    assert.deepEqual(told, [0xffff, 0]);
    qos.decrementEventually(2);
    await qos.update();
    assert.deepEqual(told, [0xffff, 0, 0xfffe]);
  });

  it('carries out one call after another, and tells again what was not taken', async () => {
    const told: number[] = [];
    let fails = true;
    const qos = new QoS(async ({ prefetchCount }) => {
      await turn();
      if (prefetchCount === 1 && fails) throw new Error('no');
      told.push(prefetchCount);
    }, 5);
    const calls = [qos.set(1), qos.set(2), qos.update()];
    await assert.rejects(calls[0]!, /no/);
    await Promise.all(calls.slice(1));
    fails = false;
    await qos.set(1);
    assert.deepEqual(told, [2, 5, 1]);
  });
});

describe('identifiers', () => {
  it('refuse options that they do not know', () => {
    assert.throws(() => oidFrom({}, { thread: false } as object), {
      name: 'OptionError',
      details: { option: 'thread' },
    });
  });

  it('stand for an object', () => {
    const [a, b] = [{}, {}];
    assert.equal(oidFrom(a), oidFrom(a));
    assert.notEqual(oidFrom(a), oidFrom(b));
    assert.match(oidFrom(a), /^[0-9a-f]{8}-[0-9a-f]{4}-3[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.notEqual(generateOid(1, 2, 3, a), generateOid(1, 2, 4, a));
    assert.notEqual(uuid(), uuid());
  });

  kombuTest("are Python's for the same numbers", async (python) => {
    const program = `
from uuid import uuid3, NAMESPACE_OID
print(uuid3(NAMESPACE_OID, '{:x}-{:x}-{:x}-{:x}'.format(2**100 + 7, 4242, 3, 140000)))
`;
    assert.equal(generateOid(2n ** 100n + 7n, 4242, 3, 140000), (await runPython(python, program)).trim());
  });
});

describe('Broadcast', () => {
  it('is a queue of its own on a fanout exchange, gone with its consumer', () => {
    const [first, second] = [new Broadcast('news'), new Broadcast('news')];
    assert.match(first.name, /^bcast\.[0-9a-f-]{36}$/);
    assert.notEqual(first.name, second.name);
    assert.deepEqual([first.exchange?.name, first.exchange?.type, first.alias], ['news', 'fanout', 'news']);
    assert.deepEqual([first.autoDelete, first.durable], [true, true]);
  });

  it('stays one, and the same queue, when it is bound or named', () => {
    const connection = new Connection('memory://');
    for (const broadcast of [
      new Broadcast('news'),
      new Broadcast('news', { queue: 'mine', unique: true, durable: false }),
    ]) {
      const bound = broadcast.bind(connection);
      assert.ok(bound instanceof Broadcast && bound.isBound && bound.exchange?.isBound);
      assert.ok(bound.equals(broadcast));
      assert.equal(bound.alias, 'news');
      const named = bound.named('other');
      assert.ok(named instanceof Broadcast && named.name === 'other' && named.exchange?.name === 'news');
    }
    const several = new Broadcast('news', { bindings: [binding(new Exchange('x'), 'k')] });
    assert.ok(several.bind(connection).equals(several));
  });

  it('may be named, and be unique all the same', () => {
    assert.equal(new Broadcast('news', { queue: 'mine', autoDelete: false }).name, 'mine');
    assert.match(new Broadcast('news', { queue: 'mine', unique: true }).name, /^mine\.[0-9a-f-]{36}$/);
    const { exchange, alias } = new Broadcast('news', { exchange: 'other', alias: 'n', routingKey: 'k' });
    assert.deepEqual([exchange?.name, alias], ['other', 'n']);
    assert.throws(() => new Broadcast(''), OptionError);
    assert.throws(() => new Broadcast('news', { uniq: true } as object), { message: /did you mean 'unique'/ });
  });
});

describe('retryOverTime', () => {
  class Passing extends Error {}

  it('waits longer each time, up to intervalMax, until it succeeds', async () => {
    const waits: number[] = [];
    let calls = 0;
    const fun = () => {
      if (++calls <= 6) throw new Passing('not yet');
      return 'done';
    };
    const errback = (error: unknown, interval: number, retries: number) => {
      assert.ok(error instanceof Passing);
      assert.equal(retries, waits.length);
      waits.push(interval);
      return 0;
    };
    assert.equal(await utils.retryOverTime(fun, Passing, { intervalMax: 9000, errback }), 'done');
    assert.deepEqual(waits, [2000, 4000, 6000, 8000, 9000, 9000]);
  });

  it('tries as often as it may, only after errors of its classes, and not beyond its time', async () => {
    let calls = 0;
    const fails = () => {
      calls++;
      throw new Passing('never');
    };
    const errback = () => 0;
    await assert.rejects(utils.retryOverTime(fails, [TypeError, Passing], { maxRetries: 0, errback }), Passing);
    assert.equal(calls, 1);
    await assert.rejects(utils.retryOverTime(fails, [TypeError, Passing], { maxRetries: 1, errback }), Passing);
    assert.equal(calls, 3);
    await assert.rejects(utils.retryOverTime(fails, TypeError), Passing);
    assert.equal(calls, 4);
    await assert.rejects(utils.retryOverTime(fails, Passing, { timeout: 1000 }), (error) => {
      assert.ok(error instanceof TimeoutError && error.cause instanceof Passing);
      return true;
    });
    assert.equal(calls, 5);
  });

  it('gives up when its signal aborts', async () => {
    const abort = new AbortController();
    const fails = () => {
      setImmediate(() => abort.abort(new Error('enough')));
      throw new Passing('never');
    };
    await assert.rejects(utils.retryOverTime(fails, Passing, { signal: abort.signal }), /enough/);
  });

  it('has its steps from fxrange', () => {
    const take = (from: Iterator<number>, count: number) =>
      Array.from({ length: count }, () => from.next().value as number | undefined);
    assert.deepEqual([...utils.fxrange(1, 4, 1.5)], [1, 2.5, 4]);
    assert.deepEqual(take(utils.fxrange(2, 5, 2, true), 4), [2, 4, 4, 4]);
    assert.deepEqual(take(utils.fxrange(), 3), [1, 2, 3]);
    assert.deepEqual([...utils.fxrange(3, 2)], []);
  });
});

describe('taking turns', () => {
  it('FairCycle asks one after another, passes over those that have nothing, and says when none has', async () => {
    const has: Record<string, string[]> = { a: ['1', '2', '3'], b: [], c: ['4'] };
    const cycle = new utils.FairCycle(
      (name: string) => {
        const next = has[name]!.shift();
        if (next === undefined) throw new Empty(name);
        return next;
      },
      ['a', 'b', 'c'],
    );
    const got = [];
    for (let n = 0; n < 4; n++) got.push(await cycle.get());
    assert.deepEqual(got, ['1', '4', '2', '3']);
    await assert.rejects(cycle.get(), Empty);
    has.b!.push('5');
    assert.equal(await cycle.get(), '5');
    await assert.rejects(new utils.FairCycle(() => 1, []).get(), Empty);
    const broken = new utils.FairCycle(() => {
      throw new RangeError('other');
    }, [1, 2]);
    await assert.rejects(broken.get(), RangeError);
  });

  it('cycles by name', () => {
    const [Robin, Priority, Sorted] = ['round_robin', 'priority', 'sorted'].map((name) => utils.cycleByName(name));
    const robin = new Robin!(['c', 'a', 'b']);
    robin.rotate('c');
    robin.rotate('nobody');
    assert.deepEqual(robin.consume(3), ['a', 'b', 'c']);
    robin.update(['x', 'y']);
    assert.deepEqual(robin.consume(1), ['x']);
    const priority = new Priority!(['c', 'a', 'b']);
    priority.rotate('c');
    assert.deepEqual(priority.consume(2), ['c', 'a']);
    assert.deepEqual(new Sorted!(['c', 'a', 'b']).consume(3), ['a', 'b', 'c']);
    assert.throws(() => utils.cycleByName('sortd'), { name: 'OptionError', message: /did you mean 'sorted'/ });
  });

  it('TokenBucket has a rate and a size, or would never have a token', () => {
    for (const wrong of [0, -1, Number.NaN, Number.POSITIVE_INFINITY, '1' as never]) {
      assert.throws(() => new utils.TokenBucket(wrong), OptionError);
      assert.throws(() => new utils.TokenBucket(1, wrong), OptionError);
    }
  });

  it('TokenBucket gives what has come in since', () => {
    let now = 0;
    const bucket = new utils.TokenBucket(2, 4, () => now);
    assert.ok(bucket.canConsume(4));
    assert.ok(!bucket.canConsume());
    assert.equal(bucket.expectedTime(), 500);
    now = 400;
    assert.ok(!bucket.canConsume());
    now = 500;
    assert.ok(bucket.canConsume());
    now = 100_000;
    assert.ok(!bucket.canConsume(5));
    assert.equal(bucket.expectedTime(4), 0);
  });
});
