// A RabbitMQ node of one's own: free ports, a folder of its own for data, logs and cookie, an epmd of its own, the user
// who calls. It needs no service, no configuration of the machine and no other node, and touches none.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePorts } from './ports.mjs';
import { ctlSettingsToEnv, findRabbitMQ, programEnv, runCtl } from './rabbitmq-programs.mjs';

const GUARD = fileURLToPath(new URL('node-guard.sh', import.meta.url));
const START_ATTEMPTS = 3;

/**
 * Whether an AMQP 0-9-1 server answers at this port with `connection.start`. An open port alone may be that of a node
 * that still starts or is being shut down.
 * @param {number} port
 * @returns {Promise<boolean>}
 */
export function answersAmqp(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    const done = (/** @type {boolean} */ answer) => {
      resolve(answer);
      socket.destroy();
    };
    socket.setTimeout(2000, () => done(false));
    socket.on('connect', () => socket.write('AMQP\x00\x00\x09\x01', 'latin1'));
    socket.on('data', (bytes) => done(bytes[0] === 1));
    socket.on('error', () => done(false));
    socket.on('close', () => done(false));
  });
}

/** @param {number} port */
async function waitForEpmd(port) {
  for (let attempt = 0; attempt < 500; attempt++) {
    const open = await new Promise((resolve) => {
      const socket = net.connect(port, '127.0.0.1', () => resolve(true));
      socket.on('error', () => resolve(false));
      socket.on('connect', () => socket.destroy());
    });
    if (open) return;
    await sleep(10);
  }
  throw new Error(`epmd does not listen on port ${port}`);
}

export class RabbitNode {
  #programs;
  #settings;
  #ports;
  #guard;
  #epmd;
  /** @type {import('node:child_process').ChildProcess | undefined} */
  #server;
  #serverGone = Promise.resolve();
  #disposed = false;

  /**
   * Starts a node and waits until it takes connections.
   * @param {{ config?: Record<string, string>, enabledPlugins?: readonly string[], timeoutMs?: number }} [options]
   */
  static async start(options = {}) {
    for (let attempt = 1; ; attempt++) {
      const node = new RabbitNode(await freePorts(3), options);
      try {
        await waitForEpmd(node.#settings.epmdPort);
        node.#launch();
        await node.waitReady(options.timeoutMs);
        return node;
      } catch (error) {
        const portTaken = /eaddrinuse|already in use|epmd does not listen/i.test(String(error));
        await node.dispose();
        if (!portTaken || attempt === START_ATTEMPTS) throw error;
      }
    }
  }

  /**
   * Use `RabbitNode.start`.
   * @param {number[]} ports
   * @param {{ config?: Record<string, string>, enabledPlugins?: readonly string[] }} options
   */
  constructor(ports, { config = {}, enabledPlugins = [] }) {
    const programs = findRabbitMQ();
    if (!programs) throw new Error('rabbitmq-server is not installed on this machine');
    this.#programs = programs;
    const [port, distPort, epmdPort] = ports;
    this.#ports = { port, distPort };
    const home = mkdtempSync(join(tmpdir(), 'mozuku-rabbitmq-'));
    const nodename = `mozuku-${process.pid}-${randomBytes(4).toString('hex')}@localhost`;
    this.#settings = { ctl: programs.ctl, nodename, home, epmdPort };
    const lines = Object.entries({ 'listeners.tcp.1': `127.0.0.1:${port}`, ...config }).map((pair) => pair.join(' = '));
    writeFileSync(join(home, 'rabbitmq.conf'), `${lines.join('\n')}\n`);
    writeFileSync(join(home, 'enabled_plugins'), `[${enabledPlugins.join(',')}].\n`);
    writeFileSync(join(home, 'rabbitmq-env.conf'), '');
    writeFileSync(join(home, '.erlang.cookie'), randomBytes(16).toString('hex').toUpperCase());
    chmodSync(join(home, '.erlang.cookie'), 0o400);

    // detached everywhere: Ctrl-C in a terminal goes to the whole group and would take the broker before the tests end
    this.#guard = spawn('/bin/sh', [GUARD, home], { stdio: ['pipe', 'ignore', 'ignore'], detached: true, cwd: '/' });
    this.#guard.stdin.on('error', () => undefined);
    this.#epmd = spawn(programs.epmd, ['-port', String(epmdPort), '-address', '127.0.0.1'], {
      stdio: 'ignore',
      detached: true,
      env: programEnv(this.#settings),
      cwd: '/',
    });
    for (const child of [this.#guard, this.#epmd]) {
      child.on('error', () => undefined);
      child.unref();
    }
    // a node left running by a test must not keep the test's process alive: the guard takes it down
    /** @type {net.Socket} */ (this.#guard.stdin).unref();
    this.#watch(this.#epmd);
  }

  get port() {
    return this.#ports.port;
  }

  get url() {
    return `amqp://guest:guest@127.0.0.1:${this.port}`;
  }

  get nodename() {
    return this.#settings.nodename;
  }

  /** The folder with the data, the configuration and the logs. */
  get folder() {
    return this.#settings.home;
  }

  /** The Erlang machine's process id, undefined while it does not run. */
  get pid() {
    if (!this.#server) return undefined;
    try {
      return Number(readFileSync(join(this.folder, 'pid'), 'utf8')) || this.#server.pid;
    } catch {
      return this.#server.pid;
    }
  }

  /** What another process needs to use this node: its URL and how to call rabbitmqctl. */
  get env() {
    return { MOZUKU_TEST_AMQP_URL: this.url, ...ctlSettingsToEnv(this.#settings) };
  }

  /** @param {...string} args */
  ctl(...args) {
    return runCtl(this.#settings, args);
  }

  /** Stops RabbitMQ inside the running Erlang machine: every client gets a connection.close, then the port is shut. */
  async stopApp() {
    await this.ctl('stop_app');
  }

  async startApp() {
    await this.ctl('start_app');
    await this.waitReady();
  }

  /** SIGKILL, as a machine that loses power: clients see a reset. */
  async kill() {
    this.#signal('SIGKILL');
    await this.#ended();
  }

  /** Shuts the node down in order; its data stays. */
  async stop() {
    // a frozen machine would sleep on it
    this.#signal('SIGCONT');
    this.#signal('SIGTERM');
    await this.#ended();
  }

  /** Starts the node again with the same ports and data, after stopping it if it still runs. */
  async restart() {
    if (this.#disposed) throw new Error('this node was disposed of');
    await this.stop();
    this.#launch();
    await this.waitReady();
  }

  /** SIGSTOP: connections stay open and nobody answers. */
  freeze() {
    this.#signal('SIGSTOP');
  }

  thaw() {
    this.#signal('SIGCONT');
  }

  /** Waits until the node answers AMQP clients. Fails at once when its process ends instead. */
  async waitReady(timeoutMs = 60_000) {
    const until = Date.now() + timeoutMs;
    while (!(await answersAmqp(this.port))) {
      if (!this.#server) throw new Error(`RabbitMQ ended while it started:\n${this.#output()}`);
      if (Date.now() > until) throw new Error(`RabbitMQ was not ready within ${timeoutMs} ms:\n${this.#output()}`);
      await sleep(50);
    }
  }

  /** Ends the node and removes its folder. */
  async dispose() {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.kill();
    this.#epmd.kill('SIGKILL');
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
    this.#guard.stdin.end('release\n');
  }

  async [Symbol.asyncDispose]() {
    await this.dispose();
  }

  #launch() {
    const home = this.folder;
    rmSync(join(home, 'pid'), { force: true });
    const output = openSync(join(home, 'output'), 'a');
    const child = spawn(this.#programs.server, [], {
      cwd: home,
      detached: true,
      stdio: ['ignore', output, output],
      env: {
        ...programEnv(this.#settings),
        RABBITMQ_DIST_PORT: String(this.#ports.distPort),
        RABBITMQ_CONFIG_FILE: join(home, 'rabbitmq.conf'),
        RABBITMQ_ADVANCED_CONFIG_FILE: join(home, 'advanced.config'),
        RABBITMQ_ENABLED_PLUGINS_FILE: join(home, 'enabled_plugins'),
        RABBITMQ_MNESIA_BASE: join(home, 'data'),
        RABBITMQ_LOG_BASE: join(home, 'log'),
        RABBITMQ_PID_FILE: join(home, 'pid'),
        RABBITMQ_GENERATED_CONFIG_DIR: join(home, 'generated'),
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1}',
        // the start script's own switch: it then becomes the Erlang machine instead of waiting for it
        detached: '1',
      },
    });
    closeSync(output);
    child.unref();
    this.#server = child;
    this.#serverGone = new Promise((resolve) => {
      const gone = () => {
        if (this.#server === child) this.#server = undefined;
        resolve();
      };
      child.once('exit', gone);
      child.once('error', gone);
    });
    this.#watch(child);
  }

  async #ended() {
    // the child is not referenced: without this a process that waits for nothing else would end here
    this.#server?.ref();
    await this.#serverGone;
  }

  /** @param {import('node:child_process').ChildProcess} child */
  #watch(child) {
    if (child.pid) this.#guard.stdin.write(`process ${child.pid}\n`);
  }

  /** @param {NodeJS.Signals} signal */
  #signal(signal) {
    if (!this.#server?.pid) return;
    try {
      // the group: should the start script not have become the Erlang machine, both are in it
      process.kill(-this.#server.pid, signal);
    } catch (error) {
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'ESRCH') throw error;
    }
  }

  #output() {
    for (const file of ['output', join('log', `${this.nodename}.log`)]) {
      try {
        const text = readFileSync(join(this.folder, file), 'utf8').trim();
        if (text) return text.slice(-4000);
      } catch {
        // not written yet
      }
    }
    return '(it printed nothing)';
  }
}
