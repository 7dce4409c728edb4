/**
 * What a broker has told a connection and the client has not heard yet, in order. As from a socket, news comes in a later turn
 * of the event loop, never in the middle of what the client is doing; what comes of it comes in the turn after, so that a program
 * which talks to this broker without a pause leaves the loop turning.
 */
export class Wire {
  #news: (() => void)[] = [];
  #scheduled = false;
  #onTurn: (() => void)[] = [];

  /** Told in a later turn, after everything before it. */
  push(news: () => void): void {
    this.#news.push(news);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#turn);
  }

  /** Is this the last of what is not told yet? */
  isLast(news: () => void): boolean {
    return this.#news[this.#news.length - 1] === news;
  }

  /** Called once, when the turn after this begins. */
  nextTurn(call: () => void): void {
    this.#onTurn.push(call);
    this.push(() => undefined);
  }

  readonly #turn = (): void => {
    const news = this.#news;
    const calls = this.#onTurn;
    this.#news = [];
    this.#onTurn = [];
    this.#scheduled = false;
    for (const call of calls) call();
    let told = 0;
    try {
      for (const each of news) {
        told++;
        each();
      }
    } finally {
      // A listener threw: that is its program's affair, and what it did not hear comes in the next turn.
      if (told < news.length) {
        this.#news = [...news.slice(told), ...this.#news];
        if (!this.#scheduled) {
          this.#scheduled = true;
          setImmediate(this.#turn);
        }
      }
    }
  };
}
