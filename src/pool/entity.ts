/**
 * Entities as both sides know them. A worker thread does not load their classes, which belong to main, and a handler may bring
 * a copy of this package of its own: so they are told by a mark, not by their class, and cross threads as their fields.
 */
import { kinds } from '../options.js';

export const ENTITY = Symbol.for('mozuku.entity');

export interface ExchangeLike {
  readonly [ENTITY]: 'exchange';
  readonly name: string;
  readonly deliveryMode: DeliveryMode | undefined;
}

export interface QueueLike {
  readonly [ENTITY]: 'queue';
  readonly name: string;
}

export type DeliveryMode = 1 | 2 | 'transient' | 'persistent';

export const deliveryModeKind = kinds.custom<DeliveryMode>("1, 2, 'transient' or 'persistent'", (value) =>
  [1, 2, 'transient', 'persistent'].includes(value as DeliveryMode),
);

function kindOf(value: unknown): unknown {
  return typeof value === 'object' && value !== null ? (value as { [ENTITY]?: unknown })[ENTITY] : undefined;
}

export function isExchange(value: unknown): value is ExchangeLike {
  return kindOf(value) === 'exchange';
}

export function isQueue(value: unknown): value is QueueLike {
  return kindOf(value) === 'queue';
}

/** An entity on its way between threads: its own fields, those of entities in it the same way. */
export interface EntityFields {
  readonly kind: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

function fieldsOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(fieldsOf);
  return typeof kindOf(value) === 'string' ? describeEntity(value as object) : value;
}

export function describeEntity(entity: object): EntityFields {
  const fields: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(entity)) {
    // A function cannot cross, and nothing that runs elsewhere could call it.
    if (value !== undefined && typeof value !== 'function') fields[key] = fieldsOf(value);
  }
  return { kind: String(kindOf(entity)), fields };
}
