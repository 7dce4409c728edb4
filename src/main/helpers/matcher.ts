/** Does a name match a pattern? A registry of ways to say it: 'glob' and 'pcre', and what users add. */
import { MatcherNotInstalled, OptionError } from '../../errors.js';

export type Matcher = (data: string, pattern: string) => boolean;

/** Of a set such as `[a-z_]`: true if `char` is one of it. A backward range holds nothing. */
function inSet(set: readonly string[], char: string): boolean {
  const code = (one: string): number => one.codePointAt(0)!;
  for (let i = 0; i < set.length; i++) {
    if (set[i + 1] === '-' && i + 2 < set.length) {
      if (code(set[i]!) <= code(char) && code(char) <= code(set[i + 2]!)) return true;
      i += 2;
    } else if (set[i] === char) return true;
  }
  return false;
}

type Token = '*' | ((char: string) => boolean);

/** `*`, `?`, `[set]`, `[!set]`; everything else stands for itself. A `[` that is not closed does too. */
function globTokens(pattern: string): Token[] {
  const chars = Array.from(pattern);
  const tokens: Token[] = [];
  for (let i = 0; i < chars.length; i++) {
    const char = chars[i]!;
    // A closing bracket that comes first belongs to the set.
    const from = chars[i + 1] === '!' ? i + 2 : i + 1;
    const end = char === '[' ? chars.indexOf(']', from + 1) : -1;
    if (char === '*') {
      if (tokens.at(-1) !== '*') tokens.push('*');
    } else if (char === '?') tokens.push(() => true);
    else if (end > 0) {
      const set = chars.slice(from, end);
      const wanted = from === i + 1;
      tokens.push((each) => inSet(set, each) === wanted);
      i = end;
    } else tokens.push((each) => each === char);
  }
  return tokens;
}

/** Patterns come from other processes: this takes no more than data × pattern steps, where a regular expression may take for ever. */
function glob(data: string, pattern: string): boolean {
  const tokens = globTokens(pattern);
  const chars = Array.from(data);
  let token = 0;
  let at = 0;
  /** Where the last star was, and how far it reaches by now. */
  let star = -1;
  let reach = 0;
  while (at < chars.length) {
    const next = tokens[token];
    if (next === '*') {
      star = token++;
      reach = at;
    } else if (next?.(chars[at]!)) {
      token++;
      at++;
    } else if (star >= 0) {
      token = star + 1;
      at = ++reach;
    } else return false;
  }
  while (tokens[token] === '*') token++;
  return token === tokens.length;
}

/**
 * At the beginning, as Python's `re.match`; JavaScript's syntax. A pattern such as `(a+)+$` may keep the thread busy for ever, as in
 * kombu: where patterns come from people who are not trusted, `unregister('pcre')`.
 */
function pcre(data: string, pattern: string): boolean {
  let expression: RegExp;
  try {
    expression = new RegExp(pattern, 'y');
  } catch (error) {
    throw new OptionError(`matcher 'pcre': ${(error as Error).message}`, { cause: error });
  }
  return expression.test(data);
}

export class MatcherRegistry {
  readonly #matchers = new Map<string, Matcher>();

  /** Adds a matcher, or replaces one. Throws `OptionError`. */
  register(name: string, matcher: Matcher): void {
    if (typeof name !== 'string' || name === '' || typeof matcher !== 'function') {
      throw new OptionError('matcher.register: expected a name and a function');
    }
    this.#matchers.set(name, matcher);
  }

  /** Throws `MatcherNotInstalled`. */
  unregister(name: string): void {
    if (!this.#matchers.delete(name)) throw this.#missing(name);
  }

  /** True if `data` matches `pattern`. Throws `MatcherNotInstalled`, `OptionError` for a pattern that is none. */
  match(data: string, pattern: string, matcher = 'glob'): boolean {
    const found = this.#matchers.get(matcher);
    if (found === undefined) throw this.#missing(matcher);
    return found(data, pattern);
  }

  #missing(name: string): MatcherNotInstalled {
    const known = [...this.#matchers.keys()].join(', ');
    return new MatcherNotInstalled(`no matcher is installed for '${name}'; there are ${known}`);
  }
}

/** The registry that mailboxes use. */
export const registry = new MatcherRegistry();
registry.register('glob', glob);
registry.register('pcre', pcre);

/** As `registry.match`. */
export function match(data: string, pattern: string, matcher?: string): boolean {
  return registry.match(data, pattern, matcher);
}

/** As `registry.register`. */
export function register(name: string, matcher: Matcher): void {
  registry.register(name, matcher);
}

/** As `registry.unregister`. */
export function unregister(name: string): void {
  registry.unregister(name);
}
