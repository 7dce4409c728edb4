// The trace must find every broken rule of acknowledgement, and none where there is none: streams made by hand.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AmqpTrace } from '../support/amqp-trace.js';
import * as amqp from '../support/trace-bytes.js';

/** A trace with channel 1 open and a consumer on it; `client` and `server` send bytes on connection 1. */
function opened(options?: { keepBodies?: boolean }) {
  const trace = new AmqpTrace(options);
  const client = (...bytes: Buffer[]) => trace.push(1, 'toServer', Buffer.concat(bytes));
  const server = (...bytes: Buffer[]) => trace.push(1, 'toClient', Buffer.concat(bytes));
  client(amqp.protocolHeader, amqp.channelOpen(1), amqp.basicConsume(1, 'c', false));
  server(amqp.basicConsumeOk(1, 'c'));
  return { trace, client, server };
}

describe('what it records', () => {
  test('a delivery with its message id and body, however the bytes are cut', () => {
    const bytes = Buffer.concat([amqp.heartbeat, amqp.deliver(1, 7, 'hello world'), amqp.deliver(1, 8, '')]);
    for (const size of [1, 2, 3, 5, 8, 13, 64, 10_000]) {
      const { trace } = opened({ keepBodies: true });
      for (let at = 0; at < bytes.length; at += size) trace.push(1, 'toClient', bytes.subarray(at, at + size));
      const [first, second] = trace.deliveries;
      assert.equal(first?.tag, 7);
      assert.equal(first.messageId, 'm7');
      assert.equal(first.body?.toString(), 'hello world');
      assert.equal(first.routingKey, 'key');
      assert.equal(first.complete, true);
      assert.equal(second?.body?.length, 0);
      assert.equal(second.complete, true);
      assert.deepEqual(trace.violations, []);
    }
  });

  test('bodies only when asked', () => {
    const { trace, server } = opened();
    server(amqp.deliver(1, 1));
    assert.equal(trace.deliveries[0]?.body, undefined);
    assert.equal(trace.deliveries[0]?.messageId, 'm1');
  });

  test('acks, nacks and rejects with what they settled', () => {
    const { trace, client, server } = opened();
    server(...[1, 2, 3, 4, 5].map((tag) => amqp.deliver(1, tag)));
    client(amqp.reject(1, 2, true), amqp.ack(1, 3, true), amqp.nack(1, 4, false, true), amqp.ack(1, 5));
    assert.deepEqual(
      trace.acks.map(({ kind, requeue, deliveries }) => [kind, requeue, deliveries.map(({ tag }) => tag)]),
      [
        ['reject', true, [2]],
        ['ack', false, [1, 3]],
        ['nack', true, [4]],
        ['ack', false, [5]],
      ],
    );
    assert.deepEqual(trace.violations, []);
    assert.deepEqual(trace.outstanding(), []);
  });

  test('listeners hear of each delivery before push returns', () => {
    const { trace, client, server } = opened({ keepBodies: true });
    const heard: string[] = [];
    trace.onSettle((delivery, { kind }) =>
      heard.push(`${kind} ${delivery.tag} ${delivery.messageId} ${delivery.body}`),
    );
    server(amqp.deliver(1, 1, 'a'), amqp.deliver(1, 2, 'b'));
    client(amqp.ack(1, 2, true));
    assert.deepEqual(heard, ['ack 1 m1 a', 'ack 2 m2 b']);
  });

  test('a message got with basic.get', () => {
    const { trace, client, server } = opened();
    client(amqp.basicGet(1, false));
    server(amqp.getOk(1, 1));
    client(amqp.ack(1, 1));
    assert.equal(trace.deliveries[0]?.via, 'get');
    assert.deepEqual(trace.violations, []);
  });

  test('tag 0 with multiple settles all', () => {
    const { trace, client, server } = opened();
    server(amqp.deliver(1, 1), amqp.deliver(1, 2));
    client(amqp.ack(1, 0, true));
    assert.deepEqual(trace.outstanding(), []);
    assert.deepEqual(trace.violations, []);
  });
});

describe('what it finds', () => {
  /** Runs a faulty exchange and expects exactly one violation. */
  function finds(what: RegExp, exchange: (parts: ReturnType<typeof opened>) => void): void {
    const parts = opened();
    exchange(parts);
    assert.equal(parts.trace.violations.length, 1, parts.trace.violations.join('\n'));
    assert.match(parts.trace.violations[0]!, what);
    assert.throws(() => parts.trace.assertClean(), what);
  }

  test('an ack of what was never delivered', () => {
    finds(/tag 2 .*no such delivery/, ({ client, server }) => {
      server(amqp.deliver(1, 1));
      client(amqp.ack(1, 2));
    });
  });

  test('tag 0 without multiple', () => {
    finds(/tag 0 .*no such delivery/, ({ client, server }) => {
      server(amqp.deliver(1, 1));
      client(amqp.ack(1, 0));
    });
  });

  test('a second ack', () => {
    finds(/already settled \(ack\)/, ({ client, server }) => {
      server(amqp.deliver(1, 1));
      client(amqp.ack(1, 1), amqp.ack(1, 1));
    });
  });

  test('a reject of what a multiple ack took', () => {
    finds(/basic\.reject of tag 1 .*already settled/, ({ client, server }) => {
      server(amqp.deliver(1, 1), amqp.deliver(1, 2));
      client(amqp.ack(1, 2, true), amqp.reject(1, 1));
    });
  });

  test('a multiple ack that names a settled tag, though lower ones are outstanding', () => {
    finds(/multiple of tag 2 .*already settled/, ({ client, server }) => {
      server(amqp.deliver(1, 1), amqp.deliver(1, 2));
      client(amqp.ack(1, 2), amqp.ack(1, 2, true));
    });
  });

  test('an ack on another channel', () => {
    finds(/channel 2 .*no such delivery/, ({ client, server }) => {
      client(amqp.channelOpen(2));
      server(amqp.deliver(1, 1));
      client(amqp.ack(2, 1));
    });
  });

  test('an ack on a channel that was never opened', () => {
    finds(/never opened/, ({ client, server }) => {
      server(amqp.deliver(1, 1));
      client(amqp.ack(9, 1));
    });
  });

  test('an ack on another connection', () => {
    finds(/connection 2 channel 1 .*no such delivery/, ({ trace, server }) => {
      server(amqp.deliver(1, 1));
      trace.push(2, 'toServer', Buffer.concat([amqp.protocolHeader, amqp.channelOpen(1), amqp.ack(1, 1)]));
    });
  });

  test('an ack in the next life of the channel', () => {
    finds(/\(life 2\): no such delivery/, ({ client, server }) => {
      server(amqp.deliver(1, 1), amqp.channelClose(1));
      client(amqp.channelCloseOk(1), amqp.channelOpen(1), amqp.ack(1, 1));
    });
  });

  test('an ack after the client closed the channel', () => {
    finds(/the channel is closed/, ({ client, server }) => {
      server(amqp.deliver(1, 1));
      client(amqp.channelClose(1), amqp.ack(1, 1));
    });
  });

  test('an ack after the client confirmed that the broker closed the channel', () => {
    finds(/the channel is closed/, ({ client, server }) => {
      server(amqp.deliver(1, 1), amqp.channelClose(1));
      client(amqp.channelCloseOk(1), amqp.ack(1, 1));
    });
  });

  test('an ack after the client closed the connection', () => {
    finds(/the channel is closed/, ({ client, server }) => {
      server(amqp.deliver(1, 1));
      client(amqp.connectionClose(), amqp.ack(1, 1));
    });
  });

  test('an ack for a consumer without acks', () => {
    finds(/no acknowledgements/, ({ client, server }) => {
      client(amqp.basicConsume(1, '', true));
      server(amqp.basicConsumeOk(1, 'amq.ctag-1'), amqp.deliver(1, 1, 'x', 'amq.ctag-1'));
      client(amqp.ack(1, 1));
    });
  });

  test('an ack for a get without acks', () => {
    finds(/no acknowledgements/, ({ client, server }) => {
      client(amqp.basicGet(1, true));
      server(amqp.getOk(1, 1));
      client(amqp.ack(1, 1));
    });
  });

  test('bytes that are not AMQP', () => {
    finds(/unreadable/, ({ server }) => server(Buffer.from('HTTP/1.1 400\r\n')));
    finds(/end octet/, ({ server }) => {
      const bytes = amqp.deliver(1, 1);
      bytes[bytes.length - 1] = 0;
      server(bytes);
    });
  });
});

test('an ack that crosses the close of the broker is no violation, and marked', () => {
  const { trace, client, server } = opened();
  server(amqp.deliver(1, 1), amqp.channelClose(1));
  client(amqp.ack(1, 1), amqp.channelCloseOk(1));
  assert.deepEqual(trace.violations, []);
  assert.equal(trace.acks[0]?.crossedClose, true);
});
