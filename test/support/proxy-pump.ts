// One direction of a proxied connection: moves bytes from one socket to the other and can be told to be late, slow, silent
// or to stop after an exact number of bytes.

import type { Socket } from 'node:net';

/** How much is read ahead of what may be sent; past it the sender feels the delay as backpressure. */
const READ_AHEAD = 4 * 1024 * 1024;
/** How often a throttled direction sends a piece. */
const THROTTLE_TICK_MS = 5;

interface Piece {
  bytes: Buffer;
  /** When it may go, on the clock of `performance.now()`. */
  due: number;
}

export interface PumpHooks {
  /** The bytes that are about to be sent. */
  onBytes(bytes: Buffer): void;
  /** The limit of `cutAfter` was reached and its bytes are handed to the kernel. */
  onLimit(): void;
}

export class Pump {
  /** How many bytes went through. */
  forwarded = 0;

  #pieces: Piece[] = [];
  #queued = 0;
  #limit = Number.POSITIVE_INFINITY;
  #delayMs = 0;
  #bytesPerTick = Number.POSITIVE_INFINITY;
  #held = false;
  #blocked = false;
  #timer: NodeJS.Timeout | undefined;
  #sourceEnded = false;
  #stopped = false;

  constructor(
    readonly source: Socket,
    readonly target: Socket,
    readonly hooks: PumpHooks,
  ) {
    source.on('data', (bytes) => {
      this.#pieces.push({ bytes, due: performance.now() + this.#delayMs });
      this.#queued += bytes.length;
      this.#flow();
    });
    source.on('end', () => {
      this.#sourceEnded = true;
      this.#flow();
    });
    target.on('drain', () => {
      this.#blocked = false;
      this.#flow();
    });
  }

  /** Calls `onLimit` once exactly `bytes` in all have gone through; at once if they have. */
  cutAfter(bytes: number): void {
    this.#limit = Math.max(bytes, this.forwarded);
    if (this.forwarded === this.#limit) this.#reachedLimit();
    else this.#flow();
  }

  /** Nothing goes through, nothing is lost, nobody is told: also the end of the source waits. */
  hold(held: boolean): void {
    this.#held = held;
    this.#flow();
  }

  delay(ms: number): void {
    this.#delayMs = ms;
  }

  throttle(bytesPerSecond: number): void {
    this.#bytesPerTick = Math.max(1, Math.floor((bytesPerSecond * THROTTLE_TICK_MS) / 1000));
    this.#flow();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#pieces = [];
  }

  #flow(): void {
    if (this.#stopped) return;
    while (!this.#held && !this.#blocked && this.#timer === undefined && this.#pieces.length > 0) {
      const wait = this.#pieces[0]!.due - performance.now();
      if (wait > 0) this.#later(wait);
      else this.#send();
      if (this.#stopped) return;
    }
    if (this.#held || this.#queued > READ_AHEAD) this.source.pause();
    else this.source.resume();
    if (this.#sourceEnded && !this.#held && this.#pieces.length === 0) this.target.end();
  }

  #later(ms: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#flow();
    }, ms);
  }

  #send(): void {
    const { bytes, due } = this.#pieces.shift()!;
    const size = Math.min(bytes.length, this.#bytesPerTick, this.#limit - this.forwarded);
    const part = bytes.subarray(0, size);
    if (size < bytes.length) this.#pieces.unshift({ bytes: bytes.subarray(size), due });
    this.#queued -= size;
    this.forwarded += size;
    this.hooks.onBytes(part);
    // the observer may have cut the connection
    if (this.#stopped) return;
    if (this.forwarded === this.#limit) {
      this.#blocked = true;
      this.target.write(part, () => this.#reachedLimit());
      return;
    }
    if (!this.target.write(part)) this.#blocked = true;
    if (Number.isFinite(this.#bytesPerTick)) this.#later(THROTTLE_TICK_MS);
  }

  #reachedLimit(): void {
    if (!this.#stopped) this.hooks.onLimit();
  }
}
