/**
 * What a transport is: it connects, and it feeds a sharded consumer. It knows nothing of threads.
 *
 * A connection speaks amqplib's interface, whatever the broker behind it: channels, declarations, publishes, confirms and
 * their errors (an Error whose `code` is the reply code) look the same to `entities/`, `producer.ts` and `consumer.ts`. Where a
 * sharded consumer gets its messages from is a `Source`: it writes frames into the arena and is told the verdicts.
 */
import type * as amqplib from 'amqplib';
import type { KombuError } from '../../errors.js';
import type { Arena } from '../../pool/arena.js';
import type { Memory } from '../../pool/memory.js';
import type { Queue } from '../entities/queue.js';
import type { Dispatcher, Outcome } from '../runtime/dispatcher.js';
import type { ConnectionParameters } from '../url.js';

export interface OpenOptions {
  /** Gives the attempt up; it rejects with the signal's reason. Has no effect on an open connection. */
  readonly signal?: AbortSignal;
  /** Shown by the broker's management as the connection's name. */
  readonly clientName?: string;
}

export type OnSettled = (error: unknown) => void;

/** What is to be published. */
export interface Outgoing {
  readonly exchange: string;
  readonly routingKey: string;
  readonly body: Buffer;
  readonly properties: amqplib.Options.Publish;
}

/**
 * Publishes in confirm mode. Returns false while more is buffered than the stream likes: the channel emits 'drain' when there is
 * room again. Throws what cannot be encoded.
 */
export type Publish = (message: Outgoing, onSettled: OnSettled) => boolean;

/** An open connection. `ended` and `reason` tell of its end; nothing is thrown at anybody. */
export interface BrokerConnection {
  readonly model: amqplib.ChannelModel;
  /** Of the host that answered. */
  readonly parameters: ConnectionParameters;
  readonly open: boolean;
  /** Resolves, never rejects, once the connection is gone: with the reason, or undefined if we closed it. */
  readonly ended: Promise<KombuError | undefined>;
  /** Why it was lost; undefined while it is open, and after our own `close()`. */
  readonly reason: KombuError | undefined;
  /** How publishes are written on a channel of this connection; asked once a channel. */
  publisherOf(channel: amqplib.ConfirmChannel): Publish;
  /** Seconds between heartbeats, as agreed with the broker; 0 or absent: there are none. */
  readonly heartbeat?: number;
  /** Says goodbye and waits for the answer, at most so long. Never rejects. */
  close(milliseconds?: number): Promise<void>;
  /** Cuts it without a goodbye. */
  destroy(): void;
}

/** Where a source puts what it receives, and what it asks and tells the runtime. */
export interface DeliverySink {
  readonly memory: Memory;
  readonly arena: Arena;
  readonly dispatcher: Dispatcher;
  /** Deliveries must not overtake each other: what is not settled goes back only with its channel. */
  readonly ordered: boolean;
  /** Bytes of the largest body. */
  readonly maxMessageBytes: number;
  /** What to do with a body over `maxMessageBytes`; undefined: hand it to main for the dead letters. */
  readonly oversize: Outcome | undefined;
  /** A slot holds a body over the limit, for the dead letters. */
  readonly onTooLarge: (index: number, bodySize: number) => void;
  /** A body that does not fit in the arena at all, or is settled by `oversize`. */
  readonly onSwallowed: (bodySize: number, settled: boolean) => void;
  /** After each batch of deliveries: settlements may be waiting. */
  readonly onRead: () => void;
}

export interface SourceOptions {
  readonly parameters: ConnectionParameters;
  readonly queues: readonly Queue[];
  /** Unsettled deliveries that the broker may have with us, of each queue. */
  readonly prefetchCount: number;
  readonly autoDeclare: boolean;
  readonly consumerArguments: Readonly<Record<string, unknown>>;
  readonly sink: DeliverySink;
}

export interface SourceEvents {
  /** Deliveries with these consumer tags are about to come. */
  queues(byConsumerTag: Readonly<Record<string, string>>): void;
  generationEnded(): void;
  disconnected(error: KombuError): void;
  reconnected(attempts: number): void;
  error(error: Error): void;
}

/** Consumes for as long as the consumer lives: what is lost after `start` is mended by itself. */
export interface Source {
  /** Deliveries the broker counts as ours. */
  readonly outstanding: number;
  /** Connects and consumes. Rejects if that fails the first time. */
  start(): Promise<void>;
  /** `entry` is what came with the delivery. Told to the broker by the next `flush`, or soon after. */
  settle(entry: number, outcome: Outcome): void;
  flush(): void;
  /** True if deliveries are to be given back whose bodies are not kept: shed, or too large and here since before this time. */
  holdsUnkept(before: number): boolean;
  /** Deliveries whose bodies are not kept, and that came before this time (microseconds), go back to their queue. */
  giveBackUnkept(before: number): void;
  /** No more deliveries once this has resolved. What is with us stays ours to settle. */
  cancel(deadline: number): Promise<void>;
  /** After `cancel`: closes the channel, the broker puts what is unsettled back where it was. Never rejects. */
  release(deadline: number): Promise<void>;
  /** After `cancel`: consumes again; resolves when it does, or when it is closed. */
  resume(): Promise<void>;
  /** Writes what is settled, ends the generation and closes; the broker gets the rest back. Never rejects. */
  close(deadline: number): Promise<void>;
}

export interface Transport {
  /** Queues can keep messages back for a time, and pass on what was rejected: else a retry waits here, and `deadLetter: 'broker'` is refused. */
  readonly hasPolicies: boolean;
  /** Connects to the one host that the parameters name. */
  open(parameters: ConnectionParameters, options: OpenOptions): Promise<BrokerConnection>;
  source(options: SourceOptions, events: SourceEvents): Source;
}
