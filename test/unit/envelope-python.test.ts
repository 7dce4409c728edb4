/**
 * Envelopes between kombu's virtual transports and ours, both ways: its memory channel, which every transport but AMQP's shares
 * its messages with, puts and reads what we would find in a broker.
 */
import assert from 'node:assert/strict';
import { compress } from '#src/codec/compression';
import { decodePayload } from '#src/codec/decode';
import { type BodyEncoding, readEnvelope, rewriteEnvelope, writeEnvelope } from '#src/codec/envelope';
import { dumps, prepareAcceptContent } from '#src/codec/serialization';
import { TAG } from '../support/envelopes.js';
import { kombuFacts, kombuTest, runPython } from '../support/kombu.js';

const accept = prepareAcceptContent(['json', 'text', 'raw']);
const value = { text: 'é 消息 🐙 \u0000 "', list: [1, null, 2.5, true], big: 12345678901234567890n };

/** Reads envelopes and prints what its users would see of each. */
const reader = `
import json, sys
from kombu import Connection
from kombu.utils.json import loads
channel = Connection('memory://').channel()
for line in sys.stdin.buffer:
    message = channel.Message(loads(line), channel=channel)
    message.accept = {'application/json', 'text/plain', 'application/data'}
    payload = message.decode()
    if isinstance(payload, bytes): payload = {'bytes': payload.hex()}
    print(json.dumps({'payload': payload, 'properties': message.properties, 'headers': message.headers,
        'delivery_tag': message.delivery_tag, 'content_type': message.content_type,
        'content_encoding': message.content_encoding, 'delivery_info': message.delivery_info}, default=str))
`;

interface Seen {
  readonly payload: unknown;
  readonly properties: Record<string, unknown>;
  readonly headers: Record<string, unknown>;
  readonly delivery_tag: string;
  readonly content_type: string;
  readonly content_encoding: string;
  readonly delivery_info: unknown;
}

async function seenByPython(python: string, ours: readonly Buffer[]): Promise<Seen[]> {
  const printed = await runPython(python, reader, [], ours.map((bytes) => `${bytes.toString()}\n`).join(''));
  return printed
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Seen);
}

function write(given: unknown, bodyEncoding: BodyEncoding, compression?: string): Buffer {
  const { body, contentType, contentEncoding } = dumps(given);
  const packed = compression === undefined ? undefined : compress(body, compression);
  return writeEnvelope({
    exchange: 'ex é',
    routingKey: 'rk "',
    body: packed?.body ?? body,
    properties: {
      contentType,
      contentEncoding,
      deliveryMode: 2,
      priority: 3,
      correlationId: 'c é',
      replyTo: 'r',
      messageId: 'm',
      expiration: '1500',
      timestamp: 1_700_000_000,
      type: 't',
      userId: 'u',
      appId: 'a',
      headers: {
        k: 'é',
        n: { '!': 'int', value: 7 },
        deep: { list: [null, 1.5] },
        ...(packed && { compression: packed.contentType }),
      },
    },
    deliveryTag: TAG,
    bodyEncoding,
  });
}

kombuTest('Python reads what we write', async (python) => {
  const { version } = kombuFacts(python);
  // Before 5.3 there is no other than base64, and no extended type.
  const encodings: readonly BodyEncoding[] = version[0] > 5 || version[1] >= 3 ? ['base64', 'utf-8'] : ['base64'];
  for (const encoding of encodings) {
    const all = [
      write(value, encoding),
      write(value, encoding, 'zlib'),
      write('é', encoding),
      write(Buffer.of(0, 255), encoding),
    ];
    const marked = rewriteEnvelope(all[0]!, { redelivered: true, headers: { n: undefined, added: 'é' } });
    const [json, packed, text, raw, again] = await seenByPython(python, [...all, marked]);
    for (const seen of [json!, packed!]) {
      assert.deepEqual(seen.payload, { ...value, big: Number(value.big) });
      assert.deepEqual([seen.content_type, seen.content_encoding], ['application/json', 'utf-8']);
    }
    assert.deepEqual(text!.payload, 'é');
    assert.deepEqual(raw!.payload, { bytes: '00ff' });
    assert.deepEqual(json!.headers, { k: 'é', n: 7, deep: { list: [null, 1.5] } });
    assert.equal(json!.delivery_tag, TAG);
    const info = { exchange: 'ex é', routing_key: 'rk "' };
    assert.deepEqual(json!.properties, {
      correlation_id: 'c é',
      reply_to: 'r',
      message_id: 'm',
      timestamp: 1_700_000_000,
      type: 't',
      user_id: 'u',
      app_id: 'a',
      delivery_mode: 2,
      expiration: '1500',
      delivery_info: info,
      priority: 3,
      body_encoding: encoding,
      delivery_tag: TAG,
    });
    assert.deepEqual(again!.payload, json!.payload);
    assert.deepEqual(again!.headers, { k: 'é', deep: { list: [null, 1.5] }, added: 'é', redelivered: true });
    assert.deepEqual(again!.delivery_info, { ...info, redelivered: true });
  }
});

/** Publishes through the memory transport and prints the envelopes as they would be stored. */
const writer = `
import json, sys
from kombu import Connection, Exchange, Producer, Queue
from kombu.utils.json import dumps
connection = Connection('memory://', transport_options={})
channel = connection.channel()
if len(sys.argv) > 1: channel.body_encoding = sys.argv[1]
queue = Queue('q', Exchange('ex \\u00e9', type='direct'), routing_key='rk "')
queue(channel).declare()
producer = Producer(channel, exchange=queue.exchange, routing_key='rk "')
value = json.loads(sys.stdin.read())
for body, more in [(value, {'compression': None}), (value, {'compression': 'zlib'}), ('\\u00e9', {}), (b'\\x00\\xff', {})]:
    producer.publish(body, headers={'k': '\\u00e9', 'nan': float('nan'), 'big': 2 ** 70}, correlation_id='c \\u00e9',
        reply_to='r', message_id='m', priority=12, expiration=1.5, delivery_mode=1, **more)
    print(dumps(channel._get('q')))
`;

kombuTest('we read what Python writes', async (python) => {
  const { version } = kombuFacts(python);
  const encodings = version[0] > 5 || version[1] >= 3 ? [[], ['utf-8']] : [[]];
  const input = JSON.stringify({ ...value, big: 0 }).replace('"big":0', `"big":${value.big}`);
  for (const encoding of encodings) {
    const lines = (await runPython(python, writer, encoding, input)).trim().split('\n');
    const payloads = [value, value, 'é', Buffer.of(0, 255)];
    assert.equal(lines.length, payloads.length);
    for (const [i, line] of lines.entries()) {
      const read = readEnvelope(Buffer.from(line));
      const { contentType, contentEncoding, compression, body } = read;
      const info = { contentType, contentEncoding, compression };
      assert.deepEqual(decodePayload(body, info, { accept, maxDecodedBytes: 1 << 20 }), payloads[i]);
      const { k, nan, big } = read.headers;
      assert.deepEqual([k, nan, big], ['é', Number.NaN, 2n ** 70n]);
      assert.deepEqual([read.exchange, read.routingKey, read.redelivered], ['ex é', 'rk "', false]);
      assert.equal(read.priority, 9);
      const { correlationId, replyTo, messageId, expiration, priority, deliveryMode } = read.properties;
      assert.deepEqual(
        [correlationId, replyTo, messageId, expiration, priority, deliveryMode],
        ['c é', 'r', 'm', '1500', 12, 1],
      );
      assert.match(read.deliveryTag, /^[0-9a-f-]{36}$/);
    }
  }
});
