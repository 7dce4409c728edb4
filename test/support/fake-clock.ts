/** A clock that stands until it is told to go on. */
import type { Alarm, Clock } from '#src/main/transports/memory/clock';

interface Waiting {
  readonly time: number;
  readonly ring: () => void;
}

export class FakeClock implements Clock {
  #now = 0;
  #waiting: Waiting[] = [];

  now(): number {
    return this.#now;
  }

  seconds(): number {
    return Math.floor(this.#now / 1000);
  }

  at(time: number, ring: () => void): Alarm {
    const waiting = { time, ring };
    this.#waiting.push(waiting);
    return {
      cancel: () => {
        this.#waiting = this.#waiting.filter((each) => each !== waiting);
      },
    };
  }

  /** Everything that is due rings at its time, in order. */
  advance(milliseconds: number): void {
    const end = this.#now + milliseconds;
    for (;;) {
      const due = this.#waiting.filter(({ time }) => time <= end).sort((a, b) => a.time - b.time)[0];
      if (due === undefined) break;
      this.#waiting = this.#waiting.filter((each) => each !== due);
      this.#now = Math.max(this.#now, due.time);
      due.ring();
    }
    this.#now = end;
  }
}
