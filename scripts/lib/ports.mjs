// Free TCP ports on the loopback address.
//
// They are taken from below the range the kernel uses for outgoing connections. A port from that range (what `listen(0)`
// gives) can be taken by any client socket while a broker restarts, and then the broker does not come back.

import net from 'node:net';

const LOWEST = 20_000;
const HIGHEST = 32_000;

/** @param {number} port @returns {Promise<net.Server | undefined>} */
function tryListen(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(undefined));
    server.listen(port, '127.0.0.1', () => resolve(server));
  });
}

/**
 * `count` different ports nobody listens on at this moment.
 * @param {number} count
 * @returns {Promise<number[]>}
 */
export async function freePorts(count) {
  /** @type {Map<number, net.Server>} */
  const held = new Map();
  try {
    for (let attempt = 0; held.size < count; attempt++) {
      if (attempt > 1000) throw new Error(`no ${count} free ports between ${LOWEST} and ${HIGHEST}`);
      const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST));
      const server = held.has(port) ? undefined : await tryListen(port);
      if (server) held.set(port, server);
    }
    return [...held.keys()];
  } finally {
    await Promise.all([...held.values()].map((server) => new Promise((resolve) => server.close(resolve))));
  }
}
