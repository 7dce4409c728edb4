/** A node of a mailbox: does what it is told, and answers. */
import { EventEmitter } from 'node:events';
import { DecodeError, InconsistencyError, NotBoundError, OptionError, ResourceLocked } from '../../errors.js';
import type { Message } from '../../message.js';
import { kinds, type OptionTable, readOptions } from '../../options.js';
import type { Connection } from '../connection.js';
import { Consumer, type ConsumerOptions } from '../consumer.js';
import type { Channel } from '../entities/channel.js';
import { channelOf, functionKind, type Target, targetKind, targetOf } from '../entities/target.js';
import type { Mailbox, ReplyAddress } from './mailbox.js';
import { match } from './matcher.js';
import { ConsumerMixin } from './mixins.js';

/** What it returns, or its promise resolves with, is the answer. It is waited for; other commands do not wait. */
export type NodeHandler<State = unknown> = (state: State, args: Record<string, unknown>) => unknown;

export interface NodeOptions<State = unknown> {
  readonly state?: State;
  readonly channel?: Target;
  readonly handlers?: Record<string, NodeHandler<State>>;
}

export const NODE_OPTIONS: OptionTable<NodeOptions> = {
  state: { kind: kinds.custom('anything', () => true), doc: 'The first argument of every handler.' },
  channel: { kind: targetKind, defaultWords: "the mailbox's connection", doc: 'What it listens and answers through.' },
  handlers: {
    kind: kinds.custom<Record<string, NodeHandler>>(
      'an object of functions',
      (value) => kinds.object.test(value) && Object.values(value).every((each) => typeof each === 'function'),
    ),
    default: {},
    doc: 'By the name of the command.',
  },
};

export interface DispatchOptions {
  readonly replyTo?: ReplyAddress;
  readonly ticket?: unknown;
}

const addressKind = kinds.custom<ReplyAddress>('{ exchange, routing_key }', isAddress);

const DISPATCH_OPTIONS: OptionTable<DispatchOptions> = {
  replyTo: { kind: addressKind, doc: 'Where the answer goes; without it nobody asked for one.' },
  ticket: { kind: kinds.custom('anything', () => true), doc: 'Goes with the answer.' },
};

export interface ListenOptions {
  readonly channel?: Target;
  readonly callback?: (body: unknown, message: Message) => unknown;
  readonly signal?: AbortSignal;
}

export const LISTEN_OPTIONS: OptionTable<ListenOptions> = {
  channel: { kind: targetKind, defaultWords: "the node's", doc: 'What it listens through.' },
  callback: { kind: functionKind(), defaultWords: '`handleMessage`', doc: 'Called with (body, message).' },
  signal: { kind: kinds.signal, doc: 'Stops waiting for the broker; rejects with its reason.' },
};

export interface NodeRunOptions {
  readonly signal?: AbortSignal;
}

const RUN_OPTIONS: OptionTable<NodeRunOptions> = {
  signal: { kind: kinds.signal, doc: 'Ends it; the promise resolves when all is closed.' },
};

/** Keeps a node listening. */
class Listener extends ConsumerMixin {
  readonly #consumer: (channel: Channel) => Consumer;

  constructor(
    readonly connection: Connection,
    consumer: (channel: Channel) => Consumer,
    tell: (error: unknown) => void,
  ) {
    super();
    this.#consumer = consumer;
    this.logger = {
      info: () => undefined,
      warn: (_, error) => tell(error),
      error: (_, error) => tell(error),
    };
  }

  override getConsumers(_: unknown, channel: Channel): Consumer[] {
    return [this.#consumer(channel)];
  }
}

export interface NodeEvents {
  /**
   * What a handler threw, with its command; a request that is none or cannot be read; an answer that could not be sent; why `run()`
   * had to begin anew. Without a listener it is a warning of the process.
   */
  error: [error: unknown, method: string | undefined];
}

/** A request as it is on the wire. */
interface Request {
  readonly method: string;
  readonly arguments?: Record<string, unknown> | null;
  readonly destination?: readonly string[] | null;
  readonly pattern?: string | null;
  readonly matcher?: string | null;
  readonly reply_to?: ReplyAddress | null;
  readonly ticket?: unknown;
}

export class Node<State = unknown> extends EventEmitter<NodeEvents> {
  readonly mailbox: Mailbox;
  readonly hostname: string;
  /** What handlers are given. */
  state: State;
  readonly handlers = new Map<string, NodeHandler<State>>();
  readonly #channel: Target | undefined;

  /** `mailbox.Node(…)` makes one. Throws `OptionError`. */
  constructor(mailbox: Mailbox, hostname: string, options: NodeOptions<State> = {}) {
    super();
    if (!kinds.name.test(hostname)) throw new OptionError('Node: the name must be a string that is not empty');
    const given = readOptions('Node', NODE_OPTIONS as OptionTable<NodeOptions<State>>, options);
    this.mailbox = mailbox;
    this.hostname = hostname;
    this.state = given.state as State;
    this.#channel = given.channel;
    for (const [name, fun] of Object.entries(given.handlers!)) this.handlers.set(name, fun);
  }

  /** Adds a handler under its own name, or under `name`; returns it. Throws `OptionError`. */
  handler<Handler extends NodeHandler<State>>(fun: Handler): Handler;
  handler<Handler extends NodeHandler<State>>(name: string, fun: Handler): Handler;
  handler<Handler extends NodeHandler<State>>(first: string | Handler, second?: Handler): Handler {
    const [name, fun] = typeof first === 'string' ? [first, second] : [first?.name, first];
    if (typeof fun !== 'function' || !name) throw new OptionError('Node.handler: expected a function that has a name');
    this.handlers.set(name, fun);
    return fun;
  }

  /** A consumer of this node's queue, not started; what is not given in `options` is as `listen()` has it. */
  Consumer(options: ConsumerOptions = {}, channel: Target | undefined = undefined): Consumer {
    const through = channel ?? this.#channel ?? this.mailbox.connection;
    if (through === undefined)
      throw new NotBoundError(`node '${this.hostname}' is not bound: its mailbox has no connection`);
    return new Consumer(through, this.mailbox.getQueue(this.hostname), {
      noAck: true,
      accept: this.mailbox.accept,
      ...(options.onMessage === undefined ? { callbacks: [(body, message) => this.#received(body, message)] } : {}),
      onDecodeError: (message, error) => this.onDecodeError(message, error),
      ...options,
    });
  }

  /**
   * Starts listening; resolves with the consumer, which is to be closed at the end. It does not come back after the connection was
   * lost: `run()` does, or a `ConsumerMixin` that starts `node.Consumer({}, channel)`. Throws `InconsistencyError` if a node of this name
   * listens already (without `queueExclusive` of the mailbox that is only a warning of the process), and what declaring and
   * connecting throw.
   */
  async listen(options: ListenOptions = {}): Promise<Consumer> {
    const { channel, callback, signal } = readOptions('Node.listen', LISTEN_OPTIONS, options);
    const consumer = this.Consumer(callback === undefined ? {} : { callbacks: [callback] }, channel);
    // What is thrown here need not be told there too.
    const thrown = (): void => undefined;
    consumer.on('error', thrown);
    try {
      await this.#warnIfShared(channel);
      await consumer.consume(signal === undefined ? {} : { signal });
      consumer.off('error', thrown);
    } catch (error) {
      await consumer.close();
      if (!(error instanceof ResourceLocked)) throw error;
      throw new InconsistencyError(`a node named '${this.hostname}' uses this mailbox already`, { cause: error });
    }
    return consumer;
  }

  /**
   * Listens until `signal` aborts, as a `ConsumerMixin` does: on a connection of its own with the parameters of the node's, and on
   * another one when that is lost, at most once a second; 'error' tells of it. Another node of this name is waited for, since it may
   * be this one's connection that the broker has not given up yet. Throws `OptionError` if the node was given a channel,
   * `NotBoundError`, and what is wrong for good, such as a refused login.
   */
  async run(options: NodeRunOptions = {}): Promise<void> {
    const { signal } = readOptions('Node.run', RUN_OPTIONS, options);
    const target = targetOf(this.#channel, this.mailbox.connection, `node '${this.hostname}'`);
    if (!('clone' in target)) throw new OptionError('Node.run: it needs a Connection: a channel lives once');
    const listener = new Listener(
      target as Connection,
      (channel) => this.Consumer({}, channel),
      (error) => this.#tell(error, undefined),
    );
    await listener.run(signal === undefined ? {} : { signal });
  }

  /** Called with a request that cannot be read. */
  onDecodeError(_message: Message, error: unknown): void {
    this.#tell(error, undefined);
  }

  /**
   * Does what a request says, if this node is meant: by its `destination`, else by `pattern` and `matcher`, else always. Resolves
   * with the answer, or undefined. Throws `DecodeError` for what is no request, and `MatcherNotInstalled`. A request's pattern for
   * the matcher 'pcre' may take for ever: `matcher.unregister('pcre')` where not all who may send requests are trusted.
   */
  async handleMessage(body: unknown, message?: Message): Promise<unknown> {
    const request = requestOf(body);
    this.mailbox.clock.adjustTo(message?.headers ?? {});
    const { method, destination, pattern, matcher, reply_to: replyTo, ticket } = request;
    if (destination?.length) {
      if (!destination.includes(this.hostname)) return undefined;
    } else if (pattern && matcher && !match(this.hostname, pattern, matcher)) return undefined;
    return this.dispatch(method, request.arguments ?? {}, { ...(replyTo && { replyTo }), ticket });
  }

  /**
   * Runs the handler of `method` and sends its answer to `replyTo`. Resolves with the answer; if the handler throws, or there is
   * none, it is `{ error: text }`, and the error is told by 'error' too. Throws what publishing throws.
   */
  async dispatch(method: string, args: Record<string, unknown> = {}, options: DispatchOptions = {}): Promise<unknown> {
    const { replyTo, ticket } = readOptions('Node.dispatch', DISPATCH_OPTIONS, options);
    let reply: unknown;
    try {
      reply = await (replyTo === undefined ? this.handleCast(method, args) : this.handleCall(method, args));
    } catch (error) {
      reply = { error: String(error) };
      this.#tell(error, method);
    }
    if (replyTo !== undefined) await this.reply({ [this.hostname]: reply ?? null }, replyTo, ticket);
    return reply;
  }

  /** Runs the handler. Throws what it throws, and `OptionError` if there is none. */
  async handle(method: string, args: Record<string, unknown> = {}): Promise<unknown> {
    const fun = this.handlers.get(method);
    if (fun === undefined) throw new OptionError(`node '${this.hostname}' has no handler for '${method}'`);
    return fun(this.state, args);
  }

  /** Handles a command that wants an answer; for subclasses. */
  handleCall(method: string, args: Record<string, unknown>): Promise<unknown> {
    return this.handle(method, args);
  }

  /** Handles a command that wants none; for subclasses. */
  handleCast(method: string, args: Record<string, unknown>): Promise<unknown> {
    return this.handle(method, args);
  }

  /** Sends an answer. */
  async reply(data: unknown, to: ReplyAddress, ticket?: unknown): Promise<void> {
    await this.mailbox.publishReply(data, to, ticket, this.#channel);
  }

  async #received(body: unknown, message: Message): Promise<void> {
    try {
      await this.handleMessage(body, message);
    } catch (error) {
      this.#tell(error, undefined);
    }
  }

  /** An exclusive queue is refused to the second one; others are shared without a word. */
  async #warnIfShared(given: Target | undefined): Promise<void> {
    const queue = this.mailbox.getQueue(this.hostname);
    if (queue.exclusive) return;
    const channel = await channelOf(
      targetOf(given ?? this.#channel, this.mailbox.connection, `node '${this.hostname}'`),
      `node '${this.hostname}'`,
      {},
    );
    await queue.declare(channel);
    const { consumerCount } = await channel.call(`counting ${queue}`, (raw) => raw.checkQueue(queue.name));
    if (consumerCount === 0) return;
    const text = `a node named '${this.hostname}' uses this mailbox already: each gets a part of the requests`;
    process.emitWarning(text, { type: 'MozukuWarning' });
  }

  #tell(error: unknown, method: string | undefined): void {
    if (this.listenerCount('error') > 0) {
      this.emit('error', error, method);
      return;
    }
    const what = method === undefined ? 'a request' : `command '${method}'`;
    process.emitWarning(`node '${this.hostname}', ${what}: ${String(error)}`, { type: 'MozukuWarning' });
  }
}

function isAddress(value: unknown): value is ReplyAddress {
  const { exchange, routing_key: key } = (value ?? {}) as Partial<ReplyAddress>;
  return kinds.shortString.test(exchange) && kinds.shortString.test(key);
}

/** Anybody may have sent it. */
function requestOf(body: unknown): Request {
  const parts = (kinds.object.test(body) ? body : {}) as unknown as Request;
  const text = (value: unknown) => value === null || value === undefined || typeof value === 'string';
  const checks: [what: string, fits: boolean][] = [
    ['method', kinds.name.test(parts.method)],
    ['arguments', !parts.arguments || kinds.object.test(parts.arguments)],
    ['destination', !parts.destination || kinds.strings.test(parts.destination)],
    ['pattern', text(parts.pattern)],
    ['matcher', text(parts.matcher)],
    ['reply_to', !parts.reply_to || isAddress(parts.reply_to)],
  ];
  const wrong = checks.find(([, fits]) => !fits);
  if (wrong !== undefined)
    throw new DecodeError(`this is no request to a mailbox: its ${wrong[0]} is not what it must be`);
  return parts;
}
