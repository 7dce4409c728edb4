/** Our channel over a stand-in for amqplib's: what a broker does rarely, or in an order that cannot be arranged. */
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { ClosedError, ConnectionError, MessageNacked, MessageReturned } from '#src/errors';
import { Channel } from '#src/main/entities/channel';
import { Producer } from '#src/main/producer';
import type { BrokerConnection, Publish } from '#src/main/transports/transport';

type Confirm = (error: Error | null) => void;

/** Holds confirms back, and takes `room` messages before it says that it is full. */
class StandIn extends EventEmitter {
  readonly published: { body: string; confirm: Confirm }[] = [];
  room = Number.POSITIVE_INFINITY;

  readonly publish: Publish = ({ body }, confirm) => {
    this.published.push({ body: body.toString(), confirm });
    return --this.room > 0;
  };

  giveBack(routingKey: string, messageId: string): void {
    const fields = { exchange: '', routingKey, replyCode: 312, replyText: 'NO_ROUTE' };
    this.emit('return', { fields, properties: { messageId, headers: {} }, content: Buffer.from('') });
  }
}

async function open(): Promise<{ raw: StandIn; channel: Channel; amqp: { open: boolean; reason?: Error } }> {
  const raw = new StandIn();
  const amqp = {
    open: true,
    model: { createConfirmChannel: () => Promise.resolve(raw) },
    publisherOf: () => raw.publish,
  };
  return { raw, amqp, channel: await Channel.open(amqp as unknown as BrokerConnection) };
}

describe('a channel', () => {
  it('gives each return to the next message of its id and key, also when several come before the confirms', async () => {
    const { raw, channel } = await open();
    const publish = (key: string) =>
      channel.publish('', key, Buffer.from(key), { mandatory: true, messageId: 'same' }).then(
        () => 'taken',
        (error: Error) => error.constructor,
      );
    const outcomes = Promise.all(['a', 'b', 'a', 'a'].map(publish));
    raw.giveBack('a', 'same');
    raw.giveBack('a', 'same');
    raw.giveBack('a', 'another');
    for (const { confirm } of raw.published) confirm(null);
    assert.deepEqual(await outcomes, [MessageReturned, 'taken', MessageReturned, 'taken']);
  });

  it('rejects what the broker nacks, and what is unconfirmed when the connection ends, with its reason', async () => {
    const { raw, channel, amqp } = await open();
    const [nacked, lost] = [
      channel.publish('', 'q', Buffer.from('1'), {}),
      channel.publish('', 'q', Buffer.from('2'), {}),
    ];
    raw.published[0]!.confirm(new Error('message nacked'));
    await assert.rejects(nacked, MessageNacked);
    // In amqplib's order: the channel hears first, then the connection knows why.
    raw.published[1]!.confirm(new Error('channel closed'));
    raw.emit('close');
    amqp.open = false;
    amqp.reason = new ConnectionError('the reason');
    await assert.rejects(lost, amqp.reason);
    assert.equal(await channel.ended, amqp.reason);
    await assert.rejects(channel.publish('', 'q', Buffer.from('3'), {}), ClosedError);
  });

  it('ends the questions that amqplib has forgotten when it is closed', async () => {
    const { raw, channel } = await open();
    const forgotten = assert.rejects(
      channel.call('getting', () => new Promise(() => undefined)),
      { name: 'ClosedError', message: 'getting: the channel was closed' },
    );
    raw.emit('close');
    await forgotten;
  });
});

describe('a producer on a channel', () => {
  it('stops writing while the channel is full, and keeps the order when there is room again', async () => {
    const { raw, channel } = await open();
    const producer = new Producer(channel);
    raw.room = 2;
    const all = Promise.all(['a', 'b', 'c', 'd'].map((body) => producer.publish(body)));
    await turn();
    assert.deepEqual(
      raw.published.map(({ body }) => body),
      ['a', 'b'],
    );
    raw.room = Number.POSITIVE_INFINITY;
    raw.emit('drain');
    await turn();
    assert.deepEqual(
      raw.published.map(({ body }) => body),
      ['a', 'b', 'c', 'd'],
    );
    for (const { confirm } of raw.published) confirm(null);
    await all;
  });

  it('does not write what nobody waits for any more, and is not held up when a full channel ends', async () => {
    const { raw, channel } = await open();
    const producer = new Producer(channel);
    raw.room = 1;
    const first = producer.publish('a');
    const abort = new AbortController();
    const second = assert.rejects(producer.publish('b', { signal: abort.signal }), /enough/);
    const third = producer.publish('c');
    abort.abort(new Error('enough'));
    await second;
    raw.room = Number.POSITIVE_INFINITY;
    raw.emit('drain');
    await turn();
    assert.deepEqual(
      raw.published.map(({ body }) => body),
      ['a', 'c'],
    );
    for (const { confirm } of raw.published) confirm(null);
    await Promise.all([first, third]);

    raw.room = 1;
    const last = producer.publish('d');
    const waiting = assert.rejects(producer.publish('e'), ClosedError);
    raw.published[2]!.confirm(null);
    await last;
    raw.emit('close');
    await waiting;
  });
});
