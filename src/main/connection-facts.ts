/** What can be said of a connection without using it: its parameters, and what follows from them. */
import { EventEmitter } from 'node:events';
import { inspect } from 'node:util';
import { connectionKey } from '../connection-key.js';
import {
  AccessRefused,
  ChannelError,
  ConnectionError,
  RecoverableChannelError,
  RecoverableConnectionError,
  TimeoutError,
} from '../errors.js';
import { kinds, type OptionTable, readOptions } from '../options.js';
import type { ConnectionEvents } from './connection-core.js';
import type { ErrorClass } from './ensure.js';
import { type ConnectionParameters, formatUrl, type SslOptions } from './url.js';

export interface AsUriOptions {
  readonly includePassword?: boolean;
  readonly mask?: string;
}

const AS_URI: OptionTable<AsUriOptions> = {
  includePassword: { kind: kinds.boolean, default: false, doc: 'Show the password.' },
  mask: { kind: kinds.string, default: '**', doc: 'Stands for the password.' },
};

/** Those that every AMQP broker has; more come with its plugins. */
const EXCHANGE_TYPES: readonly string[] = ['direct', 'topic', 'fanout', 'headers'];

const CONNECTION_ERRORS: readonly ErrorClass[] = Object.freeze([ConnectionError, TimeoutError]);
const CHANNEL_ERRORS: readonly ErrorClass[] = Object.freeze([ChannelError, AccessRefused]);
const RECOVERABLE_CONNECTION_ERRORS: readonly ErrorClass[] = Object.freeze([RecoverableConnectionError]);
const RECOVERABLE_CHANNEL_ERRORS: readonly ErrorClass[] = Object.freeze([RecoverableChannelError]);

export abstract class ConnectionFacts extends EventEmitter<ConnectionEvents> {
  /** What it connects to; frozen. Holds the password. */
  abstract get parameters(): ConnectionParameters;

  abstract get connected(): boolean;

  get hostname(): string {
    return this.parameters.hostname;
  }
  get userid(): string | undefined {
    return this.parameters.userid;
  }
  get password(): string | undefined {
    return this.parameters.password;
  }
  get virtualHost(): string {
    return this.parameters.virtualHost;
  }
  get port(): number | undefined {
    return this.parameters.port;
  }
  get transport(): string {
    return this.parameters.transport;
  }
  get ssl(): boolean | SslOptions {
    return this.parameters.ssl;
  }
  get connectTimeout(): number {
    return this.parameters.connectTimeout;
  }
  get transportOptions(): Readonly<Record<string, unknown>> {
    return this.parameters.transportOptions;
  }
  /** Seconds as asked for; `undefined` means the broker's, at most 60. */
  get heartbeat(): number | undefined {
    return this.parameters.heartbeat;
  }
  get alternates(): readonly string[] {
    return this.parameters.alternates;
  }
  get failoverStrategy(): ConnectionParameters['failoverStrategy'] {
    return this.parameters.failoverStrategy;
  }

  /** Classes for `instanceof`: what ends a connection, or keeps it from being made. */
  get connectionErrors(): readonly ErrorClass[] {
    return CONNECTION_ERRORS;
  }
  /** What the broker closes a channel with. */
  get channelErrors(): readonly ErrorClass[] {
    return CHANNEL_ERRORS;
  }
  /** Of the connection errors, those that a reconnect may mend. */
  get recoverableConnectionErrors(): readonly ErrorClass[] {
    return RECOVERABLE_CONNECTION_ERRORS;
  }
  /** Of the channel errors, those that another attempt may mend. */
  get recoverableChannelErrors(): readonly ErrorClass[] {
    return RECOVERABLE_CHANNEL_ERRORS;
  }

  /** True if the transport has heartbeats at all. */
  get supportsHeartbeats(): boolean {
    return this.transport !== 'memory';
  }

  /** True for the exchange types that the broker has without plugins. */
  supportsExchangeType(type: string): boolean {
    return EXCHANGE_TYPES.includes(type);
  }

  /** True if so many retries (0: the first attempt) have tried each host equally often. */
  completesCycle(retries: number): boolean {
    return this.alternates.length === 0 || (retries + 1) % this.alternates.length === 0;
  }

  /** True if both connect to the same place in the same way: pools share connections between equal ones. */
  equals(other: unknown): boolean {
    return other instanceof ConnectionFacts && connectionKey(this.parameters) === connectionKey(other.parameters);
  }

  /** The parameters, defaults filled in. Holds the password. */
  info(): ConnectionParameters {
    return { ...this.parameters };
  }

  /** The URL, with `mask` for the password unless it is asked for. */
  asUri(options: AsUriOptions = {}): string {
    return formatUrl(this.parameters, readOptions('asUri', AS_URI, options));
  }

  [inspect.custom](): string {
    return `Connection <${this.asUri()}${this.connected ? '' : ', not connected'}>`;
  }

  override toString(): string {
    return this.asUri();
  }

  /** Never shows the password. */
  toJSON(): string {
    return this.asUri();
  }
}
