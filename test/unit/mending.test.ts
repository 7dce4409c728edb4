/** A source that has lost what it consumes through. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ConnectionError, NotFound } from '#src/errors';
import { Mending } from '#src/main/transports/mending';

function mending(attempts: (() => boolean | Promise<boolean>)[]) {
  const told: string[] = [];
  const made: Mending = new Mending(
    {
      disconnected: ({ message }) => told.push(`disconnected: ${message}`),
      reconnected: (count) => told.push(`reconnected ${count}`),
      error: ({ message }) => told.push(`error: ${message}`),
    },
    async () => {
      const attempt = attempts.shift();
      assert.ok(attempt !== undefined, 'an attempt too many');
      return await attempt();
    },
  );
  return { made, told };
}

const lost = new ConnectionError('lost');
const live = (): AbortSignal => new AbortController().signal;

describe('mending', () => {
  it('tells once, tries until it consumes, and tells each time what trying alone will not mend', async () => {
    const { made, told } = mending([
      () => Promise.reject(new ConnectionError('still away')),
      () => Promise.reject(new NotFound('no queue')),
      () => false,
      () => true,
    ]);
    made.down(lost, live());
    made.down(lost, live());
    await made.underWay;
    assert.deepEqual(told, ['disconnected: lost', 'error: no queue', 'reconnected 4']);
  });

  it('goes on with what is lost in the middle of an attempt, or at its very end', async () => {
    const signal = live();
    const told: string[] = [];
    let attempts = 0;
    const made: Mending = new Mending(
      {
        disconnected: ({ message }) => told.push(`disconnected: ${message}`),
        reconnected: () => {
          told.push('reconnected');
          if (attempts === 2) made.down(new ConnectionError('right behind'), signal);
        },
        error: assert.fail,
      },
      async () => {
        if (++attempts === 1) made.down(new ConnectionError('while it consumes'), signal);
        return true;
      },
    );
    made.down(lost, signal);
    await made.underWay;
    assert.deepEqual(told, ['disconnected: lost', 'reconnected', 'disconnected: right behind', 'reconnected']);
    assert.equal(attempts, 3);
  });

  it('ends with its signal', async () => {
    const controller = new AbortController();
    const { made, told } = mending([
      () => {
        controller.abort();
        return Promise.reject(new NotFound('no queue'));
      },
    ]);
    made.down(lost, controller.signal);
    await made.underWay;
    assert.deepEqual(told, ['disconnected: lost']);
  });
});
