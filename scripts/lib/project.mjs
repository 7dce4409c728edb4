// What every command of this folder does first (dependencies, compilation) and how it runs another program. Only Node's
// own modules: this works on a fresh clone.

import { spawn } from 'node:child_process';
import { statSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** @type {NodeJS.Signals | undefined} */
let interrupted;
/** @type {import('node:child_process').ChildProcess | undefined} */
let running;

for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
  process.on(signal, () => {
    if (interrupted) running?.kill('SIGKILL');
    // a Ctrl-C goes to the whole group: the program got it from the terminal, and two of them often mean "at once"
    else if (signal !== 'SIGINT' || !process.stdin.isTTY) running?.kill(signal);
    interrupted ??= signal;
  });
}

/**
 * Runs a program to its end with our terminal and gives its exit code; 128 + number after a signal. Once this process
 * was told to stop nothing is started any more.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ env?: Record<string, string | undefined> }} [options]
 * @returns {Promise<number>}
 */
export async function run(command, args, { env = process.env } = {}) {
  if (interrupted) return interruptedCode();
  const child = spawn(command, args, { cwd: ROOT, stdio: 'inherit', env });
  running = child;
  try {
    return await new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal ?? 'SIGKILL']));
    });
  } finally {
    running = undefined;
  }
}

export function wasInterrupted() {
  return interrupted !== undefined;
}

export function interruptedCode() {
  return 128 + constants.signals[interrupted ?? 'SIGINT'];
}

/** A failure with a text for people; `main` prints it without a stack. */
export class CommandError extends Error {
  exitCode = 1;
}

/** @param {string} path @returns {number} when it last changed, 0 if it does not exist */
function modifiedAt(path) {
  return statSync(join(ROOT, path), { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

/** Installs what package-lock.json says unless that was done since it last changed, then compiles. */
export async function prepare() {
  // npm writes this file last: a cut off installation is seen as none
  if (modifiedAt('node_modules/.package-lock.json') < modifiedAt('package-lock.json')) {
    await must('npm', ['ci', '--no-audit', '--no-fund', '--include=dev']);
  }
  await must(join(ROOT, 'node_modules/.bin/tsc'), ['-b']);
}

/** @param {string} command @param {string[]} args */
async function must(command, args) {
  const code = await run(command, args);
  if (code === 0) return;
  const error = new CommandError(`${command} ${args.join(' ')} ended with exit code ${code}`);
  error.exitCode = code;
  throw error;
}

/**
 * Runs a command of this folder: its result is the exit code of the process.
 * @param {(args: string[]) => Promise<number>} command
 */
export async function main(command) {
  try {
    process.exitCode = await command(process.argv.slice(2));
  } catch (error) {
    const expected = error instanceof CommandError;
    console.error(expected ? error.message : error);
    process.exitCode = expected ? error.exitCode : 1;
  }
}

/** A line that is seen among the output of compilers and test runners. @param {string} text */
export function announce(text) {
  console.log(`\n=== ${text}`);
}
