/**
 * A message as the broker keeps it: encoded once when it is published, whatever the number of queues and deliveries. Immutable.
 * `rest.bytes` is what a sharded consumer's memory gets in one copy; everything else is what a broker looks at.
 */
import { readField } from '../../../codec/amqp/amqplib-values.js';
import { fieldBytes, joinTable, splitTable } from '../../../codec/amqp/field-bytes.js';
import { findHeaders, readProperties } from '../../../codec/amqp/properties.js';
import { type DeliveryRest, type WritableProperties, writeRest } from '../../../codec/amqp/write-content.js';
import { typeName } from './headers-match.js';
import { preconditionFailed } from './refusal.js';

const NO_FIELDS: ReadonlyMap<string, Buffer> = new Map();

export class StoredMessage {
  readonly rest: DeliveryRest;
  readonly bodySize: number;
  readonly priority: number;
  /** As published: milliseconds in a text. */
  readonly expiration: string | undefined;
  readonly userId: string | undefined;
  /** Keys of the CC and BCC headers. */
  readonly moreKeys: readonly string[];
  #headers: ReadonlyMap<string, Buffer> | undefined;

  /** Throws `TypeError` and `RangeError` for what AMQP cannot carry, and refusals for what RabbitMQ would not take. */
  constructor(
    readonly exchange: string,
    readonly routingKey: string,
    properties: WritableProperties,
    body: Uint8Array,
    moreKeys: readonly string[] = [],
    rest = writeRest(exchange, routingKey, properties, body),
  ) {
    this.rest = rest;
    this.bodySize = body.length;
    this.priority = typeof properties.priority === 'number' ? properties.priority : 0;
    this.expiration = typeof properties.expiration === 'string' ? properties.expiration : undefined;
    this.userId = typeof properties.userId === 'string' ? properties.userId : undefined;
    this.moreKeys = moreKeys;
  }

  get body(): Buffer {
    const { bytes, bodyAt } = this.rest;
    return bytes.subarray(bodyAt, bodyAt + this.bodySize);
  }

  /** Where the headers table's length word is in `rest.bytes`; -1: there is none. */
  get headersAt(): number {
    const { bytes, propertiesAt, propertiesEnd } = this.rest;
    return findHeaders(bytes, propertiesAt, propertiesEnd);
  }

  /** The headers, still encoded. */
  get headers(): ReadonlyMap<string, Buffer> {
    const at = this.headersAt;
    this.#headers ??= at < 0 ? NO_FIELDS : splitTable(this.rest.bytes, at);
    return this.#headers;
  }

  /** The same message with more keys to route it by. */
  withKeys(moreKeys: readonly string[]): StoredMessage {
    const { exchange, routingKey, priority, expiration, userId } = this;
    return new StoredMessage(exchange, routingKey, { priority, expiration, userId }, this.body, moreKeys, this.rest);
  }

  /** The same message for another exchange and key, with other headers and no time to live: what dead-lettering makes. */
  reborn(exchange: string, routingKey: string, moreKeys: readonly string[], headers: ReadonlyMap<string, Buffer>) {
    const { bytes, propertiesAt, propertiesEnd } = this.rest;
    const { expiration: _, ...properties } = readProperties(bytes, propertiesAt, propertiesEnd);
    return new StoredMessage(exchange, routingKey, { ...properties, headers: joinTable(headers) }, this.body, moreKeys);
  }
}

/** RabbitMQ's limit for all that expires, in ms: ten years. */
export const LONGEST_LIFE = 315_360_000_000;

/** Milliseconds, or undefined without one. Throws the refusal of what is no such text. */
export function parseExpiration(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const digits = /^[+-]?\d+/.exec(text)?.[0];
  const refuse = (why: string) => preconditionFailed(`invalid expiration '${text}': ${why}`);
  if (digits === undefined) throw refuse('no_integer');
  if (digits !== text) throw refuse(`{leftover_string,"${text.slice(digits.length)}"}`);
  const value = Number(digits);
  if (value < 0) throw refuse(`{value_negative,${value}}`);
  if (value > LONGEST_LIFE) throw refuse(`{value_too_large,${digits}}`);
  return value;
}

/** The keys of one of the headers CC and BCC. Throws the refusal of what is no list of strings. */
export function keysOf(headers: ReadonlyMap<string, Buffer>, name: 'CC' | 'BCC'): readonly string[] {
  const field = headers.get(name);
  if (field === undefined) return [];
  const value = readField(field);
  if (!Array.isArray(value) || !value.every((key) => typeof key === 'string')) {
    throw preconditionFailed(`invalid message: {unacceptable_type_in_header,"${name}",${typeName(field)}}`);
  }
  return value;
}

/** A field of text, encoded. */
export const textField = (text: string): Buffer => fieldBytes(text);
