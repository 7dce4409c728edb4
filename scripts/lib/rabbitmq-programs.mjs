// Where RabbitMQ's and Erlang's programs are on this machine, and how `rabbitmqctl` is called for a node of ours.

import { execFile } from 'node:child_process';
import { existsSync, realpathSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { findIn, searchPath } from './executables.mjs';

const FOLDERS = ['/usr/local/sbin', '/usr/sbin', '/usr/local/bin'];

/**
 * The packages of Debian and Red Hat put a wrapper on the PATH that changes to the user `rabbitmq` and to its home. The
 * scripts behind it run as whoever calls them, with a data folder of the caller's: those we want.
 * @returns {{ server: string, ctl: string, epmd: string } | undefined}
 */
export function findRabbitMQ() {
  const onPath = findIn('rabbitmq-server', searchPath(...FOLDERS));
  const folders = ['/usr/lib/rabbitmq/bin'];
  if (onPath) folders.push(dirname(realpathSync(onPath)), dirname(onPath));
  const bin = folders.find((folder) =>
    ['rabbitmq-server', 'rabbitmqctl', 'rabbitmq-env'].every((f) => existsSync(join(folder, f))),
  );
  const erl = findIn('erl', searchPath(...FOLDERS));
  const epmd = findIn('epmd', [...searchPath(...FOLDERS), ...(erl ? [dirname(realpathSync(erl))] : [])]);
  if (!bin || !erl || !epmd) return undefined;
  return { server: join(bin, 'rabbitmq-server'), ctl: join(bin, 'rabbitmqctl'), epmd };
}

/**
 * What has to be known of a node to call `rabbitmqctl` on it; survives a trip through the environment.
 * @typedef {{ ctl: string, nodename: string, home: string, epmdPort: number }} CtlSettings
 */

const ENV_PREFIX = 'MOZUKU_TEST_RABBITMQ_';

/** @param {CtlSettings} settings @returns {Record<string, string>} */
export function ctlSettingsToEnv(settings) {
  return {
    [`${ENV_PREFIX}CTL`]: settings.ctl,
    [`${ENV_PREFIX}NODENAME`]: settings.nodename,
    [`${ENV_PREFIX}HOME`]: settings.home,
    [`${ENV_PREFIX}EPMD_PORT`]: String(settings.epmdPort),
  };
}

/** @param {Record<string, string | undefined>} env @returns {CtlSettings | undefined} */
export function ctlSettingsFromEnv(env) {
  const [ctl, nodename, home, epmdPort] = ['CTL', 'NODENAME', 'HOME', 'EPMD_PORT'].map((key) => env[ENV_PREFIX + key]);
  if (!ctl || !nodename || !home || !epmdPort) return undefined;
  return { ctl, nodename, home, epmdPort: Number(epmdPort) };
}

/**
 * The environment of every program of a node: nothing of the caller's but the PATH, so that no RABBITMQ_* or ERL_*
 * variable of this machine changes what runs, and a HOME whose cookie only this node knows.
 * @param {Omit<CtlSettings, 'ctl'>} settings
 * @returns {Record<string, string>}
 */
export function programEnv({ nodename, home, epmdPort }) {
  return {
    PATH: `${process.env.PATH ?? ''}${delimiter}/usr/sbin${delimiter}/usr/bin${delimiter}/bin`,
    HOME: home,
    LANG: 'C.UTF-8',
    ERL_EPMD_PORT: String(epmdPort),
    RABBITMQ_NODENAME: nodename,
    RABBITMQ_CONF_ENV_FILE: join(home, 'rabbitmq-env.conf'),
    // each rabbitmqctl listens while it runs; the default range has room for eleven at a time on the whole machine
    RABBITMQ_CTL_DIST_PORT_MIN: '35672',
    RABBITMQ_CTL_DIST_PORT_MAX: '36672',
  };
}

/**
 * Runs `rabbitmqctl` and gives what it printed. It costs about half a second.
 * @param {CtlSettings} settings
 * @param {string[]} args
 * @returns {Promise<string>}
 */
export function runCtl(settings, args) {
  return new Promise((resolve, reject) => {
    const options = { env: programEnv(settings), cwd: settings.home, maxBuffer: 64 * 1024 * 1024, timeout: 120_000 };
    execFile(settings.ctl, ['--quiet', ...args], options, (error, stdout, stderr) => {
      if (!error) resolve(stdout);
      else
        reject(new Error(`rabbitmqctl ${args.join(' ')} failed: ${stderr.trim() || stdout.trim() || error.message}`));
    });
  });
}
