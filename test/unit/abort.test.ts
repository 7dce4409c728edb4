/** One signal for many: what waits for it, hears of it once, and leaves nothing behind. */
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { describe, it } from 'node:test';
import { whenAborted } from '#src/abort';
import { Connection } from '#src/index';
import { forgetMemoryBroker } from '#src/main/transports/memory/broker';

describe('whenAborted()', () => {
  it('calls all who still wait, once, through one listener', () => {
    const abort = new AbortController();
    const called: string[] = [];
    const mark = () => called.push('twice');
    whenAborted(abort.signal, mark);
    whenAborted(abort.signal, mark);
    const leave = whenAborted(abort.signal, () => called.push('left'));
    whenAborted(abort.signal, () => called.push('last'));
    leave();
    leave();
    assert.equal(getEventListeners(abort.signal, 'abort').length, 1);
    abort.abort();
    assert.deepEqual(called, ['twice', 'twice', 'last']);
  });

  it('leaves no listener when nobody waits any more, and begins again', () => {
    const abort = new AbortController();
    const leave = whenAborted(abort.signal, () => assert.fail());
    leave();
    assert.equal(getEventListeners(abort.signal, 'abort').length, 0);
    let called = 0;
    whenAborted(abort.signal, () => called++);
    // What was left already takes nothing from whoever came since.
    leave();
    abort.abort();
    assert.equal(called, 1);
  });
});

it('a signal that many publishes, gets and acquires share causes no warning', async () => {
  const warnings: Error[] = [];
  const hear = (warning: Error): void => void warnings.push(warning);
  process.on('warning', hear);
  const broker = 'abort-test';
  const connection = new Connection(`memory://${broker}`);
  try {
    const queue = connection.SimpleQueue('q');
    const abort = new AbortController();
    const { signal } = abort;
    const many = Array.from({ length: 20 }, (_, n) => n);
    const producer = connection.Producer({ routingKey: 'q' });
    await queue.qsize();
    await Promise.all(many.map((n) => producer.publish(n, { signal })));
    const gets = many.map(() => queue.get({ signal }));
    await Promise.all(gets);
    const pool = connection.Pool(1);
    await pool.acquire();
    const waits = [...many.map(() => queue.get({ signal })), ...many.map(() => pool.acquire({ block: true, signal }))];
    // Until all of them wait.
    await new Promise(setImmediate);
    abort.abort(new Error('enough'));
    for (const wait of waits) await assert.rejects(wait, /enough/);
    assert.equal(getEventListeners(signal, 'abort').length, 0);
    await new Promise(setImmediate);
    assert.deepEqual(warnings, []);
    await pool.forceCloseAll();
    await queue.close();
  } finally {
    process.off('warning', hear);
    await connection.close();
    forgetMemoryBroker(broker);
  }
});
