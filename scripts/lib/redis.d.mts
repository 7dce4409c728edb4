// Types of redis.mjs for the TypeScript tests.

import type { Certificate } from './redis-programs.mjs';
import type { Reply, RespClient } from './resp.mjs';

export interface RedisOptions {
  /**
   * Lines of redis.conf; a list is the same word several times. Nothing is written to disk unless `save` or `appendonly`
   * asks for it.
   */
  config?: Record<string, string | readonly string[]>;
  /** A port for TLS instead of the plain one, with a certificate of its own; needs openssl. */
  tls?: boolean | { clientCertificates?: boolean };
  /** Users by name; `default` may be one of them. */
  acl?: Record<string, { password?: string; rules: string }>;
  port?: number;
  /** `redis-server --sentinel`. */
  sentinel?: boolean;
  /** How long to wait for it, 60 s unless told. */
  timeoutMs?: number;
}

export declare class RedisServer implements AsyncDisposable {
  private constructor();
  static start(options?: RedisOptions): Promise<RedisServer>;
  /** `redis://127.0.0.1:PORT`, `rediss:` with TLS, with the password of `requirepass`; no database. */
  readonly url: string;
  readonly port: number;
  readonly pid: number | undefined;
  readonly folder: string;
  readonly certificate: Certificate | undefined;
  readonly env: Record<string, string>;
  urlFor(user: string): string;
  command(...words: (string | number)[]): Promise<Reply>;
  connect(): Promise<RespClient>;
  kill(signal?: NodeJS.Signals): Promise<void>;
  stop(): Promise<void>;
  restart(): Promise<void>;
  freeze(): void;
  thaw(): void;
  waitReady(timeoutMs?: number): Promise<void>;
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}
