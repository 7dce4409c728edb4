/**
 * Our channel around amqplib's confirm channel: errors of our classes, deadlines, publishes whose promise settles with the
 * broker's answer. A channel lives once: the broker closes it at the first mistake, and then a new one is needed.
 */
import type * as amqplib from 'amqplib';
import { fromTable } from '../../codec/amqp/plain-table.js';
import { ClosedError, EncodeError, type KombuError, MessageNacked, MessageReturned } from '../../errors.js';
import { withDeadline } from '../deadline.js';
import { errorFromAmqp, saysOnlyClosed } from '../transports/amqp/errors.js';
import type { BrokerConnection, Outgoing, Publish } from '../transports/transport.js';

/** Milliseconds for each question to the broker. */
export const CALL_TIMEOUT = 10_000;

/** Declarations that were made in this life of a connection, by what was declared; shared by all its channels. */
export type Declared = Map<string, Promise<unknown>>;

export interface CallOptions {
  /** Milliseconds. Default 10 s. */
  readonly timeout?: number;
  readonly signal?: AbortSignal;
}

/** Words for an error, which most messages do not need. */
function publishing({ exchange, routingKey }: Outgoing): string {
  return `publishing to exchange '${exchange}' with routing key '${routingKey}'`;
}

interface PendingReturn {
  readonly exchange: string;
  readonly routingKey: string;
  returned?: MessageReturned;
}

export class Channel {
  /** amqplib's channel, for what this class does not have. Its errors are amqplib's. */
  readonly raw: amqplib.ConfirmChannel;
  /** Resolves, never rejects, once the channel is gone: with the reason, or undefined if we closed it. */
  readonly ended: Promise<KombuError | undefined>;
  /** @internal */
  readonly declared: Declared;
  readonly #connection: BrokerConnection;
  readonly #publish: Publish;
  #open = true;
  #closing = false;
  #reason: KombuError | undefined;
  #full: Promise<void> | undefined;
  #settledUpTo = 0;
  /** Ends the questions under way; amqplib forgets a get whose message it could not read. */
  readonly #calls = new Set<() => void>();
  /** Mandatory messages that are not confirmed, by message id, in the order of their publishing. */
  #mandatory = new Map<string, PendingReturn[]>();

  private constructor(raw: amqplib.ConfirmChannel, connection: BrokerConnection, declared: Declared) {
    this.raw = raw;
    this.declared = declared;
    this.#connection = connection;
    this.#publish = connection.publisherOf(raw);
    raw.on('error', (error) => {
      this.#reason ??= errorFromAmqp(error, 'the broker closed the channel');
    });
    raw.on('return', (message) => this.#returned(message));
    this.ended = new Promise((resolve) => {
      raw.once('close', () => {
        this.#open = false;
        // Channels hear of their connection's end before the connection knows its reason.
        queueMicrotask(() => resolve(this.reason));
        // What amqplib has to say to the questions under way comes first: it knows which of them was at fault.
        setImmediate(() => {
          for (const end of this.#calls) end();
        });
      });
    });
  }

  /** Opens a channel and puts it into confirm mode. */
  static async open(
    connection: BrokerConnection,
    declared: Declared = new Map(),
    options: CallOptions = {},
  ): Promise<Channel> {
    const opening = connection.model.createConfirmChannel().then((raw) => new Channel(raw, connection, declared));
    try {
      return await withDeadline(opening, 'opening a channel', options.timeout ?? CALL_TIMEOUT, options.signal);
    } catch (error) {
      // A channel that opens too late has no owner.
      opening.then(
        (late) => late.close(),
        () => undefined,
      );
      if (options.signal?.aborted) throw error;
      throw (saysOnlyClosed(error) ? connection.reason : undefined) ?? errorFromAmqp(error, 'opening a channel');
    }
  }

  get closed(): boolean {
    return !this.#open || this.#closing || !this.#connection.open;
  }

  /** Why the channel is gone; undefined while it is open, and after our own `close()`. */
  get reason(): KombuError | undefined {
    return this.#closing ? undefined : (this.#reason ?? (this.#open ? undefined : this.#connection.reason));
  }

  /**
   * True if `error` is not about the question that got it: the broker had closed the channel over another one, and carries out
   * nothing that comes after its mistake. The connection is there still, so the question may be asked on a new channel.
   * @internal
   */
  closedOverAnother(error: unknown): boolean {
    const reason = this.reason;
    if (reason === undefined || !this.#connection.open) return false;
    return error === reason || (error instanceof ClosedError && error.cause === reason);
  }

  /** The highest delivery tag that an ack of several has settled: what is below needs no settlement, and must not get one. */
  get settledUpTo(): number {
    return this.#settledUpTo;
  }

  /** @internal */
  settleUpTo(deliveryTag: number): void {
    this.#settledUpTo = Math.max(this.#settledUpTo, deliveryTag);
  }

  /** True while amqplib buffers more than it likes; wait for `drained()` before publishing more. */
  get full(): boolean {
    return this.#full !== undefined;
  }

  /** Resolves when there is room again, or when the channel is gone. */
  async drained(): Promise<void> {
    await this.#full;
  }

  /**
   * Asks the broker: runs `method` on amqplib's channel. Throws our error classes, `TimeoutError`, or `ClosedError` (with the
   * reason as `cause`) if the channel was closed before. `late` gets an answer that came when nobody waited any more.
   */
  async call<T>(
    doing: string,
    method: (raw: amqplib.ConfirmChannel) => Promise<T>,
    { timeout = CALL_TIMEOUT, signal }: CallOptions = {},
    late: (answer: T) => void = () => undefined,
  ): Promise<T> {
    this.#mustBeOpen(doing);
    signal?.throwIfAborted();
    let end: () => void = () => undefined;
    const answer = new Promise<T>((resolve, reject) => {
      end = () => reject(this.reason ?? new ClosedError(`${doing}: the channel was closed`));
      this.#calls.add(end);
      method(this.raw).then(resolve, reject);
    });
    try {
      return await withDeadline(answer, doing, timeout, signal);
    } catch (error) {
      answer.then(late, () => undefined);
      // An argument that amqplib could not encode: it waits for the answer to what it has not sent, for ever.
      const thrown = error instanceof EncodeError ? error.cause : error;
      if (thrown instanceof TypeError || thrown instanceof RangeError) void this.close();
      if (signal?.aborted) throw error;
      throw this.#explain(error, doing);
    } finally {
      this.#calls.delete(end);
    }
  }

  /**
   * Writes a message at once; the promise resolves when the broker has confirmed it. Rejects with `MessageNacked`,
   * `MessageReturned` (a `mandatory` one needs a message id, by which its return is known), or why the channel ended; with
   * `EncodeError` for what AMQP cannot carry and `ClosedError`: then nothing was written.
   */
  publish(exchange: string, routingKey: string, body: Buffer, options: amqplib.Options.Publish): Promise<void> {
    return new Promise((resolve, reject) => {
      this.send({ exchange, routingKey, body, properties: asProperties(options) }, (error) =>
        error === undefined ? resolve() : reject(error),
      );
    });
  }

  /**
   * @internal The same by a callback, which is called once, later, with the error or undefined. Throws where `publish` rejects
   * at once.
   */
  send<T extends Outgoing>(message: T, onSettled: (error: KombuError | undefined, message: T) => void): void {
    const { exchange, routingKey, body, properties } = message;
    if (this.closed) this.#mustBeOpen(publishing(message));
    if (!(body instanceof Uint8Array)) throw new EncodeError(`${publishing(message)}: the body must be bytes`);
    const { mandatory, messageId } = properties;
    const back = mandatory && messageId ? this.#expectReturn(messageId, exchange, routingKey) : undefined;
    const settle = (error: unknown): void => {
      if (back !== undefined) this.#forgetReturn(messageId!, back);
      if (back?.returned !== undefined) onSettled(back.returned, message);
      else if (error === null || error === undefined) onSettled(undefined, message);
      else if (error instanceof Error && error.message === 'message nacked') {
        const text = `${publishing(message)}: the broker did not take the message`;
        onSettled(new MessageNacked(text, { cause: error }), message);
      } else queueMicrotask(() => onSettled(this.#explain(error, publishing(message)), message));
    };
    let room: boolean;
    try {
      room = this.#publish(message, settle);
    } catch (error) {
      if (back !== undefined) this.#forgetReturn(messageId!, back);
      // Tables over 64 KiB and names over 255 bytes; a closed channel says so in its own way.
      if (saysOnlyClosed(error)) throw this.#explain(error, publishing(message));
      const text = `${publishing(message)}: ${error instanceof Error ? error.message : String(error)}`;
      throw new EncodeError(text, { cause: error });
    }
    if (!room && this.#full === undefined) this.#full = this.#waitForRoom();
  }

  /** Closes the channel; unsettled deliveries go back to their queues. Resolves in any case, after 5 s at most. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.#closing = true;
    try {
      await withDeadline(this.raw.close(), 'closing a channel', 5000);
    } catch {
      // Gone already, or its connection does not answer, which the heartbeat will notice. Closed is what it should be.
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #waitForRoom(): Promise<void> {
    return new Promise((resolve) => {
      const go = () => {
        this.raw.removeListener('drain', go);
        this.raw.removeListener('close', go);
        this.#full = undefined;
        resolve();
      };
      // A channel that dies emits no 'drain'.
      this.raw.once('drain', go);
      this.raw.once('close', go);
    });
  }

  #mustBeOpen(doing: string): void {
    if (!this.closed) return;
    throw new ClosedError(`${doing}: the channel is closed`, { cause: this.reason });
  }

  #explain(error: unknown, doing: string): KombuError {
    if (saysOnlyClosed(error))
      return this.reason ?? new ClosedError(`${doing}: the channel is closed`, { cause: error });
    return errorFromAmqp(error, doing);
  }

  #expectReturn(messageId: string, exchange: string, routingKey: string): PendingReturn {
    const pending: PendingReturn = { exchange, routingKey };
    const same = this.#mandatory.get(messageId);
    if (same === undefined) this.#mandatory.set(messageId, [pending]);
    else same.push(pending);
    return pending;
  }

  #forgetReturn(messageId: string, pending: PendingReturn): void {
    const left = this.#mandatory.get(messageId)?.filter((each) => each !== pending) ?? [];
    if (left.length === 0) this.#mandatory.delete(messageId);
    else this.#mandatory.set(messageId, left);
  }

  /** The broker sends a return before the confirm of the same message. What was published through `raw` is not ours. */
  #returned({ fields, properties, content }: amqplib.Message): void {
    const { exchange, routingKey, replyCode, replyText } = fields as amqplib.MessageFields & Record<string, unknown>;
    const pending = this.#mandatory
      .get(String(properties.messageId))
      ?.find((each) => each.returned === undefined && each.exchange === exchange && each.routingKey === routingKey);
    if (pending === undefined) return;
    pending.returned = new MessageReturned(
      `no queue took the message for exchange '${exchange}' with routing key '${routingKey}': ${String(replyText)}`,
      {
        details: {
          replyCode,
          replyText,
          exchange,
          routingKey,
          messageId: properties.messageId,
          headers: fromTable(properties.headers),
          body: Buffer.from(content),
        },
      },
    );
  }
}

/** What amqplib makes of options that are no properties by themselves. */
function asProperties(options: amqplib.Options.Publish): amqplib.Options.Publish {
  const { persistent, CC, BCC, expiration } = options;
  if (persistent === undefined && CC === undefined && BCC === undefined && typeof expiration !== 'number')
    return options;
  const keys = (given: string | string[]): string[] => (Array.isArray(given) ? given : [given]).map(String);
  return {
    ...options,
    ...(persistent !== undefined && { deliveryMode: persistent ? 2 : 1 }),
    ...(expiration !== undefined && { expiration: String(expiration) }),
    headers: {
      ...options.headers,
      ...(CC !== undefined && { CC: keys(CC) }),
      ...(BCC !== undefined && { BCC: keys(BCC) }),
    },
  };
}
