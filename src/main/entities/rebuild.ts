/** Entities of another copy of this package, or of another thread, as our own. */
import { describeEntity, type EntityFields, type ExchangeLike, type QueueLike } from '../../pool/entity.js';
import { Exchange, type ExchangeDict } from './exchange.js';
import { Queue } from './queue.js';

export function ownExchange(exchange: ExchangeLike | string): Exchange {
  if (typeof exchange === 'string') return new Exchange(exchange);
  return exchange instanceof Exchange ? exchange : (rebuildEntity(describeEntity(exchange)) as Exchange);
}

export function ownEntity(entity: ExchangeLike | QueueLike): Exchange | Queue {
  return entity instanceof Exchange || entity instanceof Queue ? entity : rebuildEntity(describeEntity(entity));
}

/** Throws `OptionError` for what no entity can be. */
export function rebuildEntity({ kind, fields }: EntityFields): Exchange | Queue {
  return kind === 'exchange' ? Exchange.fromDict(fields as ExchangeDict) : Queue.fromDict(fields);
}
