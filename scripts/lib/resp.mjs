// The smallest client of Redis (RESP2): what starts servers for the tests must not lean on the client that is tested, and
// redis-cli is a package of its own.

import net from 'node:net';
import tls from 'node:tls';

/** @typedef {string | number | null | RespError | Reply[]} Reply */

/** A reply that begins with `-`. */
export class RespError extends Error {
  name = 'RespError';
  /** Its first word: `LOADING`, `NOAUTH`, `ERR`, … */
  get code() {
    return this.message.split(' ', 1)[0];
  }
}

/**
 * Reads one reply from `at` on; undefined while it is incomplete.
 * @param {Buffer} bytes @param {number} at @returns {{ reply: Reply, end: number } | undefined}
 */
function read(bytes, at) {
  const lineEnd = bytes.indexOf('\r\n', at);
  if (lineEnd < 0) return undefined;
  const line = bytes.toString('utf8', at + 1, lineEnd);
  const end = lineEnd + 2;
  switch (String.fromCharCode(bytes[at])) {
    case '+':
      return { reply: line, end };
    case '-':
      return { reply: new RespError(line), end };
    case ':':
      return { reply: Number(line), end };
    case '$': {
      const size = Number(line);
      if (size < 0) return { reply: null, end };
      if (bytes.length < end + size + 2) return undefined;
      return { reply: bytes.toString('utf8', end, end + size), end: end + size + 2 };
    }
    case '*': {
      const items = /** @type {Reply[]} */ ([]);
      if (Number(line) < 0) return { reply: null, end };
      let next = end;
      while (items.length < Number(line)) {
        const item = read(bytes, next);
        if (item === undefined) return undefined;
        items.push(item.reply);
        next = item.end;
      }
      return { reply: items, end: next };
    }
    default:
      throw new Error(`this is not Redis: ${JSON.stringify(bytes.toString('latin1', at, at + 40))}`);
  }
}

/**
 * @typedef {object} RespOptions
 * @property {number} port on 127.0.0.1
 * @property {{ ca?: Buffer, cert?: Buffer, key?: Buffer }} [tls]
 * @property {string} [username]
 * @property {string} [password]
 */

export class RespClient {
  #socket;
  #bytes = Buffer.alloc(0);
  /** @type {{ resolve: (reply: Reply) => void, reject: (error: Error) => void }[]} */
  #waiting = [];
  /** @type {((channel: string, text: string) => void) | undefined} */
  #onMessage;
  /** @type {Error | undefined} */
  #ended;
  /** @type {Promise<void>} */
  #connected;
  /** Resolves when the connection is gone, however that came. @type {Promise<void>} */
  closed;

  /** Resolves with a client that the server has accepted. @param {RespOptions} options */
  static async connect(options) {
    const client = new RespClient(options);
    try {
      await client.#connected;
      if (options.password !== undefined) {
        await client.call('AUTH', ...(options.username === undefined ? [] : [options.username]), options.password);
      }
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /** Use `RespClient.connect`. @param {RespOptions} options */
  constructor({ port, tls: secure }) {
    const host = '127.0.0.1';
    const socket = secure ? tls.connect({ host, port, ...secure }) : net.connect({ host, port });
    this.#socket = socket;
    socket.on('data', (bytes) => this.#take(bytes));
    this.#connected = new Promise((resolve, reject) => {
      socket.on('error', (error) => {
        reject(error);
        this.#fail(error);
      });
      socket.once(secure ? 'secureConnect' : 'connect', () => resolve());
    });
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.#fail(new Error('the connection to Redis was closed'));
        resolve();
      });
    });
  }

  /** Sends a command and gives its reply; rejects with a RespError. @param {...(string | number)} words */
  call(...words) {
    return /** @type {Promise<Exclude<Reply, RespError>>} */ (
      new Promise((resolve, reject) => {
        if (this.#ended) return reject(this.#ended);
        this.#waiting.push({ resolve: /** @type {(reply: Reply) => void} */ (resolve), reject });
        const parts = words.map((word) => `$${Buffer.byteLength(String(word))}\r\n${word}\r\n`);
        this.#socket.write(`*${words.length}\r\n${parts.join('')}`);
      })
    );
  }

  /**
   * Hears a channel from the moment it resolves; the client can do nothing else from then on.
   * @param {string} channel @param {(channel: string, text: string) => void} onMessage
   */
  async subscribe(channel, onMessage) {
    this.#onMessage = onMessage;
    await this.call('SUBSCRIBE', channel);
  }

  /** Its socket keeps no process alive from now on, until `ref`. */
  unref() {
    this.#socket.unref();
  }

  ref() {
    this.#socket.ref();
  }

  close() {
    this.#socket.destroy();
  }

  /** @param {Buffer} bytes */
  #take(bytes) {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
    try {
      let at = 0;
      for (;;) {
        const found = at < this.#bytes.length ? read(this.#bytes, at) : undefined;
        if (found === undefined) break;
        at = found.end;
        this.#reply(found.reply);
      }
      this.#bytes = this.#bytes.subarray(at);
    } catch (error) {
      this.#socket.destroy(/** @type {Error} */ (error));
    }
  }

  /** @param {Reply} reply */
  #reply(reply) {
    if (this.#onMessage && Array.isArray(reply) && reply[0] === 'message') {
      this.#onMessage(String(reply[1]), String(reply[2]));
      return;
    }
    const waiting = this.#waiting.shift();
    if (reply instanceof RespError) waiting?.reject(reply);
    else waiting?.resolve(reply);
  }

  /** @param {Error} error */
  #fail(error) {
    this.#ended ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#ended);
  }
}
