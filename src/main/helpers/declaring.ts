/** Declaring what may be declared already. */
import { OptionError } from '../../errors.js';
import { kinds, type OptionTable, readOptions } from '../../options.js';
import { Channel } from '../entities/channel.js';
import { declareOnce, isDeclared } from '../entities/declare.js';
import { Exchange } from '../entities/exchange.js';
import { Queue } from '../entities/queue.js';
import { channelOf, isTarget, type Target } from '../entities/target.js';
import { isPassing, REPEAT_OPTIONS, type RepeatOptions, repeating } from './retrying.js';

export interface MaybeDeclareOptions {
  readonly retry?: boolean;
  readonly retryPolicy?: RepeatOptions;
}

export const MAYBE_DECLARE_OPTIONS: OptionTable<MaybeDeclareOptions> = {
  retry: { kind: kinds.boolean, default: false, doc: 'Again if the connection is lost meanwhile.' },
  retryPolicy: {
    kind: kinds.custom<RepeatOptions>('an object', kinds.object.test),
    default: {},
    doc: '`maxRetries intervalStart intervalMax errback timeout signal`.',
  },
};

/**
 * Declares `entity` unless an equal one was declared in this life of the connection; resolves with false if so. Equal means all of
 * it, bindings and arguments too; what goes away by itself (`autoDelete`, `expires`) is declared every time. `target`: by
 * default what the entity is bound to. Throws `NotBoundError`, what declaring throws, and `OptionError` for `retry` on a channel,
 * which does not come back.
 */
export async function maybeDeclare(
  entity: Exchange | Queue,
  target: Target | undefined = undefined,
  options: MaybeDeclareOptions = {},
): Promise<boolean> {
  if (!(entity instanceof Exchange) && !(entity instanceof Queue)) {
    throw new OptionError('maybeDeclare: the first argument must be an Exchange or a Queue');
  }
  const { retry, retryPolicy } = readOptions('maybeDeclare', MAYBE_DECLARE_OPTIONS, options);
  const through = target ?? entity.channel;
  if (!isTarget(through)) throw new OptionError('maybeDeclare: the second argument must be a Connection or a Channel');
  const attempt = async (): Promise<boolean> => {
    const channel = await channelOf(through, String(entity), {});
    if (isDeclared(channel, entity)) return false;
    await declareOnce(channel, entity, through);
    return true;
  };
  const policy = readOptions('maybeDeclare: retryPolicy', REPEAT_OPTIONS, retryPolicy);
  if (!retry) return attempt();
  if (through instanceof Channel) throw new OptionError('maybeDeclare: retry needs a Connection: a channel lives once');
  return repeating(`declaring ${entity}`, policy, attempt, (error) => isPassing(error) && !through.closed);
}
