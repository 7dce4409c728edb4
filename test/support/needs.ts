/** Tests that need something of the machine: skipped with the reason where it is missing, failing where CI=true. */
import { type TestContext, test } from 'node:test';

const isCI = process.env.CI === 'true' || process.env.CI === '1';

/** Registers a test that needs something; `missing` says what is not there. */
export function testThatNeeds(
  missing: string | undefined,
  name: string,
  options: { timeout?: number },
  run: (context: TestContext) => Promise<void>,
): void {
  if (missing === undefined) test(name, options, run);
  else if (isCI) test(name, () => Promise.reject(new Error(`${missing} (a failure because CI=true)`)));
  else test(name, { skip: missing }, () => undefined);
}
