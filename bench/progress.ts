/** How far a benchmark is, on stderr: a bar on a terminal, lines otherwise. */

const BAR = 24;

export class Progress {
  readonly #total: number;
  readonly #tty = process.stderr.isTTY === true;
  #done = 0;

  constructor(total: number) {
    this.#total = total;
  }

  /** What is going on now. Only a terminal sees it. */
  doing(text: string): void {
    if (this.#tty) this.#bar(text);
  }

  /** `steps` runs are over, the last one with this result. */
  done(text: string, steps = 1): void {
    this.#done += steps;
    if (this.#tty) this.#bar(text);
    else process.stderr.write(`[${this.#done}/${this.#total}] ${text}\n`);
  }

  /** Something worth keeping on the screen. */
  note(text: string): void {
    process.stderr.write(this.#tty ? `\r\x1b[K${text}\n` : `${text}\n`);
  }

  end(): void {
    if (this.#tty) process.stderr.write('\r\x1b[K');
  }

  #bar(text: string): void {
    const full = Math.round((BAR * this.#done) / this.#total);
    const bar = `${'#'.repeat(full)}${'.'.repeat(BAR - full)}`;
    const line = `[${bar}] ${this.#done}/${this.#total} ${text}`;
    process.stderr.write(`\r\x1b[K${line.slice(0, (process.stderr.columns || 80) - 1)}`);
  }
}
