// Types of redis-programs.mjs for the TypeScript tests.

export interface Certificate {
  readonly certFile: string;
  readonly keyFile: string;
  /** The certificate itself: it has signed itself. */
  readonly ca: Buffer;
  readonly cert: Buffer;
  readonly key: Buffer;
}

export declare function findRedis(): string | undefined;
export declare function findOpenssl(): string | undefined;
export declare function makeCertificate(folder: string): Certificate;
