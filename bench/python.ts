import { execFileSync } from 'node:child_process';

/** A Python that can import these modules. */
export function pythonWith(...modules: readonly string[]): string | undefined {
  return [process.env.MOZUKU_TEST_PYTHON, '/usr/bin/python3', 'python3'].find((python) => {
    try {
      if (python === undefined) return false;
      execFileSync(python, ['-c', `import ${modules.join(', ')}`], { stdio: 'ignore' });
      return true;
    } catch {
      return false;
    }
  });
}
