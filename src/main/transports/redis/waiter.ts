/**
 * Waits for a list to have something in it. `BLMOVE key key RIGHT RIGHT` blocks as long as the list is empty and moves its last
 * message onto the place where it was: a look that takes nothing. On a socket of its own, since nothing else is answered on it
 * meanwhile; never for longer than a few seconds, and with a deadline on our side, since a blocked answer may never come.
 *
 * Where the taker has room for one message, the take is sent right behind the look: the server runs it the moment the look is
 * over, and the message comes without another way there and back. From then on until it is answered nobody knows whether it has
 * recorded something; a server that has not noticed that the socket is gone may still run it, until the look is over.
 */
import { AccessRefused, ConnectionError } from '../../../errors.js';
import { withDeadline } from '../../deadline.js';
import type { ConnectionParameters } from '../../url.js';
import { pause, reconnectDelay } from '../reconnect.js';
import { type Client, openClient } from './client.js';
import { errorFromRedis } from './errors.js';

/** Seconds that the server blocks at a time. */
const BLOCK = 3;
/** Milliseconds until an answer that does not come is given up; a server has run by then what it was sent. */
export const GIVE_UP = (BLOCK + 2) * 1000;

/** Milliseconds until what the user may not do is tried again. */
const REFUSED_AGAIN = 30_000;

export interface WaiterEvents {
  /** There is something in the list. */
  found(): void;
  /**
   * Asks for the message for which is waited. Resolves with whether it brought one, once that is dealt with; undefined where
   * there is to be no more than a look.
   */
  take(client: Client): Promise<boolean> | undefined;
  /** Of the take that was asked for last no answer will come. */
  lost(): void;
}

export class Waiter {
  readonly #parameters: ConnectionParameters;
  readonly #list: string;
  readonly #events: WaiterEvents;
  readonly #closing = new AbortController();
  #client: Client | undefined;
  #wanted = false;
  #running = false;
  #rest: Promise<void> = Promise.resolve();

  constructor(parameters: ConnectionParameters, list: string, events: WaiterEvents) {
    this.#parameters = parameters;
    this.#list = list;
    this.#events = events;
  }

  /** Until something is found once, or `rest` is called. */
  wait(): void {
    this.#wanted = true;
    if (this.#running || this.#closing.signal.aborted) return;
    this.#running = true;
    this.#rest = this.#run();
  }

  /** What is found from now on is of no interest. */
  rest(): void {
    this.#wanted = false;
  }

  async close(): Promise<void> {
    this.#wanted = false;
    this.#closing.abort();
    this.#client?.disconnect();
    await this.#rest;
  }

  /** Never rejects: whoever takes looks by himself from time to time, and is told what is wrong. */
  async #run(): Promise<void> {
    const { signal } = this.#closing;
    let failures = 0;
    while (this.#wanted && !signal.aborted) {
      try {
        const client = this.#client ?? (await this.#connect());
        const look = client.blmove(this.#list, this.#list, 'RIGHT', 'RIGHT', BLOCK);
        const take = this.#events.take(client);
        // Also where the look fails the take is answered.
        const answers = Promise.allSettled([look, take]);
        await withDeadline(answers, 'waiting for a message', GIVE_UP, signal);
        const isFound = (await look) !== null;
        const isTaken = await take;
        failures = 0;
        if (!(isTaken ?? isFound) || !this.#wanted) continue;
        this.#wanted = false;
        this.#events.found();
      } catch (error) {
        // Whatever it is, he who takes from the list meets it too, or does without: he looks from time to time.
        this.#events.lost();
        this.#client?.disconnect();
        this.#client = undefined;
        const isRefused = errorFromRedis(error, 'waiting for a message') instanceof AccessRefused;
        await pause(isRefused ? REFUSED_AGAIN : reconnectDelay(failures++), signal);
      }
    }
    this.#running = false;
  }

  async #connect(): Promise<Client> {
    const { signal } = this.#closing;
    const { client, ended } = await openClient(this.#parameters, { signal, clientName: 'mozuku waiting' });
    if (signal.aborted) {
      client.disconnect();
      throw new ConnectionError('no longer wanted');
    }
    void ended.then(() => {
      if (this.#client === client) this.#client = undefined;
    });
    this.#client = client;
    return client;
  }
}
