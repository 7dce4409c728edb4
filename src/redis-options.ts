/** `transportOptions` of Redis: kombu's names in camelCase, durations in ms. */
import { kinds, type OptionTable, readOptions } from './options.js';

export interface RedisTransportOptions {
  readonly visibilityTimeout?: number;
  readonly unackedRestoreInterval?: number;
  readonly unackedRestoreLimit?: number;
  readonly unackedKey?: string;
  readonly unackedIndexKey?: string;
  readonly globalKeyprefix?: string;
  readonly sep?: string;
  readonly prioritySteps?: readonly number[];
  readonly priorityOrder?: 'lowestFirst' | 'highestFirst';
  readonly queueOrderStrategy?: 'round_robin' | 'priority' | 'sorted';
  readonly fanoutPrefix?: boolean | string;
  readonly fanoutPatterns?: boolean;
  readonly bodyEncoding?: 'base64' | 'utf-8';
  readonly deadletterQueue?: string;
  readonly masterName?: string;
  readonly minOtherSentinels?: number;
  readonly sentinelKwargs?: { readonly username?: string; readonly password?: string };
  readonly clientName?: string;
}

const steps = kinds.custom<readonly number[]>(
  'a list of whole numbers from 0 to 9 that rises and begins with 0',
  (value) =>
    Array.isArray(value) &&
    value[0] === 0 &&
    value.every((step, i) => Number.isInteger(step) && step <= 9 && (i === 0 || step > value[i - 1])),
);

const prefix = kinds.custom<boolean | string>(
  'true, false, or a string',
  (value) => typeof value === 'boolean' || typeof value === 'string',
);

/** What the server takes for one: it refuses others, and the client would be nameless. */
const clientName = kinds.custom<string>(
  'a text of visible ASCII characters without spaces',
  (value) => typeof value === 'string' && /^[!-~]+$/.test(value),
);

export const REDIS_TRANSPORT_OPTIONS: OptionTable<RedisTransportOptions> = {
  visibilityTimeout: {
    kind: kinds.duration,
    default: 3_600_000,
    doc: 'A delivery whose lease was not renewed for so long goes to another consumer (ms). Ours are renewed while they run.',
  },
  unackedRestoreInterval: {
    kind: kinds.duration,
    default: 10_000,
    doc: 'How often to look for deliveries of dead consumers (ms), at least four times in a visibilityTimeout.',
  },
  unackedRestoreLimit: { kind: kinds.integer(1, 10_000), default: 100, doc: 'How many of them to restore at a time.' },
  unackedKey: { kind: kinds.name, default: 'unacked', doc: 'The hash of what is delivered and not settled.' },
  unackedIndexKey: { kind: kinds.name, default: 'unacked_index', doc: 'The sorted set of when it was.' },
  globalKeyprefix: { kind: kinds.string, default: '', doc: 'Before every key and channel.' },
  sep: { kind: kinds.name, default: '\x06\x16', doc: 'Between the parts of a key or a binding.' },
  prioritySteps: { kind: steps, default: [0, 3, 6, 9], doc: 'Priorities that have a list of their own.' },
  priorityOrder: {
    kind: kinds.oneOf('lowestFirst', 'highestFirst'),
    default: 'lowestFirst',
    doc: "Which priority is taken first. kombu's consumers take the lowest.",
  },
  queueOrderStrategy: {
    kind: kinds.oneOf('round_robin', 'priority', 'sorted'),
    default: 'round_robin',
    doc: 'Which queue comes first: in turn, as they were given, or by name.',
  },
  fanoutPrefix: { kind: prefix, default: true, doc: "Before the channels of fanout exchanges: true for '/<db>.'." },
  fanoutPatterns: { kind: kinds.boolean, default: true, doc: 'Routing keys are a part of those channels.' },
  bodyEncoding: {
    kind: kinds.oneOf('base64', 'utf-8'),
    default: 'base64',
    doc: 'How bodies stand in the envelope. Consumers read both.',
  },
  deadletterQueue: { kind: kinds.name, doc: 'Where a direct exchange puts what no queue is bound for.' },
  masterName: { kind: kinds.name, doc: "Sentinel's name of the primary; required with sentinel://." },
  minOtherSentinels: {
    kind: kinds.integer(0, 1000),
    default: 0,
    doc: 'A sentinel is believed only if it knows so many others.',
  },
  sentinelKwargs: {
    kind: kinds.object,
    doc: "`username` and `password` of the sentinels, if they aren't the server's.",
  },
  clientName: { kind: clientName, doc: 'Shown by CLIENT LIST.' },
};

/** What is left out has its default. */
export type RedisOptions = RedisTransportOptions &
  Required<Omit<RedisTransportOptions, 'deadletterQueue' | 'masterName' | 'sentinelKwargs' | 'clientName'>>;

/** Throws `OptionError`. */
export function redisTransportOptions(given: Readonly<Record<string, unknown>>): RedisOptions {
  return readOptions<RedisTransportOptions>('transportOptions', REDIS_TRANSPORT_OPTIONS, given) as RedisOptions;
}
