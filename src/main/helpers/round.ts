/** One life of a mixin's consumers: from their connection to its end. */
import { ClosedError } from '../../errors.js';
import type { Connection } from '../connection.js';
import { Consumer } from '../consumer.js';
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
   * Has a look at each message before the user's functions get it, whoever made the consumer and whenever it got its callbacks.
   * Messages come as soon as the first consumer consumes; until `begin()` they wait, so that all the hooks are called before.
   */
  #watch(consumer: Consumer): void {
    const first = <Args extends unknown[]>(fun: (...args: Args) => unknown) => {
      return (...args: Args): unknown => {
        this.#came++;
        this.#wake();
        return this.#begun ? fun(...args) : this.#gate.then(() => fun(...args));
      };
    };
    const { onMessage, onDecodeError } = consumer;
    if (onMessage !== undefined) consumer.onMessage = first(onMessage);
    if (onDecodeError !== undefined) consumer.onDecodeError = first(onDecodeError);
    const mute = consumer.callbacks.length === 0 && consumer.receive === Consumer.prototype.receive;
    // One that has nothing to call is to say so when it is to consume.
    if (mute) return;
    const receive = first(consumer.receive.bind(consumer));
    consumer.receive = async (body, message) => {
      await receive(body, message);
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
      this.#watch(consumer);
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
      const how = this.#connection.connected ? {} : { timeout: 0 };
      // One whose connection is going may not end well, which is no news: it is closed next. All at once, since each may have to
      // wait for a broker that is silent.
      await Promise.all(this.consumers.map((consumer) => consumer.close(how).catch(() => undefined)));
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
