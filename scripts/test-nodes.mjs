// npm run test:nodes: the unit and integration tests on other versions of Node, which are installed into build/nodes.
//
//   npm run test:nodes                     24 and 26
//   npm run test:nodes -- --current lane   first the Node that runs this, and only files with `lane` in their path

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { CommandError, main, prepare, ROOT, run } from './lib/project.mjs';
import { current, runSession } from './lib/session.mjs';

const VERSIONS = ['24', '26'];

/** @param {string} path @returns {string | undefined} the version a binary reports */
function versionOf(path) {
  if (!existsSync(path)) return undefined;
  try {
    return execFileSync(path, ['--version'], { encoding: 'utf8' }).trim().slice(1);
  } catch {
    return undefined;
  }
}

/** @param {string} major */
async function provideNode(major) {
  const folder = join(ROOT, 'build', 'nodes', major);
  // npm's package `node` copies the binary from a package for the platform; where install scripts are switched off
  // only that package has it
  const places = () =>
    ['node/bin/node', `node/node_modules/${platformPackage()}/bin/node`, `${platformPackage()}/bin/node`]
      .map((place) => join(folder, 'node_modules', place))
      .map((path) => ({ path, name: versionOf(path) }))
      .find((found) => found.name?.startsWith(`${major}.`));
  if (!places()) {
    await run('npm', ['install', '--prefix', folder, '--no-save', '--no-audit', '--no-fund', `node@${major}`]);
  }
  const found = places();
  if (!found) throw new CommandError(`Node ${major} could not be installed`);
  return { name: String(found.name), path: found.path };
}

function platformPackage() {
  return `node-${process.platform}-${process.arch}`;
}

await main(async (args) => {
  await prepare();
  const runtimes = args.includes('--current') ? [current()] : [];
  for (const version of VERSIONS) runtimes.push(await provideNode(version));
  return runSession({
    suites: ['unit', 'integration', 'conformance'],
    args: args.filter((arg) => arg !== '--current'),
    concurrency: Number(process.env.MOZUKU_TEST_CONCURRENCY) || 2,
    timeoutMs: 300_000,
    runtimes,
  });
});
