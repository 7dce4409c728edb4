/**
 * Packages that may be missing or may not work on this machine (compiled addons). They are looked for when first needed,
 * synchronously, and once: a failure is kept, with its reason, and costs nothing but the codec that wanted the package.
 */
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

/** A package, or why it cannot be used. */
export type Optional<T> = { readonly value: T } | { readonly missing: string };

/** Makes a function that runs `load` at its first call and gives the same result ever after. */
export function once<T>(load: () => T): () => Optional<T> {
  let result: Optional<T> | undefined;
  return () => {
    if (result === undefined) {
      try {
        result = { value: load() };
      } catch (error) {
        result = { missing: reasonOf(error) };
      }
    }
    return result;
  };
}

/** Loads a CommonJS module by name; what it exports is for the caller to check. */
export function load(name: string): unknown {
  return require(name) as unknown;
}

/** Where a module's file is. */
export function locate(name: string): string {
  return require.resolve(name);
}

/** One line: the loader's own texts go on with lists of paths. */
function reasonOf(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: unknown };
  const [line = ''] = String(message ?? error).split('\n');
  if (code === 'MODULE_NOT_FOUND' && !line.includes('build/Release')) return 'not installed';
  if (line.includes('did not self-register') || line.includes('NODE_MODULE_VERSION')) {
    return 'compiled for another version of Node';
  }
  if (line.includes('build/Release')) return 'installed, but not compiled';
  return line.replaceAll(/'?\/[^\s']*\/'?/g, '');
}
