/** Channels of one connection. */
import { ChannelLimitExceeded, ClosedError } from '../errors.js';
import type { Channel } from '../main/entities/channel.js';
import { type AcquireOptions, ResourcePool } from './resource-pool.js';
import type { Ticket } from './ticket.js';

/** A channel of a pool. */
export type PooledChannel = Channel & {
  /** Gives the channel back, once. */
  release(): Promise<void>;
};

/** The part of a connection that is needed here. */
interface Opens {
  channel(options: { readonly timeout?: number; readonly signal?: AbortSignal }): Promise<Channel>;
}

/**
 * A lease is a `Channel`. `release()`, or the end of an `await using` block, gives it back as it is: whoever has consumed on it, or
 * has left messages unsettled, calls `close()` instead, which takes it out of the pool.
 */
export class ChannelPool extends ResourcePool<Channel, PooledChannel> {
  protected override readonly LimitExceeded = ChannelLimitExceeded;
  readonly #connection: Opens;

  /** @internal */
  constructor(connection: Opens, limit?: number) {
    super(limit);
    this.#connection = connection;
  }

  protected override make({ timeout, signal }: AcquireOptions): Promise<Channel> {
    return this.#connection.channel({ timeout: timeout!, ...(signal !== undefined && { signal }) });
  }

  protected override lend(channel: Channel, ticket: Ticket): PooledChannel {
    return leaseOf(channel, ticket);
  }

  protected override usable(channel: Channel): boolean {
    return !channel.closed;
  }

  protected override async destroy(channel: Channel): Promise<void> {
    await channel.close();
  }
}

/**
 * A channel whose life ends when it is given back, though the channel beneath lives on. A class of its own would not do: what takes
 * a channel asks with `instanceof`, and a channel's private parts are its own.
 */
function leaseOf(channel: Channel, ticket: Ticket): PooledChannel {
  let over = false;
  const end = (way: () => Promise<void>) => async (): Promise<void> => {
    over = true;
    await way();
  };
  const own: Readonly<Record<PropertyKey, unknown>> = {
    release: end(ticket.release),
    close: end(ticket.discard),
    [Symbol.asyncDispose]: end(ticket.release),
  };
  return new Proxy(channel, {
    get(target, key) {
      if (Object.hasOwn(own, key)) return own[key];
      if (over && key === 'closed') return true;
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]): unknown => {
        if (over) throw new ClosedError('the channel was given back to its pool; acquire another one');
        return Reflect.apply(value, target, args);
      };
    },
  }) as PooledChannel;
}
