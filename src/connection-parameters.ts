/** The parameters of a connection: what options and URL say together, completed by the transport's defaults. */
import { InvalidUrl } from './errors.js';
import { kinds, type OptionTable, readOptions } from './options.js';
import { redisTransportOptions } from './redis-options.js';
import { formatUrl, knownTransport, parseUrl, type SslOptions, TRANSPORTS } from './url.js';

export type FailoverStrategy = 'round-robin' | 'shuffle' | ((urls: readonly string[]) => Iterable<string>);

/** Options of `new Connection`; what the URL says wins over them, as in kombu. */
export interface ConnectionOptions {
  readonly hostname?: string;
  readonly userid?: string;
  readonly password?: string;
  readonly virtualHost?: string;
  readonly port?: number;
  readonly transport?: string;
  readonly ssl?: boolean | SslOptions;
  readonly connectTimeout?: number;
  readonly transportOptions?: Record<string, unknown>;
  readonly heartbeat?: number;
  readonly alternates?: readonly string[];
  readonly failoverStrategy?: FailoverStrategy;
}

/** All that is needed to connect: frozen plain data (but for a `failoverStrategy` that is a function). Holds the password. */
export interface ConnectionParameters {
  /** 'amqp', 'amqps', 'memory', 'redis', 'rediss' or 'sentinel'. */
  readonly transport: string;
  readonly hostname: string;
  readonly userid?: string;
  readonly password?: string;
  readonly virtualHost: string;
  readonly port?: number;
  readonly ssl: boolean | SslOptions;
  /** Milliseconds for each host. */
  readonly connectTimeout: number;
  readonly transportOptions: Readonly<Record<string, unknown>>;
  /** Seconds; undefined: the server's, at most 60; 0: off. */
  readonly heartbeat?: number;
  /** All hosts of a list as URLs, the first included; empty if there is one. */
  readonly alternates: readonly string[];
  readonly failoverStrategy: FailoverStrategy;
}

const isSsl = (value: unknown): boolean => typeof value === 'boolean' || kinds.object.test(value);
const isStrategy = (value: unknown): boolean =>
  value === 'round-robin' || value === 'shuffle' || typeof value === 'function';

export const CONNECTION_OPTIONS: OptionTable<ConnectionOptions> = {
  hostname: { kind: kinds.string, default: 'localhost', doc: 'A host, a URL, or URLs joined by `;`.' },
  userid: { kind: kinds.string, defaultWords: "'guest' on AMQP", doc: 'The user.' },
  password: { secret: true, kind: kinds.string, defaultWords: "'guest' on AMQP", doc: 'Never shown in errors.' },
  virtualHost: { kind: kinds.name, default: '/', doc: 'The virtual host; on Redis the number of the database.' },
  port: { kind: kinds.integer(1, 65535), defaultWords: 'the port of the transport', doc: 'The TCP port.' },
  transport: { kind: kinds.name, default: 'amqp', doc: 'The transport, where no URL names one.' },
  ssl: {
    kind: kinds.custom('true, false, or an object of TLS options', isSsl),
    defaultWords: 'true for amqps and rediss, else false',
    doc: 'TLS: options of `tls.connect`, or `caCerts certfile keyfile certReqs checkHostname`.',
  },
  connectTimeout: {
    kind: kinds.milliseconds,
    default: 5000,
    doc: 'From the first packet to an open connection, for each host.',
  },
  transportOptions: {
    kind: kinds.object,
    default: {},
    doc: 'AMQP: `frameMax channelMax clientProperties`. Redis: see below.',
  },
  heartbeat: {
    kind: kinds.custom('seconds: a number from 0 to 65535', (v) => typeof v === 'number' && v >= 0 && v <= 65535),
    defaultWords: "the server's, at most 60",
    doc: 'Seconds between heartbeats; 0 switches them off.',
  },
  alternates: { kind: kinds.strings, default: [], doc: 'More brokers to try when the first does not answer.' },
  failoverStrategy: {
    kind: kinds.custom("'round-robin', 'shuffle', or a function from URLs to URLs", isStrategy),
    default: 'round-robin',
    doc: 'The order in which the brokers are tried.',
  },
};

interface AmqpTransportOptions {
  readonly frameMax?: number;
  readonly channelMax?: number;
  readonly clientProperties?: Record<string, unknown>;
}

const AMQP_TRANSPORT_OPTIONS: OptionTable<AmqpTransportOptions> = {
  frameMax: { kind: kinds.integer(8192, 0x7fffffff), default: 131072, doc: 'The largest frame, in bytes.' },
  channelMax: { kind: kinds.integer(0, 65535), default: 0, doc: 'The most channels; 0: what the broker allows.' },
  clientProperties: { kind: kinds.object, default: {}, doc: 'Shown by the broker beside the connection.' },
};

/** The AMQP part of `transportOptions`, checked, with defaults. Throws `OptionError`. */
export function amqpTransportOptions(given: Readonly<Record<string, unknown>>): Required<AmqpTransportOptions> {
  return readOptions('transportOptions', AMQP_TRANSPORT_OPTIONS, given) as Required<AmqpTransportOptions>;
}

const REDIS = new Set(['redis', 'rediss', 'redis+socket', 'sentinel']);

const isUrl = (text: string): boolean => text.includes('://');

/** True for parameters that were read before, those of a clone or of another thread: their list begins with their own host. */
function areComplete(options: ConnectionOptions): boolean {
  const keys = [
    'hostname',
    'transport',
    'virtualHost',
    'ssl',
    'connectTimeout',
    'transportOptions',
    'failoverStrategy',
  ];
  const [own] = options.alternates ?? [];
  const complete = keys.every((key) => options[key as keyof ConnectionOptions] !== undefined);
  return complete && own !== undefined && (parseUrl(own).hostname ?? 'localhost') === options.hostname;
}

/**
 * The parameters of a connection to `url` (or a list of them), completed by `options` and the transport's defaults.
 * Throws `OptionError`, `InvalidUrl`, `TransportNotAvailable`.
 */
export function readParameters(
  url: string | readonly string[] | undefined,
  options: ConnectionOptions,
): ConnectionParameters {
  const given = readOptions('Connection', CONNECTION_OPTIONS, options) as ConnectionOptions &
    Required<Pick<ConnectionOptions, 'hostname' | 'virtualHost' | 'transport' | 'connectTimeout' | 'failoverStrategy'>>;
  if (Array.isArray(url) && url.length === 0) throw new InvalidUrl('the list of broker URLs is empty');
  const text = url === undefined ? given.hostname : typeof url === 'string' ? url : url.join(';');
  const parsed = parseUrl(text);
  const more = given.alternates ?? [];
  const listed = parsed.alternates.length > 0 ? parsed.alternates : [text];
  const again = url === undefined && areComplete(options);
  const alternates = [...new Set(again ? more : [...listed, ...more])];
  for (const each of alternates) parseUrl(each);
  const defaults = knownTransport(isUrl(listed[0]!) ? parsed.transport : given.transport);
  const transportOptions = given.transportOptions ?? {};
  if (REDIS.has(defaults.shown)) redisTransportOptions(transportOptions);
  else amqpTransportOptions(transportOptions);
  const userid = parsed.userid ?? given.userid ?? defaults.userid;
  const password = parsed.password ?? given.password ?? defaults.password;
  const port = parsed.port ?? given.port ?? defaults.port;
  const wanted = parsed.ssl ?? given.ssl ?? defaults.tls ?? false;
  // A scheme that promises TLS keeps its promise.
  const ssl = wanted === false && defaults.tls === true ? true : wanted;
  const heartbeat = parsed.heartbeat ?? given.heartbeat;
  return Object.freeze({
    transport: defaults.shown,
    hostname: parsed.hostname ?? 'localhost',
    ...(userid !== undefined && { userid }),
    ...(password !== undefined && { password }),
    virtualHost: parsed.virtualHost ?? given.virtualHost,
    ...(port !== undefined && { port }),
    ssl: typeof ssl === 'object' ? Object.freeze({ ...ssl }) : ssl,
    connectTimeout: parsed.connectTimeout ?? given.connectTimeout,
    transportOptions: Object.freeze({ ...transportOptions }),
    ...(heartbeat !== undefined && { heartbeat }),
    alternates: Object.freeze(alternates.length > 1 ? alternates : []),
    failoverStrategy: parsed.failoverStrategy ?? given.failoverStrategy,
  });
}

/**
 * The parameters with the host of `url` in place of the connection's own. A list of alternates is turned so that it begins there;
 * the host so far stays in it as a whole URL, for options may have completed what the list had of it.
 */
export function switchedTo(url: string, parameters: ConnectionParameters): ConnectionParameters {
  const { alternates } = parameters;
  const at = alternates.indexOf(url);
  if (at === 0) return parameters;
  const switched = parametersOf(url, parameters);
  if (alternates.length === 0 || switched.alternates.length > 0) return switched;
  const whole = [formatUrl(parameters, { includePassword: true }), ...alternates.slice(1)];
  const turned = at < 0 ? [url, ...whole] : [...whole.slice(at), ...whole.slice(0, at)];
  return Object.freeze({ ...switched, alternates: Object.freeze(turned) });
}

/**
 * The parameters for one URL of `alternates`. User, password, virtual host and what else it leaves out are those of the
 * connection, but for the port and for the TLS that a scheme such as amqps:// brings along.
 */
export function parametersOf(alternate: string, parameters: ConnectionParameters): ConnectionParameters {
  const { hostname, port, alternates, ssl, ...rest } = parameters;
  const bySchemeOnly = typeof ssl === 'boolean' && ssl === (TRANSPORTS[parameters.transport]?.tls ?? false);
  return readParameters(alternate, bySchemeOnly ? rest : { ...rest, ssl });
}
