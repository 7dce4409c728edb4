/** What a callback may do with its message: settle it once, read it while it is there. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ConnectionError, MessageStateError } from '#src/errors';
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

  it('is requeued by reject({ requeue: true }), and takes no other options', () => {
    const { message, settled } = open();
    for (const settle of [
      () => message.ack({ multipel: true } as never),
      () => message.reject({ reqeue: true } as never),
    ]) {
      assert.throws(settle, { name: 'OptionError', message: /did you mean/ });
    }
    assert.equal(message.acknowledged, false);
    message.reject({ requeue: true });
    assert.deepEqual(settled, [['requeue', false]]);
  });

  it('keeps a payload that is falsy', () => {
    for (const falsy of [0, '', false, null, undefined]) {
      const { message, reads } = open(() => falsy);
      assert.equal(message.decode(), falsy);
      assert.equal(message.payload, falsy);
      assert.deepEqual(reads, { payload: 1 });
    }
  });

  it('keeps what decoding failed with, until it goes well', () => {
    const failure = new Error('not yet');
    let tries = 0;
    const { message } = open(() => {
      if (++tries === 1) throw failure;
      return 'there';
    });
    assert.deepEqual(message.errors, []);
    assert.throws(() => message.decode(), failure);
    assert.deepEqual(message.errors, [failure]);
    assert.equal(message.decode(), 'there');
    assert.deepEqual(message.errors, []);
  });

  it('tells its tag, type, encoding, and what may be decoded', () => {
    const { message, reads } = open();
    assert.deepEqual([message.deliveryTag, message.contentType, message.contentEncoding], [1, undefined, undefined]);
    assert.deepEqual([...message.accept], ['application/json']);
    assert.equal(message.accept, message.accept);
    assert.equal(reads.accept, 1);
  });

  it('without acks ignores ack(), as often as it is called, and has nothing to give back', () => {
    const settled: string[] = [];
    const message = new Message({} as MessageSource, (outcome) => settled.push(outcome), { noAck: true });
    message.ack();
    message.ack({ multiple: true });
    assert.equal(message.acknowledged, false);
    for (const late of ['reject', 'requeue'] as const) {
      assert.throws(() => message[late](), { name: 'MessageStateError', message: /without acks/ });
    }
    assert.deepEqual(settled, []);
  });

  it('that a later one has settled along cannot be settled again', () => {
    let along = false;
    const settled: string[] = [];
    const traits = { settledAlong: () => along };
    const message = new Message({} as MessageSource, (outcome) => settled.push(outcome), traits);
    assert.equal(message.acknowledged, false);
    along = true;
    assert.equal(message.acknowledged, true);
    for (const late of SETTLEMENTS) {
      assert.throws(() => message[late](), { name: 'MessageStateError', message: /by the ack of a later one/ });
    }
    assert.deepEqual(settled, []);
  });

  it('logs errors of the classes named, and throws others', () => {
    const lines: string[] = [];
    const logger = { error: (text: string) => lines.push(text) };
    const failing = (error: Error) =>
      new Message({ readDeliveryInfo: () => ({ deliveryTag: 7 }) } as MessageSource, () => {
        throw error;
      });
    failing(new ConnectionError('gone')).ackLogError(logger, ConnectionError);
    failing(new ConnectionError('gone')).rejectLogError(logger, [RangeError, ConnectionError], { requeue: true });
    assert.deepEqual(lines, ['could not ack message 7: gone', 'could not reject message 7: gone']);
    assert.throws(() => failing(new TypeError('bug')).ackLogError(logger, [ConnectionError]), TypeError);
    const { message, settled } = open();
    message.rejectLogError(logger, ConnectionError, { requeue: true });
    assert.deepEqual(settled, [['requeue', false]]);
    Message.close(message, 'requeue');
    message.ackLogError(logger, MessageStateError, { multiple: true });
    assert.match(lines[2]!, /^could not ack message whose bytes are gone: the message is already settled/);
  });
});
