/** One way from an exchange to a queue, for queues that have several. */
import { OptionError } from '../../errors.js';
import { kinds, type OptionTable, readOptions } from '../../options.js';
import { ENTITY } from '../../pool/entity.js';
import { Exchange } from './exchange.js';
import { frozenTable } from './target.js';

export interface BindingOptions {
  readonly arguments?: Record<string, unknown>;
  readonly unbindArguments?: Record<string, unknown>;
}

const BINDING_OPTIONS: OptionTable<BindingOptions> = {
  arguments: { kind: kinds.object, doc: 'Of the binding; what a headers exchange matches.' },
  unbindArguments: { kind: kinds.object, doc: 'For unbinding, where they differ.' },
};

/** Immutable; `new Queue(name, [binding, …])` or the option `bindings` takes them. */
export class Binding {
  readonly exchange: Exchange;
  readonly routingKey: string;
  readonly arguments: Readonly<Record<string, unknown>> | undefined;
  readonly unbindArguments: Readonly<Record<string, unknown>> | undefined;

  /** Throws `OptionError`. */
  constructor(exchange: Exchange | string, routingKey = '', options: BindingOptions = {}) {
    const given = readOptions('binding', BINDING_OPTIONS, options);
    if (!(exchange instanceof Exchange) && !kinds.name.test(exchange)) {
      throw new OptionError('binding: the exchange must be an Exchange or a name');
    }
    if (!kinds.shortString.test(routingKey)) {
      throw new OptionError(`binding: the routing key must be ${kinds.shortString.words}`);
    }
    this.exchange = exchange instanceof Exchange ? exchange : new Exchange(exchange);
    this.routingKey = routingKey;
    this.arguments = frozenTable(given.arguments);
    this.unbindArguments = frozenTable(given.unbindArguments);
    Object.freeze(this);
  }

  /** @internal */
  get [ENTITY](): 'binding' {
    return 'binding';
  }
}

/** kombu's way to write `new Binding(…)`. */
export function binding(exchange: Exchange | string, routingKey?: string, options?: BindingOptions): Binding {
  return new Binding(exchange, routingKey, options);
}
