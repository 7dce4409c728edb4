/**
 * Fanout exchanges: what is published to one goes by PUBLISH to whoever listens at that moment, and is kept nowhere. One socket
 * for all subscriptions of a connection, opened with the first.
 */
import type { KombuError } from '../../../errors.js';
import type { ConnectionParameters } from '../../url.js';
import { type Client, locationOf, openClient } from './client.js';
import { PULSE, watchPulse } from './pulse.js';

type OnEnvelope = (envelope: Buffer) => void;

export class Subscriptions {
  readonly #parameters: ConnectionParameters;
  /** The socket was lost: what is published from now on is not heard. */
  readonly #onLost: (reason: KombuError) => void;
  readonly #listeners = new Map<string, Set<OnEnvelope>>();
  #client: Promise<Client> | undefined;
  #closed = false;

  constructor(parameters: ConnectionParameters, onLost: (reason: KombuError) => void) {
    this.#parameters = parameters;
    this.#onLost = onLost;
  }

  /** `channel` may have `*` in it. Gives what ends it. */
  async subscribe(channel: string, onEnvelope: OnEnvelope): Promise<() => Promise<void>> {
    this.#client ??= this.#open();
    const client = await this.#client;
    const isPattern = channel.includes('*');
    let listeners = this.#listeners.get(channel);
    if (listeners === undefined) {
      listeners = new Set();
      this.#listeners.set(channel, listeners);
    }
    listeners.add(onEnvelope);
    await (isPattern ? client.psubscribe(channel) : client.subscribe(channel));
    return async () => {
      listeners.delete(onEnvelope);
      if (listeners.size > 0 || this.#closed) return;
      this.#listeners.delete(channel);
      await (isPattern ? client.punsubscribe(channel) : client.unsubscribe(channel));
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#listeners.clear();
    const client = await this.#client?.catch(() => undefined);
    client?.disconnect();
  }

  async #open(): Promise<Client> {
    const opening = openClient(this.#parameters, { clientName: 'mozuku listening' });
    opening.catch(() => {
      this.#client = undefined;
    });
    const { client, ended } = await opening;
    if (this.#closed) client.disconnect();
    client.on('messageBuffer', (channel: Buffer, envelope: Buffer) => this.#heard(channel.toString(), envelope));
    client.on('pmessageBuffer', (pattern: Buffer | string, _channel: Buffer, envelope: Buffer) =>
      this.#heard(pattern.toString(), envelope),
    );
    const calm = watchPulse(client, this.#parameters.heartbeat ?? PULSE, locationOf(this.#parameters), (error) => {
      if (!this.#closed) this.#onLost(error);
    });
    void ended.then((reason) => {
      calm();
      this.#client = undefined;
      if (!this.#closed) this.#onLost(reason);
    });
    return client;
  }

  #heard(channel: string, envelope: Buffer): void {
    for (const listener of this.#listeners.get(channel) ?? []) listener(envelope);
  }
}
