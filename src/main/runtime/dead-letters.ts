/**
 * Messages that cannot be decoded, failed for good, or took their worker down too often: published with their bytes to the
 * dead-letter queue, confirmed, and only then acked. Until that works they stay unsettled and are tried again.
 *
 * Has a connection of its own, opened at the first dead letter: a broker alarm blocks connections that publish, and the
 * consuming one must get its acks through.
 */
import { randomUUID } from 'node:crypto';
import type { KombuError } from '../../errors.js';
import type { DeliveryInfo, MessageProperties } from '../../message.js';
import { Delivery, NO_DECODING } from '../../pool/delivery.js';
import { NOTE_BYTES, slot } from '../../pool/layout.js';
import type { Memory } from '../../pool/memory.js';
import { tableBytes, toTable } from '../entities/table.js';
import { openConnection } from '../transports/registry.js';
import type { BrokerConnection } from '../transports/transport.js';
import type { ConnectionParameters } from '../url.js';
import { DeadLetterOutlet, ID_HEADER, type Letter, type Route } from './dead-letter-outlet.js';
import type { Dispatcher } from './dispatcher.js';

/** Where dead letters go. In a string `<queue>` stands for the name of the message's queue. */
export type DeadLetterTarget = string | { readonly exchange: string; readonly routingKey?: string };

export type DeadLetterReason = 'failed' | 'decode' | 'deaths' | 'tooLarge';

export interface DeadLetter {
  readonly reason: DeadLetterReason;
  /** The error's text and stack, at most 1 KiB. */
  readonly error: string;
  readonly queue: string;
  readonly deliveryTag: number;
  readonly messageId?: string;
  /** The queue or exchange it went to. */
  readonly target: string;
}

export interface DeadLettersOptions {
  readonly parameters: ConnectionParameters;
  readonly target: DeadLetterTarget;
  readonly memory: Memory;
  readonly dispatcher: Dispatcher;
  /** Queue names by consumer tag. */
  readonly queueOf: ReadonlyMap<string, string>;
  readonly onDead: (letter: DeadLetter) => void;
  /** A dead letter could not be published; it is tried again. */
  readonly onError: (error: KombuError) => void;
  /** A slot was settled: acks may be written. */
  readonly onSettled: () => void;
}

interface Job {
  readonly index: number;
  /** The slot's STATE when the job began: another value means that the message is no longer ours. */
  readonly word: number;
  readonly reason: DeadLetterReason | undefined;
  readonly error: string | undefined;
}

/** What is known of a message before its dead letter is written. */
interface Facts {
  readonly reason: DeadLetterReason;
  readonly error: string;
  readonly info: DeliveryInfo;
  readonly properties: MessageProperties;
}

/** Headers by which RabbitMQ routes to more queues: a dead letter is for one. */
const ROUTING_HEADERS = { CC: 'x-mozuku-cc', BCC: 'x-mozuku-bcc' } as const;

export class DeadLetters {
  readonly #options: DeadLettersOptions;
  readonly #closing = new AbortController();
  readonly #outlets = new Map<string, DeadLetterOutlet>();
  #connection: Promise<BrokerConnection> | undefined;
  #idle: (() => void) | undefined;

  constructor(options: DeadLettersOptions) {
    this.#options = options;
  }

  /** Takes a HELD slot; its note has the reason unless one is given. */
  add(index: number, reason?: DeadLetterReason, error?: string): void {
    const { dispatcher } = this.#options;
    const job = { index, word: dispatcher.stateOf(index), reason, error };
    const { queue, routingKey } = this.#delivery(job).readDeliveryInfo();
    const route = this.#route(queue, routingKey);
    let facts: Facts | undefined;
    this.#outlet(route).add({
      wanted: () => {
        const wanted = dispatcher.stateOf(index) === job.word;
        if (!wanted) this.#settled();
        return wanted;
      },
      letter: () => {
        facts = this.#facts(job);
        return this.#letter(job, facts);
      },
      done: () => {
        // If the generation ended meanwhile, the broker gives the message out again: a second dead letter, never none.
        if (dispatcher.finishDead(index, job.word)) this.#tell(facts!, route);
        this.#settled();
      },
    });
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
      this.#idle = resolve;
    });
  }

  async close(deadline: number): Promise<void> {
    this.#closing.abort();
    // An attempt to connect that is under way has just been given up.
    const connection = await this.#connection?.catch(() => undefined);
    await connection?.close(deadline);
  }

  #settled(): void {
    // The outlet counts the job until this turn is over.
    setImmediate(() => {
      if (this.pending > 0) return;
      this.#idle?.();
      this.#idle = undefined;
    });
  }

  #outlet(route: Route): DeadLetterOutlet {
    const key = JSON.stringify([route.exchange, route.routingKey]);
    let outlet = this.#outlets.get(key);
    if (outlet === undefined) {
      outlet = new DeadLetterOutlet(route, () => this.#connect(), this.#closing.signal, this.#options.onError);
      this.#outlets.set(key, outlet);
    }
    return outlet;
  }

  /** One connection for all outlets, opened when the first of them needs it, and again when it is lost. */
  #connect(): Promise<BrokerConnection> {
    this.#connection ??= this.#open().catch((error: unknown) => {
      this.#connection = undefined;
      throw error;
    });
    return this.#connection;
  }

  async #open(): Promise<BrokerConnection> {
    const { signal } = this.#closing;
    const connection = await openConnection(this.#options.parameters, { signal, clientName: 'mozuku dead letters' });
    void connection.ended.then(() => {
      this.#connection = undefined;
    });
    return connection;
  }

  #delivery({ index }: Job): Delivery {
    const { memory, queueOf } = this.#options;
    const at = index << slot.SHIFT;
    const words = memory.slotWords;
    return new Delivery(memory.bytes, words[at + slot.OFFSET]!, words[at + slot.LENGTH]!, queueOf, NO_DECODING);
  }

  #facts(job: Job): Facts {
    const delivery = this.#delivery(job);
    return {
      ...this.#note(job),
      info: delivery.readDeliveryInfo(),
      properties: readOr({}, () => delivery.readProperties()),
    };
  }

  #letter(job: Job, { reason, error, info, properties }: Facts): Letter {
    const delivery = this.#delivery(job);
    const words = this.#options.memory.slotWords;
    const at = job.index << slot.SHIFT;
    const id = randomUUID();
    const { expiration, userId, ...kept } = properties;
    const headers = {
      ...sendable(readOr({}, () => delivery.readHeaders())),
      'x-mozuku-reason': reason,
      'x-mozuku-error': error,
      'x-mozuku-queue': info.queue,
      'x-mozuku-exchange': info.exchange,
      'x-mozuku-routing-key': info.routingKey,
      // A sweep has counted the last run already; a verdict has not.
      'x-mozuku-attempts': words[at + slot.ATTEMPTS]! + (reason === 'deaths' ? 0 : 1),
      'x-mozuku-deaths': words[at + slot.DEATHS]!,
      'x-mozuku-time': new Date().toISOString(),
      // A message's own time to live would destroy its dead letter; the broker takes no other user's id.
      ...(expiration === undefined ? {} : { 'x-mozuku-expiration': expiration }),
      ...(userId === undefined ? {} : { 'x-mozuku-user-id': userId }),
      [ID_HEADER]: id,
    };
    return { body: delivery.readBody(), id, properties: { ...kept, headers, persistent: true } };
  }

  #tell({ reason, error, info, properties }: Facts, { exchange, routingKey, isQueue }: Route): void {
    this.#options.onSettled();
    this.#options.onDead({
      reason,
      error,
      queue: info.queue,
      deliveryTag: info.deliveryTag,
      target: isQueue ? routingKey : exchange,
      ...(properties.messageId === undefined ? {} : { messageId: properties.messageId }),
    });
  }

  #route(queue: string, original: string): Route {
    const { target } = this.#options;
    if (typeof target === 'string') {
      return { exchange: '', routingKey: target.replaceAll('<queue>', queue), isQueue: true };
    }
    return { exchange: target.exchange, routingKey: target.routingKey ?? original, isQueue: false };
  }

  /** Why: given by main, or written by the worker into the slot's note. */
  #note(job: Job): { reason: DeadLetterReason; error: string } {
    if (job.reason !== undefined) return { reason: job.reason, error: (job.error ?? '').slice(0, NOTE_BYTES) };
    const { noteBytes } = this.#options.memory;
    const start = job.index * NOTE_BYTES;
    const text = noteBytes.toString('utf8', start + 2, start + 2 + noteBytes.readUInt16BE(start));
    const line = text.indexOf('\n');
    const reason = text.slice(0, line) === 'decode' ? 'decode' : 'failed';
    return { reason, error: text.slice(line + 1) };
  }
}

/** Room for the message's own headers beside ours: what the client sends at once has an end. */
const MAX_HEADER_BYTES = 48 * 1024;

/** The headers that can be sent on; the names of those that cannot, in one of their own. */
function sendable(headers: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const table: Record<string, unknown> = Object.create(null);
  const dropped: string[] = [];
  let room = MAX_HEADER_BYTES;
  for (const [name, value] of Object.entries(headers)) {
    const key = Object.hasOwn(ROUTING_HEADERS, name) ? ROUTING_HEADERS[name as keyof typeof ROUTING_HEADERS] : name;
    const field = readOr(undefined, () => toTable({ [key]: value }, 'headers'));
    const size = field === undefined ? Number.POSITIVE_INFINITY : tableBytes(field);
    if (field === undefined || size > room) {
      dropped.push(key.slice(0, 100));
      continue;
    }
    room -= size;
    Object.assign(table, field);
  }
  if (dropped.length > 0) table['x-mozuku-dropped-headers'] = dropped.join(', ').slice(0, 1024);
  return table;
}

/** What cannot be read of a broken header is left out of its dead letter, whose body says the rest. */
function readOr<T>(otherwise: T, read: () => T): T {
  try {
    return read();
  } catch {
    return otherwise;
  }
}
