// Types of resp.mjs for the TypeScript tests.

export type Reply = string | number | null | Reply[];

export declare class RespError extends Error {
  /** Its first word: `LOADING`, `NOAUTH`, `ERR`, … */
  readonly code: string;
}

export interface RespOptions {
  /** On 127.0.0.1. */
  port: number;
  tls?: { ca?: Buffer; cert?: Buffer; key?: Buffer };
  username?: string;
  password?: string;
}

export declare class RespClient {
  private constructor();
  static connect(options: RespOptions): Promise<RespClient>;
  readonly closed: Promise<void>;
  call(...words: (string | number)[]): Promise<Reply>;
  subscribe(channel: string, onMessage: (channel: string, text: string) => void): Promise<void>;
  unref(): void;
  ref(): void;
  close(): void;
}
