// Reaches the modules of scripts/lib from the compiled tests. They are plain JavaScript because `npm test` runs them before
// anything is installed or compiled; the tests run from build/test, so they are found from the package's root.

import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error('no package.json above the compiled tests');
    folder = parent;
  }
  return folder;
}

/** The package's root folder. */
export const ROOT = packageRoot();

/** Imports `scripts/lib/<name>`; the caller names the type, which is that module's `.d.mts`. */
export async function importScript<Module>(name: string): Promise<Module> {
  return (await import(pathToFileURL(join(ROOT, 'scripts', 'lib', name)).href)) as Module;
}
