/** How far a phase is: one line that is redrawn on a terminal, a line a second elsewhere. */

const REDRAW_MS = 100;
const LINE_MS = 1000;
const LABEL = 12;
const MOST_CELLS = 40;

const utf8 = /utf-?8/i.test(process.env.LC_ALL || process.env.LC_CTYPE || process.env.LANG || '');
const [FULL, EMPTY] = utf8 ? ['█', '░'] : ['#', '.'];

export const whole = (value: number): string => Math.round(value).toLocaleString('en-US');

export class Progress {
  readonly #label: string;
  readonly #total: number;
  readonly #tty = process.stdout.isTTY === true;
  readonly #begun = performance.now();
  #shown = 0;

  constructor(label: string, total: number) {
    this.#label = label.padEnd(LABEL);
    this.#total = total;
    // A terminal shows the bar at once; elsewhere a phase of less than a second has one line, its last.
    this.#shown = this.#tty ? 0 : this.#begun;
  }

  update(done: number, note: () => string = () => ''): void {
    const now = performance.now();
    if (now - this.#shown < (this.#tty ? REDRAW_MS : LINE_MS)) return;
    this.#shown = now;
    const rate = done / ((now - this.#begun) / 1000);
    const counts = `${whole(done).padStart(whole(this.#total).length)} of ${whole(this.#total)}`;
    const text = `${counts}  ${whole(rate)}/s  ${note()}`.trimEnd();
    if (!this.#tty) process.stdout.write(`${this.#label}  ${text}\n`);
    else this.#draw(`${this.#label}  ${this.#bar(done, text.length)}${text}`);
  }

  /** The phase is over: what stays on the screen. */
  end(text: string): void {
    this.erase();
    process.stdout.write(`${this.#label}  ${text}\n`);
  }

  /** Takes an unfinished bar away, for what follows on standard error. */
  erase(): void {
    if (this.#tty) process.stdout.write('\r\x1b[K');
  }

  /** As wide as the terminal leaves room beside the text; none on a very narrow one. */
  #bar(done: number, textLength: number): string {
    const room = this.#columns - LABEL - textLength - 5;
    // Rounded down to fives, so that the bar does not jump as the text grows by a letter.
    const cells = Math.min(MOST_CELLS, Math.floor(room / 5) * 5);
    if (cells < 5) return '';
    const full = Math.min(cells, Math.floor((cells * done) / this.#total));
    return `${FULL!.repeat(full)}${EMPTY!.repeat(cells - full)}  `;
  }

  #draw(line: string): void {
    process.stdout.write(`\r\x1b[K${line.slice(0, this.#columns - 1)}`);
  }

  get #columns(): number {
    return process.stdout.columns || 80;
  }
}
