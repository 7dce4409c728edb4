/**
 * Connections by amqplib. It ends the process when an 'error' event has no listener, so the listeners are put on here and
 * nowhere else.
 */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import * as amqplib from 'amqplib';
import { AccessRefused, type KombuError, TimeoutError } from '../../../errors.js';
import { withDeadline } from '../../deadline.js';
import { amqpTransportOptions, type ConnectionParameters } from '../../url.js';
import { openFirst } from '../failover.js';
import { tlsOptions } from '../tls.js';
import type { BrokerConnection, OpenOptions, Publish } from '../transport.js';
import { errorFromAmqp, replyCodeOf } from './errors.js';
import { LongIntegers } from './long-integers.js';
import { OpenGate, type PassOn } from './open-gate.js';
import { publishWriter } from './publish-writer.js';

/** Milliseconds that a socket whose connection has ended may take to close by itself. */
const LINGER = 2000;

/** Milliseconds that the closing handshake may take before the socket is cut. */
const CLOSE_TIMEOUT = 5000;

export interface OpenAmqpOptions extends OpenOptions {
  /**
   * Passed to `net.connect` or `tls.connect` through amqplib, unchanged but for `noDelay`, `keepAlive` and `signal`. An `onread`
   * takes the place of ours: it hands what amqplib is to read to `pass`, and that must not have table fields of the type 'L'
   * (see LongIntegers). Asked anew for each attempt: state such as that of an `onread` callback belongs to one socket.
   */
  readonly socketOptions?: (pass: PassOn) => Record<string, unknown>;
}

/** user@host:port/virtual-host, for messages. */
export function locationOf({ userid, hostname, port, virtualHost }: ConnectionParameters): string {
  return `${userid === undefined ? '' : `${userid}@`}${hostname}:${port}/${virtualHost}`;
}

/** An open AMQP connection. `ended` and `reason` tell of its end; nothing is thrown at anybody. */
export class AmqpConnection implements BrokerConnection {
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
  /** Settles `ended`. */
  #over: () => void = () => undefined;

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
      this.#over = () => {
        this.#open = false;
        resolve(this.#reason);
      };
      model.once('close', (error?: Error) => {
        if (error !== undefined) lost(error);
        // amqplib only ends its side, for the last frames to get through. A peer that never ends its own would keep the
        // socket for good.
        setTimeout(() => this.destroy(), LINGER).unref();
        this.#over();
      });
    });
  }

  get open(): boolean {
    // One that was cut is of no use, whoever has been told of it.
    return this.#open && !this.#closing && !this.#cut.signal.aborted;
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
      await withDeadline(this.#sayGoodbye(), 'closing the connection', milliseconds);
    } catch {
      // Too late, or gone already: either way the socket goes now, which is all that was asked for.
    }
    this.destroy();
    this.#over();
    await this.ended;
  }

  /** amqplib writes its goodbye past what channels have buffered, acks among it, which the broker then never sees. */
  async #sayGoodbye(): Promise<void> {
    do await sleep(0);
    while (this.#open && hasBuffered(this.model));
    await this.model.close();
  }

  publisherOf(channel: amqplib.ConfirmChannel): Publish {
    return publishWriter(channel);
  }

  /** Cuts the socket without a goodbye. */
  destroy(): void {
    this.#cut.abort();
  }
}

/** An `onread` that lets amqplib read on as if there were none, but for `LongIntegers`. */
function readThroughLongIntegers(pass: PassOn): Record<string, unknown> {
  const integers = new LongIntegers();
  return {
    buffer: Buffer.allocUnsafeSlow(65536),
    callback(this: Socket, count: number, buffer: Uint8Array): boolean {
      try {
        // A copy: Node fills the buffer again.
        const bytes = integers.pass(Buffer.from(buffer.subarray(0, count)));
        if (bytes.length > 0) pass(this, bytes);
      } catch (error) {
        // Thrown here it would end the process; the connection is all that it concerns.
        this.destroy(error as Error);
      }
      return true;
    },
  };
}

/** True while a channel has bytes that are not on their way to the socket yet. */
function hasBuffered(model: amqplib.ChannelModel): boolean {
  const { channels } = model.connection as unknown as {
    readonly channels?: readonly ({ readonly buffer?: { readonly readableLength?: number } } | null)[];
  };
  return channels?.some((each) => (each?.buffer?.readableLength ?? 0) > 0) ?? false;
}

interface Tuning {
  readonly heartbeat: number;
  readonly frameMax: number;
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

/** Connects to the one host that the parameters name. */
export async function openHost(
  parameters: ConnectionParameters,
  options: OpenAmqpOptions = {},
): Promise<AmqpConnection> {
  const { frameMax, channelMax, clientProperties } = amqpTransportOptions(parameters.transportOptions);
  const { hostname, port, userid, password, virtualHost, ssl, connectTimeout } = parameters;
  // Asking for 60 gives the lower of 60 and the broker's value, or 60 if the broker has none. amqplib reads whole seconds.
  const heartbeat = Math.ceil(parameters.heartbeat ?? 60);
  const cut = new AbortController();
  const gate = new OpenGate();
  const socket = {
    ...(await tlsOptions(ssl)),
    keepAliveDelay: 60_000,
    ...(options.socketOptions?.(gate.pass) ?? { onread: readThroughLongIntegers(gate.pass) }),
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
  const opening = amqplib.connect(url, socket).then((model) => {
    const connection = new AmqpConnection(model, parameters, { heartbeat, frameMax }, cut);
    gate.open();
    return connection;
  });
  try {
    return await withDeadline(opening, `connecting to ${locationOf(parameters)}`, connectTimeout, options.signal);
  } catch (error) {
    cut.abort();
    if (options.signal?.aborted || error instanceof TimeoutError) throw error;
    throw explainHandshake(error, parameters);
  }
}

/** The same for the first of the hosts that answers; see `openFirst` for what it throws. */
export function openAmqp(parameters: ConnectionParameters, options: OpenAmqpOptions = {}): Promise<AmqpConnection> {
  return openFirst(parameters, options.signal, (host) => openHost(host, options));
}
