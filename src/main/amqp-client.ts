/**
 * Thin helpers over amqplib: open a connection from parameters, and our channel around its confirm channel. amqplib ends the
 * process when an 'error' event has no listener, so the listeners are put on here and nowhere else.
 */
import { readFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import * as amqplib from 'amqplib';
import { AccessRefused, ConnectionError, type KombuError, OptionError, TimeoutError } from '../errors.js';
import { errorFromAmqp, replyCodeOf, withDeadline } from './errors-from-amqp.js';
import {
  amqpTransportOptions,
  type ConnectionParameters,
  connectableTransport,
  parametersOf,
  type SslOptions,
} from './url.js';

/** Milliseconds that a socket whose connection has ended may take to close by itself. */
const LINGER = 2000;

/** Milliseconds that the closing handshake may take before the socket is cut. */
const CLOSE_TIMEOUT = 5000;

export interface OpenAmqpOptions {
  /**
   * Passed to `net.connect` or `tls.connect` through amqplib, unchanged but for `noDelay`, `keepAlive` and `signal`; an `onread`
   * takes the place of ours, and then what it passes on must not have table fields of the type 'L' (see LongIntegers). A function
   * is asked anew for each host that is tried: state such as that of an `onread` callback belongs to one socket.
   */
  readonly socketOptions?: Record<string, unknown> | (() => Record<string, unknown>);
  /** Gives the attempt up; `openAmqp` rejects with its reason. Has no effect on an open connection. */
  readonly signal?: AbortSignal;
  /** Shown by the broker's management as the connection's name. */
  readonly clientName?: string;
}

/** The wait before the next attempt: 100 ms, doubling, ±20 %, at most 2 s. `attempt` counts from 0; `random` is in [0, 1). */
export function reconnectDelay(attempt: number, { initial = 100, max = 2000, random = Math.random() } = {}): number {
  const base = initial * 2 ** Math.min(attempt, 30);
  return Math.min(max, base * (0.8 + 0.4 * random));
}

/** user@host:port/virtual-host, for messages. */
export function locationOf({ userid, hostname, port, virtualHost }: ConnectionParameters): string {
  return `${userid === undefined ? '' : `${userid}@`}${hostname}:${port}/${virtualHost}`;
}

/** An open AMQP connection. `ended` and `reason` tell of its end; nothing is thrown at anybody. */
export class AmqpConnection {
  readonly model: amqplib.ChannelModel;
  /** Of the host that answered. */
  readonly parameters: ConnectionParameters;
  /** Seconds, as tuned with the broker; 0: off. */
  readonly heartbeat: number;
  /** Bytes, as tuned with the broker. */
  readonly frameMax: number;
  /** Resolves, never rejects, once the connection is gone: with the reason, or undefined if we closed it. */
  readonly ended: Promise<KombuError | undefined>;
  #cut: AbortController;
  #open = true;
  #closing = false;
  #reason: KombuError | undefined;

  constructor(model: amqplib.ChannelModel, parameters: ConnectionParameters, asked: Tuning, cut: AbortController) {
    this.model = model;
    this.parameters = parameters;
    this.#cut = cut;
    // amqplib keeps the tuned values on the connection object without typing them.
    const tuned = model.connection as Partial<Record<'heartbeat' | 'frameMax', unknown>>;
    this.heartbeat = typeof tuned.heartbeat === 'number' ? tuned.heartbeat : asked.heartbeat;
    this.frameMax = typeof tuned.frameMax === 'number' ? tuned.frameMax : asked.frameMax;
    const lost = (error: unknown) => {
      if (this.#closing) return;
      this.#reason ??= errorFromAmqp(error, `the connection to ${locationOf(parameters)} was lost`);
    };
    model.on('error', lost);
    this.ended = new Promise((resolve) => {
      model.once('close', (error?: Error) => {
        this.#open = false;
        if (error !== undefined) lost(error);
        // amqplib only ends its side, for the last frames to get through. A peer that never ends its own would keep the
        // socket for good.
        setTimeout(() => this.destroy(), LINGER).unref();
        resolve(this.#reason);
      });
    });
  }

  get open(): boolean {
    return this.#open && !this.#closing;
  }

  /** Why it was lost; undefined while it is open, and after our own `close()`. */
  get reason(): KombuError | undefined {
    return this.#reason;
  }

  /** Says goodbye to the broker and waits for its answer; after `milliseconds` the socket is cut. Never rejects. */
  async close(milliseconds = CLOSE_TIMEOUT): Promise<void> {
    if (!this.#open) return;
    this.#closing = true;
    try {
      await withDeadline(this.model.close(), 'closing the connection', milliseconds);
    } catch {
      // Too late, or gone already: either way the socket goes now, which is all that was asked for.
    }
    this.destroy();
    await this.ended;
  }

  /** Cuts the socket without a goodbye. */
  destroy(): void {
    this.#cut.abort();
  }
}

/** The bytes that follow each type of a field table, where their number is fixed. */
const FIELD_SIZES: Readonly<Record<string, number>> = {
  t: 1,
  b: 1,
  B: 1,
  s: 2,
  u: 2,
  I: 4,
  i: 4,
  f: 4,
  l: 8,
  d: 8,
  T: 8,
  D: 5,
  V: 0,
};
const LONG = 0x4c;
const CONTENT_HEADER = 2;
/** A larger content header is left to amqplib to refuse. */
const MAX_HEADER_BYTES = 16 * 1024 * 1024;

/**
 * py-amqp writes integers over 32 bits with the type 'L', which amqplib does not know: one such header would end the connection
 * at every delivery. Its own 'l' is the same eight bytes, so the type is changed before amqplib reads it. Takes the bytes as
 * they arrive; only content headers are looked at, and held back until they are whole.
 */
export class LongIntegers {
  #held: Buffer | undefined;
  /** Bytes still to come of a frame that is not looked at. */
  #skip = 0;

  /** `chunk` is changed in place; the result is to be passed on. */
  pass(chunk: Buffer): Buffer {
    const data = this.#held === undefined ? chunk : Buffer.concat([this.#held, chunk]);
    this.#held = undefined;
    let at = this.#skip;
    while (at < data.length) {
      if (at + 7 > data.length) return this.#hold(data, at);
      const size = data.readUInt32BE(at + 3);
      const end = at + 8 + size;
      if (data[at] === CONTENT_HEADER && size <= MAX_HEADER_BYTES) {
        if (end > data.length) return this.#hold(data, at);
        rewriteHeader(data, at + 7, end - 1);
      }
      at = end;
    }
    this.#skip = at - data.length;
    return data;
  }

  #hold(data: Buffer, at: number): Buffer {
    this.#skip = 0;
    this.#held = data.subarray(at);
    return data.subarray(0, at);
  }
}

function rewriteHeader(data: Buffer, start: number, end: number): void {
  // Class, weight, body size, flags; then the content type and encoding, where the flags say so, and the headers table.
  if (start + 14 > end) return;
  const flags = data.readUInt16BE(start + 12);
  if ((flags & 0x2001) !== 0x2000) return;
  let at = start + 14;
  for (const flag of [0x8000, 0x4000]) if (flags & flag && at < end) at += 1 + data[at]!;
  if (at + 4 > end) return;
  const tableEnd = at + 4 + data.readUInt32BE(at);
  const found = data.indexOf(LONG, at + 4);
  if (tableEnd <= end && found >= 0 && found < tableEnd) rewriteFields(data, at + 4, tableEnd, true);
}

/** Walks a table (with keys) or an array. Stops at what it does not understand; amqplib will say what is wrong. */
function rewriteFields(data: Buffer, from: number, end: number, keys: boolean): void {
  let at = from;
  while (at < end) {
    if (keys) at += 1 + data[at]!;
    if (at >= end) return;
    const type = data[at]!;
    const name = String.fromCharCode(type);
    if (type === LONG) data[at] = 0x6c;
    at += 1;
    const size = type === LONG ? 8 : FIELD_SIZES[name];
    if (size !== undefined) at += size;
    else if ('SxAF'.includes(name) && at + 4 <= end) {
      const inside = at + 4;
      at = inside + data.readUInt32BE(at);
      if (name === 'A' || name === 'F') rewriteFields(data, inside, Math.min(at, end), name === 'F');
    } else return;
  }
}

/** An `onread` that lets amqplib read on as if there were none, but for `LongIntegers`. */
function readThroughLongIntegers(): Record<string, unknown> {
  const integers = new LongIntegers();
  return {
    buffer: Buffer.allocUnsafeSlow(65536),
    callback(this: Socket, count: number, buffer: Uint8Array): boolean {
      // A copy: Node fills the buffer again.
      const bytes = integers.pass(Buffer.from(buffer.subarray(0, count)));
      if (bytes.length > 0) this.push(bytes);
      return true;
    },
  };
}

interface Tuning {
  readonly heartbeat: number;
  readonly frameMax: number;
}

async function tlsOptions(ssl: boolean | SslOptions): Promise<Record<string, unknown>> {
  if (typeof ssl === 'boolean') return {};
  const { caCerts, certfile, keyfile, certReqs, checkHostname, ...options } = ssl;
  const files: Record<string, unknown> = {};
  for (const [key, path] of Object.entries({ ca: caCerts, cert: certfile, key: keyfile })) {
    if (path === undefined) continue;
    try {
      files[key] = await readFile(path);
    } catch (cause) {
      throw new OptionError(`ssl: cannot read the file for '${key}', ${path}`, { cause });
    }
  }
  return {
    ...files,
    ...(certReqs === 'none' && { rejectUnauthorized: false }),
    ...(checkHostname === false && { checkServerIdentity: () => undefined }),
    ...options,
  };
}

function explainHandshake(error: unknown, parameters: ConnectionParameters): KombuError {
  const where = locationOf(parameters);
  const login = replyCodeOf(error) === 403;
  // amqplib does not pass on what the broker says when it refuses the virtual host.
  const virtualHost =
    error instanceof Error && error.message.startsWith('Expected ConnectionOpenOk; got <ConnectionClose');
  if (login || virtualHost) {
    const refused = login ? 'login' : 'virtualHost';
    const text = login
      ? `the broker refused the login ${where}`
      : `the broker refused the virtual host of ${where}: it is not there, or the user may not use it`;
    return new AccessRefused(text, { cause: error, details: { refused, ...(login && { replyCode: 403 }) } });
  }
  return errorFromAmqp(error, `cannot connect to ${where}`);
}

async function openHost(parameters: ConnectionParameters, options: OpenAmqpOptions): Promise<AmqpConnection> {
  connectableTransport(parameters.transport);
  const { frameMax, channelMax, clientProperties } = amqpTransportOptions(parameters.transportOptions);
  const { hostname, port, userid, password, virtualHost, ssl, connectTimeout } = parameters;
  // Asking for 60 gives the lower of 60 and the broker's value, or 60 if the broker has none. amqplib reads whole seconds.
  const heartbeat = Math.ceil(parameters.heartbeat ?? 60);
  const cut = new AbortController();
  const { socketOptions } = options;
  const socket = {
    ...(await tlsOptions(ssl)),
    keepAliveDelay: 60_000,
    onread: readThroughLongIntegers(),
    ...(typeof socketOptions === 'function' ? socketOptions() : socketOptions),
    noDelay: true,
    keepAlive: true,
    signal: cut.signal,
    clientProperties: {
      product: 'mozuku',
      ...(options.clientName !== undefined && { connection_name: options.clientName }),
      ...clientProperties,
    },
  };
  const url = {
    protocol: ssl === false ? 'amqp' : 'amqps',
    hostname,
    vhost: encodeURIComponent(virtualHost),
    username: userid ?? '',
    password: password ?? '',
    heartbeat,
    frameMax,
    channelMax,
    ...(port !== undefined && { port }),
  };
  const opening = amqplib
    .connect(url, socket)
    .then((model) => new AmqpConnection(model, parameters, { heartbeat, frameMax }, cut));
  try {
    return await withDeadline(opening, `connecting to ${locationOf(parameters)}`, connectTimeout, options.signal);
  } catch (error) {
    cut.abort();
    if (options.signal?.aborted || error instanceof TimeoutError) throw error;
    throw explainHandshake(error, parameters);
  }
}

/** Which of the hosts answered last, so that a reconnect begins there and not at one that is known to be gone. */
const lastGood = new WeakMap<ConnectionParameters, number>();

function* hostsOf(parameters: ConnectionParameters): Iterable<[ConnectionParameters, number]> {
  const { alternates, failoverStrategy } = parameters;
  if (alternates.length === 0) {
    yield [parameters, 0];
    return;
  }
  const start = lastGood.get(parameters) ?? 0;
  let order: readonly string[];
  if (typeof failoverStrategy === 'function') {
    order = [...take(failoverStrategy(alternates), alternates.length)];
  } else if (failoverStrategy === 'shuffle') {
    order = alternates
      .map((url) => ({ url, at: Math.random() }))
      .sort((a, b) => a.at - b.at)
      .map(({ url }) => url);
  } else {
    order = [...alternates.slice(start), ...alternates.slice(0, start)];
  }
  for (const url of order) {
    const index = alternates.indexOf(url);
    // The first is the connection's own host, which options may have completed.
    yield [index === 0 ? parameters : parametersOf(url, parameters), Math.max(index, 0)];
  }
}

/** A strategy may go round for ever, as kombu's do: one attempt takes as many hosts as there are. */
function* take<T>(from: Iterable<T>, count: number): Iterable<T> {
  let taken = 0;
  for (const item of from) {
    if (taken++ >= count) return;
    yield item;
  }
}

/**
 * Connects to the first host that answers: each of `alternates` once, every one with `connectTimeout` from the first packet to
 * an open connection. Throws `AccessRefused`, `ConnectionError` (with several hosts its `cause` is an AggregateError),
 * `TimeoutError`, `TransportNotAvailable`, or the signal's reason.
 */
export async function openAmqp(
  parameters: ConnectionParameters,
  options: OpenAmqpOptions = {},
): Promise<AmqpConnection> {
  const failures: KombuError[] = [];
  for (const [host, index] of hostsOf(parameters)) {
    try {
      options.signal?.throwIfAborted();
      const connection = await openHost(host, options);
      lastGood.set(parameters, index);
      return connection;
    } catch (error) {
      if (options.signal?.aborted || error instanceof OptionError) throw error;
      failures.push(error as KombuError);
    }
  }
  const [first] = failures;
  if (first === undefined) throw new OptionError('failoverStrategy gave no URL');
  if (failures.length === 1) throw first;
  const text = `no broker can be reached: ${failures.map(({ message }) => message).join('; ')}`;
  const refused = failures.every((each) => each instanceof AccessRefused);
  throw new (refused ? AccessRefused : ConnectionError)(text, { cause: new AggregateError(failures, text) });
}

/** True for failures that another attempt may mend; a refused login or an impossible option will stay as it is. */
export function isRecoverable(error: unknown): boolean {
  return (error instanceof ConnectionError && !(error instanceof AccessRefused)) || error instanceof TimeoutError;
}
