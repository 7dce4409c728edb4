/**
 * Messages that cannot be decoded, failed for good, or took their worker down too often: published with their bytes to the
 * dead-letter queue, confirmed, and only then acked. Until that works they stay unsettled and are tried again.
 *
 * Has a connection of its own, opened at the first dead letter: a broker alarm blocks connections that publish, and the
 * consuming one must get its acks through.
 */
import { randomUUID } from 'node:crypto';
import type * as amqplib from 'amqplib';
import { type KombuError, MessageNacked, MessageReturned } from '../../errors.js';
import { Delivery, NO_DECODING } from '../../pool/delivery.js';
import { NOTE_BYTES, slot } from '../../pool/layout.js';
import type { Memory } from '../../pool/memory.js';
import { withDeadline } from '../deadline.js';
import { tableBytes, toTable } from '../entities/table.js';
import { errorFromAmqp, saysOnlyClosed } from '../transports/amqp/errors.js';
import { reconnectDelay } from '../transports/reconnect.js';
import { openConnection } from '../transports/registry.js';
import type { BrokerConnection } from '../transports/transport.js';
import type { ConnectionParameters } from '../url.js';
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

const PUBLISH_TIMEOUT = 30_000;
const ID_HEADER = 'x-mozuku-id';

export class DeadLetters {
  readonly #options: DeadLettersOptions;
  readonly #closing = new AbortController();
  #waiting: Job[] = [];
  #inFlight = 0;
  #connection: BrokerConnection | undefined;
  #channel: amqplib.ConfirmChannel | undefined;
  #declared = new Set<string>();
  #returned = new Map<string, (reply: string) => void>();
  /** What the broker closed a channel with. */
  readonly #refused = new WeakMap<amqplib.Channel, unknown>();
  #working = false;
  #idle: (() => void) | undefined;

  constructor(options: DeadLettersOptions) {
    this.#options = options;
  }

  /** Takes a HELD slot; its note has the reason unless one is given. */
  add(index: number, reason?: DeadLetterReason, error?: string): void {
    this.#waiting.push({ index, word: this.#options.dispatcher.stateOf(index), reason, error });
    if (!this.#working) void this.#work();
  }

  get pending(): number {
    return this.#waiting.length + this.#inFlight;
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
    await this.#connection?.close(deadline);
  }

  async #work(): Promise<void> {
    this.#working = true;
    for (let attempt = 0; this.#waiting.length > 0 && !this.#closing.signal.aborted; ) {
      try {
        const channel = await this.#ready();
        const batch = this.#waiting.splice(0);
        this.#inFlight += batch.length;
        const outcomes = await Promise.allSettled(batch.map((job) => this.#publish(channel, job)));
        this.#inFlight -= batch.length;
        const failed = outcomes.flatMap((outcome, i) =>
          outcome.status === 'rejected' ? [{ job: batch[i]!, reason: outcome.reason as unknown }] : [],
        );
        if (failed.length === 0) {
          attempt = 0;
          continue;
        }
        this.#waiting.unshift(...failed.map(({ job }) => job));
        throw failed[0]!.reason;
      } catch (error) {
        if (this.#closing.signal.aborted) break;
        this.#waiting = this.#waiting.filter((job) => this.#options.dispatcher.stateOf(job.index) === job.word);
        if (this.#waiting.length === 0) break;
        this.#options.onError(
          errorFromAmqp(error, 'a dead letter could not be published, its message stays unsettled'),
        );
        await new Promise((resolve) => setTimeout(resolve, reconnectDelay(attempt++)));
      }
    }
    this.#working = false;
    if (this.pending === 0) {
      this.#idle?.();
      this.#idle = undefined;
    }
  }

  async #ready(): Promise<amqplib.ConfirmChannel> {
    if (this.#channel !== undefined && this.#connection?.open) return this.#channel;
    if (!this.#connection?.open) {
      this.#connection = await openConnection(this.#options.parameters, {
        signal: this.#closing.signal,
        clientName: 'mozuku dead letters',
      });
    }
    const channel = await withDeadline(
      this.#connection.model.createConfirmChannel(),
      'opening a channel',
      PUBLISH_TIMEOUT,
      this.#closing.signal,
    );
    // The confirms that are missing then say no more than that the channel is closed.
    channel.on('error', (error) => this.#refused.set(channel, error));
    channel.once('close', () => {
      if (this.#channel === channel) this.#channel = undefined;
    });
    channel.on('return', (message: amqplib.Message) => {
      const id = message.properties.headers?.[ID_HEADER] as string | undefined;
      const { replyText } = message.fields as unknown as { replyText: string };
      if (id !== undefined) this.#returned.get(id)?.(replyText);
    });
    this.#declared = new Set();
    this.#channel = channel;
    return channel;
  }

  async #publish(channel: amqplib.ConfirmChannel, job: Job): Promise<void> {
    const { dispatcher, memory } = this.#options;
    if (dispatcher.stateOf(job.index) !== job.word) return;
    const words = memory.slotWords;
    const at = job.index << slot.SHIFT;
    const note = this.#note(job);
    const delivery = new Delivery(
      memory.bytes,
      words[at + slot.OFFSET]!,
      words[at + slot.LENGTH]!,
      this.#options.queueOf,
      NO_DECODING,
    );
    const info = delivery.readDeliveryInfo();
    const { exchange, routingKey, named } = this.#route(info.queue, info.routingKey);
    if (named && !this.#declared.has(routingKey)) {
      await withDeadline(
        channel.assertQueue(routingKey, { durable: true }),
        `declaring the dead-letter queue '${routingKey}'`,
        PUBLISH_TIMEOUT,
      );
      this.#declared.add(routingKey);
      if (dispatcher.stateOf(job.index) !== job.word) return;
    }
    const properties = readOr({}, () => delivery.readProperties());
    const headers = readOr({}, () => delivery.readHeaders());
    const id = randomUUID();
    const { expiration, userId, ...kept } = properties;
    const confirmed = new Promise<void>((resolve, reject) => {
      this.#returned.set(id, (reply) =>
        reject(
          new MessageReturned(
            `no queue takes dead letters for '${exchange}' with the routing key '${routingKey}': ${reply}`,
            {
              details: { exchange, routingKey, reply },
            },
          ),
        ),
      );
      channel.publish(
        exchange,
        routingKey,
        delivery.readBody(),
        {
          ...kept,
          headers: {
            ...sendable(headers),
            'x-mozuku-reason': note.reason,
            'x-mozuku-error': note.error,
            'x-mozuku-queue': info.queue,
            'x-mozuku-exchange': info.exchange,
            'x-mozuku-routing-key': info.routingKey,
            // A sweep has counted the last run already; a verdict has not.
            'x-mozuku-attempts': words[at + slot.ATTEMPTS]! + (note.reason === 'deaths' ? 0 : 1),
            'x-mozuku-deaths': words[at + slot.DEATHS]!,
            'x-mozuku-time': new Date().toISOString(),
            // A message's own time to live would destroy its dead letter; the broker takes no other user's id.
            ...(expiration === undefined ? {} : { 'x-mozuku-expiration': expiration }),
            ...(userId === undefined ? {} : { 'x-mozuku-user-id': userId }),
            [ID_HEADER]: id,
          },
          persistent: true,
          mandatory: true,
        },
        (error: unknown) => {
          if (error === null || error === undefined) resolve();
          else reject(this.#whyNot(channel, error));
        },
      );
    });
    try {
      await withDeadline(confirmed, 'publishing a dead letter', PUBLISH_TIMEOUT, this.#closing.signal);
    } finally {
      this.#returned.delete(id);
    }
    // If the generation ended meanwhile, the broker gives the message out again: a second dead letter, never none.
    if (!dispatcher.finishDead(job.index, job.word)) return;
    this.#options.onSettled();
    this.#options.onDead({
      reason: note.reason,
      error: note.error,
      queue: info.queue,
      deliveryTag: info.deliveryTag,
      target: named ? routingKey : exchange,
      ...(properties.messageId === undefined ? {} : { messageId: properties.messageId }),
    });
  }

  /** A broker that does not know the exchange closes the channel; one that cannot take the message nacks it. */
  #whyNot(channel: amqplib.ConfirmChannel, error: unknown): KombuError {
    const closed = this.#refused.get(channel);
    if (closed !== undefined) return errorFromAmqp(closed, 'publishing a dead letter');
    if (saysOnlyClosed(error)) return errorFromAmqp(error, 'publishing a dead letter');
    return new MessageNacked('the broker refused a dead letter', { cause: error });
  }

  #route(queue: string, original: string): { exchange: string; routingKey: string; named: boolean } {
    const { target } = this.#options;
    if (typeof target === 'string') {
      return { exchange: '', routingKey: target.replaceAll('<queue>', queue), named: true };
    }
    return { exchange: target.exchange, routingKey: target.routingKey ?? original, named: false };
  }

  /** Why: given by main, or written by the worker into the slot's note. */
  #note(job: Job): { reason: DeadLetterReason; error: string } {
    if (job.reason !== undefined) return { reason: job.reason, error: job.error ?? '' };
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
  for (const [key, value] of Object.entries(headers)) {
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
