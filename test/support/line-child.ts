// A program that runs beside a test: it prints a line whenever the test may go on. Lines, never chunks: what one
// print() writes may come through the pipe in several.

import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';

/** Not readline's: from Node 24 on it ends a line at U+2028 as well, which JSON may hold. */
async function* linesOf(output: Readable): AsyncGenerator<string, void> {
  let rest = '';
  for await (const text of output.setEncoding('utf8')) {
    const lines = (rest + (text as string)).split('\n');
    rest = lines.pop()!;
    yield* lines;
  }
  if (rest !== '') yield rest;
}

export class LineChild implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #lines: AsyncGenerator<string, void>;
  readonly #exit: Promise<unknown>;
  #stderr = '';

  /** `env`: beside what this process has. */
  constructor(command: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.#child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    this.#child.stderr.on('data', (bytes: Buffer) => {
      this.#stderr += bytes.toString();
    });
    // it may end without reading what it was told
    this.#child.stdin.on('error', () => undefined);
    this.#exit = once(this.#child, 'exit');
    this.#lines = linesOf(this.#child.stdout);
  }

  /** What it prints next; fails with its errors if it has ended. */
  async line(): Promise<string> {
    const { done, value } = await this.#lines.next();
    if (!done) return value;
    await this.#exit;
    throw new Error(`the program ended: ${this.#stderr}`);
  }

  async json(): Promise<unknown> {
    return JSON.parse(await this.line());
  }

  /** Writes a line to its standard input. */
  tell(line: string): void {
    this.#child.stdin.write(`${line}\n`);
  }

  /** Ends its standard input. */
  end(): void {
    this.#child.stdin.end();
  }

  /** Ends its standard input and waits until it has ended by itself. */
  async finish(): Promise<void> {
    this.end();
    await this.#exit;
  }

  /** Resolves when it has ended. */
  get ended(): Promise<unknown> {
    return this.#exit;
  }

  kill(signal?: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill();
    await this.#exit;
  }
}

/** A Python program that is given as text. */
export class PythonChild extends LineChild {
  constructor(python: string, program: string, args: readonly string[] = []) {
    super(python, ['-u', '-c', program, ...args]);
  }
}
