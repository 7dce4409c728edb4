/**
 * Option tables: one table per class gives the defaults, the checks, the error texts and the rows of the docs, so that
 * they cannot drift apart. The TypeScript interface names the keys; the compiler holds table and interface together.
 */
import { OptionError } from './errors.js';

/** What a value may be: a test, and the words that complete "must be …". */
export interface Kind<T> {
  readonly words: string;
  readonly test: (value: unknown) => value is T;
}

export interface OptionRow<T> {
  readonly kind: Kind<NonNullable<T>>;
  /** The default, or the words for one that depends on others. Absent: no default. */
  readonly default?: T | undefined;
  readonly defaultWords?: string;
  readonly required?: boolean;
  /** Its value is never shown, whatever it is. */
  readonly secret?: boolean;
  readonly doc: string;
}

export type OptionTable<Options> = { readonly [Key in keyof Required<Options>]: OptionRow<Options[Key]> };

function kind<T>(words: string, test: (value: unknown) => boolean): Kind<T> {
  return { words, test: test as (value: unknown) => value is T };
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

export const kinds = {
  boolean: kind<boolean>('true or false', (value) => typeof value === 'boolean'),
  string: kind<string>('a string', (value) => typeof value === 'string'),
  /** AMQP's short string: names, routing keys, tags. */
  shortString: kind<string>(
    'a string of at most 255 bytes',
    (value) => typeof value === 'string' && Buffer.byteLength(value) <= 255,
  ),
  /** A short string that must say something. */
  shortName: kind<string>(
    'a string of 1 to 255 bytes',
    (value) => typeof value === 'string' && value !== '' && Buffer.byteLength(value) <= 255,
  ),
  name: kind<string>('a string that is not empty', (value) => typeof value === 'string' && value !== ''),
  object: kind<Record<string, unknown>>('an object', isObject),
  function: kind<(...args: never[]) => unknown>('a function', (value) => typeof value === 'function'),
  signal: kind<AbortSignal>('an AbortSignal', (value) => value instanceof AbortSignal),
  strings: kind<readonly string[]>(
    'a list of strings',
    (value) => Array.isArray(value) && value.every((item) => typeof item === 'string'),
  ),
  /** A duration. Timers of Node take no more than 2^31 - 1 ms. */
  milliseconds: kind<number>(
    'milliseconds: a number from 0 to 2147483647',
    (value) => typeof value === 'number' && value >= 0 && value <= 0x7fffffff,
  ),
  /** How long a broker keeps something: RabbitMQ takes up to ten years, and closes the channel over more. */
  lifetime: kind<number>(
    'milliseconds: a number from 0 to 315360000000, ten years',
    (value) => typeof value === 'number' && value >= 0 && value <= 315_360_000_000,
  ),
  /** A duration that is not nothing. */
  duration: kind<number>(
    'milliseconds: a number from 1 to 2147483647',
    (value) => typeof value === 'number' && value >= 1 && value <= 0x7fffffff,
  ),
  integer: (min: number, max: number): Kind<number> =>
    kind(
      `a whole number from ${min} to ${max}`,
      (value) => Number.isInteger(value) && (value as number) >= min && (value as number) <= max,
    ),
  bytes: (min: number, max: number): Kind<number> =>
    kind(
      `a number of bytes from ${min} to ${max}`,
      (value) => Number.isInteger(value) && (value as number) >= min && (value as number) <= max,
    ),
  oneOf: <const T extends string>(...values: T[]): Kind<T> =>
    kind(`one of ${values.map((value) => `'${value}'`).join(', ')}`, (value) => values.includes(value as T)),
  custom: kind,
};

/** A value as an error message may show it: short, and never a password inside a URL. */
function show(value: unknown): string {
  // Up to the last @: a password may hold any character, and it may stand in a URL that nobody can parse.
  if (typeof value === 'string') return `'${value.replace(/:\/\/.*@/gs, '://**@').slice(0, 80)}'`;
  if (typeof value === 'function') return 'a function';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return `an object (${value.constructor?.name ?? 'no prototype'})`;
  return String(value);
}

/** The edit distance of two words, for "did you mean". */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}

/** The known name nearest to what was typed, or undefined if none is near. */
export function nearest(typed: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let least = Math.max(2, Math.floor(typed.length / 3)) + 1;
  for (const name of known) {
    const far = distance(typed.toLowerCase(), name.toLowerCase());
    if (far < least) {
      least = far;
      best = name;
    }
  }
  return best;
}

/** What of a table is the same for all who are checked against it. */
interface Known {
  readonly rows: ReadonlyMap<string, OptionRow<unknown>>;
  readonly required: readonly string[];
  readonly defaults: Readonly<Record<string, unknown>>;
}

const known = new WeakMap<object, Known>();

function knownOf(table: object): Known {
  let found = known.get(table);
  if (found === undefined) {
    const rows = Object.entries(table) as [string, OptionRow<unknown>][];
    found = {
      rows: new Map(rows),
      required: rows.filter(([, row]) => row.required).map(([key]) => key),
      defaults: Object.fromEntries(
        rows.filter(([, row]) => row.default !== undefined).map(([key, row]) => [key, row.default]),
      ),
    };
    known.set(table, found);
  }
  return found;
}

/**
 * Checks `given` against the table of `owner` and fills in defaults.
 * Throws `OptionError` on an unknown key, a missing required one, or a value of the wrong kind. `undefined` counts as absent.
 */
export function readOptions<Options extends object>(
  owner: string,
  table: OptionTable<Options>,
  given: unknown,
): Options {
  if (given !== undefined && !isObject(given)) {
    throw new OptionError(`${owner}: options must be an object, not ${show(given)}`);
  }
  const { rows, required, defaults } = knownOf(table);
  // Read once: a getter may say something else the next time.
  const result: Record<string, unknown> = { ...defaults };
  for (const key of keysOf(given, rows)) {
    const row = rows.get(key);
    if (row === undefined) throw unknownOption(owner, key, [...rows.keys()]);
    const value = given![key];
    if (value === undefined) continue;
    if (!row.kind.test(value)) {
      const words = `must be ${row.kind.words}${row.secret ? '' : `, not ${show(value)}`}`;
      throw new OptionError(`${owner}: the option '${key}' ${words}`, { details: { option: key } });
    }
    result[key] = value;
  }
  for (const key of required) {
    if (result[key] !== undefined) continue;
    const { doc } = rows.get(key)!;
    throw new OptionError(`${owner}: the option '${key}' is required: ${doc}`, { details: { option: key } });
  }
  return result as Options;
}

/** Its own keys, and of what it inherits those that are known. */
function keysOf(given: object | undefined, rows: ReadonlyMap<string, unknown>): Iterable<string> {
  if (given === undefined) return [];
  const own = Object.keys(given);
  const prototype: unknown = Object.getPrototypeOf(given);
  if (prototype === Object.prototype || prototype === null) return own;
  const inherited = [...rows.keys()].filter((key) => key in given && !(key in Object.prototype));
  return new Set([...own, ...inherited]);
}

function unknownOption(owner: string, key: string, names: readonly string[]): OptionError {
  const hint = nearest(key, names);
  const words = hint === undefined ? `; it knows ${names.join(', ')}` : `; did you mean '${hint}'?`;
  return new OptionError(`${owner}: unknown option '${key}'${words}`, { details: { option: key } });
}
