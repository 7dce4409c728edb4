// Python's kombu for tests that compare with it. `npm test` finds a Python that has it; without one these tests are skipped
// with the reason, in CI too.

import { execFile } from 'node:child_process';
import { type TestContext, test } from 'node:test';

/** A Python that can import kombu, if there is one. */
export const kombuPython: string | undefined = process.env.MOZUKU_TEST_PYTHON || undefined;

/** Registers a test that gets the path of a Python with kombu. */
export function kombuTest(
  name: string,
  run: (python: string, context: TestContext) => Promise<void>,
  options: { timeout?: number } = {},
): void {
  const python = kombuPython;
  if (python) test(name, options, (context) => run(python, context));
  else test(name, { skip: "Python's kombu is not installed (or not run with npm test)" }, () => undefined);
}

/** Runs a Python program given as text and gives what it printed. */
export function runPython(python: string, program: string, args: readonly string[] = [], input = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { timeout: 60_000, maxBuffer: 64 * 1024 * 1024 };
    const child = execFile(python, ['-c', program, ...args], options, (error, stdout, stderr) => {
      if (error) reject(new Error(`${error.message}\n${stderr}`));
      else resolve(stdout);
    });
    // the program may end without reading what it was given
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
}
