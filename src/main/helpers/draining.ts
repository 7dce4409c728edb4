/** Taking a number of messages, or those that come within a time: loops over a consumer with an end. */
import { whenAborted } from '../../abort.js';
import { OptionError, TimeoutError } from '../../errors.js';
import type { Message } from '../../message.js';
import { kinds, type OptionTable, readOptions } from '../../options.js';
import { type Callback, CONSUMER_OPTIONS, Consumer, type OnDecodeError } from '../consumer.js';
import type { Queue } from '../entities/queue.js';
import { channelOf, functionKind, type Target } from '../entities/target.js';

export interface EventloopOptions {
  readonly limit?: number;
  readonly timeout?: number;
  readonly ignoreTimeouts?: boolean;
  readonly signal?: AbortSignal;
}

export const EVENTLOOP_OPTIONS: OptionTable<EventloopOptions> = {
  limit: { kind: kinds.integer(0, Number.MAX_SAFE_INTEGER), default: 0, doc: 'Messages; 0: no end.' },
  timeout: {
    kind: kinds.milliseconds,
    defaultWords: 'none',
    doc: 'For each message (ms), from when the queues are consumed.',
  },
  ignoreTimeouts: { kind: kinds.boolean, default: false, doc: 'A timeout ends the loop; else it throws.' },
  signal: { kind: kinds.signal, doc: 'Ends the loop, which throws its reason.' },
};

/** How long a loop that was aborted waits until what it had is given back (ms): a silent broker does not hold it up. */
const GRACE = 1000;

type Waited<T> = { readonly value: T } | 'late' | 'aborted';

/** Waits for `work`, and leaves it to itself if the time is over or the signal aborts. */
function waitFor<T>(
  work: Promise<T>,
  timeout: number | undefined,
  signal: AbortSignal | undefined,
): Promise<Waited<T>> {
  return new Promise((resolve, reject) => {
    const clear = (): void => {
      clearTimeout(timer);
      unheard?.();
    };
    const end = (waited: Waited<T>): void => {
      clear();
      resolve(waited);
    };
    const aborted = (): void => end('aborted');
    const timer = timeout === undefined ? undefined : setTimeout(() => end('late'), timeout);
    const unheard = signal?.aborted === false ? whenAborted(signal, aborted) : undefined;
    work.then(
      (value) => end({ value }),
      (error) => {
        clear();
        reject(error);
      },
    );
    if (signal?.aborted) aborted();
  });
}

/** Cancels, and gives back the message that is asked for, if it comes. Never rejects: whoever leaves wants to hear why, no more. */
async function leave(consumer: Consumer, next: Promise<IteratorResult<Message, void>>): Promise<void> {
  // Also what cannot be given back, since the broker wants no acks for it: as with all that `noAck` leaves behind.
  const asked = next.then(({ done, value }) => done || value.requeue()).catch(() => undefined);
  await consumer.cancel().catch(() => undefined);
  await asked;
}

/**
 * The messages of a consumer that has no callbacks, for `for await`, until `limit` or `timeout`. Where kombu waits for the next
 * event of a connection, this waits for the next message. What was not taken by then goes back to its queue. Throws
 * `TimeoutError`, the signal's reason (whatever the broker does, not much later than it aborts), and what ends the consumer.
 */
export async function* eventloop(
  consumer: Consumer,
  options: EventloopOptions = {},
): AsyncGenerator<Message, void, undefined> {
  const { limit, timeout, ignoreTimeouts, signal } = readOptions('eventloop', EVENTLOOP_OPTIONS, options);
  if (!(consumer instanceof Consumer)) throw new OptionError('eventloop: the first argument must be a Consumer');
  signal?.throwIfAborted();
  let messages = consumer[Symbol.asyncIterator]();
  let stopped: 'late' | 'aborted' | undefined;
  let stuck = false;
  try {
    for (let taken = 0; limit === 0 || taken < limit!; taken++) {
      const next = messages.next();
      let waited = await waitFor(next, timeout, signal);
      // The time begins when the broker has been asked; until then connecting and declaring have theirs.
      while (waited === 'late' && !consumer.consuming) waited = await waitFor(next, timeout, signal);
      if (waited === 'aborted') {
        stopped = waited;
        const left = leave(consumer, next);
        stuck = (await waitFor(left, GRACE, undefined)) === 'late';
        break;
      }
      if (waited === 'late') {
        // Ends the consumer's own loop. If the broker does not answer, that loop cannot be waited for.
        stuck = true;
        await consumer.cancel();
        stuck = false;
        stopped = waited;
      }
      const result = await next;
      if (result.done) break;
      yield result.value;
      if (stopped === undefined) continue;
      // The message was faster than the cancel.
      stopped = undefined;
      await messages.return();
      messages = consumer[Symbol.asyncIterator]();
    }
  } finally {
    const returned = messages.return();
    if (stuck) returned.catch(() => undefined);
    else await returned;
  }
  if (stopped === 'aborted') throw signal?.reason;
  if (stopped === 'late' && !ignoreTimeouts) throw new TimeoutError(`eventloop: no message within ${timeout} ms`);
}

export interface DrainOptions {
  readonly limit?: number;
  readonly timeout?: number;
  readonly callbacks?: readonly Callback[];
  readonly onDecodeError?: OnDecodeError;
  readonly signal?: AbortSignal;
}

const DRAIN_OPTIONS: OptionTable<DrainOptions> = {
  limit: { ...EVENTLOOP_OPTIONS.limit, default: 1 },
  timeout: { ...EVENTLOOP_OPTIONS.timeout, doc: 'Ends the loop if no message came for so long (ms).' },
  callbacks: { ...CONSUMER_OPTIONS.callbacks, doc: 'Called in order with (body, message), before the loop gets them.' },
  onDecodeError: {
    kind: functionKind(),
    defaultWords: 'the loop throws, the message stays unsettled',
    doc: 'Called with (message, error); the loop goes on.',
  },
  signal: EVENTLOOP_OPTIONS.signal,
};

/** A body, decoded, and its message. */
export type Drained = [body: unknown, message: Message];

/**
 * [body, message] of each of `limit` messages, one by default, of a consumer that has no callbacks; fewer if none came for
 * `timeout` ms. The consumer is left cancelled, to be closed by whoever made it. Throws the signal's reason, what ends the consumer,
 * and what decoding throws.
 */
export async function* drainConsumer(
  consumer: Consumer,
  options: DrainOptions = {},
): AsyncGenerator<Drained, void, undefined> {
  const { callbacks, onDecodeError, ...rest } = readOptions('drainConsumer', DRAIN_OPTIONS, options);
  for await (const message of eventloop(consumer, { ...rest, ignoreTimeouts: true })) {
    let body: unknown;
    try {
      body = message.payload;
    } catch (error) {
      if (onDecodeError === undefined) throw error;
      await onDecodeError(message, error);
      continue;
    }
    for (const callback of callbacks!) await callback(body, message);
    yield [body, message];
  }
}

export interface ItermessagesOptions extends DrainOptions {
  readonly noAck?: boolean;
  readonly accept?: readonly string[];
  readonly autoDeclare?: boolean;
  readonly prefetchCount?: number;
}

export const ITERMESSAGES_OPTIONS: OptionTable<ItermessagesOptions> = {
  ...DRAIN_OPTIONS,
  noAck: { ...CONSUMER_OPTIONS.noAck, doc: 'The broker forgets messages as it sends them, those beyond `limit` too.' },
  accept: CONSUMER_OPTIONS.accept,
  autoDeclare: CONSUMER_OPTIONS.autoDeclare,
  prefetchCount: { ...CONSUMER_OPTIONS.prefetchCount, defaultWords: '`limit`, at most 64' },
};

/**
 * As `drainConsumer`, of a queue. Through a connection its default channel is used, on which the messages can be settled after
 * the loop too.
 */
export async function* itermessages(
  target: Target,
  queue: Queue,
  options: ItermessagesOptions = {},
): AsyncGenerator<Drained, void, undefined> {
  const given = readOptions('itermessages', ITERMESSAGES_OPTIONS, options);
  const { limit, timeout, callbacks, onDecodeError, signal, ...consuming } = given;
  const draining = defined({ limit, timeout, callbacks, onDecodeError, signal });
  const channel = await channelOf(target, 'itermessages', defined({ signal }));
  const consumer = new Consumer(channel, queue, { prefetchCount: Math.min(limit || 64, 64), ...consuming });
  try {
    yield* drainConsumer(consumer, draining);
  } finally {
    const closed = consumer.close();
    // As the loop itself, which has thrown by then.
    if (signal?.aborted) await waitFor(closed, GRACE, undefined);
    else await closed;
  }
}

/**
 * The bodies of replies, each acked when it is taken, so that those beyond `limit` are left in the queue (kombu asks the broker
 * to forget them: `noAck`). Options and errors: those of `itermessages`.
 */
export async function* collectReplies(
  target: Target,
  queue: Queue,
  options: ItermessagesOptions = {},
): AsyncGenerator<unknown, void, undefined> {
  for await (const [body, message] of itermessages(target, queue, options)) {
    if (!message.acknowledged) message.ack();
    yield body;
  }
}

/** Without the keys whose values are undefined, which exact optional properties do not take. */
function defined<T extends object>(values: T): { [Key in keyof T]?: NonNullable<T[Key]> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never;
}
