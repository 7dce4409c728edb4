/** A queue of one's own on a fanout exchange: every consumer gets every message. */
import { randomUUID } from 'node:crypto';
import { OptionError } from '../../errors.js';
import { kinds, type OptionTable, readOptions } from '../../options.js';
import { Exchange } from '../entities/exchange.js';
import { QUEUE_OPTIONS, Queue, type QueueOptions } from '../entities/queue.js';
import type { Target } from '../entities/target.js';

export interface BroadcastOptions extends QueueOptions {
  readonly queue?: string;
  readonly unique?: boolean;
  readonly exchange?: Exchange | string;
}

export const BROADCAST_OPTIONS: OptionTable<BroadcastOptions> = {
  ...QUEUE_OPTIONS,
  autoDelete: { ...QUEUE_OPTIONS.autoDelete, default: true },
  alias: { ...QUEUE_OPTIONS.alias, defaultWords: 'the name' },
  queue: { kind: kinds.shortString, defaultWords: "'bcast.' and a UUID", doc: 'Name of the queue.' },
  unique: { kind: kinds.boolean, default: false, doc: 'Adds a UUID to `queue` too.' },
  exchange: {
    kind: kinds.custom<Exchange | string>(
      'an Exchange or a name',
      (value) => value instanceof Exchange || typeof value === 'string',
    ),
    defaultWords: 'a fanout exchange of that name',
    doc: 'Where its messages come from.',
  },
};

/** Each instance is another queue, which goes with its last consumer, unless `queue` names it. */
export class Broadcast extends Queue {
  /** `name`: of the fanout exchange. Throws `OptionError`. */
  constructor(name: string, options: BroadcastOptions = {}) {
    if (!kinds.name.test(name)) throw new OptionError('Broadcast: the name must be a string that is not empty');
    const given = readOptions('Broadcast', BROADCAST_OPTIONS, options);
    const { queue, unique, exchange = new Exchange(name, { type: 'fanout' }), alias = name, ...rest } = given;
    const own = unique || !queue ? `${queue || 'bcast'}.${randomUUID()}` : queue;
    super(own, exchange, { ...rest, alias });
  }

  override bind(target: Target): Broadcast {
    return super.bind(target) as Broadcast;
  }

  override named(name: string): Broadcast {
    return super.named(name) as Broadcast;
  }

  /** @internal */
  protected override copyWith(name: string, options: QueueOptions): Broadcast {
    const exchange = this.exchange === undefined ? {} : { exchange: this.exchange };
    return new Broadcast(name, { ...options, ...exchange, queue: name });
  }
}
