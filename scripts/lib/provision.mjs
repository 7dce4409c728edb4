// Gets the programs the tests use: RabbitMQ, Redis and Python's kombu. They are installed only where that was asked for
// (CI=true or MOZUKU_INSTALL=1, as root, with apt); elsewhere they are used if they are there.

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { announce, run } from './project.mjs';
import { findRabbitMQ } from './rabbitmq-programs.mjs';
import { findRedis } from './redis-programs.mjs';

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

/** Whether redis-server is there, after installing it where that is allowed. */
export async function provideRedis() {
  if (!findRedis() && mayInstall) {
    announce('installing redis-server');
    await aptInstall('redis-server');
  }
  return findRedis() !== undefined;
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

/** What kombu wants beside it to speak to Redis, and what publishes on it as a service would. */
const FOR_REDIS = ['redis', 'celery'];

/**
 * A Python with kombu, after installing it where that is allowed; the modules beside it if they can be had.
 * @param {{ redis: boolean }} wanted
 */
export async function provideKombu({ redis }) {
  const beside = [...BESIDE_KOMBU, ...(redis ? FOR_REDIS : [])];
  const complete = findPython(['kombu', ...beside]);
  if (complete) return complete;
  if (mayInstall) {
    announce('installing python3-kombu');
    await aptInstall('python3-kombu', ...beside.map((name) => `python3-${name}`));
    return findPython(['kombu', ...beside]) ?? findPython(['kombu']);
  }
  return (redis ? findPython(['kombu', 'redis']) : undefined) ?? findPython(['kombu']);
}
