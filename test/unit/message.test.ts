/** What a callback may do with its message: settle it once, read it while it is there. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MessageStateError } from '#src/errors';
import { Message, type MessageSource } from '#src/message';

function open(payload: () => unknown = () => ({ answer: 42 })): {
  message: Message;
  settled: [outcome: string, multiple: boolean][];
  reads: Record<string, number>;
} {
  const settled: [string, boolean][] = [];
  const reads: Record<string, number> = {};
  const counted = <T>(name: string, value: T): T => {
    reads[name] = (reads[name] ?? 0) + 1;
    return value;
  };
  const info = { exchange: '', routingKey: 'k', redelivered: false, consumerTag: 'c', deliveryTag: 1, queue: 'q' };
  const source: MessageSource = {
    readProperties: () => counted('properties', { messageId: 'm' }),
    readHeaders: () => counted('headers', Object.create(null)),
    readDeliveryInfo: () => counted('deliveryInfo', info),
    readAccept: () => counted('accept', new Set(['application/json'])),
    readBody: () => counted('body', Buffer.from('body')),
    decode: () => counted('payload', payload()),
  };
  return { message: new Message(source, (outcome, multiple) => settled.push([outcome, multiple])), settled, reads };
}

const PARTS = ['body', 'payload', 'headers', 'properties', 'deliveryInfo'] as const;
const SETTLEMENTS = ['ack', 'reject', 'requeue'] as const;

describe('a message', () => {
  for (const first of SETTLEMENTS) {
    it(`that was settled by ${first} cannot be settled again, and says why`, () => {
      const { message, settled } = open();
      assert.equal(message.acknowledged, false);
      message[first]();
      assert.equal(message.acknowledged, true);
      assert.equal(Message.outcomeOf(message), first);
      for (const second of SETTLEMENTS) {
        assert.throws(
          () => message[second](),
          (error: unknown) =>
            error instanceof MessageStateError &&
            error.message.includes(`(${first})`) &&
            error.message.includes(`(${second})`),
        );
      }
      assert.deepEqual(settled, [[first, false]]);
    });
  }

  it('takes all before it along with ack({ multiple: true }) only', () => {
    const { message, settled } = open();
    message.ack({ multiple: true });
    assert.deepEqual(settled, [['ack', true]]);
  });

  it('whose settlement failed can be settled still', () => {
    let broken = true;
    const message = new Message({} as MessageSource, () => {
      if (broken) throw new Error('no channel');
    });
    assert.throws(() => message.ack(), /no channel/);
    assert.equal(message.acknowledged, false);
    broken = false;
    message.requeue();
    assert.equal(Message.outcomeOf(message), 'requeue');
  });

  it('asks for each part once and keeps it, an undefined payload too', () => {
    const { message, reads } = open(() => undefined);
    for (const part of PARTS) assert.equal(message[part], message[part]);
    assert.deepEqual(reads, { body: 1, payload: 1, headers: 1, properties: 1, deliveryInfo: 1 });
  });

  it('asks for nothing that nobody reads', () => {
    const { message, reads } = open();
    message.ack();
    assert.deepEqual(reads, {});
  });

  it('tries again to decode a payload that could not be decoded', () => {
    let tries = 0;
    const { message } = open(() => {
      if (++tries === 1) throw new Error('not yet');
      return 'there';
    });
    assert.throws(() => message.payload, /not yet/);
    assert.equal(message.payload, 'there');
  });

  it('that was closed keeps what was read, refuses what was not, and can be settled no more', () => {
    for (const known of PARTS) {
      const { message, settled } = open();
      const before = message[known];
      Message.close(message, 'ack');
      assert.equal(message.acknowledged, true);
      assert.equal(message[known], before);
      for (const part of PARTS) {
        if (part === known) continue;
        assert.throws(
          () => message[part],
          (error: unknown) => error instanceof MessageStateError && error.message.includes(`message.${part} `),
        );
      }
      for (const late of SETTLEMENTS) assert.throws(() => message[late](), MessageStateError);
      assert.deepEqual(settled, []);
    }
  });

  it('keeps its own outcome when the runtime closes it with another', () => {
    const { message } = open();
    message.requeue();
    Message.close(message, 'ack');
    assert.equal(Message.outcomeOf(message), 'requeue');
  });
});
