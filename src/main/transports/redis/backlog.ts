/**
 * What was heard of fanout exchanges and is not handed on yet. Nobody keeps it for us, so it waits here; past a bound no more is
 * read of the socket, and what is published meanwhile waits in Redis for as long as that allows it.
 *
 *   socket ──▶ waiting ──room──▶ delivered
 *     ▲ pause: above the bound │ resume: below half of it
 *     └────────────────────────┘
 */

/** Messages, and bytes of envelopes, above which the socket is not read. What was read with the last of them comes on top. */
export const MOST_WAITING = 1024;
export const MOST_WAITING_BYTES = 1024 * 1024;

export interface BacklogEvents {
  /** Messages for which there is room. */
  room(): number;
  /** Bytes for which there is room. */
  bytes(): number;
  deliver(envelope: Buffer): void;
  /** All that there was room for. */
  delivered(): void;
}

/** What the messages come through. */
export interface Valve {
  pause(): void;
  resume(): void;
}

export class Backlog {
  readonly #events: BacklogEvents;
  #waiting: Buffer[] = [];
  #bytes = 0;
  #valve: Valve | undefined;
  #isPaused = false;
  #isDelivering = false;
  #closed = false;

  constructor(events: BacklogEvents) {
    this.#events = events;
  }

  /** From now on the messages come through this one; it is open. */
  attach(valve: Valve): void {
    this.#valve = valve;
    this.#isPaused = false;
    this.#adjust();
  }

  detach(valve: Valve): void {
    if (this.#valve === valve) this.#valve = undefined;
  }

  push(envelope: Buffer): void {
    if (this.#closed) return;
    this.#waiting.push(envelope);
    this.#bytes += envelope.length;
    this.wake();
  }

  /** There may be more room than before. */
  wake(): void {
    // Whoever settles while he is handed a message has the next one from the loop that is under way.
    if (this.#isDelivering || this.#waiting.length === 0) return;
    this.#isDelivering = true;
    let count = 0;
    try {
      while (count < this.#waiting.length && this.#events.room() > 0 && this.#events.bytes() > 0) {
        const envelope = this.#waiting[count++]!;
        this.#bytes -= envelope.length;
        this.#events.deliver(envelope);
      }
    } finally {
      this.#waiting.splice(0, count);
      this.#isDelivering = false;
    }
    if (count > 0) this.#events.delivered();
    this.#adjust();
  }

  /** What waits is dropped: it was for a listener that is no more. */
  close(): void {
    this.#closed = true;
    this.#valve = undefined;
    this.#waiting = [];
    this.#bytes = 0;
  }

  #adjust(): void {
    const { length } = this.#waiting;
    if (!this.#isPaused && (length > MOST_WAITING || this.#bytes > MOST_WAITING_BYTES)) {
      this.#isPaused = true;
      this.#valve?.pause();
    } else if (this.#isPaused && length <= MOST_WAITING / 2 && this.#bytes <= MOST_WAITING_BYTES / 2) {
      this.#isPaused = false;
      this.#valve?.resume();
    }
  }
}
