// A primary, its replicas and the sentinels that watch them, all of one's own.

import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePorts } from './ports.mjs';
import { RedisServer } from './redis.mjs';

const START_ATTEMPTS = 3;

/**
 * @typedef {object} SentinelOptions
 * @property {number} [replicas] 1 unless told
 * @property {number} [sentinels] 3 unless told; most of them must agree
 * @property {string} [masterName] `mozuku` unless told
 * @property {Record<string, string | readonly string[]>} [config] of the primary and its replicas
 * @property {number} [downAfterMs] how long a server may be silent before it is taken for dead, 2 s unless told
 * @property {number} [timeoutMs] how long to wait until all know each other, 60 s unless told
 */

/** @typedef {{ name: string, from: number, to: number }} Switch ports of the old primary and of the new one */

export class SentinelSet {
  /** @type {RedisServer[]} */
  servers = [];
  /** @type {RedisServer[]} */
  sentinels = [];
  masterName;
  #primaryPort = 0;
  /** Sentinels that are listened to, and the port of the primary each has told last. @type {Map<RedisServer, number>} */
  #told = new Map();
  /** @type {import('./resp.mjs').RespClient[]} */
  #listeners = [];
  /** @type {((event: Switch) => void)[]} */
  #waiting = [];

  /** @param {SentinelOptions} [options] */
  static async start(options = {}) {
    for (let attempt = 1; ; attempt++) {
      const set = new SentinelSet(options);
      try {
        await set.#launch(options);
        return set;
      } catch (error) {
        await set.dispose();
        if (!/address already in use/i.test(String(error)) || attempt === START_ATTEMPTS) throw error;
      }
    }
  }

  /** Use `SentinelSet.start`. @param {SentinelOptions} options */
  constructor({ masterName = 'mozuku' }) {
    this.masterName = masterName;
  }

  /** The server that the sentinels name. */
  get primary() {
    return this.#serverAt(this.#primaryPort);
  }

  get replicas() {
    return this.servers.filter((server) => server.port !== this.#primaryPort);
  }

  get addresses() {
    return this.sentinels.map(({ port }) => ({ host: '127.0.0.1', port }));
  }

  /** The sentinels in kombu's form: `sentinel://…;sentinel://…`; the master's name goes beside it. */
  get url() {
    return this.addresses.map(({ host, port }) => `sentinel://${host}:${port}`).join(';');
  }

  /**
   * The next `+switch-master`, once every sentinel that runs has told it: whichever is asked from then on names the new one.
   * @returns {Promise<Switch>}
   */
  nextSwitch() {
    // they keep the process alive only while somebody waits
    for (const listener of this.#listeners) listener.ref();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Makes a replica the primary, as an operator does; the old primary lives on as a replica. */
  async failover() {
    const switched = this.nextSwitch();
    await this.#running().command('SENTINEL', 'FAILOVER', this.masterName);
    return switched;
  }

  /** SIGKILL for the primary; resolves when a replica has its place. The dead one can be started again: `restart()`. */
  async killPrimary() {
    const switched = this.nextSwitch();
    await this.primary.kill();
    return switched;
  }

  async dispose() {
    for (const listener of this.#listeners) listener.close();
    // the sentinels first, lest they see a death
    await Promise.all(this.sentinels.map((each) => each.dispose()));
    await Promise.all(this.servers.map((each) => each.dispose()));
  }

  async [Symbol.asyncDispose]() {
    await this.dispose();
  }

  /** @param {SentinelOptions} options */
  async #launch({ replicas = 1, sentinels = 3, config = {}, downAfterMs = 2000, timeoutMs = 60_000 }) {
    const name = this.masterName;
    // a copy is sent at once instead of after five seconds in which others might ask for one
    const settings = { 'repl-diskless-sync-delay': '0', ...config };
    const primary = await RedisServer.start({ config: settings });
    this.servers.push(primary);
    this.#primaryPort = primary.port;
    const secret = typeof config.requirepass === 'string' ? config.requirepass : undefined;
    const following = {
      ...settings,
      replicaof: `127.0.0.1 ${primary.port}`,
      ...(secret !== undefined && { masterauth: secret }),
    };
    for (let i = 0; i < replicas; i++) this.servers.push(await RedisServer.start({ config: following }));
    const until = Date.now() + timeoutMs;
    // what a sentinel sees of a replica at first, it looks at again after ten seconds
    await this.#until('the replicas have a copy', until, async () => {
      const links = await Promise.all(this.replicas.map((each) => each.command('INFO', 'replication')));
      return links.every((info) => /master_link_status:up/.test(String(info)));
    });
    // They are told of each other and of the replicas: to find out takes them many seconds.
    const ports = await freePorts(sentinels);
    const ids = ports.map(() => randomBytes(20).toString('hex'));
    for (const [i, port] of ports.entries()) {
      const others = ports.flatMap((other, j) =>
        i === j ? [] : [`known-sentinel ${name} 127.0.0.1 ${other} ${ids[j]}`],
      );
      const sentinel = [
        `myid ${ids[i]}`,
        `monitor ${name} 127.0.0.1 ${primary.port} ${Math.floor(sentinels / 2) + 1}`,
        `down-after-milliseconds ${name} ${downAfterMs}`,
        `failover-timeout ${name} 4000`,
        ...(secret !== undefined ? [`auth-pass ${name} ${secret}`] : []),
        ...this.replicas.map((replica) => `known-replica ${name} 127.0.0.1 ${replica.port}`),
        ...others,
      ];
      const server = await RedisServer.start({ port, sentinel: true, config: { sentinel } });
      this.sentinels.push(server);
      await this.#listen(server);
    }
    await this.#until('the sentinels know each other', until, async () => {
      const known = await Promise.all(this.sentinels.map((each) => this.#knowledge(each)));
      return known.every((each) => {
        const fits = each['num-slaves'] === String(replicas) && each['num-other-sentinels'] === String(sentinels - 1);
        return fits && each.flags === 'master' && each.replicasReady;
      });
    });
  }

  /** What a sentinel says of the primary, and whether all replicas could take its place. @param {RedisServer} sentinel */
  async #knowledge(sentinel) {
    const of = (/** @type {unknown} */ list) => {
      const words = /** @type {string[]} */ (list);
      return Object.fromEntries(words.flatMap((word, i) => (i % 2 === 0 ? [[word, words[i + 1]]] : [])));
    };
    const replicas = /** @type {unknown[]} */ (await sentinel.command('SENTINEL', 'REPLICAS', this.masterName));
    const replicasReady = replicas.map(of).every((each) => each['master-link-status'] === 'ok');
    return { ...of(await sentinel.command('SENTINEL', 'MASTER', this.masterName)), replicasReady };
  }

  /** @param {RedisServer} sentinel */
  async #listen(sentinel) {
    const listener = await sentinel.connect();
    this.#listeners.push(listener);
    this.#told.set(sentinel, this.#primaryPort);
    await listener.subscribe('+switch-master', (_channel, text) => {
      const [name, , , , to] = text.split(' ');
      if (name !== this.masterName) return;
      this.#told.set(sentinel, Number(to));
      this.#settle();
    });
    listener.unref();
    // one that is killed is not waited for
    void listener.closed.then(() => {
      this.#told.delete(sentinel);
      this.#settle();
    });
  }

  #settle() {
    const [to, ...others] = new Set(this.#told.values());
    if (to === undefined || others.length > 0 || to === this.#primaryPort) return;
    const event = { name: this.masterName, from: this.#primaryPort, to };
    this.#primaryPort = to;
    for (const listener of this.#listeners) listener.unref();
    for (const resolve of this.#waiting.splice(0)) resolve(event);
  }

  #running() {
    const sentinel = this.sentinels.find((each) => each.pid !== undefined);
    if (!sentinel) throw new Error('no sentinel runs');
    return sentinel;
  }

  /** @param {number} port */
  #serverAt(port) {
    const server = this.servers.find((each) => each.port === port);
    if (!server) throw new Error(`no server of this set is at port ${port}`);
    return server;
  }

  /** @param {string} what @param {number} until @param {() => Promise<boolean>} fact */
  async #until(what, until, fact) {
    while (!(await fact())) {
      if (Date.now() > until) throw new Error(`waited in vain until ${what}`);
      await sleep(50);
    }
  }
}
