/** The bytes of a publish are amqplib's, gathered, in their place among its own frames. */
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import type * as amqplib from 'amqplib';
import fc from 'fast-check';
import { publishWriter } from '#src/main/transports/amqp/publish-writer';

const require = createRequire(import.meta.url);
const lib = (name: string) => require(require.resolve('amqplib').replace(/channel_api\.js$/, `lib/${name}.js`));
const defs = lib('defs') as {
  BasicPublish: number;
  BasicProperties: number;
  encodeMethod(id: number, channel: number, fields: object): Buffer;
  encodeProperties(id: number, channel: number, size: number, fields: object): Buffer;
};
const { makeBodyFrame } = lib('frame') as { makeBodyFrame(channel: number, body: Buffer): Buffer };

const FRAME_MAX = 4096;

/** A channel as amqplib has it, with a stream that keeps what is written. */
class StandIn extends EventEmitter {
  readonly ch = 7;
  readonly written: Buffer[] = [];
  readonly confirms: unknown[] = [];
  readonly own: string[] = [];
  hasRoom = true;
  readonly connection = {
    frameMax: FRAME_MAX,
    sentSinceLastCheck: false,
    channels: [] as ({ buffer: { write: (bytes: Buffer) => boolean } } | null)[],
  };

  constructor() {
    super();
    const write = (bytes: Buffer): boolean => {
      this.written.push(Buffer.from(bytes));
      return this.hasRoom;
    };
    this.connection.channels[this.ch] = { buffer: { write } };
  }

  sendMessage(text: string): boolean {
    return this.connection.channels[this.ch]!.buffer.write(Buffer.from(text));
  }
  sendImmediately(text: string): void {
    this.connection.channels[this.ch]!.buffer.write(Buffer.from(text));
  }
  pushConfirmCallback(callback: unknown): void {
    this.confirms.push(callback);
  }

  get bytes(): Buffer {
    return Buffer.concat(this.written);
  }
}

const open = () => {
  const raw = new StandIn();
  return { raw, publish: publishTo(raw) };
};

function publishTo(raw: StandIn) {
  const publish = publishWriter(raw as unknown as amqplib.ConfirmChannel);
  return (exchange: string, routingKey: string, body: Buffer, properties: amqplib.Options.Publish) =>
    publish({ exchange, routingKey, body, properties }, () => undefined);
}

function theirs(exchange: string, routingKey: string, body: Buffer, properties: amqplib.Options.Publish): Buffer {
  const fields = {
    exchange,
    routingKey,
    mandatory: properties.mandatory === true,
    immediate: false,
    ticket: undefined,
  };
  const frames = [
    defs.encodeMethod(defs.BasicPublish, 7, fields),
    defs.encodeProperties(defs.BasicProperties, 7, body.length, properties),
  ];
  const most = FRAME_MAX - 8;
  for (let at = 0; at < body.length; at += most) frames.push(makeBodyFrame(7, body.subarray(at, at + most)));
  return Buffer.concat(frames);
}

const name = fc.string({ unit: 'binary', maxLength: 40 });
const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });
const message = fc.record({
  exchange: name,
  routingKey: name,
  body: fc.oneof(fc.nat(300), fc.nat(40_000)).map((size) => Buffer.alloc(size, size)),
  properties: fc.record({
    mandatory: optional(fc.boolean()),
    headers: fc.constantFrom({}, { a: 1, text: 'ä' }, { deep: { list: [1, 'x', null] } }),
    contentType: optional(name),
    contentEncoding: optional(name),
    deliveryMode: fc.constantFrom(1, 2),
    priority: optional(fc.nat(255)),
    correlationId: optional(name),
    replyTo: optional(name),
    expiration: optional(fc.nat().map(String)),
    messageId: optional(name),
    timestamp: optional(fc.nat()),
    type: optional(name),
    userId: optional(name),
    appId: optional(name),
  }),
});

test('what is published is what amqplib would have written, in one piece where bodies are small', async () => {
  let pieces = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(message, { minLength: 1, maxLength: 8 }), async (messages) => {
      const { raw, publish } = open();
      for (const { exchange, routingKey, body, properties } of messages) {
        publish(exchange, routingKey, body, properties as amqplib.Options.Publish);
      }
      await turn();
      const expected = messages.map((each) =>
        theirs(each.exchange, each.routingKey, each.body, each.properties as amqplib.Options.Publish),
      );
      assert.deepEqual(raw.bytes, Buffer.concat(expected));
      assert.equal(raw.confirms.length, messages.length);
      assert.equal(raw.connection.sentSinceLastCheck, true);
      // two, if the memory it is written on ends between them
      assert.ok(raw.written.length <= 2);
      pieces += raw.written.length;
    }),
    { numRuns: 200 },
  );
  assert.ok(pieces < 250);
});

test('channels that publish in turn have their own bytes, whole', async () => {
  const channels = [open(), open()];
  const bodies = Array.from({ length: 2000 }, (_, i) => Buffer.from(`message ${i}`.repeat(1 + (i % 50))));
  for (const [i, body] of bodies.entries()) channels[i % 3 === 0 ? 0 : 1]!.publish('', 'q', body, {});
  await turn();
  for (const [at, { raw }] of channels.entries()) {
    const own = bodies.filter((_, i) => (i % 3 === 0 ? 0 : 1) === at);
    assert.ok(raw.bytes.equals(Buffer.concat(own.map((body) => theirs('', 'q', body, {})))));
  }
});

test('a large body is written as it is, between what is gathered', async () => {
  const raw = new StandIn();
  Object.assign(raw.connection, { frameMax: 131_072 });
  const publish = publishTo(raw);
  const large = Buffer.alloc(100_000, 1);
  for (const body of [Buffer.from('a'), large, Buffer.from('b')]) publish('', 'q', body, { headers: {} });
  await turn();
  assert.deepEqual(
    raw.written.map((piece) => piece.length === large.length),
    [false, true, false],
  );
});

test('what amqplib writes comes behind what was published before it, and before what is published after', async () => {
  const { raw, publish } = open();
  publish('', 'q', Buffer.from('first'), {});
  raw.sendImmediately('IMMEDIATE');
  publish('', 'q', Buffer.from('second'), {});
  raw.sendMessage('MESSAGE');
  publish('', 'q', Buffer.from('third'), {});
  await turn();
  const text = raw.bytes.toString('latin1');
  const places = ['first', 'IMMEDIATE', 'second', 'MESSAGE', 'third'].map((word) => text.indexOf(word));
  assert.deepEqual(
    places,
    [...places].sort((a, b) => a - b),
  );
  assert.ok(places[0]! > 0);
});

test('nothing is written on a channel that closes before its time', async () => {
  for (const close of [
    (raw: StandIn) => Object.assign(raw, { sendMessage: () => assert.fail('closing') }),
    (raw: StandIn) => {
      raw.connection.channels[raw.ch] = null;
    },
  ]) {
    const { raw, publish } = open();
    publish('', 'q', Buffer.from('late'), {});
    close(raw);
    await turn();
    assert.deepEqual(raw.written, []);
  }
});

test('what cannot be encoded throws, writes nothing and expects no confirm', async () => {
  const { raw, publish } = open();
  assert.throws(() => publish('', 'k'.repeat(256), Buffer.from('x'), {}), TypeError);
  await turn();
  assert.deepEqual([raw.written.length, raw.confirms.length], [0, 0]);
});

test('a full stream says so until it drains', async () => {
  const { raw, publish } = open();
  const small = () => publish('', 'q', Buffer.from('x'), {});
  raw.hasRoom = false;
  assert.equal(small(), true);
  await turn();
  assert.equal(small(), false);
  raw.hasRoom = true;
  raw.emit('drain');
  assert.equal(small(), true);
});

test('what is gathered goes out at 256 KiB, also in the middle of a turn', () => {
  const { raw, publish } = open();
  for (let i = 0; i < 30; i++) publish('', 'q', Buffer.alloc(10_000), {});
  assert.ok(raw.bytes.length >= 256 * 1024 && raw.bytes.length < 280_000);
});

test('another amqplib than the one this was written for is refused', () => {
  assert.throws(() => publishWriter(new EventEmitter() as unknown as amqplib.ConfirmChannel), /version of amqplib/);
});
