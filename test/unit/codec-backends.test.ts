/** Which packages do the work: said once in every test run, and what happens where one is missing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { codecBackends } from '#src/codec/backends';
import { load, once } from '#src/codec/optional';

test('the backends of this run', (context) => {
  const backends = codecBackends();
  for (const { codec, backend, alternatives } of backends) {
    const others = Object.entries(alternatives).map(([name, state]) => `${name}: ${state}`);
    context.diagnostic(`${codec}: ${backend ?? 'none'} (${others.join(', ')})`);
  }
  assert.deepEqual(
    backends.map(({ codec }) => codec),
    ['lz4', 'zstd'],
  );
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const builtIn = major > 23 || (major === 23 && minor >= 8) || (major === 22 && minor >= 15);
  assert.equal(backends[1]?.backend, builtIn ? 'node:zlib' : 'zstd-codec');
});

test('a package that is not there is looked for once, and the reason is one line without paths', () => {
  let calls = 0;
  const find = once(() => {
    calls++;
    return load('a-package-that-nobody-has');
  });
  assert.deepEqual(find(), { missing: 'not installed' });
  assert.deepEqual(find(), { missing: 'not installed' });
  assert.equal(calls, 1);
});

test('an addon that is not compiled, or for another Node, is called so', () => {
  const failing = (message: string, code?: string) =>
    once(() => {
      throw Object.assign(new Error(message), { code });
    })();
  assert.deepEqual(failing("Cannot find module '../build/Release/xxhash'\nRequire stack:\n- /x", 'MODULE_NOT_FOUND'), {
    missing: 'installed, but not compiled',
  });
  assert.deepEqual(failing("Module did not self-register: '/home/x/lz4.node'."), {
    missing: 'compiled for another version of Node',
  });
});
