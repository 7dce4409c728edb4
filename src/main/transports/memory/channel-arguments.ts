/** The arguments of amqplib's methods, made ready for a broker that takes no bytes: names, tables, properties of a publish. */
import type * as amqplib from 'amqplib';
import { splitTable } from '../../../codec/amqp/field-bytes.js';
import type { WritableProperties } from '../../../codec/amqp/write-content.js';
import { writeTable } from '../../../codec/amqp/write-table.js';
import type { Fields } from './queue-settings.js';

/** Throws amqplib's `TypeError` for what is no short string. */
export function shortString(text: unknown, field: string): string {
  if (typeof text === 'string' && (text.length < 64 || Buffer.byteLength(text) < 256)) return text;
  throw new TypeError(`Field '${field}' is the wrong type; must be a string (up to 255 chars)`);
}

const SCRATCH = Buffer.allocUnsafeSlow(64 * 1024);
const NONE: Fields = new Map();

/** A table as the broker would have received it. Throws `TypeError` and `RangeError` for what cannot be encoded. */
export function fieldsOf(table: object | undefined): Fields {
  if (table === undefined || table === null) return NONE;
  const end = writeTable(SCRATCH, table, 0);
  return splitTable(Buffer.from(SCRATCH.subarray(0, end)));
}

/** The options that have a name of their own laid over `arguments`. */
export function withNamed(table: object | undefined, named: Readonly<Record<string, unknown>>): object {
  const result: Record<string, unknown> = Object.create((table ?? null) as object | null);
  for (const [key, value] of Object.entries(named)) if (value !== undefined) result[key] = value;
  return result;
}

function keyList(keys: string | readonly string[] | undefined): readonly string[] | undefined {
  if (keys === undefined) return undefined;
  return Array.isArray(keys) ? keys.map(String) : [String(keys)];
}

type Headers = Record<string, unknown>;

/** As amqplib reads the options of `publish`: every message has a headers table, `persistent` wins over `deliveryMode`. */
export function publishProperties(options: amqplib.Options.Publish): WritableProperties & { headers: Headers } {
  const { persistent, deliveryMode: mode, expiration } = options;
  let headers = (options.headers ?? {}) as Headers;
  if (options.CC !== undefined || options.BCC !== undefined) {
    headers = withNamed(headers, { CC: keyList(options.CC), BCC: keyList(options.BCC) }) as Headers;
  }
  let deliveryMode: number | undefined;
  if (persistent !== undefined) deliveryMode = persistent ? 2 : 1;
  else if (typeof mode === 'number') deliveryMode = mode;
  else if (mode) deliveryMode = 2;
  return {
    contentType: options.contentType,
    contentEncoding: options.contentEncoding,
    headers,
    deliveryMode,
    priority: options.priority,
    correlationId: options.correlationId,
    replyTo: options.replyTo,
    expiration: expiration === undefined ? undefined : String(expiration),
    messageId: options.messageId,
    timestamp: options.timestamp,
    type: options.type,
    userId: options.userId,
    appId: options.appId,
  };
}

/** The headers without BCC, whose keys no receiver is to see. */
export function withoutBcc(headers: Headers): Headers {
  if (headers.BCC === undefined) return headers;
  const { BCC: _, ...others } = { ...Object.getPrototypeOf(headers), ...headers };
  return others;
}
