/** One of several hosts: which to try, in which order, and what to say if none answers. */
import { AccessRefused, ConnectionError, type KombuError, OptionError } from '../../errors.js';
import { type ConnectionParameters, type FailoverStrategy, parametersOf } from '../url.js';

/** Where a list of hosts stands: at the one that answered last, or behind those that failed since. */
export class Failover {
  readonly #urls: readonly string[];
  readonly #strategy: FailoverStrategy;
  /** What is left of it to try comes first. */
  #order: readonly string[] = [];

  constructor(urls: readonly string[], strategy: FailoverStrategy) {
    this.#urls = urls;
    this.#strategy = strategy;
  }

  /** The order of one attempt: each host once. */
  cycle(): readonly string[] {
    if (this.#order.length === 0) this.#order = this.#asked();
    return this.#order;
  }

  /** The next attempt begins at this place of the order; behind its end the strategy is asked anew. */
  moveTo(order: readonly string[], index: number): void {
    this.#order = index < order.length ? [...order.slice(index), ...order.slice(0, index)] : [];
  }

  #asked(): readonly string[] {
    const urls = this.#urls;
    if (typeof this.#strategy === 'function') return [...take(this.#strategy(urls), urls.length)];
    if (this.#strategy === 'round-robin') return urls;
    return urls
      .map((url) => ({ url, at: Math.random() }))
      .sort((a, b) => a.at - b.at)
      .map(({ url }) => url);
  }
}

/** A strategy may go round for ever, as kombu's do: one attempt takes as many hosts as there are. */
function* take<T>(from: Iterable<T>, count: number): Iterable<T> {
  let taken = 0;
  for (const item of from) {
    yield item;
    if (++taken >= count) return;
  }
}

/** One for each set of parameters, so that a reconnect begins where the last one ended, whoever makes it. */
const failovers = new WeakMap<ConnectionParameters, Failover>();

/** Where the hosts of these parameters stand. */
export function failoverOf(parameters: ConnectionParameters): Failover {
  let failover = failovers.get(parameters);
  if (failover === undefined) {
    const urls = parameters.alternates.length > 0 ? parameters.alternates : [''];
    failover = new Failover(urls, parameters.alternates.length > 0 ? parameters.failoverStrategy : 'round-robin');
    failovers.set(parameters, failover);
  }
  return failover;
}

function hostOf(url: string, parameters: ConnectionParameters): ConnectionParameters {
  // The first is the connection's own host, which options may have completed.
  const own = url === (parameters.alternates[0] ?? '');
  return own ? parameters : parametersOf(url, parameters);
}

/**
 * Opens a connection to the first host that answers: each of `alternates` once, every one with `connectTimeout` from the first
 * packet to an open connection. `onFailure` hears of each host that failed while there are more to try. Throws `AccessRefused`,
 * `ConnectionError` (with several hosts its `cause` is an AggregateError), `TimeoutError`, `TransportNotAvailable`, or the
 * signal's reason.
 */
export async function openFirst<Opened>(
  parameters: ConnectionParameters,
  signal: AbortSignal | undefined,
  open: (host: ConnectionParameters) => Promise<Opened>,
  onFailure: (error: KombuError) => void = () => undefined,
): Promise<Opened> {
  const failures: KombuError[] = [];
  const failover = failoverOf(parameters);
  const order = failover.cycle();
  for (const [index, url] of order.entries()) {
    try {
      signal?.throwIfAborted();
      const connection = await open(hostOf(url, parameters));
      failover.moveTo(order, index);
      return connection;
    } catch (error) {
      if (signal?.aborted || error instanceof OptionError) throw error;
      failures.push(error as KombuError);
      // Before anybody hears of it, for they may give up: the next attempt is another host's turn.
      failover.moveTo(order, index + 1);
      if (index + 1 < order.length) onFailure(error as KombuError);
    }
  }
  const [first] = failures;
  if (first === undefined) throw new OptionError('failoverStrategy gave no URL');
  if (failures.length === 1) throw first;
  const text = `no broker can be reached: ${failures.map(({ message }) => message).join('; ')}`;
  const refused = failures.every((each) => each instanceof AccessRefused);
  throw new (refused ? AccessRefused : ConnectionError)(text, { cause: new AggregateError(failures, text) });
}
