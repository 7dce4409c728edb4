/**
 * Broker URLs by kombu's rules, and the connection parameters they become together with options. Nothing here does I/O,
 * and no error here repeats any part of a URL that could hold a password.
 */
import { isIPv6 } from 'node:net';
import { InvalidUrl, TransportNotAvailable } from './errors.js';
import { kinds, nearest, type OptionTable, readOptions } from './options.js';

/** What each transport takes when neither URL nor options say otherwise. `shown`: the name `info()` and `asUri()` give. */
interface TransportDefaults {
  readonly shown: string;
  readonly port?: number;
  readonly userid?: string;
  readonly password?: string;
  readonly tls?: boolean;
  /** False: the URL is understood, but this version cannot connect with it. */
  readonly connects: boolean;
}

const AMQP = { port: 5672, userid: 'guest', password: 'guest', connects: true };

export const TRANSPORTS: Readonly<Record<string, TransportDefaults>> = {
  amqp: { ...AMQP, shown: 'amqp' },
  amqps: { ...AMQP, shown: 'amqps', port: 5671, tls: true },
  pyamqp: { ...AMQP, shown: 'amqp' },
  librabbitmq: { ...AMQP, shown: 'amqp' },
  memory: { shown: 'memory', connects: true },
  redis: { shown: 'redis', port: 6379, connects: false },
  rediss: { shown: 'rediss', port: 6379, tls: true, connects: false },
  sentinel: { shown: 'sentinel', port: 26379, connects: false },
};

/** kombu's other transports: known by name, so that the error can say what they are. */
const ELSEWHERE =
  'confluentkafka kafka sqs mongodb zookeeper sqlalchemy sqla slmq filesystem qpid consul etcd azurestoragequeues azureservicebus pyro gcpubsub'.split(
    ' ',
  );

/** One broker as a URL names it. What the URL leaves out is absent; `new Connection` fills in the transport's defaults. */
export interface ParsedUrl {
  /** As written: 'pyamqp' stays 'pyamqp'. */
  readonly transport: string;
  readonly hostname?: string;
  readonly userid?: string;
  readonly password?: string;
  readonly port?: number;
  readonly virtualHost?: string;
  /** Seconds, from `?heartbeat=`. */
  readonly heartbeat?: number;
  /** Milliseconds, from `?connect_timeout=`, which is in seconds as in kombu. */
  readonly connectTimeout?: number;
  readonly ssl?: boolean | SslOptions;
  readonly failoverStrategy?: 'round-robin' | 'shuffle';
  /** All URLs of a list `a;b;c`, the first included; empty for a single URL. */
  readonly alternates: readonly string[];
}

/** TLS: every option of `tls.connect`, and kombu's, whose files are read when the connection is made. */
export interface SslOptions {
  /** Files in PEM format. */
  readonly caCerts?: string;
  readonly certfile?: string;
  readonly keyfile?: string;
  /** 'none' accepts any certificate. Default 'required'. */
  readonly certReqs?: 'required' | 'optional' | 'none';
  /** False accepts a certificate made out to another host. Default true. */
  readonly checkHostname?: boolean;
  readonly [option: string]: unknown;
}

/** Throws `TransportNotAvailable` unless `name` is a transport that can be parsed. */
export function knownTransport(name: string): TransportDefaults {
  if (Object.hasOwn(TRANSPORTS, name)) return TRANSPORTS[name]!;
  const names = Object.keys(TRANSPORTS);
  const there = `mozuku has ${names.join(', ')}`;
  const details = { transport: name };
  if (ELSEWHERE.includes(name)) {
    throw new TransportNotAvailable(`the transport '${name}' is kombu's, but not in mozuku; ${there}`, { details });
  }
  const hint = nearest(name, names);
  throw new TransportNotAvailable(
    `no such transport: '${name}'${hint === undefined ? `; ${there}` : `; did you mean '${hint}'?`}`,
    { details },
  );
}

/** Throws `TransportNotAvailable` unless this version can connect with the transport. */
export function connectableTransport(name: string): void {
  if (knownTransport(name).connects) return;
  const names = Object.keys(TRANSPORTS).filter((each) => TRANSPORTS[each]?.connects);
  throw new TransportNotAvailable(
    `this version cannot connect with the transport '${name}' yet; it connects with ${names.join(', ')}`,
    { details: { transport: name } },
  );
}

/** Percent-decoding as Python's `unquote`: what is no escape stays as it is, so a bare '%' in a password works. */
function decode(text: string): string {
  return text.replace(/(?:%[0-9a-f]{2})+/gi, (run) => Buffer.from(run.replaceAll('%', ''), 'hex').toString('utf8'));
}

/** Splits 'host:port' or '[v6]:port'. */
function readAuthority(text: string): { hostname?: string; port?: number } {
  const match = /^(?:\[([0-9a-fA-F:.%]*)\]|([^:[\]]*))(?::(\d*))?$/.exec(text);
  const port = match?.[3] ? Number(match[3]) : undefined;
  if (match === null || (port !== undefined && port > 65535)) {
    throw new InvalidUrl(
      "the broker URL has no valid host and port (the characters / ? # @ ; in a user or password must be percent-encoded: '/' is %2F)",
    );
  }
  const hostname = decode(match[1] ?? match[2] ?? '').toLowerCase();
  return { ...(hostname !== '' && { hostname }), ...(port !== undefined && { port }) };
}

function seconds(key: string, text: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (!(value >= 0 && value <= 2_000_000))
    throw new InvalidUrl(`in the broker URL, ${key} must be a number of seconds`);
  return value;
}

const STRATEGIES: Readonly<Record<string, 'round-robin' | 'shuffle'>> = {
  'round-robin': 'round-robin',
  shuffle: 'shuffle',
};
const FLAG: Readonly<Record<string, boolean>> = { '1': true, true: true, '0': false, false: false };
const CERT_REQS: Readonly<Record<string, 'required' | 'optional' | 'none'>> = {
  CERT_REQUIRED: 'required',
  CERT_OPTIONAL: 'optional',
  CERT_NONE: 'none',
  required: 'required',
  optional: 'optional',
  none: 'none',
};

function choice<T>(key: string, text: string, choices: Readonly<Record<string, T>>): T {
  if (Object.hasOwn(choices, text)) return choices[text]!;
  throw new InvalidUrl(`in the broker URL, ${key} must be one of ${Object.keys(choices).join(', ')}`);
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };
type Into = Mutable<ParsedUrl>;
type Ssl = Mutable<Pick<SslOptions, 'caCerts' | 'certfile' | 'keyfile' | 'certReqs' | 'checkHostname'>>;

/** The query keys, with kombu's names and units. */
const QUERY: Readonly<Record<string, (text: string, into: Into, ssl: Ssl) => void>> = {
  heartbeat: (text, into) => (into.heartbeat = seconds('heartbeat', text)),
  connect_timeout: (text, into) => (into.connectTimeout = Math.round(seconds('connect_timeout', text) * 1000)),
  ssl: (text, into) => (into.ssl = choice('ssl', text.toLowerCase(), FLAG)),
  userid: (text, into) => (into.userid = text),
  password: (text, into) => (into.password = text),
  virtual_host: (text, into) => (into.virtualHost = text),
  failover_strategy: (text, into) => (into.failoverStrategy = choice('failover_strategy', text, STRATEGIES)),
  ssl_ca_certs: (text, _, ssl) => (ssl.caCerts = text),
  ssl_cafile: (text, _, ssl) => (ssl.caCerts = text),
  ssl_certfile: (text, _, ssl) => (ssl.certfile = text),
  ssl_keyfile: (text, _, ssl) => (ssl.keyfile = text),
  ssl_cert_reqs: (text, _, ssl) => (ssl.certReqs = choice('ssl_cert_reqs', text, CERT_REQS)),
  ssl_check_hostname: (text, _, ssl) => (ssl.checkHostname = text.toLowerCase() !== 'false'),
};

function readQuery(query: string, into: Into): void {
  const ssl: Ssl = {};
  for (const [key, text] of new URLSearchParams(query)) {
    const read = Object.hasOwn(QUERY, key) ? QUERY[key] : undefined;
    if (read === undefined) {
      const hint = nearest(key, Object.keys(QUERY));
      // The key itself is not shown: behind an unencoded '?' it may be a part of a password.
      throw new InvalidUrl(
        hint === undefined
          ? `the broker URL has an unknown query key; it may have ${Object.keys(QUERY).join(', ')}`
          : `the broker URL has an unknown query key; did you mean '${hint}'?`,
      );
    }
    if (text !== '') read(text, into, ssl);
  }
  if (Object.keys(ssl).length > 0) into.ssl = ssl as SslOptions;
}

/**
 * Parses `transport://userid:password@host:port/virtual-host?key=value`, or a list of them joined by ';', of which the first
 * counts and all go to `alternates`. User, password, host and path are percent-decoded; exactly one '/' opens the path, so
 * 'amqp://h//' names the virtual host '/'. A text without '://' is a host, with or without a port.
 * Throws `InvalidUrl`, and `TransportNotAvailable` for a scheme that is no transport of this library.
 */
export function parseUrl(url: string): ParsedUrl {
  if (typeof url !== 'string') throw new InvalidUrl('a broker URL must be a string');
  if (url.includes(';')) {
    const alternates = url.split(';').filter((each) => each.trim() !== '');
    if (alternates.length === 0) throw new InvalidUrl('the list of broker URLs is empty');
    const parsed = alternates.map((each) => parseUrl(each));
    return { ...parsed[0]!, alternates };
  }
  const scheme = /^\s*([a-z][a-z0-9.+-]*):\/\//i.exec(url);
  if (scheme === null) {
    if (url.includes('://')) throw new InvalidUrl('the broker URL does not begin with a transport, such as amqp://');
    const host = url.trim();
    return { transport: 'amqp', ...readAuthority(isIPv6(host) ? `[${host}]` : host), alternates: [] };
  }
  const transport = scheme[1]!.toLowerCase();
  const [prefix] = transport.split('+');
  knownTransport(prefix!);
  if (prefix !== transport) {
    throw new TransportNotAvailable(`URLs such as '${transport}://' are not supported yet`, { details: { transport } });
  }
  const [, netloc, path, query] = /^([^/?#]*)([^?#]*)(?:\?([^#]*))?/.exec(url.slice(scheme[0].length).trimEnd())!;
  const into: Into = { transport, alternates: [] };
  if (query) readQuery(query, into);
  const at = netloc!.lastIndexOf('@');
  Object.assign(into, readAuthority(netloc!.slice(at + 1)));
  const [, userid, password] = /^([^:]*):?(.*)$/s.exec(netloc!.slice(0, Math.max(at, 0)))!;
  if (userid) into.userid = decode(userid);
  if (password) into.password = decode(password);
  const virtualHost = decode(path!.replace(/^\//, ''));
  if (virtualHost !== '') into.virtualHost = virtualHost;
  return into;
}

/** Everything but letters, digits and `_.-~`, as Python's `quote` has it. */
function quote(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** The parts of a URL; `mask` stands for the password unless that is asked for. */
export function formatUrl(
  parts: Pick<ConnectionParameters, 'transport' | 'hostname' | 'userid' | 'password' | 'port' | 'virtualHost'>,
  { includePassword = false, mask = '**' }: { includePassword?: boolean; mask?: string } = {},
): string {
  const { transport, hostname, userid, password, port, virtualHost } = parts;
  const secret = includePassword ? (password === undefined ? '' : `:${quote(password)}`) : `:${mask}`;
  const login = `${userid === undefined ? '' : quote(userid)}${secret}`;
  const host = hostname.includes(':') ? `[${hostname}]` : quote(hostname);
  const path = virtualHost.split('/').map(quote).join('/');
  return `${knownTransport(transport).shown}://${login && `${login}@`}${host}${port === undefined ? '' : `:${port}`}/${path}`;
}

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
  transportOptions: { kind: kinds.object, default: {}, doc: 'AMQP: `frameMax channelMax clientProperties`.' },
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

const isUrl = (text: string): boolean => text.includes('://');

function isSameHost(parsed: ParsedUrl, given: ConnectionOptions): boolean {
  const portOf = (port: number | undefined, transport = 'amqp') => port ?? TRANSPORTS[transport]?.port;
  const hostname = parsed.hostname ?? 'localhost';
  return hostname === given.hostname && portOf(parsed.port, parsed.transport) === portOf(given.port, given.transport);
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
  // Parameters that were read before, those of a clone or of a worker's, list their own host already.
  const again = url === undefined && more[0] !== undefined && isSameHost(parseUrl(more[0]), given);
  const alternates = [...new Set(again ? more : [...listed, ...more])];
  for (const each of alternates) parseUrl(each);
  const defaults = knownTransport(isUrl(listed[0]!) ? parsed.transport : given.transport);
  const transportOptions = given.transportOptions ?? {};
  if (defaults.connects) amqpTransportOptions(transportOptions);
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
 * The parameters with another of `alternates` as the connection's own host; the list is turned so that it begins there. The host
 * so far keeps its place in it by a whole URL: options may have completed what the list has of it.
 */
export function turnedTo(alternate: string, parameters: ConnectionParameters): ConnectionParameters {
  const { alternates } = parameters;
  const at = alternates.indexOf(alternate);
  if (at <= 0) return parameters;
  const whole = [formatUrl(parameters, { includePassword: true }), ...alternates.slice(1)];
  const turned = [...whole.slice(at), ...whole.slice(0, at)];
  return Object.freeze({ ...parametersOf(alternate, parameters), alternates: Object.freeze(turned) });
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
