/** Which queues with `expires` a publish may reach: those that its script is told of. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Lasting } from '#src/main/transports/redis/lasting';

test('a publish is told of the queues that are bound for it, however many there are', () => {
  const lasting = new Lasting();
  for (let i = 0; i < 1000; i++) {
    lasting.set(`q${i}`, 1000 + i);
    lasting.bound('replies', `key${i}`, `q${i}`);
  }
  lasting.bound('replies', 'key7', 'not lasting');
  assert.deepEqual(lasting.of('replies', 'key7', false), ['q7', 1007]);
  assert.deepEqual(lasting.of('replies', 'nobody', false), []);
  assert.deepEqual(lasting.of('other', 'key7', false), []);
  lasting.bound('topic', 'a.#', 'q1');
  lasting.bound('topic', '#', 'q1');
  lasting.bound('topic', 'b.*', 'q2');
  assert.deepEqual(lasting.of('topic', 'a.b', true), ['q1', 1001, 'q2', 1002]);
  lasting.unbound('topic', 'a.#', 'q1');
  assert.deepEqual(lasting.of('topic', 'a.b', true), ['q1', 1001, 'q2', 1002]);
  lasting.unbound('topic', '#', 'q1');
  assert.deepEqual(lasting.of('topic', 'a.b', true), ['q2', 1002]);
  lasting.delete('q2');
  assert.deepEqual(lasting.of('topic', 'a.b', true), []);
  lasting.exchangeDeleted('replies');
  assert.deepEqual(lasting.of('replies', 'key7', false), []);
});
