/**
 * What exchanges are. Redis keeps bindings and no exchanges, so each process knows those that it declared itself, for all its
 * connections to one database; one that nobody declared here is a direct exchange, as for kombu.
 */
import { FanoutBindings } from './fanout-bindings.js';
import { Lasting } from './lasting.js';
import { Leftovers } from './leftovers.js';

export type ExchangeType = 'direct' | 'topic' | 'fanout';

export interface ExchangeFacts {
  readonly type: ExchangeType;
  readonly durable: boolean;
  readonly autoDelete: boolean;
}

export const TYPES: ReadonlySet<string> = new Set<ExchangeType>(['direct', 'topic', 'fanout']);

export class Exchanges {
  readonly declared = new Map<string, ExchangeFacts>();
  /** Of queues whose messages come by subscriptions. */
  readonly fanout = new FanoutBindings();
  /** Queues that are gone when nobody uses them. */
  readonly lasting = new Lasting();
  /** Of connections that were lost. */
  readonly leftovers = new Leftovers();
  /** Declared by this process. */
  readonly queues = new Set<string>();
  /** Members of the sets of bindings that this process added, by exchange. */
  readonly bindings = new Map<string, Set<string>>();

  bindingsOf(exchange: string): Set<string> {
    let found = this.bindings.get(exchange);
    if (found === undefined) {
      found = new Set();
      this.bindings.set(exchange, found);
    }
    return found;
  }

  typeOf(exchange: string): ExchangeType {
    return this.declared.get(exchange)?.type ?? 'direct';
  }
}

const servers = new Map<string, Exchanges>();

/** `where`: server, database and key prefix, see `placeOf`. */
export function exchangesOf(where: string): Exchanges {
  let found = servers.get(where);
  if (found === undefined) {
    found = new Exchanges();
    servers.set(where, found);
  }
  return found;
}
