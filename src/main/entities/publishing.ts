/**
 * Publishing without a producer: bytes as they are, no serializer, no declarations, no retries. What `Exchange.Message` makes and
 * `Exchange.publish` sends.
 */
import { randomUUID } from 'node:crypto';
import type * as amqplib from 'amqplib';
import { toTable } from '../../codec/amqp/plain-table.js';
import { EncodeError, OptionError } from '../../errors.js';
import { kinds, type OptionTable, readOptions } from '../../options.js';
import { type DeliveryMode, deliveryModeKind, deliveryModeNumber } from '../../pool/entity.js';
import { withDeadline } from '../deadline.js';
import type { CallOptions } from './channel.js';
import { CALL_OPTIONS, channelOf, type Target } from './target.js';

/** The properties of a message, as in `producer.publish`; durations in ms. */
export interface OutgoingOptions {
  readonly contentType?: string;
  readonly contentEncoding?: string;
  readonly headers?: Record<string, unknown>;
  readonly deliveryMode?: DeliveryMode;
  readonly priority?: number;
  readonly correlationId?: string;
  readonly replyTo?: string;
  readonly expiration?: number;
  readonly messageId?: string;
  readonly timestamp?: number;
  readonly type?: string;
  readonly userId?: string;
  readonly appId?: string;
}

const MESSAGE_OPTIONS: OptionTable<OutgoingOptions> = {
  contentType: { kind: kinds.shortName, doc: 'What the body is; nothing is serialized.' },
  contentEncoding: { kind: kinds.shortName, defaultWords: 'utf-8 for strings', doc: "The body's charset." },
  headers: { kind: kinds.object, default: {}, doc: 'The headers table.' },
  deliveryMode: { kind: deliveryModeKind, defaultWords: "the exchange's, else 2", doc: '2: survives a restart.' },
  priority: { kind: kinds.integer(0, 255), default: 0, doc: 'In queues with `maxPriority`.' },
  correlationId: { kind: kinds.shortString, doc: 'Of the request this answers.' },
  replyTo: { kind: kinds.shortString, doc: 'The name of the queue for answers.' },
  expiration: { kind: kinds.lifetime, doc: 'Dropped after so long in a queue (ms).' },
  messageId: { kind: kinds.shortString, doc: 'A name for the message.' },
  timestamp: { kind: kinds.integer(0, Number.MAX_SAFE_INTEGER), doc: 'Whole seconds since 1970.' },
  type: { kind: kinds.shortString, doc: 'For the application.' },
  userId: { kind: kinds.shortString, doc: 'The broker checks that it is the user of the connection.' },
  appId: { kind: kinds.shortString, doc: 'For the application.' },
};

/** A message ready to be sent; frozen, and good for any number of publishes. */
export interface OutgoingMessage {
  readonly body: Buffer;
  readonly properties: Readonly<amqplib.Options.Publish>;
}

/** `fallback`: the exchange's own delivery mode. Throws `OptionError`, `EncodeError`. */
export function outgoingMessage(
  body: string | Uint8Array,
  options: OutgoingOptions | undefined,
  fallback: DeliveryMode | undefined,
): OutgoingMessage {
  const given = readOptions<OutgoingOptions>('Exchange.Message', MESSAGE_OPTIONS, options);
  const { deliveryMode, expiration, headers, contentEncoding: named, ...same } = given;
  const contentEncoding = named ?? (typeof body === 'string' ? 'utf-8' : undefined);
  return Object.freeze({
    body: bytesOf(body, contentEncoding),
    properties: Object.freeze({
      ...same,
      ...(contentEncoding === undefined ? {} : { contentEncoding }),
      headers: toTable(headers!, 'headers'),
      deliveryMode: deliveryModeNumber(deliveryMode ?? fallback ?? 2),
      ...(expiration === undefined ? {} : { expiration: String(Math.round(expiration)) }),
    }),
  });
}

function bytesOf(body: string | Uint8Array, encoding = 'utf-8'): Buffer {
  // A copy: its maker may use the memory again before the message is sent.
  if (body instanceof Uint8Array) return Buffer.from(body);
  if (typeof body !== 'string') throw new EncodeError('Exchange.Message: the body must be a string or bytes');
  if (Buffer.isEncoding(encoding)) return Buffer.from(body, encoding);
  throw new EncodeError(`Exchange.Message: Node cannot encode a string as '${encoding}'; pass the bytes instead`);
}

export interface ExchangePublishOptions extends CallOptions {
  readonly routingKey?: string;
  readonly mandatory?: boolean;
  readonly exchange?: string;
}

const PUBLISH_OPTIONS: OptionTable<ExchangePublishOptions> = {
  routingKey: { kind: kinds.shortString, default: '', doc: 'The routing key.' },
  mandatory: { kind: kinds.boolean, default: false, doc: 'Rejects with `MessageReturned` if no queue takes it.' },
  exchange: { kind: kinds.shortString, defaultWords: 'this one', doc: 'The name of another exchange.' },
  ...CALL_OPTIONS,
};

/** Resolves when the broker has confirmed it. */
export async function publishTo(
  exchange: string,
  target: Target,
  message: OutgoingMessage,
  options: ExchangePublishOptions | undefined,
): Promise<void> {
  const given = readOptions<ExchangePublishOptions>('Exchange.publish', PUBLISH_OPTIONS, options);
  if (!Buffer.isBuffer(message?.body)) {
    throw new OptionError('Exchange.publish: the message must be a string, bytes, or what Exchange.Message made');
  }
  const { routingKey, mandatory, timeout = 30_000, signal } = given;
  const to = given.exchange ?? exchange;
  const doing = `publishing to exchange '${to}' with routing key '${routingKey}'`;
  const properties = { ...message.properties, mandatory: mandatory! };
  // By which its return is known.
  if (mandatory) properties.messageId ??= randomUUID();
  let isWaited = true;
  const send = async (): Promise<void> => {
    const channel = await channelOf(target, doing, { timeout, ...(signal === undefined ? {} : { signal }) });
    await channel.drained();
    // Whoever has given up may have sent it another way.
    if (isWaited) await channel.publish(to, routingKey!, message.body, properties);
  };
  try {
    await withDeadline(send(), doing, timeout, signal);
  } finally {
    isWaited = false;
  }
}
