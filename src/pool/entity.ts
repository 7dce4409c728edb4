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
  asDict(): object;
}

export interface QueueLike {
  readonly [ENTITY]: 'queue';
  readonly name: string;
  asDict(): object;
}

export type DeliveryMode = 1 | 2 | 'transient' | 'persistent';

export const deliveryModeKind = kinds.custom<DeliveryMode>("1, 2, 'transient' or 'persistent'", (value) =>
  [1, 2, 'transient', 'persistent'].includes(value as DeliveryMode),
);

/** The number that is on the wire. */
export function deliveryModeNumber(mode: DeliveryMode): 1 | 2 {
  return mode === 1 || mode === 'transient' ? 1 : 2;
}

function kindOf(value: unknown): unknown {
  return typeof value === 'object' && value !== null ? (value as { [ENTITY]?: unknown })[ENTITY] : undefined;
}

export function isExchange(value: unknown): value is ExchangeLike {
  return kindOf(value) === 'exchange';
}

export function isQueue(value: unknown): value is QueueLike {
  return kindOf(value) === 'queue';
}

/** An entity on its way between threads: what its `asDict` gives. */
export interface EntityFields {
  readonly kind: 'exchange' | 'queue';
  readonly fields: object;
}

export function describeEntity(entity: ExchangeLike | QueueLike): EntityFields {
  return { kind: entity[ENTITY], fields: entity.asDict() };
}
