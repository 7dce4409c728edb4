// Envelopes of kombu: what Python has stored, and some of our own to be read, damaged and changed.

import { readFileSync } from 'node:fs';
import { type BodyEncoding, writeEnvelope } from '#src/codec/envelope';

export interface StoredEnvelope {
  readonly name: string;
  readonly envelope: string;
}

/** What is in one, as JSON has it. */
export interface ParsedEnvelope {
  readonly body: string;
  readonly 'content-type': string;
  readonly 'content-encoding': string;
  readonly headers: Record<string, unknown>;
  readonly properties: Record<string, unknown> & {
    readonly delivery_info: { readonly exchange: string; readonly routing_key: string };
    readonly delivery_tag: string;
    readonly priority: number;
  };
}

const file = new URL('../../../test/vectors/envelopes.json', import.meta.url);

/** What Python's kombu has put into the lists of a Redis. */
export const { envelopes } = JSON.parse(readFileSync(file, 'utf8')) as { envelopes: StoredEnvelope[] };

export const TAG = '644d5775-29d4-453c-b1c4-e1feac0075c6';

/** One of ours, to the exchange `ex` with the routing key `rk`. */
export function write(body: Buffer, properties: object = {}, bodyEncoding: BodyEncoding = 'base64'): Buffer {
  return writeEnvelope({ exchange: 'ex', routingKey: 'rk', body, properties, deliveryTag: TAG, bodyEncoding });
}

/** An envelope of these members, and of good ones for those that are not said. */
export function envelopeWith(members: Record<string, unknown>, properties: Record<string, unknown> = {}): Buffer {
  const good = {
    body: 'e30=',
    'content-encoding': 'utf-8',
    'content-type': 'application/json',
    headers: {},
    properties: {
      delivery_info: { exchange: 'ex', routing_key: 'rk' },
      priority: 0,
      body_encoding: 'base64',
      delivery_tag: TAG,
      ...properties,
    },
  };
  return Buffer.from(JSON.stringify({ ...good, ...members }));
}

/** As Python puts it into the list of this queue: `body` as JSON, or a text as it is. */
export function storedIn(queue: string, id: string, body: unknown = { id }): string {
  const isText = typeof body === 'string';
  const bytes = Buffer.from(isText ? body : JSON.stringify(body));
  const members = {
    body: bytes.toString('base64'),
    'content-type': isText ? 'text/plain' : 'application/json',
  };
  const properties = { delivery_info: { exchange: '', routing_key: queue }, delivery_tag: id };
  return envelopeWith(members, properties).toString();
}

/** Bytes in shared memory, with other bytes around. */
export function shared(bytes: Buffer): Buffer {
  const view = Buffer.from(new SharedArrayBuffer(bytes.length + 16), 5, bytes.length);
  view.set(bytes);
  return view;
}
