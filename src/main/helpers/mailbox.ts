/**
 * Remote control: commands to the nodes of a namespace, and their answers. On the wire it is kombu's pidbox, so that either side
 * may be Python's.
 */
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { NotBoundError, OptionError } from '../../errors.js';
import { kinds, readOptions } from '../../options.js';
import type { PublishOptions } from '../../pool/publication.js';
import { Exchange } from '../entities/exchange.js';
import { Queue } from '../entities/queue.js';
import type { Target } from '../entities/target.js';
import { Producer } from '../producer.js';
import { LamportClock } from './clocks.js';
import {
  type BroadcastRequest,
  CALL_OPTIONS,
  CAST_OPTIONS,
  type CallRequestOptions,
  type CastOptions,
  MAILBOX_OPTIONS,
  type MailboxOptions,
  type PublisherLender,
} from './mailbox-options.js';
import { Node, type NodeOptions } from './node.js';
import { oidFrom } from './oid.js';
import type { Publisher } from './reply.js';
import { ReplyInbox } from './reply-inbox.js';

/** Where a reply is to go, as it is in a request. */
export interface ReplyAddress {
  readonly exchange: string;
  readonly routing_key: string;
}

export class Mailbox {
  readonly namespace: string;
  /** 'direct' or 'fanout'; of the exchange that requests go to. */
  readonly type: string;
  readonly connection: Target | undefined;
  readonly clock: LamportClock;
  readonly accept: readonly string[];
  readonly serializer: string | undefined;
  readonly exchange: Exchange;
  readonly replyExchange: Exchange;
  /** Names this mailbox among all that wait for replies. */
  readonly oid: string = oidFrom(this);
  readonly #options: MailboxOptions;
  #inbox: ReplyInbox | undefined;
  #producer: Producer | undefined;

  /** Does no I/O. Throws `OptionError`. */
  constructor(namespace: string, options: MailboxOptions = {}) {
    if (!kinds.name.test(namespace)) {
      throw new OptionError('Mailbox: the namespace must be a string that is not empty');
    }
    const given = readOptions('Mailbox', MAILBOX_OPTIONS, options);
    if (given.queueExclusive && given.queueDurable) {
      throw new OptionError('Mailbox: queueExclusive and queueDurable exclude each other');
    }
    this.namespace = namespace;
    this.type = given.type!;
    this.connection = given.connection;
    this.clock = given.clock ?? new LamportClock();
    this.accept = given.accept!;
    this.serializer = given.serializer;
    const kind = { durable: false, deliveryMode: 'transient' } as const;
    this.exchange = new Exchange(`${namespace}.pidbox`, { type: this.type, ...kind });
    this.replyExchange = new Exchange(`reply.${namespace}.pidbox`, { type: 'direct', ...kind });
    const queueExclusive = given.queueExclusive ?? !given.queueDurable;
    this.#options = { ...given, queueExclusive, clock: this.clock };
  }

  /** A copy that talks through `connection`, with the same clock. */
  bind(connection: Target): Mailbox {
    return new Mailbox(this.namespace, { ...this.#options, connection });
  }

  /** A node of this mailbox: it listens for commands. `name`: by default this machine's. */
  Node<State = unknown>(name: string = hostname(), options: NodeOptions<State> = {}): Node<State> {
    return new Node<State>(this, name, options);
  }

  /** How many replies came that nobody waited for any more. */
  get unclaimed(): number {
    return this.#inbox?.unclaimed ?? 0;
  }

  /**
   * Tells the nodes named in `destination` to do `command`, and waits for their replies, one each: `{ [node]: its answer }`. After
   * `timeout` (10 s) it resolves with those that came. Throws `OptionError`, what connecting, declaring and publishing throw,
   * `ContentDisallowed` or `DecodeError` for a reply that cannot be read, and the signal's reason.
   */
  async call(
    destination: readonly string[],
    command: string,
    args: Record<string, unknown> = {},
    options: CallRequestOptions = {},
  ): Promise<Record<string, unknown>[]> {
    const given = readOptions('Mailbox.call', CALL_OPTIONS, options);
    return this.#ask(command, args, { timeout: 10_000, ...given, destination: destinations(destination) });
  }

  /** Tells the nodes named in `destination` to do `command`. Resolves when the broker has confirmed the request. */
  async cast(
    destination: readonly string[],
    command: string,
    args: Record<string, unknown> = {},
    options: CastOptions = {},
  ): Promise<void> {
    const given = readOptions('Mailbox.cast', CAST_OPTIONS, options);
    await this.#publish(command, args, { ...given, destination: destinations(destination) });
  }

  /** Tells all nodes, or those whose name matches `pattern`. */
  async abcast(command: string, args: Record<string, unknown> = {}, options: CastOptions = {}): Promise<void> {
    await this.#publish(command, args, readOptions('Mailbox.abcast', CAST_OPTIONS, options));
  }

  /**
   * Tells all nodes, or those whose name matches `pattern`, and resolves with the replies: with `limit` of them, or those that came
   * within `timeout` (1 s).
   */
  async multiCall(
    command: string,
    args: Record<string, unknown> = {},
    options: CallRequestOptions = {},
  ): Promise<Record<string, unknown>[]> {
    return this.#ask(command, args, { timeout: 1000, ...readOptions('Mailbox.multiCall', CALL_OPTIONS, options) });
  }

  /** The queue that requests to a node wait in. */
  getQueue(node: string): Queue {
    const { queueTtl, queueExpires } = this.#options;
    return this.#queue(`${node}.${this.namespace}.pidbox`, this.exchange, '', queueTtl, queueExpires);
  }

  /** The queue that replies to this mailbox wait in. */
  get replyQueue(): Queue {
    const { replyQueueTtl, replyQueueExpires } = this.#options;
    const name = `${this.oid}.${this.replyExchange.name}`;
    return this.#queue(name, this.replyExchange, this.oid, replyQueueTtl, replyQueueExpires);
  }

  /** Gives up what waits for replies, and closes its channels. */
  async close(): Promise<void> {
    await this.#inbox?.close();
    await this.#producer?.close();
    this.#producer = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** @internal Sends a node's answer. To a queue that is gone it goes without a word, since nobody waits. */
  async publishReply(reply: unknown, to: ReplyAddress, ticket: unknown, through: Target | undefined): Promise<void> {
    const exchange = new Exchange(to.exchange, { type: 'direct', durable: false, deliveryMode: 'transient' });
    await this.#send(through, reply, {
      exchange,
      routingKey: to.routing_key,
      declare: [exchange],
      headers: { ticket, clock: this.clock.forward() },
    });
  }

  #queue(name: string, exchange: Exchange, routingKey: string, messageTtl?: number, expires?: number): Queue {
    const { queueDurable: durable, queueExclusive: exclusive } = this.#options;
    return new Queue(name, exchange, {
      routingKey,
      durable: durable!,
      exclusive: exclusive!,
      autoDelete: !durable,
      ...(messageTtl === undefined ? {} : { messageTtl }),
      ...(expires === undefined ? {} : { expires }),
    });
  }

  #bound(): Target {
    if (this.connection === undefined) {
      throw new NotBoundError(
        `mailbox '${this.namespace}' is not bound: give it a connection, or bind() it to one first`,
      );
    }
    return this.connection;
  }

  async #ask(
    command: string,
    args: Record<string, unknown>,
    request: BroadcastRequest & { readonly timeout: number },
  ): Promise<Record<string, unknown>[]> {
    const { destination, limit = destination?.length, callback, timeout, signal } = request;
    this.#inbox ??= new ReplyInbox(this, this.#bound());
    const ticket = randomUUID();
    const waiting = this.#inbox.expect(ticket, {
      ...(limit ? { limit } : {}),
      ...(callback === undefined ? {} : { callback }),
      ...(signal === undefined ? {} : { signal }),
    });
    try {
      await waiting.ready;
      await this.#publish(command, args, request, ticket);
      return await waiting.replies(timeout);
    } finally {
      waiting.end();
    }
  }

  async #publish(
    method: string,
    args: Record<string, unknown>,
    { destination, pattern, matcher, serializer, timeout, signal }: BroadcastRequest,
    ticket?: string,
  ): Promise<void> {
    if (!kinds.name.test(method)) throw new OptionError('Mailbox: a command must be a string that is not empty');
    if (!kinds.object.test(args)) throw new OptionError('Mailbox: the arguments of a command must be an object');
    if ((pattern === undefined) !== (matcher === undefined)) {
      throw new OptionError('Mailbox: pattern and matcher go together');
    }
    const reply_to: ReplyAddress = { exchange: this.replyExchange.name, routing_key: this.oid };
    const request = {
      method,
      arguments: args,
      destination: destination ?? null,
      pattern: pattern ?? null,
      matcher: matcher ?? null,
      ...(ticket === undefined ? {} : { ticket, reply_to }),
    };
    const expires = timeout ? Date.now() / 1000 + timeout / 1000 : 0;
    await this.#send(this.#bound(), request, {
      exchange: this.exchange,
      routingKey: '',
      declare: [this.exchange],
      headers: { clock: this.clock.forward(), expires },
      ...(serializer === undefined ? {} : { serializer }),
      ...(signal === undefined ? {} : { signal }),
    });
  }

  async #send(through: Target | undefined, body: unknown, options: PublishOptions): Promise<void> {
    const serializer = this.serializer === undefined ? {} : { serializer: this.serializer };
    const publish = (publisher: Publisher) => publisher.publish(body, { ...serializer, retry: true, ...options });
    const pool: PublisherLender | undefined = this.#options.producerPool;
    if (pool !== undefined) {
      const publisher = await pool.acquire({ block: true, ...(options.signal && { signal: options.signal }) });
      try {
        await publish(publisher);
      } finally {
        await publisher.release();
      }
    } else if (through !== undefined && through !== this.connection) {
      // The node's own channel or connection.
      const producer = new Producer(through, { autoDeclare: false });
      try {
        await publish(producer);
      } finally {
        await producer.close();
      }
    } else {
      this.#producer ??= new Producer(this.#bound(), { autoDeclare: false });
      await publish(this.#producer);
    }
  }
}

/** To a node an empty list means everybody, as no list does; to whoever wrote it, hardly. */
function destinations(list: readonly string[]): readonly string[] {
  if (!kinds.strings.test(list) || list.length === 0) {
    throw new OptionError('Mailbox: the destination must be a list of names of nodes, at least one');
  }
  return list;
}
