/** Whatever a callback throws: plain bounded text of it goes to the main thread, and nothing of it is believed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reject, Retry } from '#src/errors';
import { type PortableError, toPortableError } from '#src/pool/worker-protocol';
import { retryDelay } from '#src/worker/retry';

function throwing(): never {
  throw new Error('a trap');
}

const traps: ProxyHandler<object> = {
  get: throwing,
  has: throwing,
  ownKeys: throwing,
  getPrototypeOf: throwing,
  getOwnPropertyDescriptor: throwing,
};

const getters = (...keys: string[]): object =>
  Object.defineProperties({}, Object.fromEntries(keys.map((key) => [key, { get: throwing }])));

function cyclic(): Error {
  const error = new Error('round');
  error.cause = error;
  return error;
}

const revoked = Proxy.revocable({}, {});
revoked.revoke();

const thrown: Record<string, { readonly value: unknown; readonly message: RegExp }> = {
  null: { value: null, message: /^object thrown: null$/ },
  undefined: { value: undefined, message: /^undefined thrown: undefined$/ },
  'a symbol': { value: Symbol('what'), message: /^symbol thrown: Symbol\(what\)$/ },
  'a BigInt': { value: 5n, message: /^bigint thrown: 5$/ },
  'an empty text': { value: '', message: /^string thrown: $/ },
  'a function whose text throws': {
    value: Object.assign(() => 0, { toString: throwing }),
    message: /^function thrown: something without a text$/,
  },
  'an object without a prototype': { value: Object.create(null), message: /no Error/ },
  'an object whose getters throw': {
    value: getters('name', 'message', 'stack', 'code', 'cause', 'delay'),
    message: /no Error/,
  },
  'a proxy whose traps throw': { value: new Proxy({}, traps), message: /no Error/ },
  'a revoked proxy': { value: revoked.proxy, message: /no Error/ },
  'fields that are no text': { value: { name: 5, message: {}, stack: [], code: Symbol('code') }, message: /no Error/ },
  'an error that is its own cause': { value: cyclic(), message: /^round$/ },
  'a huge message': { value: new Error('x'.repeat(50_000_000)), message: /^x{16384}$/ },
};

/** Every text in it, of its causes too. */
function textsOf({ cause, ...error }: PortableError): string[] {
  return [...Object.values(error), ...(cause === undefined ? [] : textsOf(cause))] as string[];
}

for (const [name, { value, message }] of Object.entries(thrown)) {
  test(`${name}: becomes text of a bounded length that can be cloned`, () => {
    const portable = toPortableError(value);
    assert.match(portable.message, message);
    assert.deepEqual(structuredClone(portable), portable);
    const texts = textsOf(portable);
    assert.ok(texts.every((text) => typeof text === 'string' && text.length <= 17_000));
    assert.ok(texts.length <= 6 * 4, 'causes end');
  });

  test(`${name}: is a failure like any other, and asks for no other run`, () => {
    assert.equal(retryDelay(value, 1, undefined), undefined);
    const rules = { attempts: 3, initial: 100, factor: 2, max: 1000, jitter: 0 };
    assert.equal(retryDelay(value, 1, rules), 100);
    assert.equal(retryDelay(value, 3, rules), undefined);
  });
}

test('a delay that cannot be read is none', () => {
  const error = Object.defineProperty(new Retry(), 'delay', { get: throwing });
  assert.equal(retryDelay(error, 1, undefined), 1000);
  assert.equal(retryDelay(Object.assign(new Retry(), { delay: Number.NaN }), 1, undefined), 1000);
  assert.equal(retryDelay(new Retry(5), 1, undefined), 5);
  assert.equal(retryDelay(new Reject('no'), 1, undefined), undefined);
});
