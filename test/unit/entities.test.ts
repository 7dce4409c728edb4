/** Exchanges, queues and bindings as values, and the tables they send: no broker is asked. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fromTable, toTable } from '#src/codec/amqp/plain-table';
import { EncodeError, NotBoundError, OptionError, TimeoutError } from '#src/errors';
import { Connection } from '#src/main/connection';
import { Binding, binding } from '#src/main/entities/binding';
import type { Channel } from '#src/main/entities/channel';
import { declareOnce, isDeclared, queueArgumentsOf } from '#src/main/entities/declare';
import { Exchange } from '#src/main/entities/exchange';
import { Queue } from '#src/main/entities/queue';

describe('Exchange', () => {
  it("has kombu's defaults and cannot be changed", () => {
    const exchange = new Exchange('e');
    const { name, type, durable, autoDelete, passive, deliveryMode, noDeclare } = exchange;
    assert.deepEqual(
      { name, type, durable, autoDelete, passive, deliveryMode, noDeclare },
      {
        name: 'e',
        type: 'direct',
        durable: true,
        autoDelete: false,
        passive: false,
        deliveryMode: undefined,
        noDeclare: false,
      },
    );
    assert.throws(() => Object.assign(exchange, { durable: false }), TypeError);
    const table = { 'alternate-exchange': 'a' };
    const other = new Exchange('e', { arguments: table });
    table['alternate-exchange'] = 'b';
    assert.equal(other.arguments?.['alternate-exchange'], 'a');
  });

  it('refuses unknown and wrong options', () => {
    assert.throws(() => new Exchange('e', { typ: 'topic' } as object), {
      name: 'OptionError',
      message: /did you mean 'type'/,
    });
    assert.throws(() => new Exchange('e', { deliveryMode: 3 as 1 }), OptionError);
    assert.throws(() => new Exchange(5 as never), OptionError);
    assert.throws(() => new Exchange('e', { type: 'x'.repeat(256) }), {
      message: /'type' must be a string of 1 to 255/,
    });
    assert.throws(() => new Exchange('e').Message('x', { contentType: 'x'.repeat(256) }), {
      name: 'OptionError',
      message: /'contentType'/,
    });
  });

  it('does not publish any more when it has rejected', async () => {
    let room: () => void = () => undefined;
    const published: unknown[] = [];
    const written = new Promise<void>((resolve) => {
      room = resolve;
    });
    const full = {
      drained: () => written,
      publish: async (...args: unknown[]) => {
        published.push(args[2]);
      },
    };
    const target = { closed: false, defaultChannel: async () => full as never, channel: () => assert.fail() };
    const exchange = new Exchange('e', { channel: target });
    await assert.rejects(exchange.publish('late', { timeout: 1 }), TimeoutError);
    room();
    await exchange.publish('in time');
    assert.deepEqual(published.map(String), ['in time']);
  });

  it('is equal to one that is declared alike', () => {
    const make = (options: object = {}) => new Exchange('e', options);
    assert.ok(make().equals(make({ type: 'direct', arguments: {} })));
    assert.ok(make().equals(make().bind(new Connection())));
    const different = [
      { type: 'topic' },
      { durable: false },
      { autoDelete: true },
      { deliveryMode: 1 },
      { arguments: { 'alternate-exchange': 'a' } },
    ];
    for (const options of different) {
      assert.ok(!make().equals(make(options)), JSON.stringify(options));
      assert.ok(make(options).equals(make(options)), JSON.stringify(options));
    }
    assert.ok(!make().equals(new Exchange('f')));
    assert.ok(!make().equals(new Queue('e')));
  });

  it('binds to a connection as a copy, and throws NotBoundError otherwise', async () => {
    const exchange = new Exchange('e', { type: 'topic' });
    const bound = exchange.bind(new Connection());
    assert.deepEqual([exchange.isBound, bound.isBound, bound.type], [false, true, 'topic']);
    await assert.rejects(exchange.declare(), NotBoundError);
    await assert.rejects(exchange.delete(), NotBoundError);
    await assert.rejects(exchange.bindTo('x'), NotBoundError);
    await assert.rejects(exchange.declare({ chanel: 1 } as never), OptionError);
    await assert.rejects(exchange.declare(5 as never), OptionError);
  });
});

describe('Queue', () => {
  it("has kombu's defaults: durable, the default exchange, no routing key", () => {
    const queue = new Queue('q');
    const { durable, exclusive, autoDelete, passive, noAck, routingKey, alias } = queue;
    assert.deepEqual(
      { durable, exclusive, autoDelete, passive, noAck, routingKey, alias },
      {
        durable: true,
        exclusive: false,
        autoDelete: false,
        passive: false,
        noAck: false,
        routingKey: '',
        alias: undefined,
      },
    );
    assert.ok(queue.exchange?.equals(new Exchange('')));
    assert.throws(() => Object.assign(queue, { durable: false }), TypeError);
  });

  it('takes an exchange, the name of one, or bindings in its place', () => {
    const exchange = new Exchange('e', { type: 'topic' });
    assert.equal(new Queue('q', exchange, { routingKey: 'k' }).exchange, exchange);
    assert.equal(new Queue('q', 'named').exchange?.name, 'named');
    const ways = [binding(exchange, 'a'), new Binding('other', 'b')];
    for (const queue of [new Queue('q', ways), new Queue('q', exchange, { bindings: ways })]) {
      assert.equal(queue.exchange, undefined);
      assert.deepEqual(
        queue.bindings.map((each) => [each.exchange.name, each.routingKey]),
        [
          ['e', 'a'],
          ['other', 'b'],
        ],
      );
      assert.ok(queue.bind(new Connection()).equals(queue));
    }
    assert.equal(new Queue('q', { routingKey: 'k' }).routingKey, 'k');
    assert.throws(() => new Queue('q', { routingKye: 'k' } as never), { name: 'OptionError', message: /routingKey/ });
    assert.throws(() => new Queue('q', 5 as never), { name: 'OptionError', message: /must be an Exchange/ });
  });

  it('makes arguments of its options, in milliseconds, which win over queueArguments', () => {
    const queue = new Queue('q', undefined, {
      expires: 1500,
      messageTtl: 250.4,
      maxLength: 3,
      maxLengthBytes: 4,
      maxPriority: 5,
      queueArguments: { 'x-expires': 1, 'x-queue-type': 'quorum' },
    });
    assert.deepEqual(queueArgumentsOf(queue), {
      'x-expires': 1500,
      'x-message-ttl': 250,
      'x-max-length': 3,
      'x-max-length-bytes': 4,
      'x-max-priority': 5,
      'x-queue-type': 'quorum',
    });
  });

  it('deletes itself with its last consumer if it is exclusive', () => {
    assert.equal(new Queue('q', undefined, { exclusive: true }).autoDelete, true);
  });

  it('is equal to one that is declared, bound and consumed alike', () => {
    const base = new Queue('q', 'e', { routingKey: 'k', messageTtl: 5 });
    assert.ok(
      base.equals(new Queue('q', new Exchange('e'), { routingKey: 'k', queueArguments: { 'x-message-ttl': 5 } })),
    );
    assert.ok(base.equals(base.bind(new Connection())));
    assert.ok(!base.equals(base.named('r')));
    assert.ok(!base.equals(new Queue('q', 'e', { routingKey: 'l', messageTtl: 5 })));
    assert.ok(!base.equals(new Queue('q', 'f', { routingKey: 'k', messageTtl: 5 })));
    assert.ok(!base.equals(new Queue('q', 'e', { routingKey: 'k', messageTtl: 6 })));
    const ways = (...keys: string[]) => ({ bindings: keys.map((key) => binding('e', key)) });
    const different = [
      { durable: false },
      { exclusive: true },
      { autoDelete: true },
      { bindingArguments: { a: 1 } },
      { consumerArguments: { 'x-priority': 1 } },
      { queueArguments: { 'x-queue-type': 'quorum' } },
      ways('a'),
      ways('a', 'b'),
    ];
    for (const [index, options] of different.entries()) {
      for (const [other, theirs] of different.entries()) {
        assert.equal(new Queue('q', options).equals(new Queue('q', theirs)), index === other, `${index} ${other}`);
      }
      assert.ok(!new Queue('q').equals(new Queue('q', options)), JSON.stringify(options));
      assert.ok(!new Queue('q', options).equals(new Queue('q')), JSON.stringify(options));
    }
    assert.equal(base.named('r').routingKey, 'k');
  });

  it('throws NotBoundError when it would have to ask a broker', async () => {
    const queue = new Queue('q');
    const asks = [
      queue.declare(),
      queue.purge(),
      queue.delete(),
      queue.get(),
      queue.bindTo('e'),
      queue.unbindFrom('e'),
      queue.unbind(),
    ];
    for (const result of await Promise.allSettled(asks)) {
      assert.equal(result.status, 'rejected');
      assert.ok(result.reason instanceof NotBoundError);
      assert.match(result.reason.message, /queue 'q' is not bound/);
    }
    await assert.rejects(queue.get({ acept: [] } as object), { name: 'OptionError' });
  });
});

describe('declaring once', () => {
  it('forgets what was under way when something was deleted', async () => {
    let answered: (name: string) => void = () => undefined;
    let declarations = 0;
    class Slow extends Queue {
      override declare(): Promise<string> {
        declarations++;
        return new Promise((resolve) => {
          answered = resolve;
        });
      }
    }
    const channel = { declared: new Map(), closedOverAnother: () => false } as unknown as Channel;
    const queue = new Slow('q');
    const first = declareOnce(channel, queue);
    channel.declared.clear();
    answered('q');
    await first;
    assert.equal(isDeclared(channel, queue), false);
    const second = declareOnce(channel, queue);
    answered('q');
    await second;
    assert.deepEqual([isDeclared(channel, queue), declarations], [true, 2]);
  });
});

describe('tables', () => {
  it('write numbers with the types that py-amqp reads as they are meant', () => {
    assert.deepEqual(toTable({ a: 1, b: 300, c: 2 ** 40, d: -(2 ** 40), e: 0.5, f: 2n ** 62n, g: -0 }, 'headers'), {
      __proto__: null,
      a: { '!': 'int', value: 1 },
      b: { '!': 'int', value: 300 },
      c: { '!': 'long', value: 2 ** 40 },
      d: { '!': 'double', value: -(2 ** 40) },
      e: { '!': 'double', value: 0.5 },
      f: { '!': 'long', value: 2n ** 62n },
      g: { '!': 'double', value: -0 },
    });
  });

  it('take dates, bytes, null, lists and tables, and leave undefined out', () => {
    const made = toTable(
      { t: new Date(5500), b: Buffer.from('x'), n: null, l: [1, 'a'], o: { p: true }, u: undefined },
      'headers',
    );
    assert.deepEqual(made, {
      __proto__: null,
      t: { '!': 'timestamp', value: 5 },
      b: Buffer.from('x'),
      n: null,
      l: [{ '!': 'int', value: 1 }, 'a'],
      o: { __proto__: null, p: true },
    });
  });

  it('refuse what AMQP cannot carry, naming where it is', () => {
    assert.throws(() => toTable({ a: { b: [() => 0] } }, 'headers'), {
      name: 'EncodeError',
      message: /^headers\.a\.b\[0\]: a function/,
    });
    assert.throws(() => toTable({ a: 2n ** 64n }, 'headers'), EncodeError);
    assert.throws(() => toTable({ a: new Date(-5000) }, 'headers'), EncodeError);
    assert.throws(() => toTable({ ['x'.repeat(256)]: 1 }, 'headers'), EncodeError);
  });

  it('are read without a prototype, times as Date, decimals as text', () => {
    const read = fromTable({
      t: { '!': 'timestamp', value: 5 },
      d: { '!': 'decimal', value: { places: 2, digits: 314 } },
      small: { '!': 'decimal', value: { places: 3, digits: 0xffffffff } },
      l: [{ '!': 'timestamp', value: 1 }],
      o: { x: 1 },
    });
    assert.equal(Object.getPrototypeOf(read), null);
    assert.deepEqual(
      { ...read, o: { ...(read.o as object) } },
      {
        t: new Date(5000),
        d: '3.14',
        small: '-0.001',
        l: [new Date(1000)],
        o: { x: 1 },
      },
    );
    assert.deepEqual(Object.keys(fromTable(undefined)), []);
  });
});
