// Gets the programs the tests use: RabbitMQ and Python's kombu. They are installed only where that was asked for
// (CI=true or MOZUKU_INSTALL=1, as root, with apt); elsewhere they are used if they are there.

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { announce, run } from './project.mjs';
import { findRabbitMQ } from './rabbitmq-programs.mjs';

export const isCI = process.env.CI === 'true' || process.env.CI === '1';

const mayInstall =
  (isCI || process.env.MOZUKU_INSTALL === '1') && process.getuid?.() === 0 && existsSync('/usr/bin/apt-get');

let listsUpdated = false;

/** @param {string[]} names Debian packages */
async function aptInstall(...names) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  if (!listsUpdated) await run('apt-get', ['update', '-q'], { env });
  listsUpdated = true;
  await run('apt-get', ['install', '-y', '-q', '--no-install-recommends', ...names], { env });
}

/** Whether rabbitmq-server is there, after installing it where that is allowed. */
export async function provideRabbitMQ() {
  if (!findRabbitMQ() && mayInstall) {
    announce('installing rabbitmq-server');
    await aptInstall('rabbitmq-server');
  }
  return findRabbitMQ() !== undefined;
}

/** What kombu's serializers and compressors want beside it, by the names of their modules. */
const BESIDE_KOMBU = ['msgpack', 'brotli', 'zstandard', 'lz4', 'yaml'];

/** @param {readonly string[]} modules @returns {string | undefined} a Python that can import all of them */
function findPython(modules) {
  return [process.env.MOZUKU_TEST_PYTHON, '/usr/bin/python3', 'python3'].find((python) => {
    if (!python) return false;
    try {
      execFileSync(python, ['-c', `import ${modules.join(', ')}`], { stdio: 'ignore' });
      return true;
    } catch {
      return false;
    }
  });
}

/** A Python with kombu, after installing it where that is allowed; the modules beside it if they can be had. */
export async function provideKombu() {
  const complete = findPython(['kombu', ...BESIDE_KOMBU]);
  if (complete || !mayInstall) return complete ?? findPython(['kombu']);
  announce('installing python3-kombu');
  await aptInstall('python3-kombu', ...BESIDE_KOMBU.map((name) => `python3-${name}`));
  return findPython(['kombu']);
}
