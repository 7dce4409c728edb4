// Python's kombu for tests that compare with it. `npm test` finds a Python that has it; without one these tests are skipped
// with the reason, or fail where CI=true.

import { execFile, execFileSync } from 'node:child_process';
import { type TestContext, test } from 'node:test';

/** A Python that can import kombu, if there is one. */
export const kombuPython: string | undefined = process.env.MOZUKU_TEST_PYTHON || undefined;

const PROBE = `
import importlib.util, json, kombu, kombu.compression
has = lambda name: importlib.util.find_spec(name) is not None
names = ['msgpack', 'brotli', 'zstandard', 'lz4', 'yaml']
print(json.dumps({'version': kombu.VERSION[:2], 'modules': [name for name in names if has(name)],
    'compressions': sorted(kombu.compression.encoders())}))
`;

export interface KombuFacts {
  readonly version: readonly [major: number, minor: number];
  /** Of msgpack, brotli, zstandard, lz4 and yaml, those that this Python has. */
  readonly modules: readonly string[];
  /** The content types that its kombu compresses to. */
  readonly compressions: readonly string[];
}

/** What that Python can do; asks it. */
export function kombuFacts(python: string): KombuFacts {
  return JSON.parse(execFileSync(python, ['-c', PROBE], { encoding: 'utf8' })) as KombuFacts;
}

const MISSING = "Python's kombu is not installed (or the tests do not run by npm test)";

/** The Python of a test that compares with kombu; without one it is skipped (undefined), or fails where CI=true. */
export function pythonFor(context: TestContext): string | undefined {
  if (kombuPython === undefined && process.env.CI === 'true') throw new Error(`${MISSING}, a failure because CI=true`);
  if (kombuPython === undefined) context.skip(MISSING);
  return kombuPython;
}

/** Registers a test that gets the path of a Python with kombu. */
export function kombuTest(name: string, run: (python: string, context: TestContext) => Promise<void>): void {
  test(name, async (context) => {
    const python = pythonFor(context);
    if (python !== undefined) await run(python, context);
  });
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
