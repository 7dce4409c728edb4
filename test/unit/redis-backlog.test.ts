/** What waits of what was heard: its bound, its order, and who calls whom. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Backlog, MOST_WAITING, MOST_WAITING_BYTES } from '#src/main/transports/redis/backlog';

/** A backlog of one who has `room`, with what came out of it and what its valve was told. */
function rig(onDeliver: (number: number) => void = () => undefined) {
  const state = { room: 0, got: [] as number[], told: [] as string[], batches: 0 };
  const backlog = new Backlog({
    room: () => state.room,
    bytes: () => 1,
    deliver: (envelope) => {
      state.room--;
      state.got.push(envelope.readUInt32LE());
      onDeliver(state.got.at(-1)!);
    },
    delivered: () => state.batches++,
  });
  const valve = { pause: () => state.told.push('pause'), resume: () => state.told.push('resume') };
  return { backlog, state, valve };
}

function envelope(number: number, bytes = 4): Buffer {
  const made = Buffer.alloc(bytes);
  made.writeUInt32LE(number);
  return made;
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

describe('a backlog', () => {
  it('pauses above its bound of messages, and resumes at half of it', () => {
    const { backlog, state, valve } = rig();
    backlog.attach(valve);
    for (const i of upTo(MOST_WAITING)) backlog.push(envelope(i));
    assert.deepEqual(state.told, []);
    backlog.push(envelope(MOST_WAITING));
    backlog.push(envelope(MOST_WAITING + 1));
    assert.deepEqual(state.told, ['pause']);
    state.room = MOST_WAITING / 2 + 1;
    backlog.wake();
    assert.deepEqual(state.told, ['pause']);
    state.room = 1;
    backlog.wake();
    assert.deepEqual(state.told, ['pause', 'resume']);
    assert.deepEqual(state.got, upTo(MOST_WAITING / 2 + 2));
    assert.equal(state.batches, 2);
  });

  it('has a bound of bytes, and lets a message through that is larger than that', () => {
    const { backlog, state, valve } = rig();
    backlog.attach(valve);
    backlog.push(envelope(0, MOST_WAITING_BYTES + 1));
    assert.deepEqual(state.told, ['pause']);
    state.room = 2;
    backlog.wake();
    assert.deepEqual([state.told, state.got], [['pause', 'resume'], [0]]);
  });

  it('tells the next valve how things stand', () => {
    const { backlog, state, valve } = rig();
    for (const i of upTo(MOST_WAITING + 1)) backlog.push(envelope(i));
    backlog.attach(valve);
    assert.deepEqual(state.told, ['pause']);
    backlog.detach(valve);
    state.room = MOST_WAITING + 1;
    backlog.wake();
    assert.deepEqual(state.told, ['pause']);
    backlog.push(envelope(MOST_WAITING + 1));
    backlog.attach(valve);
    assert.deepEqual(state.told, ['pause']);
  });

  it('keeps its order, and its stack flat, when a delivery makes room for the next', () => {
    const count = 1000;
    const made = rig(() => {
      made.state.room = 1;
      made.backlog.wake();
    });
    for (const i of upTo(count)) made.backlog.push(envelope(i));
    made.state.room = 1;
    made.backlog.wake();
    assert.deepEqual(made.state.got, upTo(count));
    assert.equal(made.state.batches, 1);
  });

  it('goes on after a delivery that throws', () => {
    const made = rig((number) => {
      if (number === 0) throw new RangeError('of its callback');
    });
    made.backlog.push(envelope(0));
    made.backlog.push(envelope(1));
    made.state.room = 2;
    assert.throws(() => made.backlog.wake(), /of its callback/);
    made.backlog.wake();
    assert.deepEqual(made.state.got, [0, 1]);
  });

  it('delivers nothing more when it is closed, also by a delivery', () => {
    const made = rig((number) => {
      if (number === 1) made.backlog.close();
    });
    for (const i of upTo(5)) made.backlog.push(envelope(i));
    made.state.room = 5;
    made.backlog.wake();
    made.backlog.push(envelope(5));
    assert.deepEqual(made.state.got, [0, 1]);
  });
});
