/**
 * The child processes of the benchmark: started by handle, spoken to in messages, and never left behind.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Message } from './protocol.js';

type Type = Message['type'];
type Of<T extends Type> = Extract<Message, { type: T }>;

/** How long a child that was told to go may take, before it is killed. */
const EXIT_MS = 2000;

interface Waiter {
  readonly type: Type;
  /** Goes on waiting when the child reports a problem. */
  readonly deaf: boolean;
  readonly resolve: (message: Message) => void;
  readonly reject: (error: Error) => void;
}

const living = new Set<Child>();

export class Child {
  readonly #name: string;
  readonly #process: ChildProcess;
  readonly #exited: Promise<void>;
  readonly #inbox: Message[] = [];
  #waiting: Waiter[] = [];
  #failure: Error | undefined;

  constructor(program: string, name: string, args: readonly string[] = []) {
    this.#name = name;
    // What a child prints goes to stderr: stdout is the report's.
    this.#process = fork(fileURLToPath(new URL(program, import.meta.url)), args, { stdio: ['ignore', 2, 2, 'ipc'] });
    living.add(this);
    this.#process.on('message', (message) => this.#take(message as Message));
    this.#exited = new Promise((resolve) => {
      this.#process.on('error', (error) => this.#fail(error, true));
      this.#process.on('exit', (code, signal) => {
        living.delete(this);
        this.#fail(new Error(`${name} ended with ${signal ?? `code ${code}`}`), true);
        resolve();
      });
    });
  }

  send(message: Message): void {
    if (this.#process.connected) this.#process.send(message, () => undefined);
  }

  /** The next message of a type. Rejects when the child ends, takes too long, or (unless `deaf`) reports a problem. */
  next<T extends Type>(type: T, timeoutMs: number, { deaf = false } = {}): Promise<Of<T>> {
    const index = this.#inbox.findIndex((message) => message.type === type);
    if (index >= 0) return Promise.resolve(this.#inbox.splice(index, 1)[0] as Of<T>);
    if (this.#failure !== undefined && (!deaf || this.#gone)) return Promise.reject(this.#failure);
    return new Promise<Of<T>>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting = this.#waiting.filter((waiter) => waiter !== entry);
        reject(new Error(`${this.#name}: no '${type}' within ${Math.round(timeoutMs / 1000)} s`));
      }, timeoutMs);
      const entry: Waiter = {
        type,
        deaf,
        resolve: (message: Message) => {
          clearTimeout(timer);
          resolve(message as Of<T>);
        },
        reject: (error: Error) => {
          clearTimeout(timer);
          reject(error);
        },
      };
      this.#waiting.push(entry);
    });
  }

  /** Forgets what came and who waited, a problem included: between the steps of the one broker that serves all runs. */
  reset(): void {
    this.#inbox.length = 0;
    this.#fail(new Error(`${this.#name}: no longer waited for`), true);
    if (!this.#gone) this.#failure = undefined;
  }

  /** Resolves when the process is gone: by itself within a short time, otherwise killed. */
  async stop(graceMs = EXIT_MS): Promise<void> {
    const timer = setTimeout(() => this.kill(), graceMs);
    await this.#exited;
    clearTimeout(timer);
  }

  kill(): void {
    this.#process.kill('SIGKILL');
  }

  #take(message: Message): void {
    if (message.type === 'problem') {
      this.#fail(new Error(`${this.#name}: ${message.text}`), false);
      return;
    }
    const waiter = this.#waiting.find((entry) => entry.type === message.type);
    if (waiter === undefined) {
      this.#inbox.push(message);
      return;
    }
    this.#waiting = this.#waiting.filter((entry) => entry !== waiter);
    waiter.resolve(message);
  }

  #fail(error: Error, deafToo: boolean): void {
    this.#failure ??= error;
    const failed = this.#waiting.filter((waiter) => deafToo || !waiter.deaf);
    this.#waiting = this.#waiting.filter((waiter) => !failed.includes(waiter));
    for (const waiter of failed) waiter.reject(this.#failure);
  }

  get #gone(): boolean {
    return this.#process.exitCode !== null || this.#process.signalCode !== null;
  }
}

/** For the way out by a signal: whatever runs is killed, by its handle. */
export function killAll(): void {
  for (const child of living) child.kill();
}
