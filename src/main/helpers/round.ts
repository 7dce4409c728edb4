/** One life of a mixin's consumers: from their connection to its end. */
import { ClosedError } from '../../errors.js';
import type { Connection } from '../connection.js';
import type { Consumer, ConsumerOptions } from '../consumer.js';
import type { Channel } from '../entities/channel.js';

export class Round {
  consumers: readonly Consumer[] = [];
  /** Disposed of at the end, if it can be. */
  extra: unknown;
  readonly #connection: Connection;
  readonly #onEnd: (channel: Channel) => unknown;
  #channel: Channel | undefined;
  /** Messages that came and were not counted by `next()` yet. */
  #came = 0;
  #begun = false;
  #open: () => void = () => undefined;
  #abandon: (error: Error) => void = () => undefined;
  readonly #gate = new Promise<void>((resolve, reject) => {
    this.#open = resolve;
    this.#abandon = reject;
  });
  #failure: { readonly error: unknown } | undefined;
  #wake: () => void = () => undefined;

  constructor(connection: Connection, onEnd: (channel: Channel) => unknown) {
    this.#connection = connection;
    this.#onEnd = onEnd;
    // It is of no interest to anybody if no message came.
    this.#gate.catch(() => undefined);
  }

  async open(): Promise<Channel> {
    this.#channel = await this.#connection.defaultChannel();
    return this.#channel;
  }

  /**
   * `options` with a look at each message before the user's functions get it. Messages come as soon as the first consumer
   * consumes; until `begin()` they wait, so that all the hooks are called before.
   */
  counted(options: ConsumerOptions): ConsumerOptions {
    const { onMessage, callbacks, onDecodeError } = options;
    const count = (): Promise<void> | undefined => {
      this.#came++;
      this.#wake();
      return this.#begun ? undefined : this.#gate;
    };
    const first = <Args extends unknown[]>(fun: (...args: Args) => unknown) => {
      return (...args: Args): unknown => {
        const gate = count();
        return gate === undefined ? fun(...args) : gate.then(() => fun(...args));
      };
    };
    return {
      ...options,
      ...(onMessage === undefined ? {} : { onMessage: first(onMessage) }),
      ...(callbacks === undefined || callbacks.length === 0 ? {} : { callbacks: [count, ...callbacks] }),
      ...(onDecodeError === undefined ? {} : { onDecodeError: first(onDecodeError) }),
    };
  }

  /** Lets the messages through. */
  begin(): void {
    this.#begun = true;
    this.#open();
  }

  async start(consumers: readonly Consumer[]): Promise<void> {
    this.consumers = consumers;
    for (const consumer of consumers) {
      // Who listens himself sees to what his callbacks throw.
      const heard = consumer.listenerCount('error') > 0;
      consumer.on('error', (error, message) => {
        if (message === undefined || !heard) this.#fail(error);
      });
      consumer.closed.then(
        () => {
          if (!this.#connection.connected) this.#fail(new ClosedError('the connection of a mixin was closed'));
        },
        (error) => this.#fail(error),
      );
      await consumer.consume();
    }
  }

  /** True when a message has come; false after so many milliseconds, or when the signal aborts. Throws what failed. */
  async next(milliseconds: number, stop: AbortSignal): Promise<boolean> {
    if (this.#came === 0 && this.#failure === undefined && !stop.aborted) {
      await new Promise<void>((resolve) => {
        const done = (): void => {
          clearTimeout(timer);
          stop.removeEventListener('abort', done);
          this.#wake = () => undefined;
          resolve();
        };
        const timer = setTimeout(done, milliseconds);
        stop.addEventListener('abort', done);
        this.#wake = done;
      });
    }
    if (this.#failure !== undefined && !stop.aborted) throw this.#failure.error;
    if (this.#came === 0) return false;
    this.#came--;
    return true;
  }

  /**
   * Cancels the consumers, disposes of `extra`, closes the connection. Callbacks that run are waited for while the connection
   * stands; without it their messages are not theirs any more. Throws what the hook at the end throws.
   */
  async end(): Promise<void> {
    this.#abandon(new ClosedError('the consumers of a mixin ended before they were ready'));
    try {
      for (const consumer of this.consumers) {
        // One whose connection is going may not end well, which is no news: it is closed next.
        await consumer.close(this.#connection.connected ? {} : { timeout: 0 }).catch(() => undefined);
      }
      await dispose(this.extra);
      if (this.#channel !== undefined) await this.#onEnd(this.#channel);
    } finally {
      // The goodbye of a connection overtakes acks that are on their way; that of their channel does not.
      await this.#channel?.close();
      await this.#connection.close();
    }
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake();
  }
}

async function dispose(value: unknown): Promise<void> {
  const { [Symbol.asyncDispose]: later, [Symbol.dispose]: now } = (value ?? {}) as Partial<
    AsyncDisposable & Disposable
  >;
  if (typeof later === 'function') await later.call(value as AsyncDisposable);
  else if (typeof now === 'function') now.call(value as Disposable);
}
