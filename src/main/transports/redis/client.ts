/**
 * Sockets to Redis by ioredis. A client lives once: it neither reconnects nor sends anything again by itself, for it cannot
 * know what may be asked twice. Whoever owns it makes a new one.
 */
import { isIP } from 'node:net';
import { type RedisOptions as ClientOptions, Redis } from 'ioredis';
import { ConnectionError, InvalidPath, type KombuError, OptionError } from '../../../errors.js';
import { redisTransportOptions } from '../../../redis-options.js';
import { withDeadline } from '../../deadline.js';
import type { ConnectionParameters } from '../../url.js';
import { tlsOptions } from '../tls.js';
import { errorFromRedis } from './errors.js';
import { SCRIPTS } from './scripts.js';

type Argument = string | number | Buffer;

/** ioredis with our scripts; replies with Buffers where the name says so. */
export type Client = Redis & {
  /** See `scripts.ts` for what each takes and gives. */
  mozukuTakeBuffer(keys: number, ...args: Argument[]): Promise<(number | Buffer)[]>;
  mozukuAck(keys: number, ...args: Argument[]): Promise<number>;
  mozukuRenew(keys: number, ...args: Argument[]): Promise<string[]>;
  mozukuPutBackBuffer(keys: number, ...args: Argument[]): Promise<(number | Buffer)[]>;
  mozukuRestoreBuffer(keys: number, ...args: Argument[]): Promise<(number | Buffer)[]>;
  mozukuOverdueBuffer(keys: number, ...args: Argument[]): Promise<Buffer[]>;
  mozukuPublish(keys: number, ...args: Argument[]): Promise<number | [number, ...string[]]>;
};

/** The number of the database: `/3` of the URL, 0 without one. Throws `InvalidPath`. */
export function databaseOf({ virtualHost }: ConnectionParameters): number {
  const text = virtualHost.replace(/^\//, '');
  if (/^\d{0,9}$/.test(text)) return Number(text);
  throw new InvalidPath(`the database of a Redis URL is a number, not '${virtualHost}'`, { details: { virtualHost } });
}

/** host:port/db or the path of a socket, for messages. */
export function locationOf(parameters: ConnectionParameters): string {
  const { userid, hostname, port, virtualHost } = parameters;
  return `${userid === undefined ? '' : `${userid}@`}${hostname}${port === undefined ? '' : `:${port}`}/${virtualHost.replace(/^\//, '') || 0}`;
}

/** What tells the data of one connection from those of another: sentinels know primaries by name. */
export function placeOf(parameters: ConnectionParameters): string {
  const { masterName = '', globalKeyprefix } = redisTransportOptions(parameters.transportOptions);
  return JSON.stringify([locationOf(parameters), masterName, globalKeyprefix]);
}

async function clientOptions(parameters: ConnectionParameters, name: string | undefined): Promise<ClientOptions> {
  const { hostname, port, userid, password, ssl, connectTimeout, transport, transportOptions } = parameters;
  const { masterName, sentinelKwargs, clientName } = redisTransportOptions(transportOptions);
  const tls =
    ssl === false ? undefined : { ...(isIP(hostname) === 0 && { servername: hostname }), ...(await tlsOptions(ssl)) };
  const login = { ...(userid !== undefined && { username: userid }), ...(password !== undefined && { password }) };
  if (transport === 'sentinel' && masterName === undefined) {
    throw new OptionError("transportOptions: with sentinel:// the option 'masterName' is required");
  }
  const where =
    transport === 'sentinel'
      ? {
          sentinels: [{ host: hostname, port: port! }],
          name: masterName!,
          ...(sentinelKwargs?.username !== undefined && { sentinelUsername: sentinelKwargs.username }),
          ...(sentinelKwargs?.password !== undefined && { sentinelPassword: sentinelKwargs.password }),
          ...(tls !== undefined && { sentinelTLS: tls, enableTLSForSentinelMode: true }),
          sentinelRetryStrategy: () => null,
          updateSentinels: false,
        }
      : transport === 'redis+socket'
        ? { path: hostname }
        : { host: hostname, port: port! };
  return {
    ...where,
    ...login,
    ...(tls !== undefined && { tls }),
    connectTimeout,
    // A name with spaces is refused, which nobody would hear of.
    connectionName: clientName ?? name?.replaceAll(' ', '-') ?? 'mozuku',
    lazyConnect: true,
    protocol: 2,
    keepAlive: 30_000,
    noDelay: true,
    enableOfflineQueue: false,
    // By INFO, which not every user may. `RedisConnection.open` looks by itself.
    enableReadyCheck: false,
    maxRetriesPerRequest: null,
    autoResendUnfulfilledCommands: false,
    autoResubscribe: false,
    retryStrategy: () => null,
    scripts: SCRIPTS,
  };
}

/**
 * Connects to the one host, or by the one sentinel, that the parameters name. `ended` of what it gives resolves once the socket is
 * gone. Throws `AccessRefused`, `ConnectionError`, `TimeoutError`, `InvalidPath`, `OptionError`, or the signal's reason.
 */
export async function openClient(
  parameters: ConnectionParameters,
  options: { readonly signal?: AbortSignal | undefined; readonly clientName?: string | undefined } = {},
): Promise<{ readonly client: Client; readonly ended: Promise<KombuError> }> {
  const client = new Redis({
    ...(await clientOptions(parameters, options.clientName)),
    replyMapping: 'legacy',
  }) as Client;
  const doing = `cannot connect to ${locationOf(parameters)}`;
  let failure: unknown;
  client.on('error', (error) => {
    failure ??= error;
  });
  const ended = new Promise<KombuError>((resolve) => {
    client.once('end', () => {
      const text = `the connection to ${locationOf(parameters)} was lost`;
      resolve(failure === undefined ? new ConnectionError(text) : errorFromRedis(failure, text));
    });
  });
  try {
    const db = databaseOf(parameters);
    // Not by ioredis: it stays in database 0 if the server refuses another one.
    const connecting = client.connect().then(() => (db === 0 ? undefined : client.select(db)));
    await withDeadline(
      connecting,
      `connecting to ${locationOf(parameters)}`,
      parameters.connectTimeout,
      options.signal,
    );
  } catch (error) {
    client.disconnect();
    if (options.signal?.aborted) throw error;
    // 'Connection is closed.' says less than what the socket or the server said before.
    throw errorFromRedis(failure ?? error, doing);
  }
  failure = undefined;
  return { client, ended };
}
