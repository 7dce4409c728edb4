/** What queues and their methods take. */
import type { Message } from '../../message.js';
import { kinds, type OptionTable } from '../../options.js';
import type { CallOptions } from './channel.js';
import { DEFAULT_ACCEPT } from './delivery.js';
import { Binding } from './exchange.js';
import { CALL_OPTIONS, functionKind, type Target, targetKind } from './target.js';

/** Called after each declaration with the queue's real name and what waits there. */
export type OnDeclared = (name: string, messages: number, consumers: number) => void;

export interface QueueOptions {
  readonly routingKey?: string;
  readonly channel?: Target;
  readonly bindings?: readonly Binding[];
  readonly durable?: boolean;
  readonly exclusive?: boolean;
  readonly autoDelete?: boolean;
  readonly passive?: boolean;
  readonly noAck?: boolean;
  readonly noDeclare?: boolean;
  readonly alias?: string;
  readonly expires?: number;
  readonly messageTtl?: number;
  readonly maxLength?: number;
  readonly maxLengthBytes?: number;
  readonly maxPriority?: number;
  readonly queueArguments?: Record<string, unknown>;
  readonly bindingArguments?: Record<string, unknown>;
  readonly consumerArguments?: Record<string, unknown>;
  readonly onDeclared?: OnDeclared;
}

export const BINDINGS = kinds.custom<readonly Binding[]>(
  'a list of bindings',
  (value) => Array.isArray(value) && value.every((each) => each instanceof Binding),
);
export const COUNT = kinds.integer(0, Number.MAX_SAFE_INTEGER);

export const QUEUE_OPTIONS: OptionTable<QueueOptions> = {
  routingKey: { kind: kinds.shortString, default: '', doc: 'Binds the queue to its exchange.' },
  channel: { kind: targetKind, doc: 'Binds the entity to a connection or channel.' },
  bindings: { kind: BINDINGS, default: [], doc: 'Bindings to several exchanges; then `exchange` is not used.' },
  durable: { kind: kinds.boolean, default: true, doc: "Outlives the broker's restart." },
  exclusive: { kind: kinds.boolean, default: false, doc: 'For the declaring connection alone; implies `autoDelete`.' },
  autoDelete: { kind: kinds.boolean, default: false, doc: 'Goes when its last consumer does.' },
  passive: { kind: kinds.boolean, default: false, doc: 'Declaring only checks that it is there, and binds nothing.' },
  noAck: { kind: kinds.boolean, default: false, doc: 'Its messages need no ack, unless a consumer says otherwise.' },
  noDeclare: { kind: kinds.boolean, default: false, doc: 'Declaring does nothing.' },
  alias: { kind: kinds.string, doc: 'A name for programs; the broker does not see it.' },
  expires: { kind: kinds.lifetime, doc: 'Unused for so long, the queue is deleted (ms).' },
  messageTtl: { kind: kinds.lifetime, doc: 'Messages older than this are dropped (ms).' },
  maxLength: { kind: COUNT, doc: 'The most messages.' },
  maxLengthBytes: { kind: COUNT, doc: 'The most bytes of bodies.' },
  maxPriority: { kind: kinds.integer(0, 255), doc: 'Makes it a priority queue.' },
  queueArguments: {
    kind: kinds.object,
    doc: "More arguments, such as { 'x-queue-type': 'quorum' }; the options above win.",
  },
  bindingArguments: { kind: kinds.object, doc: 'Of the binding to `exchange`.' },
  consumerArguments: { kind: kinds.object, doc: "Of its consumers, such as { 'x-priority': 5 }." },
  onDeclared: { kind: functionKind(), doc: 'Called with (name, messages, consumers) once it is declared.' },
};

export interface GetOptions extends CallOptions {
  readonly noAck?: boolean;
  readonly accept?: readonly string[];
}

const DELIVERY_OPTIONS: OptionTable<Omit<GetOptions, keyof CallOptions>> = {
  noAck: { kind: kinds.boolean, defaultWords: 'as the queue', doc: 'Its messages need no ack.' },
  accept: { kind: kinds.strings, default: DEFAULT_ACCEPT, doc: 'Content types or aliases that may be decoded.' },
};

export const GET_OPTIONS: OptionTable<GetOptions> = { ...DELIVERY_OPTIONS, ...CALL_OPTIONS };

export interface QueueDeleteOptions extends CallOptions {
  readonly ifUnused?: boolean;
  readonly ifEmpty?: boolean;
}

export const DELETE_OPTIONS: OptionTable<QueueDeleteOptions> = {
  ifUnused: { kind: kinds.boolean, default: false, doc: 'Only if it has no consumers.' },
  ifEmpty: { kind: kinds.boolean, default: false, doc: 'Only if it has no messages.' },
  ...CALL_OPTIONS,
};

export interface UnbindOptions extends CallOptions {
  readonly arguments?: Record<string, unknown>;
}

export const UNBIND_OPTIONS: OptionTable<UnbindOptions> = {
  arguments: { kind: kinds.object, defaultWords: '`bindingArguments`', doc: 'Of the binding that is undone.' },
  ...CALL_OPTIONS,
};

export interface QueueConsumeOptions extends GetOptions {
  readonly callback: (message: Message) => unknown;
  readonly consumerTag?: string;
  readonly onCancel?: (consumerTag: string) => void;
}

export const CONSUME_OPTIONS: OptionTable<QueueConsumeOptions> = {
  callback: { kind: functionKind(), required: true, doc: 'Called with each message.' },
  consumerTag: { kind: kinds.shortString, default: '', doc: "A name for the consumer; the broker's without one." },
  onCancel: {
    kind: functionKind(),
    defaultWords: 'a warning of the process',
    doc: 'Called with the tag when it ends without `cancel`: the queue was deleted, or the channel lost.',
  },
  ...DELIVERY_OPTIONS,
  ...CALL_OPTIONS,
};

/** What a declaration is answered with. */
export interface QueueFacts {
  /** The real one, also of a queue without a name. */
  readonly name: string;
  /** That are ready to be delivered. */
  readonly messages: number;
  readonly consumers: number;
}
