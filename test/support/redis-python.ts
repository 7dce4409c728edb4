// A Python whose kombu can speak to Redis, for tests that compare with it. Without one they are skipped with the reason, or
// fail where CI=true.

import { execFileSync } from 'node:child_process';
import type { TestContext } from 'node:test';
import { pythonFor } from './kombu.js';

const PROBE = `
import importlib.util, json, sys
print(json.dumps([name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]))
`;

/** The Python of a test that needs kombu, `redis` and what else is named, such as `celery`; undefined where it was skipped. */
export function pythonWithRedis(context: TestContext, ...modules: readonly string[]): string | undefined {
  const python = pythonFor(context);
  if (python === undefined) return undefined;
  const wanted = ['redis', ...modules];
  const absent = JSON.parse(execFileSync(python, ['-c', PROBE, ...wanted], { encoding: 'utf8' })) as string[];
  if (absent.length === 0) return python;
  const missing = `Python's ${absent.join(' and ')} not installed: apt-get install -y ${absent.map((name) => `python3-${name}`).join(' ')}`;
  if (process.env.CI === 'true') throw new Error(`${missing}, a failure because CI=true`);
  context.skip(missing);
  return undefined;
}
