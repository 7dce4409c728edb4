// Which test files there are and what each needs to run.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { ROOT } from './project.mjs';

const SOURCES = join(ROOT, 'test');
const COMPILED = join(ROOT, 'build', 'test');

/** What a file needs, told by the support module it imports. */
const NEEDS = {
  'support/rabbitmq.js': 'broker',
  'support/redis.js': 'redis',
  'support/kombu.js': 'kombu',
  'support/redis-python.js': 'redis-python',
};

/** @typedef {{ path: string, needs: Set<string> }} TestFile `path`: of the compiled file, relative to the root */

/**
 * The compiled files of the suites (suite `unit`: every .test.ts under test/unit). They are found by their sources, because the
 * compiler leaves the output of a removed source in place.
 * @param {readonly string[]} suites folders of test/
 * @param {readonly string[]} filters when there are any, a file's path must contain one of them
 * @returns {TestFile[]}
 */
export function findTestFiles(suites, filters) {
  const extension = suites.includes('soak') ? '.soak.ts' : '.test.ts';
  return suites
    .flatMap((suite) => filesUnder(join(SOURCES, suite)))
    .filter((source) => source.endsWith(extension))
    .map((source) => relative(SOURCES, source))
    .filter((name) => filters.length === 0 || filters.some((filter) => `test/${name}`.includes(filter)))
    .sort()
    .map((name) => {
      const compiled = join(COMPILED, name.replace(/\.ts$/, '.js'));
      return { path: relative(ROOT, compiled), needs: needsOf(compiled) };
    });
}

/** @param {string} folder @returns {string[]} */
function filesUnder(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesUnder(path) : [path];
  });
}

/** Follows the relative imports of a compiled file. @param {string} start */
function needsOf(start) {
  /** @type {Set<string>} */
  const needs = new Set();
  const seen = new Set([start]);
  for (const file of seen) {
    const need = NEEDS[/** @type {keyof typeof NEEDS} */ (relative(COMPILED, file))];
    if (need) needs.add(need);
    if (!existsSync(file)) continue;
    for (const [, target] of readFileSync(file, 'utf8').matchAll(/\b(?:from|import)\s*\(?\s*['"](\.[^'"]+)['"]/g)) {
      seen.add(resolve(dirname(file), target));
    }
  }
  return needs;
}
