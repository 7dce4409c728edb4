/**
 * Broker URLs by kombu's rules. Nothing here does I/O, and no error here repeats any part of a URL that could hold a password.
 */
import { isIPv6 } from 'node:net';
import type { ConnectionParameters } from './connection-parameters.js';
import { InvalidUrl, TransportNotAvailable } from './errors.js';
import { nearest } from './options.js';

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
  redis: { shown: 'redis', port: 6379, connects: true },
  'redis+socket': { shown: 'redis+socket', connects: true },
  rediss: { shown: 'rediss', port: 6379, tls: true, connects: true },
  sentinel: { shown: 'sentinel', port: 26379, connects: true },
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
  if (transport === SOCKET) return parseSocketUrl(url.slice(scheme[0].length).trimEnd());
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

/** A Redis that listens on a socket file. */
const SOCKET = 'redis+socket';

/** `[user:password@]/path?virtual_host=db`: the path stands in the place of the host. */
function parseSocketUrl(rest: string): ParsedUrl {
  const [, netloc, path, query] = /^([^/?#]*)([^?#]*)(?:\?([^#]*))?/.exec(rest)!;
  const into: Into = { transport: SOCKET, alternates: [] };
  if (query) readQuery(query, into);
  const [, userid, password, host] = /^(?:([^:@]*):?(.*)@)?([^@]*)$/s.exec(netloc!)!;
  if (host !== '' || path === '' || path === '/') {
    throw new InvalidUrl(`a ${SOCKET} URL has three slashes and the path of the socket file`);
  }
  if (userid) into.userid = decode(userid);
  if (password) into.password = decode(password);
  into.hostname = decode(path!);
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
  if (transport === SOCKET) {
    const file = hostname.split('/').map(quote).join('/');
    return `${SOCKET}://${login && `${login}@`}${file}?virtual_host=${quote(virtualHost)}`;
  }
  const host = hostname.includes(':') ? `[${hostname}]` : quote(hostname);
  const path = virtualHost.split('/').map(quote).join('/');
  return `${knownTransport(transport).shown}://${login && `${login}@`}${host}${port === undefined ? '' : `:${port}`}/${path}`;
}
