/**
 * What a broker has told a connection and the client has not heard yet, in order. As from a socket, news comes in a later turn
 * of the event loop, never in the middle of what the client is doing, and no more in one turn than a millisecond takes; what
 * comes of it comes in the turn after. So a program that talks to this broker without a pause leaves the loop turning.
 */

const TURN = 1;
/** The clock is looked at once in so many pieces of news. */
const LOOK_EVERY = 16;
/** With so much untold a broker had better wait before it delivers more. */
const MUCH = 2048;

export class Wire {
  #news: (() => void)[] = [];
  #scheduled = false;
  #onTurn: (() => void)[] = [];

  /** True if the client has much to hear before anything new. */
  get isFull(): boolean {
    return this.#news.length >= MUCH;
  }

  /** Told in a later turn, after everything before it. */
  push(news: () => void): void {
    this.#news.push(news);
    this.#schedule();
  }

  /** Is this the last of what is not told yet? */
  isLast(news: () => void): boolean {
    return this.#news[this.#news.length - 1] === news;
  }

  /** Called once, when the next turn begins. */
  nextTurn(call: () => void): void {
    this.#onTurn.push(call);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    const news = this.#news;
    const calls = this.#onTurn;
    this.#news = [];
    this.#onTurn = [];
    this.#scheduled = false;
    const end = performance.now() + TURN;
    let told = 0;
    try {
      while (told < news.length) {
        news[told++]!();
        if (told % LOOK_EVERY === 0 && performance.now() > end) break;
      }
    } finally {
      // The turn is over; or a listener threw, which is its program's affair.
      if (told < news.length) {
        this.#news = [...news.slice(told), ...this.#news];
        this.#schedule();
      }
      for (const call of calls) call();
    }
  };
}
