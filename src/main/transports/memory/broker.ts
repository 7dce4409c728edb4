/**
 * The brokers of this thread, by name, and a broker's side of a connection. A broker lives until it is forgotten or the thread
 * ends; nothing is on disk.
 */
import type { BrokerChannel } from './broker-channel.js';
import { type Clock, realClock } from './clock.js';
import { Refusal } from './refusal.js';
import { VirtualHost } from './virtual-host.js';

/** What the broker tells a connection. Comes at any time, also while the client is calling. */
export interface LinkClient {
  closed(refusal: Refusal): void;
}

/** One connection as the broker sees it. Exclusive queues belong to it. */
export class Link {
  readonly channels = new Set<BrokerChannel>();
  #open = true;

  constructor(
    readonly broker: Broker,
    readonly vhost: VirtualHost,
    readonly user: string,
    readonly client: LinkClient,
  ) {}

  get open(): boolean {
    return this.#open;
  }

  /** Whatever it had goes back to its queues; its exclusive queues go. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.broker.links.delete(this);
    // A queue that dies with the connection takes back nothing: messages must not pass through its other consumers.
    for (const channel of this.channels) channel.cancelAll();
    for (const channel of this.channels) channel.close();
    this.vhost.removeExclusive(this);
  }

  /** The broker ends it. */
  fail(refusal: Refusal): void {
    if (!this.#open) return;
    this.close();
    this.client.closed(refusal);
  }
}

export class Broker {
  readonly links = new Set<Link>();
  readonly #vhosts = new Map<string, VirtualHost>();

  constructor(
    readonly name: string,
    readonly clock: Clock = realClock,
  ) {}

  /** A virtual host is there as soon as somebody asks for it. */
  vhost(name: string): VirtualHost {
    let found = this.#vhosts.get(name);
    if (found === undefined) {
      found = new VirtualHost(name, this.clock);
      this.#vhosts.set(name, found);
    }
    return found;
  }

  connect(vhost: string, user: string, client: LinkClient): Link {
    const link = new Link(this, this.vhost(vhost), user, client);
    this.links.add(link);
    return link;
  }

  /** As an operator would: every connection is closed with this reason. */
  closeConnections(reason: string): void {
    for (const link of [...this.links]) link.fail(new Refusal(320, reason));
  }
}

const brokers = new Map<string, Broker>();

/** The broker of this name, made when it is first asked for. */
export function memoryBroker(name = 'localhost'): Broker {
  let broker = brokers.get(name);
  if (broker === undefined) {
    broker = new Broker(name);
    brokers.set(name, broker);
  }
  return broker;
}

/** Closes the connections to a broker and forgets it with everything in it. For tests; does nothing if there is none. */
export function forgetMemoryBroker(name = 'localhost'): void {
  const broker = brokers.get(name);
  brokers.delete(name);
  broker?.closeConnections('the broker was forgotten');
}
