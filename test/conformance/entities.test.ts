/** Exchange, Queue and binding as their users have them: bound, named by the broker, low level, refused. */
import assert from 'node:assert/strict';
import {
  binding,
  type Channel,
  type Connection,
  Exchange,
  errors,
  type Message,
  maybeDeclare,
  Queue,
} from '#src/index';
import { onBothBrokers } from '../support/both-brokers.js';

/** Resolves with the first call's arguments. */
function heard<A extends unknown[]>(): { call: (...args: A) => void; first: Promise<A> } {
  let call: (...args: A) => void = () => undefined;
  const first = new Promise<A>((resolve) => {
    call = (...args) => resolve(args);
  });
  return { call, first };
}

onBothBrokers(
  'a bound queue adopts the name that the broker gives it; one that is not bound stays nameless',
  async (scene) => {
    const { connection } = scene;
    const given = new Queue('', 'amq.topic', { routingKey: 'k', exclusive: true });
    const name = await given.declare(connection);
    assert.match(name, /^amq\.gen-/);
    assert.equal(given.name, '');

    const bound = given.bind(connection);
    assert.equal(bound.isServerNamed, false);
    const own = await bound.declare();
    assert.match(own, /^amq\.gen-/);
    assert.notEqual(own, name);
    assert.deepEqual([bound.name, bound.isServerNamed], [own, true]);
    assert.equal(await bound.declare(), own, 'the second declaration is of the same queue');
    await bound.exchange!.publish('x', { routingKey: 'k', mandatory: true });
    assert.equal((await bound.get({ noAck: true }))?.body.toString(), 'x');
  },
);

onBothBrokers('an exclusive queue that the broker named gets a new name on a new connection', async (scene) => {
  const connection = scene.connect();
  const queue = new Queue('', { exclusive: true, channel: connection });
  const first = await queue.declare();
  await connection.close();
  await connection.connect();
  assert.notEqual(await queue.declare(), first);
  assert.equal(await queue.purge(), 0);
});

onBothBrokers('onDeclared is told the name, the messages and the consumers', async (scene) => {
  const name = await scene.queue();
  await scene.send(name, '1', '2');
  const calls: unknown[][] = [];
  const queue = new Queue(name, { onDeclared: (...facts) => calls.push(facts) });
  assert.deepEqual(await queue.queueDeclare(scene.connection), { name, messages: 2, consumers: 0 });
  await queue.bind(scene.connection).declare();
  await queue.declare(scene.connection, { passive: true });
  assert.deepEqual(calls, Array(3).fill([name, 2, 0]));
  const throws = new Queue(name, {
    onDeclared: () => {
      throw new RangeError('mine');
    },
  });
  await assert.rejects(throws.declare(scene.connection), RangeError);
});

onBothBrokers('queueDeclare, queueBind and queueUnbind do one thing each', async (scene) => {
  const exchange = scene.keep(new Exchange(scene.unique('x'), { type: 'topic' }));
  const queue = scene.keep(new Queue(scene.unique('q'), exchange, { routingKey: 'k', channel: scene.connection }));
  await queue.queueDeclare();
  await assert.rejects(exchange.declare(scene.connection, { passive: true }), errors.NotFound);
  await assert.rejects(queue.queueBind(), errors.NotFound);
  await exchange.declare(scene.connection);
  const reaches = () =>
    exchange.publish('x', { routingKey: 'k', mandatory: true }, scene.connection).then(
      () => true,
      (error: unknown) => error instanceof errors.MessageReturned && false,
    );
  assert.equal(await reaches(), false);
  await queue.queueBind();
  assert.equal(await reaches(), true);
  await queue.queueUnbind();
  assert.equal(await reaches(), false);
  const ways = new Queue(queue.name, [exchange.binding('k')]);
  await assert.rejects(ways.queueBind(scene.connection), { name: 'OptionError', message: /has bindings/ });
  for (const way of ways.bindings) await way.bind(queue);
  assert.equal(await reaches(), true);
  await ways.unbind(scene.connection);
  assert.equal(await reaches(), false);
});

onBothBrokers('a binding leads to an exchange too, and is undone with its unbindArguments', async (scene) => {
  const [from, to] = [
    new Exchange(scene.unique('from'), { type: 'headers' }),
    new Exchange(scene.unique('to'), { type: 'fanout' }),
  ];
  const queue = scene.keep(new Queue(scene.unique('q'), to));
  await queue.declare(scene.connection);
  const way = binding(scene.keep(from), '', { arguments: { 'x-match': 'all', n: 1 } });
  await way.declare(scene.connection);
  await way.bind(scene.keep(to), scene.connection);
  await from.publish(from.Message('x', { headers: { n: 1 } }), { mandatory: true }, scene.connection);
  await binding(from, '', { unbindArguments: way.arguments! }).unbind(to, scene.connection);
  await assert.rejects(
    from.publish(from.Message('x', { headers: { n: 1 } }), { mandatory: true }, scene.connection),
    errors.MessageReturned,
  );
  assert.equal(await queue.purge(scene.connection), 1);
});

onBothBrokers('several bindings declare each exchange, and messages come by all of them', async (scene) => {
  const exchanges = ['direct', 'topic', 'fanout'].map((type) => scene.keep(new Exchange(scene.unique(type), { type })));
  const queue = scene.keep(
    new Queue(
      scene.unique('q'),
      exchanges.map((each) => each.binding('k')),
    ),
  );
  await queue.declare(scene.connection);
  for (const each of exchanges) await each.publish('x', { routingKey: 'k', mandatory: true }, scene.connection);
  assert.equal(await queue.purge(scene.connection), 3);
});

onBothBrokers('an exchange publishes bytes as they are, with the properties of Message', async (scene) => {
  const queue = scene.keep(new Queue(scene.unique('q'), { channel: scene.connection }));
  await queue.declare();
  const exchange = new Exchange('', { channel: scene.connection, deliveryMode: 'transient' });
  const properties = {
    contentType: 'application/json',
    contentEncoding: 'utf-8',
    headers: { a: 1 },
    priority: 3,
    correlationId: 'c',
    replyTo: 'r',
    expiration: 60_000,
    messageId: 'm',
    timestamp: 5,
    type: 't',
    appId: 'a',
  };
  await exchange.publish(exchange.Message('{"n":1}', properties), { routingKey: queue.name, mandatory: true });
  const message = (await queue.get())!;
  assert.deepEqual(message.payload, { n: 1 });
  const { headers, ...same } = properties;
  assert.deepEqual({ ...message.properties }, { ...same, expiration: '60000', deliveryMode: 1 });
  assert.deepEqual({ ...message.headers }, headers);
  message.ack();
  await exchange.publish(Buffer.from([0, 255]), { routingKey: queue.name });
  assert.deepEqual((await queue.get({ noAck: true }))?.body, Buffer.from([0, 255]));
  await assert.rejects(exchange.publish('x', { routingKey: 'no-such', mandatory: true }), errors.MessageReturned);
  await assert.rejects(exchange.publish({} as never), errors.OptionError);
});

onBothBrokers('get decodes what accept allows, and gives up with its signal', async (scene) => {
  const queue = scene.keep(new Queue(scene.unique('q'), { channel: scene.connection }));
  await queue.declare();
  await using producer = scene.connection.Producer({ routingKey: queue.name });
  await producer.publish({ n: 1 });
  const refused = (await queue.get({ accept: ['text'] }))!;
  assert.deepEqual([...refused.accept], ['text/plain']);
  assert.throws(() => refused.payload, errors.ContentDisallowed);
  assert.equal(refused.errors.length, 1);
  refused.requeue();
  await assert.rejects(queue.get({ accept: ['no-such'] }), errors.SerializerNotInstalled);
  await assert.rejects(queue.get({ signal: AbortSignal.abort(new RangeError('enough')) }), RangeError);
  const allowed = (await queue.get({ accept: ['json'], timeout: 30_000 }))!;
  assert.deepEqual(allowed.payload, { n: 1 });
  allowed.ack();
});

onBothBrokers('a queue consumes at low level, and tells when the broker cancels', async (scene) => {
  const queue = scene.keep(new Queue(scene.unique('q'), { channel: scene.connection }));
  await queue.declare();
  const [delivered, cancelled] = [heard<[Message]>(), heard<[string]>()];
  const tag = await queue.consume({
    callback: delivered.call,
    consumerTag: scene.unique('tag'),
    onCancel: cancelled.call,
  });
  assert.match(tag, /tag/);
  await scene.send(queue.name, 'x');
  const [message] = await delivered.first;
  assert.equal(message.body.toString(), 'x');
  assert.equal(message.deliveryInfo.consumerTag, tag);
  message.ack();
  await queue.delete();
  assert.deepEqual(await cancelled.first, [tag]);
  await queue.cancel(tag);

  await queue.declare();
  const inbox: Message[] = [];
  const own = await queue.consume(scene.connection, { callback: (each) => inbox.push(each), noAck: true });
  assert.notEqual(own, '');
  await queue.cancel(own);
  await queue.cancel('no-such');
  await scene.send(queue.name, 'y');
  assert.equal((await queue.queueDeclare({ passive: true })).messages, 1);
  assert.deepEqual(inbox, []);
});

onBothBrokers('a low-level consumer that ends unasked says so', async (scene) => {
  const queue = scene.keep(new Queue(scene.unique('q'), { channel: scene.connection }));
  await queue.declare();
  const ended = heard<[string]>();
  const tag = await queue.consume({ callback: () => undefined, onCancel: ended.call });
  await assert.rejects(new Queue('no-such', { passive: true }).declare(await scene.connection.defaultChannel()));
  assert.deepEqual(await ended.first, [tag], "its channel was closed over another's mistake");
  const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
  await queue.consume({ callback: () => undefined });
  await queue.delete();
  assert.match((await warned).message, /a consumer of queue '.*' has ended: the broker cancelled it/);
});

onBothBrokers('a low-level consumer is cancelled by a copy of its queue', async (scene) => {
  const queue = scene.keep(new Queue(scene.unique('q')));
  const bound = queue.bind(scene.connection);
  await bound.declare();
  const tag = await bound.consume({ callback: () => undefined, onCancel: () => assert.fail('it was asked for') });
  await queue.bind(scene.connection).cancel(tag);
  assert.equal((await bound.queueDeclare({ passive: true })).consumers, 0);
});

onBothBrokers('what is declared once does not fail with the mistake of somebody else', async (scene) => {
  const { connection } = scene;
  const queues = [1, 2, 3, 4].map(() => scene.keep(new Queue(scene.unique('q'))));
  const mistake = async (target: Connection | Channel): Promise<void> => {
    await assert.rejects(new Queue('no-such', { passive: true }).declare(target), errors.NotFound);
  };
  await connection.defaultChannel();
  await using producer = connection.Producer();
  await Promise.all([mistake(connection), producer.maybeDeclare(queues[0]!)]);
  const publishing = producer.publish('x', { routingKey: queues[1]!.name, declare: [queues[1]!], mandatory: true });
  await Promise.all([mistake(connection), publishing]);
  await Promise.all([mistake(connection), maybeDeclare(queues[2]!, connection)]);

  // Of two that want the same, one asks and the other waits for it.
  const [one, two] = [await connection.channel(), await connection.channel()];
  const [failed, done] = await Promise.allSettled([
    Promise.all([mistake(one), maybeDeclare(queues[3]!, one)]),
    maybeDeclare(queues[3]!, two),
  ]);
  assert.deepEqual([failed.status, done.status, two.closed], ['rejected', 'fulfilled', false]);
  for (const queue of queues) await queue.queueDeclare(two, { passive: true });
});

onBothBrokers('what a low-level callback throws becomes a warning, and its channel lives', async (scene) => {
  const queue = scene.keep(new Queue(scene.unique('q'), { channel: scene.connection }));
  await queue.declare();
  const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
  const tag = await queue.consume({
    callback: () => {
      throw new RangeError('mine');
    },
  });
  await scene.send(queue.name, 'x');
  assert.match((await warned).message, /queue '.*' failed: RangeError: mine/);
  await queue.cancel(tag);
});

onBothBrokers('a refused declaration rejects with the words of the broker and disturbs nobody else', async (scene) => {
  const { connection } = scene;
  const queue = scene.keep(new Queue(scene.unique('q')));
  await queue.declare(connection);
  const channel: Channel = await connection.channel();
  const exclusive = new Queue(scene.unique('own'), { exclusive: true });
  await exclusive.declare(scene.connect());

  // All at once, through the one default channel, which the broker closes three times.
  const asks: [Promise<unknown>, (new (...args: never[]) => errors.KombuError)?, number?, RegExp?][] = [
    [new Queue(scene.unique('a'), { exclusive: true }).declare(connection)],
    [
      new Queue('no-such', { passive: true }).declare(connection),
      errors.NotFound,
      404,
      /NOT_FOUND - no queue 'no-such'/,
    ],
    [new Queue(scene.unique('b'), { exclusive: true }).declare(connection)],
    [exclusive.declare(connection), errors.ResourceLocked, 405, /RESOURCE_LOCKED/],
    [queue.purge(connection)],
    [
      new Queue(queue.name, { durable: false }).declare(connection),
      errors.PreconditionFailed,
      406,
      /PRECONDITION_FAILED - inequivalent arg 'durable'/,
    ],
    [queue.get(connection)],
    [new Exchange('amq.topic', { type: 'topic' }).bindTo('amq.fanout', {}, connection)],
  ];
  await Promise.allSettled(asks.map(([ask]) => ask));
  for (const [ask, Class, replyCode, words] of asks) {
    if (Class === undefined) {
      await ask;
      continue;
    }
    await assert.rejects(ask, (error: errors.KombuError) => {
      assert.ok(error instanceof Class, error.stack);
      assert.equal(error.details.replyCode, replyCode);
      assert.match(error.message, words!);
      return true;
    });
  }
  await new Exchange('amq.topic', { type: 'topic' }).unbindFrom('amq.fanout', {}, connection);
  assert.equal(channel.closed, false);
  assert.equal(await queue.purge(channel), 0);
});

onBothBrokers('on a channel of the caller it is the channel that is lost, and only that', async (scene) => {
  const [one, two] = [await scene.connection.channel(), await scene.connection.channel()];
  await assert.rejects(new Queue('no-such', { passive: true }).declare(one), errors.NotFound);
  await assert.rejects(new Queue('no-such', { passive: true }).declare(one), errors.ClosedError);
  await new Queue('', { exclusive: true }).declare(two);
  assert.equal(scene.connection.connected, true);
});

onBothBrokers('every question has a deadline and a signal', async (scene) => {
  const queue = new Queue(scene.unique('q'), { exclusive: true, channel: scene.connection });
  const signal = AbortSignal.abort(new RangeError('enough'));
  await assert.rejects(queue.declare({ signal }), RangeError);
  const mute = {
    closed: false,
    defaultChannel: () => new Promise<never>(() => undefined),
    channel: () => assert.fail(),
  };
  await assert.rejects(queue.declare(mute, { timeout: 5 }), errors.TimeoutError);
  await assert.rejects(new Exchange('amq.topic', { channel: scene.connection }).publish('x', { signal }), RangeError);
  await queue.declare({ timeout: 60_000 });
});

onBothBrokers('a message that an ack of several took along cannot close the channel', async (scene) => {
  const queue = scene.keep(new Queue(scene.unique('q'), { channel: scene.connection }));
  await queue.declare();
  await scene.send(queue.name, '1', '2', '3');
  const [first, second, third] = [await queue.get(), await queue.get(), await queue.get()];
  second!.ack({ multiple: true });
  assert.deepEqual([first!.acknowledged, third!.acknowledged], [true, false]);
  assert.throws(() => first!.ack(), errors.MessageStateError);
  third!.reject({ requeue: true });
  assert.equal((await queue.get({ noAck: true }))?.deliveryInfo.redelivered, true);
  assert.equal(await queue.get(), null);
});

onBothBrokers('settling twice throws; a rejected message is gone, a requeued one comes again', async (scene) => {
  const queue = scene.keep(new Queue(scene.unique('q'), { channel: scene.connection }));
  await queue.declare();
  for (const settle of ['ack', 'reject'] as const) {
    await scene.send(queue.name, settle);
    const message = (await queue.get())!;
    message[settle]();
    for (const again of ['ack', 'reject', 'requeue'] as const) {
      assert.throws(() => message[again](), errors.MessageStateError);
    }
    assert.equal(await queue.get(), null);
  }
  await scene.send(queue.name, 'x');
  (await queue.get())!.requeue();
  (await queue.get())!.reject({ requeue: true });
  const again = (await queue.get())!;
  assert.deepEqual([again.body.toString(), again.deliveryInfo.redelivered], ['x', true]);
  again.ack();
});
