// Types of redis-sentinel.mjs for the TypeScript tests.

import type { RedisServer } from './redis.mjs';

export interface SentinelOptions {
  /** 1 unless told. */
  replicas?: number;
  /** 3 unless told; most of them must agree. */
  sentinels?: number;
  /** `mozuku` unless told. */
  masterName?: string;
  /** Of the primary and its replicas. */
  config?: Record<string, string | readonly string[]>;
  /** How long a server may be silent before it is taken for dead, 2 s unless told. */
  downAfterMs?: number;
  /** How long to wait until all know each other, 60 s unless told. */
  timeoutMs?: number;
}

/** Ports of the old primary and of the new one. */
export interface Switch {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

export declare class SentinelSet implements AsyncDisposable {
  private constructor();
  static start(options?: SentinelOptions): Promise<SentinelSet>;
  readonly servers: readonly RedisServer[];
  readonly sentinels: readonly RedisServer[];
  readonly masterName: string;
  readonly primary: RedisServer;
  readonly replicas: readonly RedisServer[];
  readonly addresses: readonly { readonly host: string; readonly port: number }[];
  /** `sentinel://…;sentinel://…`, as kombu has it. */
  readonly url: string;
  nextSwitch(): Promise<Switch>;
  failover(): Promise<Switch>;
  killPrimary(): Promise<Switch>;
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}
