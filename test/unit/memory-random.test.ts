/**
 * Random publishes, deliveries, verdicts, closures and time, against a simple account: every message is in exactly one place, and
 * what is not on a queue or with a consumer was acked or dropped by a rule.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Broker, type Link } from '#src/main/transports/memory/broker';
import { BrokerChannel, type ChannelClient } from '#src/main/transports/memory/broker-channel';
import { fieldsOf } from '#src/main/transports/memory/channel-arguments';
import { StoredMessage } from '#src/main/transports/memory/message';
import type { Entry } from '#src/main/transports/memory/queue';
import { method } from '#src/main/transports/memory/refusal';
import { FakeClock } from '../support/fake-clock.js';

const QUEUES = ['plain', 'mortal', 'short', 'ranked', 'refusing'] as const;
const GRAVES = 'graves';
const TOMB = { 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': GRAVES };
const ARGUMENTS: Readonly<Record<(typeof QUEUES)[number], object>> = {
  plain: TOMB,
  mortal: { ...TOMB, 'x-message-ttl': 40 },
  short: { ...TOMB, 'x-max-length': 3 },
  ranked: { ...TOMB, 'x-max-priority': 3 },
  refusing: { ...TOMB, 'x-max-length': 2, 'x-overflow': 'reject-publish' },
};

/** A client that keeps what it is given until the test settles it. */
class Client implements ChannelClient {
  readonly held = new Map<number, string>();
  readonly refusals: string[] = [];
  readonly nacked: number[] = [];
  published: string[] = [];
  room = true;
  channel: BrokerChannel;

  constructor(link: Link) {
    this.channel = new BrokerChannel(link, this);
    this.channel.selectConfirms();
  }

  hasRoom(): boolean {
    return this.room;
  }
  deliver(_: string, tag: number, { message }: Entry): void {
    this.held.set(tag, message.body.toString());
  }
  cancelled(): void {
    assert.fail('no queue is deleted here');
  }
  returned(): void {
    assert.fail('everything can be routed');
  }
  confirmed(tag: number, taken: boolean): void {
    if (!taken) this.nacked.push(tag);
  }
  closed({ message }: Error): void {
    this.refusals.push(message);
  }
  ended(): void {
    this.held.clear();
  }
}

const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('publish' as const),
      queue: fc.constantFrom(...QUEUES),
      priority: fc.integer({ min: 0, max: 5 }),
      expiration: fc.option(fc.integer({ min: 0, max: 60 }), { nil: undefined }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('consume' as const),
      queue: fc.constantFrom(...QUEUES),
      prefetch: fc.integer({ min: 1, max: 4 }),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constantFrom('ack' as const, 'requeue' as const, 'reject' as const),
      which: fc.nat(),
      multiple: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('get' as const), queue: fc.constantFrom(...QUEUES) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('close' as const, 'recover' as const, 'room' as const) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 30 }) }) },
);

test('memory broker: no message is lost, none is there twice', () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 150, size: 'max' }), (steps) => {
      const clock = new FakeClock();
      const broker = new Broker('random', clock);
      const link = broker.connect('/', 'guest', { closed: () => assert.fail('nothing ends the connection') });
      const vhost = broker.vhost('/');
      const owner = new Client(link);
      const flags = { durable: true, exclusive: false, autoDelete: false };
      for (const name of QUEUES) vhost.declareQueue({ name, ...flags, args: fieldsOf(ARGUMENTS[name]) }, link);
      vhost.declareQueue({ name: GRAVES, ...flags, args: fieldsOf({}) }, link);
      const published = new Set<string>();
      const acked = new Set<string>();
      let client = new Client(link);
      let ids = 0;

      for (const each of steps) {
        if (each.do === 'publish') {
          const id = `m${ids++}`;
          const expiration = each.expiration === undefined ? undefined : String(each.expiration);
          const make = () =>
            new StoredMessage('', each.queue, { priority: each.priority, expiration }, Buffer.from(id));
          const refusals = owner.nacked.length;
          owner.channel.publish(make, false);
          if (owner.nacked.length === refusals) published.add(id);
        } else if (each.do === 'consume') {
          client.channel.prefetch(each.prefetch, false);
          const options = { consumerTag: '', noAck: false, exclusive: false, args: fieldsOf({}) };
          client.channel.call(method.BASIC_CONSUME, () => client.channel.consume(each.queue, options, () => undefined));
        } else if (each.do === 'get') {
          const got = client.channel.get(each.queue, false);
          if (got !== undefined) client.held.set(got.tag, got.entry.message.body.toString());
        } else if (each.do === 'close') {
          client.channel.close();
          client = new Client(link);
        } else if (each.do === 'recover') {
          client.held.clear();
          client.channel.recover();
        } else if (each.do === 'room') {
          client.room = !client.room;
          client.channel.wake();
        } else if (each.do === 'wait') {
          clock.advance(each.ms);
        } else if ('which' in each && client.held.size > 0) {
          settle(client, each, acked);
        }
        assert.equal(client.channel.unsettled, client.held.size);
      }

      assert.deepEqual([...client.refusals, ...owner.refusals], []);
      // What is held goes back to its queue, or on to the graves: then everything is on a queue or was acked.
      client.channel.close();
      const places = [...acked];
      for (const name of [...QUEUES, GRAVES]) {
        for (let got = owner.channel.get(name, true); got !== undefined; got = owner.channel.get(name, true)) {
          places.push(got.entry.message.body.toString());
        }
      }
      assert.deepEqual(places.sort(), [...published].sort());
    }),
    { numRuns: 400 },
  );
});

interface Verdict {
  readonly do: 'ack' | 'requeue' | 'reject';
  readonly which: number;
  readonly multiple: boolean;
}

function settle(client: Client, { do: what, which, multiple }: Verdict, acked: Set<string>): void {
  const tags = [...client.held.keys()].sort((a, b) => a - b);
  const tag = tags[which % tags.length]!;
  const settled = multiple ? tags.filter((other) => other <= tag) : [tag];
  for (const each of settled) {
    if (what === 'ack') acked.add(client.held.get(each)!);
    client.held.delete(each);
  }
  if (what === 'ack') client.channel.ack(tag, multiple);
  else client.channel.reject(tag, multiple, what === 'requeue');
}
