// One run of tests: decides which files can run, starts the RabbitMQ node and the redis-server they share, runs Node's test
// runner on them and says what did not run.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { announce, CommandError, interruptedCode, run, wasInterrupted } from './project.mjs';
import { isCI, provideKombu, provideRabbitMQ, provideRedis } from './provision.mjs';
import { RabbitNode } from './rabbitmq.mjs';
import { RedisServer } from './redis.mjs';
import { findTestFiles } from './test-files.mjs';

const REPORTER = new URL('count-reporter.mjs', import.meta.url).href;

/** @param {string} name of the package @param {string} variable */
const installHint = (name, variable) =>
  `apt-get install -y ${name}   (or, as root: MOZUKU_INSTALL=1 npm test; or set ${variable})`;

/**
 * What the files of a run share. `controls`: what tests cannot do with a server that is only known by its URL.
 * @typedef {{ url: string, env: Record<string, string>, dispose(): Promise<void> }} SharedServer
 * @type {readonly { need: string, title: string, program: string, variable: string, controls: string,
 *   provide: () => Promise<boolean>, start: () => Promise<SharedServer> }[]}
 */
const SERVERS = [
  {
    need: 'broker',
    title: 'RabbitMQ',
    program: 'rabbitmq-server',
    variable: 'MOZUKU_TEST_AMQP_URL',
    controls: 'control a node',
    provide: provideRabbitMQ,
    start: () => RabbitNode.start(),
  },
  {
    need: 'redis',
    title: 'Redis',
    program: 'redis-server',
    variable: 'MOZUKU_TEST_REDIS_URL',
    controls: 'start servers of their own',
    provide: provideRedis,
    // each test takes a database of its own
    start: () => RedisServer.start({ config: { databases: '512' } }),
  },
];

/**
 * @typedef {object} SessionOptions
 * @property {readonly string[]} suites folders of test/
 * @property {readonly string[]} args of the command: parts of file names, and `--test-*` for Node's runner
 * @property {number} concurrency how many files run at a time
 * @property {number} timeoutMs for one file
 * @property {readonly { name: string, path: string }[]} [runtimes] the Node binaries to run them with, one after another
 */

/**
 * Runs the tests with each runtime and gives the exit code: 0 only if every one ran tests and none failed.
 * @param {SessionOptions} options
 */
export async function runSession({ suites, args, concurrency, timeoutMs, runtimes = [current()] }) {
  const files = findTestFiles(
    suites,
    args.filter((arg) => !arg.startsWith('-')),
  );
  if (files.length === 0) throw new CommandError(`no test file of ${suites.join(', ')} matches ${args.join(' ')}`);

  const notRun = /** @type {string[]} */ ([]);
  const env = /** @type {Record<string, string | undefined>} */ ({ ...process.env });
  const missing = /** @type {Set<string>} */ (new Set());
  const running = /** @type {SharedServer[]} */ ([]);
  try {
    for (const { need, title, program, variable, controls, provide, start } of SERVERS) {
      if (!files.some((file) => file.needs.has(need))) continue;
      if (await provide()) {
        const started = Date.now();
        const server = await start();
        running.push(server);
        Object.assign(env, server.env);
        announce(`${title} for these tests: ${server.url}, started in ${Date.now() - started} ms`);
      } else if (env[variable]) {
        announce(`${program} is not installed: using ${variable}; tests that ${controls} are skipped`);
      } else {
        const hint = installHint(program, variable);
        if (isCI) throw new CommandError(`${program} is missing, which is a failure in CI: ${hint}`);
        missing.add(need);
        const left = files.filter((file) => file.needs.has(need)).map((file) => `  ${file.path}`);
        notRun.push(`${title} is missing: ${hint}\nNOT RUN, they need it:\n${left.join('\n')}`);
      }
    }
    const runnable = files.filter((file) => runsWithout(missing, file));
    if (runnable.some((file) => file.needs.has('kombu'))) {
      env.MOZUKU_TEST_PYTHON = await provideKombu({ redis: runnable.some((file) => file.needs.has('redis-python')) });
      if (!env.MOZUKU_TEST_PYTHON) {
        const some = runnable.filter((file) => file.needs.has('kombu')).map((file) => `  ${file.path}`);
        notRun.push(
          `Python's kombu is missing: apt-get install -y python3-kombu\nNOT RUN in part:\n${some.join('\n')}`,
        );
      }
    }
    for (const text of notRun) announce(text);
    if (runnable.length === 0) throw new CommandError('no test ran');

    let exitCode = 0;
    const ended = [];
    for (const runtime of runtimes) {
      if (runtimes.length > 1) announce(`tests on Node ${runtime.name}`);
      const paths = runnable.map((file) => file.path);
      const result = await runNode(runtime, paths, { args, concurrency, timeoutMs, env });
      exitCode ||= result.code;
      ended.push(`Node ${runtime.name}: ${result.text}`);
      if (wasInterrupted()) break;
    }
    for (const text of notRun) announce(text);
    if (runtimes.length > 1) announce(ended.join('\n    '));
    // a runner that was told to stop may have ended well
    return exitCode || (wasInterrupted() ? interruptedCode() : 0);
  } finally {
    await Promise.all(running.map((server) => server.dispose()));
  }
}

/**
 * Half of each conformance test is about the embedded broker.
 * @param {ReadonlySet<string>} missing @param {import('./test-files.mjs').TestFile} file
 */
function runsWithout(missing, file) {
  return file.path.includes('/conformance/') || ![...file.needs].some((need) => missing.has(need));
}

/** The Node that runs this command. */
export function current() {
  return { name: process.versions.node, path: process.execPath };
}

/**
 * @param {{ name: string, path: string }} runtime
 * @param {readonly string[]} files
 * @param {Pick<SessionOptions, 'args' | 'concurrency' | 'timeoutMs'> & { env: Record<string, string | undefined> }} options
 */
async function runNode(runtime, files, { args, concurrency, timeoutMs, env }) {
  const folder = mkdtempSync(join(tmpdir(), 'mozuku-test-'));
  try {
    const countsFile = join(folder, 'counts.json');
    const code = await run(
      runtime.path,
      [
        '--test',
        `--test-concurrency=${Math.min(concurrency, availableParallelism())}`,
        `--test-timeout=${timeoutMs}`,
        '--test-reporter=spec',
        '--test-reporter-destination=stdout',
        `--test-reporter=${REPORTER}`,
        `--test-reporter-destination=${countsFile}`,
        ...args.filter((arg) => arg.startsWith('--test-')),
        ...files,
      ],
      { env },
    );
    const counts = readCounts(countsFile);
    for (const skip of counts.skipped) console.log(`SKIPPED ${skip.name}${skip.reason && ` (${skip.reason})`}`);
    const text = `${counts.ran} tests ran, ${counts.skipped.length} skipped, exit code ${code}`;
    if (code === 0 && counts.ran === 0) {
      console.error('No test ran, which counts as a failure.');
      return { code: 1, text };
    }
    return { code, text };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @param {string} file @returns {import('./count-reporter.mjs').Counts} */
function readCounts(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    // the runner was killed before its end
    return { ran: 0, skipped: [] };
  }
}
