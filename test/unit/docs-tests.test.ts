/**
 * docs/kombu.md, docs/reliability.md and test/README.md say which test shows what. Here: each file that they name is there and
 * has a test of that title, and nothing is called done without one.
 *
 * A cell is a list like `unit/url: leaves out what the URL leaves out; reads query keys; integration/tls: TLS checks`: a file,
 * then beginnings or other parts of titles in it.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { REDIS_CANNOT, redisCan } from '../support/redis-cannot.js';

const ROOT = new URL('../../../', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, ROOT), 'utf8');
const plain = (text: string): string => text.replace(/[‘’]/g, "'").toLowerCase();

/** The first argument of a call that begins a line, if that is text; or a key in quotes, for tests that are made of tables. */
const TEXT = /(`(?:[^`\\]|\\.)*`|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")/.source;
const TITLE = new RegExp(`^[ \\t]*(?:(?:await )?(?:\\w+\\.)*\\w+\\(\\s*${TEXT},|${TEXT}: )`, 'gm');

/** A title that is filled in from beginning to end cannot be told from another. */
const NOTHING = /(?!)/;

/** What may stand for a title: a part of its text, of a template a part of what is not filled in, or all of it, filled in. */
interface Title {
  readonly pieces: readonly string[];
  readonly whole: RegExp;
}

const known = new Map<string, readonly Title[]>();

function titlesOf(file: string): readonly Title[] {
  let titles = known.get(file);
  if (titles === undefined) {
    titles = [...read(`test/${file}.test.ts`).matchAll(TITLE)].map(([, argument, key]) => {
      const literal = argument ?? key!;
      const text = plain(literal.slice(1, -1).replace(/\\(.)/g, '$1'));
      const pieces = literal.startsWith('`') ? text.split(/\$\{[^}]*\}/) : [text];
      const pattern = pieces.map((piece) => piece.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.+');
      return { pieces, whole: /\w{3}/.test(pieces.join('')) ? new RegExp(`^${pattern}$`, 's') : NOTHING };
    });
    known.set(file, titles);
  }
  return titles;
}

const FOLDERS = 'unit|integration|conformance|soak';
const FILE = new RegExp(`^((?:${FOLDERS})/[\\w-]+)(?:: (.*))?$`, 's');

/** How many titles a list names. Throws for what it names that is not there. */
function check(list: string, where: string): number {
  let file: string | undefined;
  let titles = 0;
  for (const item of list.split(new RegExp(`; |, (?=(?:${FOLDERS})/)`))) {
    const named = FILE.exec(item.trim());
    if (named !== null) {
      file = named[1]!;
      const there = existsSync(new URL(`test/${file}.${file.startsWith('soak/') ? 'soak' : 'test'}.ts`, ROOT));
      assert.ok(there, `${where}: there is no test file ${file}`);
    }
    const title = named === null ? item.trim() : named[2];
    if (title === undefined || file?.startsWith('soak/')) continue;
    assert.ok(file !== undefined, `${where}: '${title}' is of no file`);
    const wanted = plain(title.replace(/…?\.?$/, ''));
    const found = titlesOf(file).some(
      ({ pieces, whole }) => pieces.some((piece) => piece.includes(wanted)) || whole.test(wanted),
    );
    assert.ok(found, `${where}: ${file} has no test '${title}'`);
    titles++;
  }
  return titles;
}

interface Row {
  readonly where: string;
  readonly cells: readonly string[];
}

/** The rows of the tables whose last column has one of these names. */
function rowsOf(page: string, ...columns: string[]): Row[] {
  const rows: Row[] = [];
  let wanted: boolean | undefined;
  for (const [index, line] of read(page).split('\n').entries()) {
    if (!line.startsWith('|')) {
      wanted = undefined;
      continue;
    }
    const cells = line
      .split(/(?<!\\)\|/)
      .slice(1, -1)
      .map((cell) => cell.trim());
    if (wanted === undefined) wanted = columns.includes(cells.at(-1)!);
    else if (wanted && !/^-+$/.test(cells[0]!)) rows.push({ where: `${page}:${index + 1}`, cells });
  }
  return rows;
}

const isList = (cell: string): boolean => !['', '-', '–'].includes(cell);

test('docs/kombu.md names tests that are there, and one for each thing it calls done', () => {
  const rows = rowsOf('docs/kombu.md', 'shown by', 'test');
  assert.ok(rows.length > 300, `${rows.length} rows`);
  for (const { where, cells } of rows) {
    const state = cells.at(-2)!;
    assert.match(state, /^(?:done|different|not offered|more|the same|-)/, where);
    const titles = isList(cells.at(-1)!) ? check(cells.at(-1)!, where) : 0;
    if (/^done|^more/.test(state)) assert.ok(titles > 0, `${where}: done, but no test is named`);
  }
  for (const [, list] of read('docs/kombu.md').matchAll(new RegExp(`\\(((?:${FOLDERS})/[^)]*)\\)`, 'g'))) {
    assert.ok(check(list!.replaceAll('\n', ' '), 'docs/kombu.md, in the text') > 0);
  }
});

test('docs/reliability.md names a test that is there for each fault', () => {
  const rows = rowsOf('docs/reliability.md', 'shown by');
  assert.ok(rows.length > 40, `${rows.length} rows`);
  for (const { where, cells } of rows) {
    assert.equal(cells.length, 3, where);
    assert.ok(check(cells[2]!, where) > 0, where);
  }
});

test('test/README.md has a test for each behaviour of kombu’s tests', () => {
  const rows = rowsOf('test/README.md', 'the test here');
  const numbers = rows.map(({ cells }) => Number(/^B(\d\d)$/.exec(cells[0]!)?.[1]));
  const all = Array.from({ length: 40 }, (_, index) => index + 1);
  assert.deepEqual(
    numbers,
    all.filter((number) => number !== 35),
  );
  for (const { where, cells } of rows) assert.ok(check(cells[2]!, where) > 0, where);
});

test('test/README.md says which tests fail for what was broken on purpose', () => {
  const rows = rowsOf('test/README.md', 'the test that fails');
  assert.ok(rows.length > 30, `${rows.length} rows`);
  for (const { where, cells } of rows) check(cells[2]!, where);
});

test('what Redis cannot play are scenes that are there', () => {
  const conformance = readdirSync(new URL('test/conformance', ROOT)).map((name) => `conformance/${name.split('.')[0]}`);
  const files = [...conformance, 'integration/worker-publish'];
  const scenes = files.flatMap(titlesOf);
  for (const listed of Object.values(REDIS_CANNOT).flat()) {
    const wanted = plain(listed.replace(/…$/, '')).replace(/^sharded: /, '');
    const found = scenes.some(
      ({ pieces, whole }) => pieces.some((piece) => piece.includes(wanted)) || whole.test(wanted),
    );
    assert.ok(found, `there is no scene '${listed}'`);
  }
  assert.ok(redisCan('every message is handled once') && !redisCan('a headers exchange: any needs one'));
});
