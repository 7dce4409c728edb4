/** What both sides share loads neither: a worker thread that uses a pool has nothing of the main thread's until it acquires. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const DIST = resolve(dirname(fileURLToPath(import.meta.resolve('#src/index'))));

/** All that is loaded with a compiled file: what it imports, and what that does. */
function loadedWith(start: string): string[] {
  const seen = new Set([start]);
  for (const file of seen) {
    for (const [, target] of readFileSync(file, 'utf8').matchAll(/^(?:import|export)\b[^;]*?from '(\.[^']+)';/gms)) {
      const path = resolve(dirname(file), target!);
      assert.ok(existsSync(path), `${file} imports ${target}`);
      seen.add(path);
    }
  }
  return [...seen].map((path) => relative(DIST, path));
}

test('no file of the pool folder imports main or worker, not even through another', () => {
  const files = readdirSync(join(DIST, 'pool')).filter((name) => name.endsWith('.js'));
  assert.ok(files.includes('pools.js'));
  for (const name of files) {
    const loaded = loadedWith(join(DIST, 'pool', name));
    assert.deepEqual(
      loaded.filter((path) => path.startsWith('main/') || path.startsWith('worker/')),
      [],
      name,
    );
  }
  assert.ok(loadedWith(join(DIST, 'pool/pools.js')).includes('pool/resource-pool.js'));
});
