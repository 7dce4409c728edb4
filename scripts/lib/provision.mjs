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

/** @param {string} name a Debian package */
async function aptInstall(name) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  if (!listsUpdated) await run('apt-get', ['update', '-q'], { env });
  listsUpdated = true;
  await run('apt-get', ['install', '-y', '-q', '--no-install-recommends', name], { env });
}

/** Whether rabbitmq-server is there, after installing it where that is allowed. */
export async function provideRabbitMQ() {
  if (!findRabbitMQ() && mayInstall) {
    announce('installing rabbitmq-server');
    await aptInstall('rabbitmq-server');
  }
  return findRabbitMQ() !== undefined;
}

/** @returns {string | undefined} a Python that can import kombu */
function findKombu() {
  return [process.env.MOZUKU_TEST_PYTHON, 'python3', '/usr/bin/python3'].find((python) => {
    if (!python) return false;
    try {
      execFileSync(python, ['-c', 'import kombu'], { stdio: 'ignore' });
      return true;
    } catch {
      return false;
    }
  });
}

/** A Python with kombu, after installing it where that is allowed. */
export async function provideKombu() {
  const found = findKombu();
  if (found || !mayInstall) return found;
  announce('installing python3-kombu');
  await aptInstall('python3-kombu');
  return findKombu();
}
