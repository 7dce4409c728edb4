/** What mailboxes and their commands can be told. */
import { kinds, type OptionTable } from '../../options.js';
import { functionKind, type Target, targetKind } from '../entities/target.js';
import { LamportClock } from './clocks.js';
import type { Publisher } from './reply.js';

/** The part of a pool of producers that a mailbox needs. */
export interface PublisherLender {
  acquire(options: { block: true; signal?: AbortSignal }): Promise<Publisher & { release(): unknown }>;
}

export interface MailboxOptions {
  readonly type?: 'direct' | 'fanout';
  readonly connection?: Target;
  readonly clock?: LamportClock;
  readonly accept?: readonly string[];
  readonly serializer?: string;
  readonly producerPool?: PublisherLender;
  readonly queueTtl?: number;
  readonly queueExpires?: number;
  readonly queueDurable?: boolean;
  readonly queueExclusive?: boolean;
  readonly replyQueueTtl?: number;
  readonly replyQueueExpires?: number;
}

export const MAILBOX_OPTIONS: OptionTable<MailboxOptions> = {
  type: { kind: kinds.oneOf('direct', 'fanout'), default: 'direct', doc: 'Type of the exchange that requests go to.' },
  connection: { kind: targetKind, doc: 'What it talks through.' },
  clock: {
    kind: kinds.custom<LamportClock>('a LamportClock', (value) => value instanceof LamportClock),
    defaultWords: 'one of its own',
    doc: 'Goes out with every request and reply.',
  },
  accept: { kind: kinds.strings, default: ['json'], doc: 'Content types or aliases that may be decoded.' },
  serializer: { kind: kinds.name, defaultWords: 'json', doc: 'Name.' },
  producerPool: {
    kind: kinds.custom<PublisherLender>(
      'a pool of producers',
      (value) => typeof (value as Partial<PublisherLender> | null)?.acquire === 'function',
    ),
    defaultWords: 'a producer of its own',
    doc: 'Where the producer of each request and reply is borrowed.',
  },
  queueTtl: { kind: kinds.lifetime, doc: 'Requests that a node has not taken for so long are dropped (ms).' },
  queueExpires: { kind: kinds.lifetime, doc: 'A node’s queue that is unused for so long is deleted (ms).' },
  queueDurable: { kind: kinds.boolean, default: false, doc: 'Queues outlive the broker’s restart; not with the next.' },
  queueExclusive: {
    kind: kinds.boolean,
    defaultWords: 'true, unless `queueDurable`',
    doc: 'Queues are for one connection alone, so that a second node of the same name is refused.',
  },
  replyQueueTtl: { kind: kinds.lifetime, doc: 'Replies that are not taken for so long are dropped (ms).' },
  replyQueueExpires: {
    kind: kinds.lifetime,
    default: 10_000,
    doc: 'The queue for replies, unused for so long, is deleted (ms).',
  },
};

export interface CastOptions {
  readonly pattern?: string;
  readonly matcher?: string;
  readonly serializer?: string;
  readonly timeout?: number;
  readonly signal?: AbortSignal;
}

export const CAST_OPTIONS: OptionTable<CastOptions> = {
  pattern: { kind: kinds.name, doc: 'Only nodes whose name matches, as `matcher` says.' },
  matcher: {
    kind: kinds.name,
    doc: "'glob', 'pcre' (a regular expression, which nodes run), or one that was registered with every node.",
  },
  serializer: { kind: kinds.name, defaultWords: "the mailbox's", doc: 'Name.' },
  timeout: {
    kind: kinds.milliseconds,
    defaultWords: 'it does not',
    doc: 'When the request expires, by its header (ms). Nodes of this library and of kombu take no notice.',
  },
  signal: { kind: kinds.signal, doc: 'Stops waiting; rejects with its reason.' },
};

export interface CallRequestOptions extends CastOptions {
  readonly limit?: number;
  readonly callback?: (reply: Record<string, unknown>) => void;
}

export const CALL_OPTIONS: OptionTable<CallRequestOptions> = {
  ...CAST_OPTIONS,
  timeout: { kind: kinds.milliseconds, defaultWords: '1 s; of `call()` 10 s', doc: 'For all replies together (ms).' },
  limit: {
    kind: kinds.integer(0, Number.MAX_SAFE_INTEGER),
    defaultWords: 'as many as there are destinations; else none',
    doc: 'So many replies are enough; 0: no limit.',
  },
  callback: { kind: functionKind(), doc: 'Called with each reply as it comes.' },
};

/** A request before it is on its way. */
export interface BroadcastRequest extends CallRequestOptions {
  readonly destination?: readonly string[];
}
