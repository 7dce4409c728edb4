/** Counts the publishes of a channel that are under way, for those who wait until none is. */

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
  /** Of what was sent before. */
  underWay: number;
}

export class Confirms {
  /** One for each time that somebody waited: what is sent afterwards is not waited for. */
  #age = 0;
  #underWay = 0;
  readonly #waiting = new Map<number, Waiting>();

  /** A publish is under way. What this gives is to be told when it is settled. */
  sent(): number {
    this.#underWay++;
    return this.#age;
  }

  settled(age: number, error: unknown): void {
    this.#underWay--;
    for (const [upTo, waiting] of this.#waiting) {
      if (age > upTo) continue;
      waiting.underWay--;
      if (error) waiting.reject(error);
      else if (waiting.underWay === 0) waiting.resolve();
      if (error || waiting.underWay === 0) this.#waiting.delete(upTo);
    }
  }

  /** Resolves when all that is under way now is confirmed; rejects with the first that fails. */
  all(): Promise<void> {
    if (this.#underWay === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiting.set(this.#age++, { resolve, reject, underWay: this.#underWay });
    });
  }
}
