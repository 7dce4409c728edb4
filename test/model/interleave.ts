/**
 * Exhaustive interleaving of the real protocol code. The compiled modules are rewritten so that every function becomes a
 * generator that yields before each access to shared memory; a scheduler then walks every order in which threads can take
 * these steps. It is the shipped code that is walked, not a model of it.
 *
 * States are told apart by the shared words and by what each thread has read since it was last at a point without local
 * state (`{ reset }`): two orders that lead to the same state are walked once.
 */
import { readFileSync } from 'node:fs';

export type Step =
  | undefined
  /** Nothing read so far matters any more: the state is what `System.state` says, at the place named. */
  | { readonly reset: string }
  | { readonly wait: Waiter }
  | { readonly until: () => boolean }
  | { readonly choose: number };
export type Thread = Generator<Step, void, number>;

/** A thread's place in an `Atomics.waitAsync`. */
export interface Waiter {
  readonly words: Int32Array;
  readonly index: number;
  woken: boolean;
}

/** Sequentially consistent Atomics that note what was read, for the state's key. */
export class RecordingAtomics {
  /** Hash of what the thread that runs now has read. */
  seen = 0;
  readonly waiters: Waiter[] = [];

  note(value: number): number {
    this.seen = (Math.imul(this.seen ^ value, 0x9e3779b1) ^ (this.seen >>> 15)) | 0;
    return value;
  }

  load(words: Int32Array, index: number): number {
    return this.note(words[index]!);
  }

  store(words: Int32Array, index: number, value: number): number {
    words[index] = value;
    return value;
  }

  add(words: Int32Array, index: number, value: number): number {
    const before = words[index]!;
    words[index] = before + value;
    return this.note(before);
  }

  exchange(words: Int32Array, index: number, value: number): number {
    const before = words[index]!;
    words[index] = value;
    return this.note(before);
  }

  compareExchange(words: Int32Array, index: number, expected: number, value: number): number {
    const before = words[index]!;
    if (before === expected) words[index] = value;
    return this.note(before);
  }

  notify(words: Int32Array, index: number, count: number): number {
    let woken = 0;
    for (const waiter of this.waiters) {
      if (woken === count) break;
      if (waiter.woken || waiter.words !== words || waiter.index !== index) continue;
      waiter.woken = true;
      woken++;
    }
    return this.note(woken);
  }

  waitAsync(words: Int32Array, index: number, value: number): { async: boolean; value: unknown } {
    if (this.note(words[index]!) !== value) return { async: false, value: 'not-equal' };
    const waiter = { words, index, woken: false };
    this.waiters.push(waiter);
    return { async: true, value: waiter };
  }

  forget(waiter: Waiter): void {
    const at = this.waiters.indexOf(waiter);
    if (at >= 0) this.waiters.splice(at, 1);
  }
}

/** The index behind the bracket that closes the one at `open`. */
function closing(text: string, open: number): number {
  const pairs: Record<string, string> = { '(': ')', '{': '}', '[': ']' };
  const wanted = [pairs[text[open]!]!];
  for (let i = open + 1; i < text.length; i++) {
    const char = text[i]!;
    if (char === "'" || char === '`' || char === '"') {
      i = text.indexOf(char, i + 1);
    } else if (pairs[char] !== undefined) {
      wanted.push(pairs[char]!);
    } else if (char === wanted.at(-1)) {
      wanted.pop();
      if (wanted.length === 0) return i + 1;
    }
  }
  throw new Error('unbalanced brackets in the module under test');
}

const FUNCTION = /^(?:export )?function (\w+)\(/gm;
const METHOD = /^ {4}(?!constructor|get |static |if|for|while|switch|return)([#\w]+)\(/gm;

/** Every call of one of `names` becomes `(yield* $run(call))`. */
function yieldCalls(text: string, names: ReadonlySet<string>): string {
  const call = /((?:[\w$#]+(?:\?\.|\.))*)([#\w]+)\(/g;
  let out = '';
  let from = 0;
  for (let match = call.exec(text); match !== null; match = call.exec(text)) {
    if (
      !names.has(match[2]!) ||
      match[1] === 'Atomics.' ||
      /function\*? $|^\*$/.test(text.slice(Math.max(0, match.index - 10), match.index))
    )
      continue;
    if (match.index > 0 && /[\w$#*]/.test(text[match.index - 1]!)) continue;
    const open = match.index + match[0].length - 1;
    const end = closing(text, open);
    const inner = yieldCalls(text.slice(open + 1, end - 1), names);
    out += `${text.slice(from, match.index)}(yield* $run(${match[0]}${inner})))`;
    from = end;
    call.lastIndex = end;
  }
  return out + text.slice(from);
}

const PLAIN_READ =
  /(?<![.#\w])((?:this\.#?)?\b(?:laneWords|slotWords|slots|words|block))\[([^[\]]+)\](?!\s*(?:=[^=]|\+\+|\|=|\+=))/g;
const RING_WRITE = /((?:this\.#?)\b(?:block|slots)|\blaneWords)\[([^[\]]+)\](?=\s*=[^=])/g;

/** Is it memory that another thread may be writing to at this moment? The slots' plain words have one owner at a time. */
function contended(words: string): boolean {
  return words === 'laneWords' || words.endsWith('block');
}

function bodyToSteps(body: string, names: ReadonlySet<string>): string {
  const steps = yieldCalls(body, names)
    .replace(/\bAtomics\./g, '(yield, Atomics).')
    // Plain reads are noted, since what a thread does next depends on them.
    .replace(
      PLAIN_READ,
      (_, words: string, at: string) => `$read(${contended(words) ? `(yield, ${words})` : words}, ${at})`,
    )
    .replace(RING_WRITE, '(yield, $1)[$2]');
  // A closure cannot yield: what it does is one step with what stands before it.
  return steps.replace(/^.*=>.*$/gm, (line) => line.replace(/\(yield, ([\w.#]+)\)/g, '$1'));
}

/**
 * The exports of compiled modules, their functions and methods turned into generators. `#private` names become public,
 * so that a test can take them into its state. Getters and constructors stay as they are, and so do the functions named
 * in `whole`: one step each, for walks that are about something else.
 */
export function stepping(
  urls: readonly string[],
  atomics: RecordingAtomics,
  layout: object,
  whole: readonly string[],
): Record<string, never> {
  let source = urls
    .map((url) => readFileSync(new URL(url), 'utf8'))
    .join('\n')
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/^\s*\/\/.*$/gm, '')
    .replace(/^import [^;]*;$/gm, '');
  const names = new Set([...source.matchAll(FUNCTION), ...source.matchAll(METHOD)].map((match) => match[1]!));
  const atOnce = new Set(whole);
  const exported = [...source.matchAll(/^export (?:function|class|const) (\w+)/gm)].map((match) => match[1]!);
  let out = '';
  let from = 0;
  const heads =
    /^(?:export )?function (\w+)\(|^ {4}(?!constructor|get |static |if|for|while|switch|return)([#\w]+)\(/gm;
  for (let match = heads.exec(source); match !== null; match = heads.exec(source)) {
    const open = source.indexOf('(', match.index + match[0].length - 1);
    const brace = source.indexOf('{', closing(source, open));
    const end = closing(source, brace);
    const head = source
      .slice(match.index, brace)
      .replace(/function /, 'function* ')
      .replace(/^ {4}/, '    *');
    const body = bodyToSteps(source.slice(brace, end), names);
    const name = (match[1] ?? match[2]!).replace('#', '');
    // Still a generator, since its callers cannot know; it only never yields.
    out +=
      source.slice(from, match.index) + head + (atOnce.has(name) ? body.replace(/\(yield, ([\w.#]+)\)/g, '$1') : body);
    from = end;
    heads.lastIndex = end;
  }
  source = `${out}${source.slice(from)}`.replace(/^export /gm, '').replace(/#(\w)/g, '$1');
  const helpers = `
    function* $run(value) { return value !== null && typeof value === 'object' && typeof value.next === 'function' ? yield* value : value; }
    function $read(words, index) { return Atomics.note(words[index]); }
  `;
  const build = new Function(
    'Atomics',
    '$layout',
    `const { ${Object.keys(layout).join(', ')} } = $layout;${helpers}${source}\nreturn { ${exported.join(', ')} };`,
  );
  return build(atomics, layout) as Record<string, never>;
}

/** One system to walk: rebuilt from nothing for each replay. */
export interface System {
  readonly atomics: RecordingAtomics;
  readonly threads: readonly Thread[];
  /** Everything that the future depends on, but for what threads have read since their last reset: whole numbers. */
  state(add: (value: number) => void): void;
  /** Threads that may die now, by number. */
  mayDie(): readonly number[];
  died(thread: number): void;
  /** Throws if the state is wrong. */
  check(): void;
  /** Nothing can move any more: throws if something is left undone. */
  atEnd(): void;
}

export interface Walk {
  readonly states: number;
  readonly ends: number;
  readonly deepest: number;
}

interface Live {
  readonly system: System;
  readonly seen: number[];
  readonly local: string[];
  readonly blocked: (Waiter | undefined)[];
  readonly until: ((() => boolean) | undefined)[];
  readonly choices: number[];
  readonly over: boolean[];
}

function open(make: () => System): Live {
  const system = make();
  const live: Live = {
    system,
    seen: system.threads.map(() => 0),
    local: system.threads.map(() => ''),
    blocked: system.threads.map(() => undefined),
    until: system.threads.map(() => undefined),
    choices: system.threads.map(() => 0),
    over: system.threads.map(() => false),
  };
  for (let i = 0; i < system.threads.length; i++) advance(live, i, 0);
  return live;
}

function advance(live: Live, thread: number, choice: number): void {
  const { atomics, threads } = live.system;
  atomics.seen = live.seen[thread]!;
  const waiter = live.blocked[thread];
  if (waiter !== undefined) atomics.forget(waiter);
  live.blocked[thread] = undefined;
  live.until[thread] = undefined;
  live.choices[thread] = 0;
  const { value, done } = threads[thread]!.next(choice);
  live.seen[thread] = atomics.seen;
  if (done) {
    live.over[thread] = true;
  } else if (value !== undefined) {
    if ('reset' in value) {
      live.seen[thread] = 0;
      live.local[thread] = value.reset;
      advance(live, thread, 0);
      return;
    }
    if ('wait' in value) live.blocked[thread] = value.wait;
    else if ('until' in value) live.until[thread] = value.until;
    else live.choices[thread] = value.choose;
  }
  // What it waits for belongs to its place: one that waits for the same state it could act on is not yet acting.
  live.local[thread] += done
    ? '!'
    : live.until[thread] !== undefined
      ? '?'
      : live.choices[thread]! > 0
        ? `${live.choices[thread]}`
        : '.';
}

/** Moves are numbered: thread × 16 + choice, or -1 - thread for a death. */
function moves(live: Live): number[] {
  const found: number[] = [];
  for (let i = 0; i < live.system.threads.length; i++) {
    if (live.over[i] || live.blocked[i]?.woken === false || live.until[i]?.() === false) continue;
    const choices = live.choices[i]!;
    if (choices === 0) found.push(i * 16);
    else for (let k = 0; k < choices; k++) found.push(i * 16 + k);
  }
  for (const thread of live.system.mayDie()) if (!live.over[thread]) found.push(-1 - thread);
  return found;
}

function move(live: Live, number: number): void {
  if (number >= 0) {
    advance(live, number >> 4, number & 15);
  } else {
    const thread = -1 - number;
    live.over[thread] = true;
    live.local[thread] = 'dead';
    live.seen[thread] = 0;
    const waiter = live.blocked[thread];
    if (waiter !== undefined) live.system.atomics.forget(waiter);
    live.blocked[thread] = undefined;
    live.system.died(thread);
  }
  live.system.check();
}

/** 53 bits of two hashes: with a million states the chance that any two are taken for one is about 1 in 20,000. */
function key(live: Live): number {
  const { system, seen, local, blocked, over } = live;
  let a = 0x2545f491;
  let b = 0x7f4a7c15;
  const add = (value: number): void => {
    a = Math.imul(a ^ value, 0x85ebca6b);
    a ^= a >>> 13;
    b = Math.imul(b + value, 0xc2b2ae35);
    b ^= b >>> 16;
  };
  for (let i = 0; i < local.length; i++) {
    for (const char of local[i]!) add(char.charCodeAt(0));
    add(seen[i]!);
    const waiter = blocked[i];
    add((over[i] ? 4 : 0) + (waiter === undefined ? 0 : waiter.woken ? 2 : 1));
  }
  system.state(add);
  return (a >>> 0) * 0x200000 + ((b >>> 0) & 0x1fffff);
}

/** Walks every interleaving. Throws what the system's checks throw, with the moves that led there. */
export function walk(make: () => System, limit: number): Walk {
  const visited = new Set<number>();
  const path: number[] = [];
  /** For each state on the path, the moves that are not tried yet. */
  const untried: number[][] = [];
  let live = open(make);
  /** How many moves of the path `live` has made. It only runs forward: going back means a replay. */
  let made = 0;
  let ends = 0;
  let deepest = 0;
  const arrive = (): void => {
    const name = key(live);
    if (visited.has(name)) {
      untried.push([]);
      return;
    }
    visited.add(name);
    if (visited.size > limit) throw new Error(`more than ${limit} states`);
    const possible = moves(live);
    if (possible.length === 0) {
      ends++;
      live.system.atEnd();
    }
    untried.push(possible);
    deepest = Math.max(deepest, path.length);
  };
  try {
    arrive();
    while (untried.length > 0) {
      const next = untried.at(-1)!.pop();
      if (next === undefined) {
        untried.pop();
        path.pop();
        continue;
      }
      if (made !== path.length) {
        live = open(make);
        for (const number of path) move(live, number);
      }
      path.push(next);
      move(live, next);
      made = path.length;
      arrive();
      // If nothing is to be tried from here, the path gets shorter and `made` says so by being longer.
    }
  } catch (error) {
    throw new Error(`${(error as Error).message}; moves: ${path.join(' ')}`, { cause: error });
  }
  return { states: visited.size, ends, deepest };
}
