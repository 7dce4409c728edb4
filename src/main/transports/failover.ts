/** One of several hosts: which to try, in which order, and what to say if none answers. */
import { AccessRefused, ConnectionError, type KombuError, OptionError } from '../../errors.js';
import { type ConnectionParameters, parametersOf } from '../url.js';

/** Which of the hosts answered last, so that a reconnect begins there and not at one that is known to be gone. */
const lastGood = new WeakMap<ConnectionParameters, number>();

function* hostsOf(parameters: ConnectionParameters): Iterable<[ConnectionParameters, number]> {
  const { alternates, failoverStrategy } = parameters;
  if (alternates.length === 0) {
    yield [parameters, 0];
    return;
  }
  const start = lastGood.get(parameters) ?? 0;
  let order: readonly string[];
  if (typeof failoverStrategy === 'function') {
    order = [...take(failoverStrategy(alternates), alternates.length)];
  } else if (failoverStrategy === 'shuffle') {
    order = alternates
      .map((url) => ({ url, at: Math.random() }))
      .sort((a, b) => a.at - b.at)
      .map(({ url }) => url);
  } else {
    order = [...alternates.slice(start), ...alternates.slice(0, start)];
  }
  for (const url of order) {
    const index = alternates.indexOf(url);
    // The first is the connection's own host, which options may have completed.
    yield [index === 0 ? parameters : parametersOf(url, parameters), Math.max(index, 0)];
  }
}

/** A strategy may go round for ever, as kombu's do: one attempt takes as many hosts as there are. */
function* take<T>(from: Iterable<T>, count: number): Iterable<T> {
  let taken = 0;
  for (const item of from) {
    if (taken++ >= count) return;
    yield item;
  }
}

/**
 * Opens a connection to the first host that answers: each of `alternates` once, every one with `connectTimeout` from the first
 * packet to an open connection. Throws `AccessRefused`, `ConnectionError` (with several hosts its `cause` is an AggregateError),
 * `TimeoutError`, `TransportNotAvailable`, or the signal's reason.
 */
export async function openFirst<Opened>(
  parameters: ConnectionParameters,
  signal: AbortSignal | undefined,
  open: (host: ConnectionParameters) => Promise<Opened>,
): Promise<Opened> {
  const failures: KombuError[] = [];
  for (const [host, index] of hostsOf(parameters)) {
    try {
      signal?.throwIfAborted();
      const connection = await open(host);
      lastGood.set(parameters, index);
      return connection;
    } catch (error) {
      if (signal?.aborted || error instanceof OptionError) throw error;
      failures.push(error as KombuError);
    }
  }
  const [first] = failures;
  if (first === undefined) throw new OptionError('failoverStrategy gave no URL');
  if (failures.length === 1) throw first;
  const text = `no broker can be reached: ${failures.map(({ message }) => message).join('; ')}`;
  const refused = failures.every((each) => each instanceof AccessRefused);
  throw new (refused ? AccessRefused : ConnectionError)(text, { cause: new AggregateError(failures, text) });
}
