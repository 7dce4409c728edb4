/** Where exchanges send messages, and what may be done to them. */
import assert from 'node:assert/strict';
import { Exchange, errors } from '#src/index';
import { onBothBrokers, refused } from '../support/both-brokers.js';

onBothBrokers('a direct exchange goes by the whole key', async (scene) => {
  const exchange = await scene.exchange('direct');
  const [a, b, again] = [
    await scene.bound(exchange, 'a'),
    await scene.bound(exchange, 'b'),
    await scene.bound(exchange, 'a'),
  ];
  await scene.publish(exchange, 'a', '1');
  await scene.publish(exchange, 'a.b', '2');
  assert.deepEqual([await scene.texts(a), await scene.texts(b), await scene.texts(again)], [['1'], [], ['1']]);
});

onBothBrokers('a fanout exchange looks at no key', async (scene) => {
  const exchange = await scene.exchange('fanout');
  const [a, b] = [await scene.bound(exchange, 'a'), await scene.bound(exchange, '')];
  await scene.publish(exchange, 'whatever', '1');
  assert.deepEqual([await scene.texts(a), await scene.texts(b)], [['1'], ['1']]);
});

const TOPICS: readonly (readonly [pattern: string, matched: string[], not: string[]])[] = [
  ['a.*', ['a.b', 'a.'], ['a', 'a.b.c', 'b.a']],
  ['*.b', ['a.b', '.b'], ['b', 'a.a.b']],
  ['#', ['', 'a', 'a.b.c', '.'], []],
  ['a.#', ['a', 'a.b', 'a.b.c'], ['', 'b.a', 'ab']],
  ['#.c', ['c', 'a.c', 'a.b.c'], ['c.a', '']],
  ['a.#.z', ['a.z', 'a.b.z', 'a.b.c.z'], ['a', 'z', 'a.z.b']],
  ['#.a.#', ['a', 'b.a', 'a.b', 'b.a.b', 'a.a'], ['b', '']],
  ['*', ['a', 'ab'], ['', 'a.b']],
  ['*.#', ['a', 'a.b'], ['']],
  ['#.*.#.*', ['a.b', 'a.b.c'], ['a', '']],
  ['', [''], ['a', '.']],
  ['A.b', ['A.b'], ['a.b', 'A.B']],
];

for (const [pattern, matched, not] of TOPICS) {
  onBothBrokers(`a topic exchange: '${pattern}'`, async (scene) => {
    const exchange = await scene.exchange('topic');
    const queue = await scene.bound(exchange, pattern);
    for (const key of [...matched, ...not]) await scene.publish(exchange, key, key);
    assert.deepEqual(await scene.texts(queue), matched);
  });
}

const INT = (value: number) => ({ '!': 'int', value });
const HEADERS: readonly (readonly [what: string, args: object, headers: object, boolean])[] = [
  ['all of the arguments', { 'x-match': 'all', a: 1, b: 'x' }, { a: 1, b: 'x', c: 2 }, true],
  ['not if one is missing', { 'x-match': 'all', a: 1, b: 'x' }, { a: 1 }, false],
  ['all is what is meant without x-match', { a: 1, b: 2 }, { a: 1 }, false],
  ['any of the arguments', { 'x-match': 'any', a: 1, b: 'x' }, { b: 'x' }, true],
  ['any needs one', { 'x-match': 'any', a: 1, b: 'x' }, { b: 'y' }, false],
  ['no arguments match with all', { 'x-match': 'all' }, { a: 1 }, true],
  ['no arguments do not match with any', { 'x-match': 'any' }, { a: 1 }, false],
  ['an argument of no value asks for the key', { 'x-match': 'all', a: null }, { a: 'anything' }, true],
  ['an argument of no value, and no key', { 'x-match': 'all', a: null }, {}, false],
  ['integers of two sizes are equal', { 'x-match': 'all', a: INT(5) }, { a: 5 }, true],
  ['an integer is no text', { 'x-match': 'all', a: 5 }, { a: '5' }, false],
  ['a boolean is no text', { 'x-match': 'all', a: true }, { a: 'true' }, false],
  ['arguments that begin with x- do not count', { 'x-match': 'all', 'x-a': 1, b: 1 }, { b: 1 }, true],
  ['they count with all-with-x', { 'x-match': 'all-with-x', 'x-a': 1, b: 1 }, { b: 1 }, false],
  ['they count with any-with-x', { 'x-match': 'any-with-x', 'x-a': 1 }, { 'x-a': 1 }, true],
];

for (const [what, args, headers, matches] of HEADERS) {
  onBothBrokers(`a headers exchange: ${what}`, async (scene) => {
    const exchange = await scene.exchange('headers');
    const queue = await scene.bound(exchange, '', args);
    await scene.publish(exchange, 'any.key', 'x', { headers });
    assert.equal((await scene.texts(queue)).length, matches ? 1 : 0);
  });
}

onBothBrokers('the default exchange goes by the name of the queue', async (scene) => {
  const queue = await scene.queue();
  await scene.publish('', queue, 'x');
  await scene.publish('', `${queue}-not`, 'y');
  assert.deepEqual(await scene.texts(queue), ['x']);
});

for (const [name, type] of [
  ['amq.direct', 'direct'],
  ['amq.fanout', 'fanout'],
  ['amq.topic', 'topic'],
  ['amq.headers', 'headers'],
  ['amq.match', 'headers'],
] as const) {
  onBothBrokers(`${name} is there`, async (scene) => {
    const queue = await scene.bound(name, scene.unique('key'), { 'x-match': 'all', key: 'only' });
    await (await scene.raw()).assertExchange(name, type);
    await new Exchange(name, { passive: true }).declare(scene.connection);
    assert.equal(await scene.size(queue), 0);
  });
}

onBothBrokers('an exchange with autoDelete goes with its last binding', async (scene) => {
  const exchange = await scene.exchange('direct', { autoDelete: true });
  const raw = await scene.raw();
  const [a, b] = [await scene.bound(exchange, 'a'), await scene.bound(exchange, 'b')];
  await raw.unbindQueue(a, exchange, 'a');
  await raw.checkExchange(exchange);
  await raw.deleteQueue(b);
  const other = await scene.open();
  assert.deepEqual((await refused(other.checkExchange(exchange)))[0], 404);
});

onBothBrokers('an internal exchange takes messages of other exchanges only', async (scene) => {
  const internal = await scene.exchange('fanout', { internal: true });
  const front = await scene.exchange('fanout');
  await (await scene.raw()).bindExchange(internal, front, '');
  const queue = await scene.bound(internal, '');
  await scene.publish(front, '', 'x');
  assert.deepEqual(await scene.texts(queue), ['x']);
  const channel = await scene.connection.channel();
  channel.raw.publish(internal, '', Buffer.from('y'));
  const error = await channel.ended;
  assert.ok(error instanceof errors.AccessRefused);
  assert.match(error.message, new RegExp(`cannot publish to internal exchange '${internal}' in vhost '/'`));
});

onBothBrokers('an alternate exchange takes what no binding matches, and only that', async (scene) => {
  const spare = await scene.exchange('fanout');
  const exchange = await scene.exchange('direct', { alternateExchange: spare });
  const [own, rest] = [await scene.bound(exchange, 'a'), await scene.bound(spare, '')];
  await scene.publish(exchange, 'a', '1');
  await scene.publish(exchange, 'b', '2');
  assert.deepEqual([await scene.texts(own), await scene.texts(rest)], [['1'], ['2']]);
});

onBothBrokers('alternate exchanges have alternates, in a circle if need be', async (scene) => {
  const raw = await scene.raw();
  const [first, second] = [scene.unique('x'), scene.unique('x')];
  await raw.assertExchange(first, 'direct', { autoDelete: true, alternateExchange: second });
  await raw.assertExchange(second, 'direct', { autoDelete: true, alternateExchange: first });
  const queue = await scene.bound(second, 'b');
  await raw.bindQueue(queue, first, 'never');
  await scene.publish(first, 'b', 'x');
  await scene.publish(first, 'nowhere', 'y');
  assert.deepEqual(await scene.texts(queue), ['x']);
});

onBothBrokers('a mandatory message that an alternate exchange takes does not come back', async (scene) => {
  const spare = await scene.exchange('fanout');
  const exchange = await scene.exchange('direct', { alternateExchange: spare });
  const queue = await scene.bound(spare, '');
  await scene.connection.Producer({ exchange }).publish('x', { routingKey: 'none', mandatory: true });
  assert.equal(await scene.size(queue), 1);
});

onBothBrokers('an alternate exchange that is not there takes nothing, and that is no error', async (scene) => {
  const exchange = await scene.exchange('direct', { alternateExchange: scene.unique('none') });
  await scene.publish(exchange, 'a', '1');
  await scene.raw();
});

onBothBrokers('declaring an exchange again as it is changes nothing', async (scene) => {
  const exchange = await scene.exchange('topic', { durable: false });
  const queue = await scene.bound(exchange, '#');
  await (await scene.raw()).assertExchange(exchange, 'topic', { durable: false });
  await scene.publish(exchange, 'a', '1');
  assert.deepEqual(await scene.texts(queue), ['1']);
});

for (const [what, type, options, told] of [
  [
    'type',
    'topic',
    {},
    "inequivalent arg 'type' for exchange 'NAME' in vhost '/': received 'topic' but current is 'direct'",
  ],
  [
    'durability',
    'direct',
    { durable: false },
    "inequivalent arg 'durable' for exchange 'NAME' in vhost '/': received 'false' but current is 'true'",
  ],
  [
    'autoDelete',
    'direct',
    { autoDelete: true },
    "inequivalent arg 'auto_delete' for exchange 'NAME' in vhost '/': received 'true' but current is 'false'",
  ],
  [
    'internal',
    'direct',
    { internal: true },
    "inequivalent arg 'internal' for exchange 'NAME' in vhost '/': received 'true' but current is 'false'",
  ],
  [
    'alternate exchange',
    'direct',
    { alternateExchange: 'y' },
    "inequivalent arg 'alternate-exchange' for exchange 'NAME' in vhost '/': received the value 'y' of type 'longstr' but current is none",
  ],
] as const) {
  onBothBrokers(`declaring an exchange with another ${what} is refused`, async (scene) => {
    const exchange = await scene.exchange('direct');
    const raw = await scene.open();
    const text = `PRECONDITION_FAILED - ${told.replace('NAME', exchange)}`;
    assert.deepEqual(await refused(raw.assertExchange(exchange, type, options)), [406, text]);
  });
}

onBothBrokers('deleting an exchange takes its bindings away; deleting none is no error', async (scene) => {
  const exchange = await scene.exchange('fanout');
  const queue = await scene.bound(exchange, '');
  const raw = await scene.raw();
  await raw.deleteExchange(exchange);
  await raw.deleteExchange(exchange);
  await raw.assertExchange(exchange, 'fanout');
  await scene.publish(exchange, '', 'x');
  assert.equal(await scene.size(queue), 0);
});

onBothBrokers('an exchange in use is not deleted ifUnused', async (scene) => {
  const exchange = await scene.exchange('fanout');
  await scene.bound(exchange, '');
  const raw = await scene.open();
  assert.deepEqual(await refused(raw.deleteExchange(exchange, { ifUnused: true })), [
    406,
    `PRECONDITION_FAILED - exchange '${exchange}' in vhost '/' in use`,
  ]);
});

for (const [what, name, code, told] of [
  [
    'a name that begins with amq. is reserved',
    'amq.mine',
    403,
    "exchange name 'amq.mine' contains reserved prefix 'amq.*'",
  ],
  ['the default exchange is not declared', '', 403, 'operation not permitted on the default exchange'],
] as const) {
  onBothBrokers(what, async (scene) => {
    const raw = await scene.open();
    assert.deepEqual(await refused(raw.assertExchange(name, 'direct')), [code, `ACCESS_REFUSED - ${told}`]);
  });
}

for (const [name, told] of [
  ['', 'operation not permitted on the default exchange'],
  ['amq.topic', "deletion of system exchange 'amq.topic' in vhost '/' not allowed"],
] as const) {
  onBothBrokers(`exchange '${name}' is not deleted`, async (scene) => {
    const raw = await scene.open();
    assert.deepEqual(await refused(raw.deleteExchange(name)), [403, `ACCESS_REFUSED - ${told}`]);
  });
}

onBothBrokers('an exchange type that nobody knows ends the connection', async (scene) => {
  const connection = scene.connect();
  const lost = new Promise((resolve) => connection.on('disconnected', resolve));
  const raw = await scene.open(connection);
  await assert.rejects(raw.assertExchange(scene.unique('x'), 'no-such'), /Channel ended, no reply will be forthcoming/);
  const error = await lost;
  assert.ok(error instanceof errors.ConnectionError);
  assert.equal(error.details.replyCode, 503);
  assert.match(error.message, /COMMAND_INVALID - unknown exchange type 'no-such'/);
});
