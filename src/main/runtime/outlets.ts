/**
 * What the runtime publishes on its own behalf, dead letters and delayed retries: one outlet a target, all of them on one
 * connection, opened when the first of them needs it, and again when it is lost. It is not the consuming one: a broker alarm
 * blocks connections that publish, and acks must get through.
 */
import type { KombuError } from '../../errors.js';
import { openConnection } from '../transports/registry.js';
import type { BrokerConnection } from '../transports/transport.js';
import type { ConnectionParameters } from '../url.js';
import { Outlet, type OutletJob, type Route } from './outlet.js';

export class Outlets {
  readonly #parameters: ConnectionParameters;
  /** Something could not be published; it is tried again. */
  readonly #onError: (error: KombuError) => void;
  readonly #closing = new AbortController();
  readonly #outlets = new Map<string, Outlet>();
  #connection: Promise<BrokerConnection> | undefined;
  #idle: (() => void)[] = [];

  constructor(parameters: ConnectionParameters, onError: (error: KombuError) => void) {
    this.#parameters = parameters;
    this.#onError = onError;
  }

  add(route: Route, job: OutletJob): void {
    const key = JSON.stringify([route.exchange, route.routingKey]);
    let outlet = this.#outlets.get(key);
    if (outlet === undefined) {
      outlet = new Outlet(
        route,
        () => this.#connect(),
        this.#closing.signal,
        this.#onError,
        () => this.#rested(),
      );
      this.#outlets.set(key, outlet);
    }
    outlet.add(job);
  }

  get pending(): number {
    let sum = 0;
    for (const outlet of this.#outlets.values()) sum += outlet.pending;
    return sum;
  }

  /** Resolves when nothing is pending. */
  idle(): Promise<void> {
    if (this.pending === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#idle.push(resolve);
    });
  }

  async close(deadline: number): Promise<void> {
    this.#closing.abort();
    // An attempt to connect that is under way has just been given up.
    const connection = await this.#connection?.catch(() => undefined);
    await connection?.close(deadline);
  }

  #rested(): void {
    if (this.pending > 0) return;
    const waiting = this.#idle;
    this.#idle = [];
    for (const resolve of waiting) resolve();
  }

  #connect(): Promise<BrokerConnection> {
    this.#connection ??= this.#open().catch((error: unknown) => {
      this.#connection = undefined;
      throw error;
    });
    return this.#connection;
  }

  async #open(): Promise<BrokerConnection> {
    const { signal } = this.#closing;
    const connection = await openConnection(this.#parameters, { signal, clientName: 'mozuku runtime' });
    void connection.ended.then(() => {
      this.#connection = undefined;
    });
    return connection;
  }
}
