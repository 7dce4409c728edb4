/** A delivery as a message to publish once more: its bytes, its properties, the headers that can be sent on, and ours. */
import { randomUUID } from 'node:crypto';
import { tableBytes, toTable } from '../../codec/amqp/plain-table.js';
import type { Delivery } from '../../pool/delivery.js';
import { ID_HEADER, type Letter } from './outlet.js';

/** Headers by which RabbitMQ routes to more queues: what is published again is for one. */
const ROUTING_HEADERS = { CC: 'x-mozuku-cc', BCC: 'x-mozuku-bcc' } as const;

export const ORIGIN = { exchange: 'x-mozuku-exchange', routingKey: 'x-mozuku-routing-key' } as const;

/** The body is the whole message as it came: its own cannot be read. */
const RAW_HEADER = 'x-mozuku-raw';
const RAW = { contentType: 'application/data', contentEncoding: 'binary' } as const;

/** Room for the message's own headers beside ours: what the client sends at once has an end. */
const MAX_HEADER_BYTES = 48 * 1024;

/** Where a message came from; one that the broker kept for a while has it in its headers. */
export function originOf(delivery: Delivery): { readonly exchange: string; readonly routingKey: string } {
  const { exchange, routingKey } = delivery.readDeliveryInfo();
  if (readOr(0, () => delivery.readRetries()) === 0) return { exchange, routingKey };
  const headers = readOr<Record<string, unknown>>({}, () => delivery.readHeaders());
  const text = (name: string, otherwise: string): string => {
    const value = headers[name];
    return typeof value === 'string' ? value : otherwise;
  };
  return { exchange: text(ORIGIN.exchange, exchange), routingKey: text(ORIGIN.routingKey, routingKey) };
}

/** `without`: headers of the message's own that are not to be sent on. */
export function messageOf(
  delivery: Delivery,
  ours: Readonly<Record<string, unknown>>,
  without: (name: string) => boolean,
): Letter {
  const { expiration, userId, ...kept } = readOr({}, () => delivery.readProperties());
  const id = randomUUID();
  const body = readOr(undefined, () => delivery.readBody());
  const headers = {
    ...sendable(
      readOr({}, () => delivery.readHeaders()),
      // A message that goes on whole is not what its headers say of its body.
      (name) => without(name) || (body === undefined && name === 'compression'),
    ),
    ...ours,
    ...(body === undefined ? { [RAW_HEADER]: 'envelope' } : {}),
    // A message's own time to live would destroy it here; the broker takes no other user's id.
    ...(expiration === undefined ? {} : { 'x-mozuku-expiration': expiration }),
    ...(userId === undefined ? {} : { 'x-mozuku-user-id': userId }),
    [ID_HEADER]: id,
  };
  const properties = { ...kept, ...(body === undefined ? RAW : {}), headers, persistent: true };
  return { body: body ?? delivery.readRaw(), id, properties };
}

/** The headers that can be sent on; the names of those that cannot, in one of their own. */
function sendable(
  headers: Readonly<Record<string, unknown>>,
  without: (name: string) => boolean,
): Record<string, unknown> {
  const table: Record<string, unknown> = Object.create(null);
  const dropped: string[] = [];
  let room = MAX_HEADER_BYTES;
  for (const [name, value] of Object.entries(headers)) {
    if (without(name)) continue;
    const key = Object.hasOwn(ROUTING_HEADERS, name) ? ROUTING_HEADERS[name as keyof typeof ROUTING_HEADERS] : name;
    const field = readOr(undefined, () => toTable({ [key]: value }, 'headers'));
    const size = field === undefined ? Number.POSITIVE_INFINITY : tableBytes(field);
    if (field === undefined || size > room) {
      dropped.push(key.slice(0, 100));
      continue;
    }
    room -= size;
    Object.assign(table, field);
  }
  if (dropped.length > 0) table['x-mozuku-dropped-headers'] = dropped.join(', ').slice(0, 1024);
  return table;
}

/** What cannot be read of a broken header is left out; the body says the rest. */
export function readOr<T>(otherwise: T, read: () => T): T {
  try {
    return read();
  } catch {
    return otherwise;
  }
}
