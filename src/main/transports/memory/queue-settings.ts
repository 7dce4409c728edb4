/** The arguments of a queue: what they mean, what RabbitMQ refuses, and whether a second declaration says the same. */
import { readField } from '../../../codec/amqp/amqplib-values.js';
import { fieldBytes } from '../../../codec/amqp/field-bytes.js';
import { INTEGERS, typeName } from './headers-match.js';
import { LONGEST_LIFE } from './message.js';
import { preconditionFailed, type Refusal } from './refusal.js';

export type Fields = ReadonlyMap<string, Buffer>;

export interface QueueSettings {
  readonly expires: number | undefined;
  readonly messageTtl: number | undefined;
  readonly maxLength: number;
  readonly maxLengthBytes: number;
  readonly overflow: 'drop-head' | 'reject-publish' | 'reject-publish-dlx';
  /** 0: all messages are equal. */
  readonly maxPriority: number;
  readonly deadLetterExchange: string | undefined;
  readonly deadLetterRoutingKey: string | undefined;
  readonly singleActiveConsumer: boolean;
}

const OVERFLOWS = ['drop-head', 'reject-publish', 'reject-publish-dlx'];
/** Streams are another thing altogether. A quorum queue behaves as a classic one here. */
const TYPES = ['classic', 'quorum'];

/** The arguments that two declarations must agree on, in RabbitMQ's order. */
const COMPARED = [
  'x-expires',
  'x-message-ttl',
  'x-dead-letter-exchange',
  'x-dead-letter-routing-key',
  'x-max-length',
  'x-max-length-bytes',
  'x-max-priority',
  'x-overflow',
  'x-queue-mode',
  'x-single-active-consumer',
  'x-queue-type',
];

/** Throws the refusal of what is no integer. `where` ends the text: "for queue 'q' in vhost '/'". */
export function integerArgument(args: Fields, key: string, where: string): number | undefined {
  const field = args.get(key);
  if (field === undefined) return undefined;
  if (!INTEGERS.test(typeName(field))) {
    throw preconditionFailed(`invalid arg '${key}' ${where}: "expected integer, got ${typeName(field)}"`);
  }
  return readField(field) as number;
}

export function readQueueSettings(args: Fields, queue: string, vhost: string): QueueSettings {
  const where = `for queue '${queue}' in vhost '${vhost}'`;
  const refuse = (key: string, why: string): Refusal => preconditionFailed(`invalid arg '${key}' ${where}: ${why}`);
  const count = (key: string): number | undefined => {
    const value = integerArgument(args, key, where);
    if (value !== undefined && value < 0) throw refuse(key, `{value_negative,${value}}`);
    return value;
  };
  const life = (key: string): number | undefined => {
    const value = count(key);
    if (value !== undefined && value > LONGEST_LIFE) throw refuse(key, `{value_too_large,${value}}`);
    return value;
  };
  const text = (key: string): string | undefined => {
    const field = args.get(key);
    if (field === undefined) return undefined;
    if (typeName(field) !== 'longstr') throw refuse(key, `{unacceptable_type,${typeName(field)}}`);
    return readField(field) as string;
  };
  const exchange = args.get('x-dead-letter-exchange');
  if (exchange !== undefined && typeName(exchange) !== 'longstr') {
    throw preconditionFailed(
      `invalid type '${typeName(exchange)}' for arg 'x-dead-letter-exchange' in queue '${queue}' in vhost '${vhost}'`,
    );
  }
  const expires = life('x-expires');
  if (expires === 0) throw refuse('x-expires', '{value_zero,0}');
  const deadLetterRoutingKey = text('x-dead-letter-routing-key');
  if (deadLetterRoutingKey !== undefined && exchange === undefined) {
    throw refuse('x-dead-letter-routing-key', 'routing_key_but_no_dlx_defined');
  }
  const maxPriority = count('x-max-priority') ?? 0;
  if (maxPriority > 255) throw refuse('x-max-priority', `{max_value_exceeded,${maxPriority}}`);
  const overflow = text('x-overflow') ?? 'drop-head';
  if (!OVERFLOWS.includes(overflow)) throw refuse('x-overflow', 'invalid_overflow');
  const type = text('x-queue-type') ?? 'classic';
  if (!TYPES.includes(type)) throw refuse('x-queue-type', `"unsupported queue type '${type}'"`);
  const single = args.get('x-single-active-consumer');
  if (single !== undefined && typeName(single) !== 'bool') {
    throw refuse('x-single-active-consumer', `{unacceptable_type,${typeName(single)}}`);
  }
  return {
    expires,
    messageTtl: life('x-message-ttl'),
    maxLength: count('x-max-length') ?? Number.POSITIVE_INFINITY,
    maxLengthBytes: count('x-max-length-bytes') ?? Number.POSITIVE_INFINITY,
    overflow: overflow as QueueSettings['overflow'],
    maxPriority,
    deadLetterExchange: text('x-dead-letter-exchange'),
    deadLetterRoutingKey,
    singleActiveConsumer: single !== undefined && readField(single) === true,
  };
}

/** Throws the refusal of a declaration that differs. `of`: "queue 'q' in vhost '/'". */
export function mustBeEqual(key: string, of: string, current: unknown, received: unknown): void {
  if (current === received) return;
  throw preconditionFailed(
    `inequivalent arg '${key}' for ${of}: received '${String(received)}' but current is '${String(current)}'`,
  );
}

/** What an argument that is absent says. */
const IMPLIED: Fields = new Map([['x-queue-type', fieldBytes('classic')]]);

/** The same for arguments: integers of any type are equal if their values are. */
export function argumentsMustBeEqual(
  current: Fields,
  received: Fields,
  of: string,
  keys: readonly string[] = COMPARED,
): void {
  for (const key of keys) {
    const [old, fresh] = [current.get(key) ?? IMPLIED.get(key), received.get(key) ?? IMPLIED.get(key)];
    if (old === undefined && fresh === undefined) continue;
    if (old !== undefined && fresh !== undefined) {
      mustBeEqual(key, of, readField(old), readField(fresh));
      continue;
    }
    const told = (field: Buffer | undefined): string =>
      field === undefined ? 'none' : `the value '${String(readField(field))}' of type '${typeName(field)}'`;
    throw preconditionFailed(
      `inequivalent arg '${key}' for ${of}: received ${told(fresh)} but current is ${told(old)}`,
    );
  }
}
