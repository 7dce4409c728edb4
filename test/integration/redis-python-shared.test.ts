/** One queue, one Redis, consumers of both sides: nothing is lost, nothing is seen twice. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Connection, type Message, Queue } from '#src/index';
import { type Peers, pythonPeerTest } from '../support/python-peer.js';
import { consumerOf, EffectsLog, until } from '../support/rig.js';

/** No message is left that somebody has not settled. */
async function nothingUnsettled({ command }: Peers, prefix = ''): Promise<void> {
  await until('all is settled', async () => (await command('ZCARD', `${prefix}unacked_index`)) === 0);
  assert.equal(await command('HLEN', `${prefix}unacked`), 0);
}

pythonPeerTest(
  'Python’s consumer and ours on one queue: each has some, nothing is lost or seen twice',
  async (peers) => {
    const { peer } = peers;
    await using connection = new Connection(peers.url);
    const total = 2000;
    await peer.call('consume', [['shared', 'shared-end'], 1]);
    const ours: Message[] = [];
    let release: (() => void) | undefined;
    const pythonHasOne = new Promise<void>((resolve) => {
      release = resolve;
    });
    await using consumer = connection.Consumer([new Queue('shared')], {
      prefetchCount: 1,
      onMessage: async (message) => {
        ours.push(message);
        await pythonHasOne;
        message.ack();
      },
    });
    await consumer.consume();
    const holding = peer.call('hold', [1]);
    await using producer = connection.Producer({ routingKey: 'shared' });
    const values = Array.from({ length: total }, (_, i) => i);
    await Promise.all(values.slice(0, 2).map((value) => producer.publish(value)));
    // each holds one of the two, and asks for no other
    await holding;
    await until('we have the other', () => ours.length === 1);
    release?.();
    const flowing = peer.call('flow', ['end']);
    await Promise.all(values.slice(2).map((value) => producer.publish(value)));
    await until('the queue is empty', async () => (await peers.command('LLEN', 'shared')) === 0, {
      state: () => ours.length,
    });
    await producer.publish('end', { routingKey: 'shared-end' });
    const theirs = (await flowing) as number[];
    await nothingUnsettled(peers);
    const all = [...ours.map(({ payload }) => payload as number), ...theirs].sort((a, b) => a - b);
    assert.deepEqual(all, values);
    assert.ok(ours.length > 0 && theirs.length > 0);
    peers.context.diagnostic(`of ${total} we had ${ours.length}, Python ${theirs.length}`);
  },
);

pythonPeerTest(
  'Python’s consumer and a sharded one on one queue: each has some, nothing is lost or seen twice',
  async (peers) => {
    const { peer } = peers;
    using effects = new EffectsLog();
    await using connection = new Connection(peers.url);
    const total = 2000;
    await peer.call('consume', [['shared', 'shared-end'], 1]);
    await using consumer = consumerOf(peers.url, new Queue('shared'), { prefetchCount: 1 });
    await consumer.consume();
    const latch = join(effects.folder, 'latch');
    await using producer = connection.Producer({ routingKey: 'shared' });
    const holding = peer.call('hold', [1]);
    // each holds one of the two, and asks for no other
    for (const id of [0, 1]) await producer.publish({ id, do: 'latch', at: latch });
    await holding;
    await until('we have the other', () => consumer.stats().received === 1);
    writeFileSync(latch, '');
    const flowing = peer.call('flow', ['end']);
    await Promise.all(Array.from({ length: total - 2 }, (_, i) => producer.publish({ id: i + 2 })));
    await until('the queue is empty', async () => (await peers.command('LLEN', 'shared')) === 0, {
      state: () => consumer.stats(),
    });
    await until('ours have run', () => consumer.stats().unsettled === 0);
    await producer.publish('end', { routingKey: 'shared-end' });
    const theirs = (await flowing) as { id: number }[];
    await nothingUnsettled(peers);
    const ours = effects.read().map(({ id }) => Number(id));
    assert.deepEqual(
      [...ours, ...theirs.map(({ id }) => id)].sort((a, b) => a - b),
      Array.from({ length: total }, (_, i) => i),
    );
    assert.ok(ours.length > 0 && theirs.length > 0);
    peers.context.diagnostic(`of ${total} we had ${ours.length}, Python ${theirs.length}`);
  },
);
