// A TCP proxy inside the test's process, for faults: resets after an exact number of bytes, silence, delay, slowness, refusal.
// It also shows every byte to observers just before the byte goes on.

import { EventEmitter, once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { Pump } from './proxy-pump.js';

export type Direction = 'toServer' | 'toClient';

/** Sees the bytes of a connection before they are sent on; runs synchronously, so what it saw has not arrived yet. */
export type ByteObserver = (connection: ProxyConnection, direction: Direction, bytes: Buffer) => void;

/** How long the last bytes before a reset have to be read. */
const LAST_BYTES_MS = 10;

export type ProxyTarget = string | { host?: string; port: number };

/** One connection of a client, with the proxy's connection to the server. */
export class ProxyConnection {
  /** Resolves when both sides are closed. */
  readonly closed: Promise<void>;
  readonly #pumps: Record<Direction, Pump>;
  readonly #sockets: readonly [Socket, Socket];
  #open = 2;

  constructor(
    /** 1 for the first connection of the proxy, and so on. */
    readonly id: number,
    client: Socket,
    server: Socket,
    onBytes: ByteObserver,
  ) {
    this.#sockets = [client, server];
    const pump = (direction: Direction, source: Socket, target: Socket) =>
      new Pump(source, target, {
        onBytes: (bytes) => onBytes(this, direction, bytes),
        onLimit: () => this.#limitReached(),
      });
    this.#pumps = { toServer: pump('toServer', client, server), toClient: pump('toClient', server, client) };
    for (const socket of this.#sockets) {
      socket.setNoDelay(true);
      // a reset on one side, or a server that does not answer, is a reset for the other
      socket.on('error', () => this.cut());
    }
    this.closed = new Promise((resolve) => {
      for (const socket of this.#sockets) {
        socket.on('close', () => {
          if (--this.#open === 0) resolve();
        });
      }
    });
  }

  get isOpen(): boolean {
    return this.#open > 0;
  }

  /** How many bytes went through, each way. */
  get forwarded(): Record<Direction, number> {
    return { toServer: this.#pumps.toServer.forwarded, toClient: this.#pumps.toClient.forwarded };
  }

  /** Resets both sides now. What was not sent on is lost. */
  cut(): void {
    for (const pump of Object.values(this.#pumps)) pump.stop();
    for (const socket of this.#sockets) {
      // A socket that still connects cannot be reset, nor one that is shutting down: libuv refuses with EINVAL, and Node
      // then never says that it is closed.
      if (socket.connecting || socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
    }
  }

  /**
   * Resets both sides when exactly `bytes`, counted from the start of the connection, have gone in `direction`; from then on
   * nothing goes the other way either.
   */
  cutAfter(bytes: number, direction: Direction): void {
    this.#pumps[direction].cutAfter(bytes);
  }

  /** Stops forwarding without closing anything; without a direction, both. `resume` sends on what came meanwhile. */
  blackHole(direction?: Direction): void {
    for (const pump of this.#choose(direction)) pump.hold(true);
  }

  resume(direction?: Direction): void {
    for (const pump of this.#choose(direction)) pump.hold(false);
  }

  /** Bytes that arrive from now on go on `ms` later. */
  delay(ms: number, direction?: Direction): void {
    for (const pump of this.#choose(direction)) pump.delay(ms);
  }

  /** At most so many bytes a second; `Infinity` for no limit. */
  throttle(bytesPerSecond: number, direction?: Direction): void {
    for (const pump of this.#choose(direction)) pump.throttle(bytesPerSecond);
  }

  #limitReached(): void {
    for (const pump of Object.values(this.#pumps)) pump.stop();
    // A receiver that finds the last bytes and the reset together may report a normal end instead (libuv does). The
    // immediate after the timer lets a receiver in this very process read first, even after a stall.
    setTimeout(() => setImmediate(() => this.cut()), LAST_BYTES_MS);
  }

  #choose(direction: Direction | undefined): Pump[] {
    return direction ? [this.#pumps[direction]] : Object.values(this.#pumps);
  }
}

export class TcpProxy implements AsyncDisposable {
  /** Every connection there ever was, in order. */
  readonly connections: ProxyConnection[] = [];
  readonly #target: { host: string; port: number; url: URL | undefined };
  readonly #observers: ByteObserver[] = [];
  readonly #setUps: ((connection: ProxyConnection) => void)[] = [];
  readonly #events = new EventEmitter();
  #server: Server | undefined;
  #port = 0;

  /** Listens on a free port and forwards to the target: a URL or a port. */
  static async listen(target: ProxyTarget): Promise<TcpProxy> {
    const proxy = new TcpProxy(target);
    await proxy.accept();
    return proxy;
  }

  private constructor(target: ProxyTarget) {
    if (typeof target === 'string') {
      const url = new URL(target);
      const usual = url.protocol.startsWith('redis') ? 6379 : 5672;
      this.#target = { host: url.hostname, port: Number(url.port) || usual, url };
    } else {
      this.#target = { host: target.host ?? '127.0.0.1', port: target.port, url: undefined };
    }
  }

  get port(): number {
    return this.#port;
  }

  /** The target's URL with this proxy's address in it: same credentials, same virtual host. */
  get url(): string {
    const url = new URL(this.#target.url ?? 'amqp://guest:guest@127.0.0.1');
    url.hostname = '127.0.0.1';
    url.port = String(this.#port);
    return url.href;
  }

  /** The connections that are open. */
  get live(): ProxyConnection[] {
    return this.connections.filter((connection) => connection.isOpen);
  }

  /** Shows every byte of the connections from now on. */
  observe(observer: ByteObserver): void {
    this.#observers.push(observer);
  }

  /** Runs for each new connection before a byte of it has moved: the place for `cutAfter` from its start. */
  onConnection(setUp: (connection: ProxyConnection) => void): void {
    this.#setUps.push(setUp);
  }

  /** Connection number `id` (1 is the first), as soon as it is there. */
  async connection(id: number): Promise<ProxyConnection> {
    while (this.connections.length < id) await once(this.#events, 'connection');
    return this.connections[id - 1]!;
  }

  /** The first connection made after this call. */
  nextConnection(): Promise<ProxyConnection> {
    return this.connection(this.connections.length + 1);
  }

  cutAll(): void {
    for (const connection of this.live) connection.cut();
  }

  blackHoleAll(): void {
    for (const connection of this.live) connection.blackHole();
  }

  resumeAll(): void {
    for (const connection of this.live) connection.resume();
  }

  /** New connections are refused until `accept`; the open ones stay. */
  refuse(): void {
    // stops listening at once; its callback would wait for the open connections
    this.#server?.close();
    this.#server = undefined;
  }

  /** Takes connections (again), on the same port as before. */
  async accept(): Promise<void> {
    if (this.#server) return;
    const server = createServer({ allowHalfOpen: true }, (client) => this.#connected(client));
    server.listen(this.#port, '127.0.0.1');
    await once(server, 'listening');
    this.#server = server;
    this.#port = (server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    this.refuse();
    this.cutAll();
    await Promise.all(this.connections.map((connection) => connection.closed));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #connected(client: Socket): void {
    const { host, port } = this.#target;
    const server = connect({ host, port, allowHalfOpen: true });
    const connection = new ProxyConnection(this.connections.length + 1, client, server, (...args) => {
      for (const observer of this.#observers) observer(...args);
    });
    this.connections.push(connection);
    for (const setUp of this.#setUps) setUp(connection);
    this.#events.emit('connection');
  }
}
