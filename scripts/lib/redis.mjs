// A redis-server of one's own: a free port on 127.0.0.1, a folder of its own, the user who calls. It needs no service and no
// configuration of the machine, and touches none.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePorts } from './ports.mjs';
import { findRedis, makeCertificate } from './redis-programs.mjs';
import { RespClient } from './resp.mjs';

const GUARD = fileURLToPath(new URL('node-guard.sh', import.meta.url));
const START_ATTEMPTS = 3;
/** The user by which this module itself reaches a server that has others. */
const CONTROL = 'mozuku-control';

/**
 * @typedef {object} RedisOptions
 * @property {Record<string, string | readonly string[]>} [config] lines of redis.conf; a list is the same word several times
 * @property {boolean | { clientCertificates?: boolean }} [tls] a port for TLS instead of the plain one
 * @property {Record<string, { password?: string, rules: string }>} [acl] users by name; `default` may be one of them
 * @property {number} [port]
 * @property {boolean} [sentinel]
 * @property {number} [timeoutMs] how long to wait for it, 60 s unless told
 */

export class RedisServer {
  #program;
  #port;
  #folder;
  #guard;
  #sentinel;
  /** @type {import('./redis-programs.mjs').Certificate | undefined} */
  #certificate;
  #acl;
  #requirepass;
  #controlPassword = randomBytes(16).toString('hex');
  /** @type {import('node:child_process').ChildProcess | undefined} */
  #server;
  #serverGone = Promise.resolve();
  #disposed = false;

  /** Starts a server and waits until it answers. @param {RedisOptions} [options] */
  static async start(options = {}) {
    for (let attempt = 1; ; attempt++) {
      const port = options.port ?? (await freePorts(1))[0];
      const server = new RedisServer(port, options);
      try {
        server.#launch();
        await server.waitReady(options.timeoutMs);
        return server;
      } catch (error) {
        const portTaken = options.port === undefined && /address already in use/i.test(String(error));
        await server.dispose();
        if (!portTaken || attempt === START_ATTEMPTS) throw error;
      }
    }
  }

  /** Use `RedisServer.start`. @param {number} port @param {RedisOptions} options */
  constructor(port, { config = {}, tls = false, acl = {}, sentinel = false }) {
    const program = findRedis();
    if (!program) throw new Error('redis-server is not installed on this machine');
    this.#program = program;
    this.#port = port;
    this.#acl = acl;
    this.#sentinel = sentinel;
    this.#requirepass = config.requirepass === undefined ? undefined : String(config.requirepass);
    this.#folder = mkdtempSync(join(tmpdir(), sentinel ? 'mozuku-sentinel-' : 'mozuku-redis-'));
    // detached everywhere: Ctrl-C in a terminal goes to the whole group and would take the server before the tests end
    this.#guard = spawn('/bin/sh', [GUARD, this.#folder], {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
      cwd: '/',
    });
    this.#guard.stdin.on('error', () => undefined);
    this.#guard.on('error', () => undefined);
    this.#guard.unref();
    // a server left running by a test must not keep the test's process alive: the guard takes it down
    /** @type {import('node:net').Socket} */ (this.#guard.stdin).unref();
    try {
      if (tls) this.#certificate = makeCertificate(this.#folder);
      writeFileSync(this.#configFile, this.#configText(config, typeof tls === 'object' ? tls : {}));
    } catch (error) {
      this.#clean();
      throw error;
    }
  }

  get port() {
    return this.#port;
  }

  /** Its address; with the password of `requirepass`, without a user. */
  get url() {
    const auth = this.#requirepass === undefined ? '' : `:${encodeURIComponent(this.#requirepass)}@`;
    return `${this.#scheme}://${auth}127.0.0.1:${this.#port}`;
  }

  /** Its address for a user of `acl`. @param {string} user */
  urlFor(user) {
    const password = encodeURIComponent(this.#acl[user]?.password ?? '');
    return `${this.#scheme}://${encodeURIComponent(user)}:${password}@127.0.0.1:${this.#port}`;
  }

  /** The files and bytes for a client of a server with `tls`. */
  get certificate() {
    return this.#certificate;
  }

  /** The folder with the data, the configuration and what it printed. */
  get folder() {
    return this.#folder;
  }

  /** Undefined while it does not run. */
  get pid() {
    return this.#server?.pid;
  }

  /** What another process needs to use this server. */
  get env() {
    return { MOZUKU_TEST_REDIS_URL: this.url };
  }

  /** One command on a connection of its own, as a user who may do everything. @param {...(string | number)} words */
  async command(...words) {
    const client = await this.connect();
    try {
      return await client.call(...words);
    } finally {
      client.close();
    }
  }

  /** A client that may do everything; close it. */
  connect() {
    const users = Object.keys(this.#acl).length > 0;
    return RespClient.connect({
      port: this.#port,
      ...(this.#certificate && { tls: this.#certificate }),
      ...(users
        ? { username: CONTROL, password: this.#controlPassword }
        : this.#requirepass !== undefined && { password: this.#requirepass }),
    });
  }

  /** Ends it by a signal and waits for that. SIGKILL unless told, as a machine that loses power. @param {NodeJS.Signals} [signal] */
  async kill(signal = 'SIGKILL') {
    this.#signal(signal);
    // a frozen process would sleep on it
    this.#signal('SIGCONT');
    // the child is not referenced: without this a process that waits for nothing else would end here
    this.#server?.ref();
    await this.#serverGone;
  }

  /** Shuts it down in order: `save` and `appendonly` are heeded. */
  async stop() {
    await this.kill('SIGTERM');
  }

  /** Starts it again on the same port and folder, after stopping it if it still runs. */
  async restart() {
    if (this.#disposed) throw new Error('this server was disposed of');
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

  /** Waits until it answers PING with its data loaded. Fails at once when its process ends instead. */
  async waitReady(timeoutMs = 60_000) {
    const until = Date.now() + timeoutMs;
    for (;;) {
      const problem = await this.#notReady();
      if (!this.#server) throw new Error(`redis-server ended while it started:\n${this.#output()}`);
      if (problem === undefined) return;
      if (Date.now() > until) {
        throw new Error(`redis-server was not ready within ${timeoutMs} ms: ${problem}\n${this.#output()}`);
      }
      await sleep(10);
    }
  }

  /** Ends it and removes its folder. */
  async dispose() {
    if (this.#disposed) return;
    await this.kill();
    this.#clean();
  }

  async [Symbol.asyncDispose]() {
    await this.dispose();
  }

  get #scheme() {
    return this.#certificate ? 'rediss' : 'redis';
  }

  get #configFile() {
    return join(this.#folder, 'redis.conf');
  }

  /** @param {Record<string, string | readonly string[]>} config @param {{ clientCertificates?: boolean }} tls */
  #configText(config, { clientCertificates = false }) {
    /** @type {Record<string, string | readonly string[]>} */
    const settings = { bind: '127.0.0.1', port: String(this.#port), dir: this.#folder, daemonize: 'no' };
    // data files only where a test asks for them
    if (!this.#sentinel) settings.save = '';
    if (this.#certificate) {
      settings.port = '0';
      settings['tls-port'] = String(this.#port);
      settings['tls-cert-file'] = this.#certificate.certFile;
      settings['tls-key-file'] = this.#certificate.keyFile;
      settings['tls-ca-cert-file'] = this.#certificate.certFile;
      settings['tls-auth-clients'] = clientCertificates ? 'yes' : 'no';
    }
    const users = Object.entries(this.#acl).map(([name, { password, rules }]) =>
      ['user', name, 'on', password === undefined ? 'nopass' : `>${password}`, rules].join(' '),
    );
    if (users.length > 0) users.push(`user ${CONTROL} on >${this.#controlPassword} allkeys allchannels allcommands`);
    const lines = Object.entries({ ...settings, ...config }).flatMap(([name, value]) =>
      (typeof value === 'string' ? [value] : value).map((each) => `${name} ${each === '' ? '""' : each}`),
    );
    return `${[...lines, ...users].join('\n')}\n`;
  }

  /** What there is to wait for; undefined when it is ready. */
  async #notReady() {
    /** @type {RespClient | undefined} */
    let client;
    try {
      client = await this.connect();
      const pong = await client.call('PING');
      const pid = /process_id:(\d+)/.exec(String(await client.call('INFO', 'server')))?.[1];
      // another's server may have taken the port a moment before ours
      if (Number(pid) !== this.pid) return `the port is that of process ${pid}`;
      return pong === 'PONG' ? undefined : String(pong);
    } catch (error) {
      return String(error);
    } finally {
      client?.close();
    }
  }

  #launch() {
    const output = openSync(join(this.#folder, 'output'), 'a');
    const child = spawn(this.#program, [this.#configFile, ...(this.#sentinel ? ['--sentinel'] : [])], {
      // also what the guard knows it by
      cwd: this.#folder,
      detached: true,
      stdio: ['ignore', output, output],
      env: { PATH: '/usr/bin:/bin', LANG: 'C.UTF-8', HOME: this.#folder },
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
    if (child.pid) this.#guard.stdin.write(`process ${child.pid}\n`);
  }

  /** @param {NodeJS.Signals} signal */
  #signal(signal) {
    this.#server?.kill(signal);
  }

  #clean() {
    this.#disposed = true;
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
    this.#guard.stdin.end('release\n');
  }

  #output() {
    const text = readFileSync(join(this.#folder, 'output'), 'utf8').trim();
    return text.slice(-4000) || '(it printed nothing)';
  }
}
