/**
 * The replies to a mailbox: one consumer for all requests that wait, while there are any. A reply names its request by a ticket.
 */
import { whenAborted } from '../../abort.js';
import { ClosedError } from '../../errors.js';
import type { Message } from '../../message.js';
import { Consumer } from '../consumer.js';
import type { Queue } from '../entities/queue.js';
import type { Target } from '../entities/target.js';
import type { LamportClock } from './clocks.js';

type Reply = Record<string, unknown>;

/** The part of a mailbox that this needs. */
interface Box {
  readonly replyQueue: Queue;
  readonly accept: readonly string[];
  readonly clock: LamportClock;
}

interface Expecting {
  readonly limit?: number;
  readonly callback?: (reply: Reply) => void;
  readonly signal?: AbortSignal;
}

/** A request that waits for replies. */
export interface Waiting {
  /** Resolves when replies can come. */
  readonly ready: Promise<void>;
  /** Resolves with the replies after so many milliseconds, or earlier if they are enough. */
  replies(timeout: number): Promise<Reply[]>;
  /** No more replies. */
  end(): void;
}

class Request {
  readonly replies: Reply[] = [];
  readonly done: Promise<void>;
  readonly #limit: number;
  readonly #callback: ((reply: Reply) => void) | undefined;
  #resolve: () => void = () => undefined;
  #reject: (error: unknown) => void = () => undefined;

  constructor({ limit = Number.POSITIVE_INFINITY, callback }: Expecting) {
    this.#limit = limit;
    this.#callback = callback;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // It may fail before anybody waits for it, who hears of it all the same.
    this.done.catch(() => undefined);
  }

  take(reply: Reply): void {
    if (this.replies.length >= this.#limit) return;
    this.replies.push(reply);
    try {
      this.#callback?.(reply);
    } catch (error) {
      this.fail(error);
    }
    if (this.replies.length >= this.#limit) this.finish();
  }

  finish(): void {
    this.#resolve();
  }

  fail(error: unknown): void {
    this.#reject(error);
  }
}

export class ReplyInbox {
  /** How many came that nobody waited for any more. */
  unclaimed = 0;
  readonly #box: Box;
  readonly #target: Target;
  readonly #requests = new Map<string, Request>();
  #consumer: Promise<Consumer> | undefined;
  /** The one that replies are waited for from; an earlier one's end concerns nobody. */
  #current: Consumer | undefined;
  #ending: Promise<void> = Promise.resolve();

  constructor(box: Box, target: Target) {
    this.#box = box;
    this.#target = target;
  }

  expect(ticket: string, expecting: Expecting): Waiting {
    const { signal } = expecting;
    signal?.throwIfAborted();
    const request = new Request(expecting);
    this.#requests.set(ticket, request);
    const unheard = signal && whenAborted(signal, () => request.fail(signal.reason));
    this.#consumer ??= this.#start();
    const started = this.#consumer.then(() => undefined);
    // Whatever fails the request meanwhile, the signal too, ends the wait.
    const ready = Promise.race([started, request.done]);
    ready.catch(() => undefined);
    return {
      ready,
      replies: async (timeout) => {
        const timer = setTimeout(() => request.finish(), timeout);
        try {
          await request.done;
        } finally {
          clearTimeout(timer);
        }
        return request.replies;
      },
      end: () => {
        unheard?.();
        this.#requests.delete(ticket);
        if (this.#requests.size === 0) this.#stop();
      },
    };
  }

  /** Fails what waits. */
  async close(): Promise<void> {
    this.#failAll(new ClosedError('the mailbox was closed'));
    this.#stop();
    await this.#ending;
  }

  #start(): Promise<Consumer> {
    const starting = this.#ending.then(() => this.#open());
    starting.catch(() => {
      if (this.#consumer === starting) this.#consumer = undefined;
    });
    return starting;
  }

  async #open(): Promise<Consumer> {
    const { replyQueue, accept } = this.#box;
    const consumer = new Consumer(this.#target, replyQueue, {
      noAck: true,
      accept,
      callbacks: [(body, message) => this.#arrived(body as Reply, message)],
      onDecodeError: (message, error) => this.#requestOf(message)?.fail(error),
    });
    this.#current = consumer;
    const lost = (error: unknown): void => {
      if (this.#current !== consumer) return;
      this.#failAll(error);
      this.#stop();
    };
    consumer.on('error', lost);
    // Not by this inbox: then it is not the current one any more.
    const closed = new ClosedError('the connection was closed while a mailbox waited for replies');
    consumer.closed.then(() => lost(closed), lost);
    try {
      await consumer.consume();
    } catch (error) {
      await consumer.close();
      throw error;
    }
    return consumer;
  }

  /** The queue goes with its consumer: the next consumer has to wait until that is done. */
  #stop(): void {
    const consumer = this.#consumer;
    if (consumer === undefined) return;
    this.#consumer = undefined;
    this.#current = undefined;
    this.#ending = consumer.then(
      // All that is wanted is that it is gone, and it is gone if its channel is.
      (started) => started.close().catch(() => undefined),
      () => undefined,
    );
  }

  #arrived(body: Reply, message: Message): void {
    const { expires } = message.headers;
    this.#box.clock.adjustTo(message.headers);
    if (typeof expires === 'number' && expires > 0 && Date.now() / 1000 > expires) return;
    const request = this.#requestOf(message);
    if (request === undefined) this.unclaimed++;
    else request.take(body);
  }

  /** Very old nodes send no ticket: then it is for whoever waits, if that is one. */
  #requestOf(message: Message): Request | undefined {
    const { ticket } = message.headers;
    if (typeof ticket === 'string') return this.#requests.get(ticket);
    return this.#requests.size === 1 ? [...this.#requests.values()][0] : undefined;
  }

  #failAll(error: unknown): void {
    for (const request of this.#requests.values()) request.fail(error);
  }
}
