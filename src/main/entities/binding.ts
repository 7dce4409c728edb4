/** kombu's `binding`. The class is beside the exchange that it leads out of. */
import { Binding, type BindingOptions, type Exchange } from './exchange.js';

export { Binding, type BindingDict, type BindingOptions } from './exchange.js';

/** kombu's way to write `new Binding(…)`. */
export function binding(exchange: Exchange | string, routingKey?: string, options?: BindingOptions): Binding {
  return new Binding(exchange, routingKey, options);
}
