/** Entities of another copy of this package, or of another thread, as our own. */
import { OptionError } from '../../errors.js';
import { describeEntity, type EntityFields, type ExchangeLike, type QueueLike } from '../../pool/entity.js';
import { Binding } from './binding.js';
import { Exchange } from './exchange.js';
import { Queue } from './queue.js';

export function ownExchange(exchange: ExchangeLike | string): Exchange {
  if (typeof exchange === 'string') return new Exchange(exchange);
  return exchange instanceof Exchange ? exchange : (rebuildEntity(describeEntity(exchange)) as Exchange);
}

export function ownEntity(entity: ExchangeLike | QueueLike): Exchange | Queue {
  if (entity instanceof Exchange || entity instanceof Queue) return entity;
  return rebuildEntity(describeEntity(entity)) as Exchange | Queue;
}

/** Throws `OptionError` for what is no entity. */
export function rebuildEntity({ kind, fields }: EntityFields): Exchange | Queue | Binding {
  const { name, exchange, routingKey, bindings, ...rest } = fields as Fields;
  const from = exchange === undefined ? undefined : (rebuildEntity(exchange) as Exchange);
  switch (kind) {
    case 'exchange':
      return new Exchange(name, rest);
    case 'queue':
      return new Queue(name, from, {
        ...rest,
        ...(routingKey !== undefined && { routingKey }),
        ...(bindings !== undefined &&
          bindings.length > 0 && { bindings: bindings.map((each) => rebuildEntity(each) as Binding) }),
      });
    case 'binding':
      return new Binding(from!, routingKey, rest);
    default:
      throw new OptionError(`an exchange, a queue or a binding is expected, not ${kind}`);
  }
}

interface Fields {
  readonly name?: string;
  readonly exchange?: EntityFields;
  readonly routingKey?: string;
  readonly bindings?: readonly EntityFields[];
}
