/** Exchanges, bindings and queues as plain objects and back, and what follows from their attributes: no broker is asked. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { inspect } from 'node:util';
import { NotBoundError, OptionError } from '#src/errors';
import { Binding, binding, Connection, Exchange, Queue } from '#src/index';
import { calculateRoutingKey, delayed, deliveryExchangeName, levelName } from '#src/main/delayed-delivery';

const json = (value: unknown) => JSON.parse(JSON.stringify(value));

describe('asDict and fromDict', () => {
  it('take an exchange through JSON', () => {
    const exchange = new Exchange('e', {
      type: 'headers',
      durable: false,
      autoDelete: true,
      passive: true,
      deliveryMode: 'transient',
      arguments: { 'alternate-exchange': 'a' },
      noDeclare: true,
    });
    const dict = json(exchange);
    assert.deepEqual(dict, {
      name: 'e',
      type: 'headers',
      durable: false,
      autoDelete: true,
      passive: true,
      deliveryMode: 1,
      arguments: { 'alternate-exchange': 'a' },
      noDeclare: true,
    });
    const again = Exchange.fromDict(json(exchange));
    assert.ok(again.equals(exchange));
    assert.deepEqual(again.asDict(), exchange.asDict());
    assert.throws(() => Exchange.fromDict({ name: 'e', typ: 'topic' } as never), /did you mean 'type'/);
    assert.throws(() => Exchange.fromDict('e' as never), OptionError);
  });

  it('take a queue with all it has through JSON', () => {
    const queue = new Queue('q', new Exchange('e', { type: 'topic' }), {
      routingKey: 'k.#',
      durable: false,
      exclusive: true,
      noAck: true,
      passive: true,
      noDeclare: true,
      alias: 'other',
      expires: 1000,
      messageTtl: 2000,
      maxLength: 3,
      maxLengthBytes: 4,
      maxPriority: 5,
      queueArguments: { 'x-queue-type': 'classic' },
      bindingArguments: { 'x-match': 'any' },
      consumerArguments: { 'x-priority': 6 },
    });
    const again = Queue.fromDict(json(queue));
    assert.deepEqual(again.asDict(), queue.asDict());
    assert.ok(again.equals(queue));
    assert.deepEqual(again.bind(new Connection()).asDict(), queue.asDict(), 'to what it is bound is not in it');
  });

  it('take bindings through JSON', () => {
    const ways = [
      binding(new Exchange('a', { type: 'topic' }), 'x.#', { arguments: { n: 1 }, unbindArguments: { n: 2 } }),
      binding('b'),
    ];
    const queue = new Queue('q', ways);
    const again = Queue.fromDict(json(queue));
    assert.equal(again.exchange, undefined);
    assert.deepEqual(again.asDict(), queue.asDict());
    assert.ok(again.equals(queue));
    assert.ok(!again.equals(new Queue('q', [ways[0]!])));
    assert.ok(!again.equals(new Queue('q', [ways[0]!, binding('b', 'key')])));
  });

  it("read carrot's flat options, where durable and autoDelete are of both", () => {
    const queue = Queue.fromDict('q', {
      exchange: 'e',
      exchangeType: 'topic',
      bindingKey: 'b.#',
      routingKey: 'r',
      durable: false,
      queueDurable: true,
      exchangeAutoDelete: true,
      autoDelete: false,
      deliveryMode: 'transient',
      exchangeArguments: { a: 1 },
      queueArguments: { b: 2 },
      bindingArguments: { c: 3 },
      consumerArguments: { d: 4 },
      noAck: true,
    });
    const exchange = new Exchange('e', {
      type: 'topic',
      durable: false,
      autoDelete: true,
      deliveryMode: 1,
      arguments: { a: 1 },
    });
    assert.ok(queue.exchange?.equals(exchange));
    const { routingKey, durable, autoDelete, noAck, queueArguments, bindingArguments, consumerArguments } = queue;
    assert.deepEqual(
      { routingKey, durable, autoDelete, noAck, queueArguments, bindingArguments, consumerArguments },
      {
        routingKey: 'b.#',
        durable: true,
        autoDelete: false,
        noAck: true,
        queueArguments: { b: 2 },
        bindingArguments: { c: 3 },
        consumerArguments: { d: 4 },
      },
    );
    assert.equal(Queue.fromDict('q', { routingKey: 'r' }).routingKey, 'r');
    assert.ok(Queue.fromDict('q', { exclusive: true }).autoDelete);
  });

  it("read them as Python spells them, with its None, but not Python's durations", () => {
    const dict = { exchange: 'e', exchange_type: 'fanout', routing_key: 'r', queue_arguments: null, auto_delete: true };
    const queue = Queue.fromDict('q', dict as never);
    assert.deepEqual([queue.exchange?.type, queue.routingKey, queue.autoDelete], ['fanout', 'r', true]);
    assert.equal(queue.queueArguments, undefined);
    // Seconds there, milliseconds here: nobody is to find out in production.
    assert.throws(() => Queue.fromDict('q', { message_ttl: 10 } as never), /unknown option 'message_ttl'/);
  });

  it('refuse unknown keys, and two descriptions of one exchange', () => {
    assert.throws(() => Queue.fromDict('q', { exchangetype: 'topic' } as never), /did you mean 'exchangeType'/);
    assert.throws(() => Queue.fromDict('q', { exchange: new Exchange('e'), exchangeType: 'topic' }), {
      name: 'OptionError',
      message: /'exchangeType' goes with the name of an exchange/,
    });
    assert.throws(
      () => Queue.fromDict('q', { bindings: [{ exchange: 'e', key: 'k' }] as never }),
      /unknown option 'key'/,
    );
    assert.throws(() => Queue.fromDict(undefined as never), OptionError);
  });
});

describe('entities', () => {
  it('say which declarations last', () => {
    assert.ok(new Exchange('e').canCacheDeclaration);
    assert.ok(!new Exchange('e', { autoDelete: true }).canCacheDeclaration);
    assert.ok(new Queue('q').canCacheDeclaration);
    assert.ok(!new Queue('q', { exclusive: true }).canCacheDeclaration);
    assert.ok(!new Queue('q', { expires: 1000 }).canCacheDeclaration);
    assert.ok(!new Queue('q', { queueArguments: { 'x-expires': 1000 } }).canCacheDeclaration);
  });

  it("know the delivery mode by kombu's names", () => {
    assert.equal(new Exchange('e', { deliveryMode: 'transient' }).deliveryMode, Exchange.TRANSIENT_DELIVERY_MODE);
    assert.equal(new Exchange('e', { deliveryMode: 'persistent' }).deliveryMode, Exchange.PERSISTENT_DELIVERY_MODE);
    assert.ok(new Exchange('e', { deliveryMode: 'persistent' }).equals(new Exchange('e', { deliveryMode: 2 })));
    const { properties } = new Exchange('e', { deliveryMode: 'transient' }).Message('x');
    assert.deepEqual([properties.deliveryMode, properties.priority, properties.contentEncoding], [1, 0, 'utf-8']);
    assert.equal(new Exchange('e').Message('x').properties.deliveryMode, 2);
    assert.equal(new Exchange('e').Message('x', { deliveryMode: 1 }).properties.deliveryMode, 1);
    assert.throws(() => new Exchange('e').Message({} as never), { name: 'EncodeError' });
    assert.throws(() => new Exchange('e').Message('x', { contentTyp: 'a' } as never), OptionError);
  });

  it('bind as copies, exchange and all; only what is bound can be revived', () => {
    const [one, two] = [new Connection(), new Connection()];
    const queue = new Queue('q', 'e');
    const bound = queue.bind(one);
    assert.deepEqual([queue.isBound, queue.exchange?.isBound], [false, false]);
    assert.deepEqual([bound.channel, bound.exchange?.channel], [one, one]);
    assert.throws(() => queue.channel, NotBoundError);
    assert.throws(() => new Exchange('e').channel, NotBoundError);
    queue.revive(two);
    assert.equal(queue.isBound, false);
    bound.revive(two);
    assert.deepEqual([bound.channel, bound.exchange?.channel], [two, two]);
    assert.equal(new Queue('q', 'e', { channel: one }).exchange?.channel, one);
    assert.throws(() => bound.revive({} as never), OptionError);
  });

  it('are printed, copied and compared with their names', () => {
    assert.match(inspect(new Queue('mine')), /name: 'mine'/);
    assert.equal({ ...new Queue('mine') }.name, 'mine');
    assert.notDeepEqual(new Queue('mine'), new Queue('other'));
    assert.throws(() => Object.assign(new Queue('mine'), { name: 'other' }), TypeError);
  });

  it('make bindings of an exchange', () => {
    const exchange = new Exchange('e', { type: 'topic' });
    const way = exchange.binding('k', { arguments: { n: 1 } });
    assert.deepEqual([way.exchange, way.routingKey, way.arguments], [exchange, 'k', { n: 1 }]);
  });

  it('are moved with revive(), and copies under another name with them', () => {
    const [one, two] = [new Connection(), new Connection()];
    const queue = new Queue('q', 'e', { channel: one });
    queue.revive(two);
    const named = queue.named('other');
    // Two connections look alike: it matters which of them it is.
    assert.ok(named.channel === two && named.exchange!.channel === two);
  });

  it('live as long as a broker allows, which is longer than a timer of Node', () => {
    const tenYears = 315_360_000_000;
    const queue = new Queue('q', { expires: tenYears, messageTtl: tenYears });
    assert.deepEqual([queue.expires, queue.messageTtl], [tenYears, tenYears]);
    assert.equal(new Exchange('e').Message('x', { expiration: tenYears }).properties.expiration, '315360000000');
    for (const option of ['expires', 'messageTtl']) {
      assert.throws(() => new Queue('q', { [option]: tenYears + 1 }), { name: 'OptionError', message: /ten years/ });
    }
  });

  it('refuse what is no binding, nor can be bound', async () => {
    assert.throws(() => Binding.fromDict(null as never), OptionError);
    for (const method of ['bind', 'unbind'] as const) {
      const way = binding('e', 'k');
      const target = new Connection();
      await assert.rejects(way[method]({} as never, target), {
        name: 'OptionError',
        message: /a Queue or an Exchange/,
      });
      await assert.rejects(way[method](new Queue('q'), target, { routingKey: 'other' } as object), {
        name: 'OptionError',
        message: /unknown option 'routingKey'/,
      });
    }
    await assert.rejects(new Queue('q').cancel(5 as never), OptionError);
  });

  it('refuse unknown options of every method, before a broker is asked', async () => {
    const [queue, exchange] = [
      new Queue('q', { channel: new Connection() }),
      new Exchange('e', { channel: new Connection() }),
    ];
    const wrong = { tiemout: 1 } as object;
    const asks = [
      () => queue.declare(wrong),
      () => queue.queueDeclare(wrong),
      () => queue.queueBind(undefined, wrong),
      () => queue.queueUnbind(wrong),
      () => queue.purge(undefined, wrong),
      () => queue.delete(wrong),
      () => queue.get(wrong),
      () => queue.consume(wrong as never),
      () => queue.cancel('tag', wrong),
      () => queue.bindTo('e', wrong),
      () => queue.unbindFrom('e', wrong),
      () => queue.unbind(undefined, wrong),
      () => exchange.declare(wrong),
      () => exchange.delete(wrong),
      () => exchange.bindTo('f', wrong),
      () => exchange.unbindFrom('f', wrong),
      () => exchange.publish('x', wrong),
    ];
    for (const ask of asks) {
      await assert.rejects(ask(), { name: 'OptionError', message: /unknown option 'tiemout'; did you mean 'timeout'/ });
    }
  });
});

describe('delayed delivery', () => {
  // What Python's calculate_routing_key(10, 'destination') gives.
  const TEN = `${'0.'.repeat(24)}1.0.1.0.destination`;

  it("makes kombu's routing keys of milliseconds", () => {
    assert.equal(calculateRoutingKey(10_000, 'destination'), TEN);
    assert.equal(calculateRoutingKey(9_001, 'destination'), TEN);
    assert.equal(calculateRoutingKey(1000, 'a.b'), `${'0.'.repeat(27)}1.a.b`);
    assert.equal(calculateRoutingKey((2 ** 28 - 1) * 1000, 'x'), `${'1.'.repeat(28)}x`);
  });

  it('replaces the digits of a message that comes again', () => {
    assert.equal(calculateRoutingKey(10_000, calculateRoutingKey(7_000, 'destination')), TEN);
    assert.equal(calculateRoutingKey(1000, '1.0.key'), `${'0.'.repeat(27)}1.1.0.key`);
  });

  it('refuses delays and keys that it cannot carry', () => {
    for (const countdown of [0, -1, 10, 999, Number.NaN, 2 ** 28 * 1000, '1000' as never, 1000n as never]) {
      assert.throws(() => calculateRoutingKey(countdown, 'k'), { name: 'OptionError', message: /milliseconds/ });
    }
    assert.throws(() => calculateRoutingKey(1000, ''), OptionError);
    assert.equal(calculateRoutingKey(1000, 'k'.repeat(199)).length, 255);
    assert.throws(() => calculateRoutingKey(1000, 'k'.repeat(200)), { name: 'OptionError', message: /199 bytes/ });
  });

  it('has names with and without a prefix', () => {
    assert.deepEqual([levelName(0), levelName(27, 'app')], ['celery_delayed_0', 'app_celery_delayed_27']);
    assert.deepEqual(
      [deliveryExchangeName(), deliveryExchangeName('app')],
      ['celery_delayed_delivery', 'app_celery_delayed_delivery'],
    );
    assert.throws(() => levelName(28), OptionError);
    assert.throws(() => levelName(-1), OptionError);
    assert.throws(() => levelName(1, 5 as never), OptionError);
    assert.deepEqual(delayed(10_000, 'destination', { prefix: 'app' }), {
      exchange: 'app_celery_delayed_27',
      routingKey: TEN,
    });
    assert.throws(() => delayed(1000, 'k', { perfix: 'app' } as never), /did you mean 'prefix'/);
  });
});
