/** Fails with what is hard to look at. A body is `{ what, later }`: what to throw, and whether to throw it by a promise. */

function throwing(): never {
  throw new Error('a trap');
}

const getters = (...keys: string[]): object =>
  Object.defineProperties({}, Object.fromEntries(keys.map((key) => [key, { get: throwing }])));

function cyclic(): Error {
  const error = new Error('round');
  error.cause = error;
  return error;
}

const HOSTILE: Readonly<Record<string, () => unknown>> = {
  null: () => null,
  undefined: () => undefined,
  symbol: () => Symbol('what'),
  bare: () => Object.create(null),
  getters: () => getters('name', 'message', 'stack', 'code', 'cause', 'delay', 'then'),
  proxy: () => new Proxy({}, { get: throwing, getPrototypeOf: throwing, has: throwing, ownKeys: throwing }),
  cyclic,
  huge: () => new Error('x'.repeat(5_000_000)),
};

export const NAMES = Object.keys(HOSTILE);

export default function handle(body: unknown): unknown {
  const { what, later = false } = body as { what: string; later?: boolean };
  if (what === 'fine') return undefined;
  // A promise that nobody can ask whether it is one.
  if (what === 'thenable') return getters('then');
  const value = HOSTILE[what]!();
  if (!later) throw value;
  return new Promise((_, reject) => setTimeout(reject, 1, value));
}
