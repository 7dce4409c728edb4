/** Which package does the work of the codecs that have a choice, for diagnostics. Loads what has not been loaded yet. */
import { lz4Backends } from './compressions/lz4-backend.js';
import { zstdBackends } from './compressions/zstd-backend.js';

export interface CodecBackend {
  readonly codec: 'lz4' | 'zstd';
  /** The package, or module of Node, that is used; undefined: none works here. */
  readonly backend: string | undefined;
  /** The others: 'works', or why not. */
  readonly alternatives: Readonly<Record<string, string>>;
}

type Backends = readonly {
  readonly name: string;
  readonly found: { readonly value: unknown } | { readonly missing: string };
}[];

/** One entry a codec. The answer is this thread's: an addon may load on one thread and not on another. */
export function codecBackends(): CodecBackend[] {
  const choose = (codec: CodecBackend['codec'], backends: Backends): CodecBackend => {
    const used = backends.find(({ found }) => 'value' in found);
    const others = backends.filter((backend) => backend !== used);
    return {
      codec,
      backend: used?.name,
      alternatives: Object.fromEntries(
        others.map(({ name, found }) => [name, 'value' in found ? 'works' : found.missing]),
      ),
    };
  };
  return [choose('lz4', lz4Backends()), choose('zstd', zstdBackends())];
}
