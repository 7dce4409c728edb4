/** Follows a log of test/handlers/effects.ts, of all the processes that write it, as it grows. */
import { closeSync, openSync, readSync } from 'node:fs';

export interface FollowedEffect {
  readonly id: string;
  /** Of the delivery. */
  readonly tag: string;
  /** Microseconds of the machine's monotonic clock. */
  readonly start: number;
  readonly end: number;
  /** The message said that it may have run before. */
  readonly again: boolean;
}

export class EffectsFollower implements Disposable {
  /** In the order in which they were read. */
  readonly all: FollowedEffect[] = [];
  /** How often each id is there. */
  readonly counts = new Map<string, number>();
  readonly #path: string;
  #file: number | undefined;
  #rest = '';
  readonly #chunk = Buffer.alloc(1 << 18);

  constructor(path: string) {
    this.#path = path;
  }

  read(): this {
    try {
      this.#file ??= openSync(this.#path, 'r');
    } catch (error) {
      // No handler has run yet.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return this;
      throw error;
    }
    for (let count = readSync(this.#file, this.#chunk); count > 0; count = readSync(this.#file, this.#chunk)) {
      const lines = (this.#rest + this.#chunk.toString('latin1', 0, count)).split('\n');
      this.#rest = lines.pop()!;
      for (const line of lines) this.#add(line);
    }
    return this;
  }

  #add(line: string): void {
    const [id = '', , , , tag = '', start, end, again] = line.split(' ');
    this.all.push({ id, tag, start: Number(start), end: Number(end), again: again === '1' });
    this.counts.set(id, (this.counts.get(id) ?? 0) + 1);
  }

  [Symbol.dispose](): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }
}
