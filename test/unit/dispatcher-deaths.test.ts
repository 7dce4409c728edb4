/** What the dispatcher makes of workers that die or do not come back: who is suspected, who is counted, what moves where. */
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { Dispatcher, type DispatchSink } from '#src/main/runtime/dispatcher';
import { Arena } from '#src/pool/arena';
import { claim, NONE } from '#src/pool/lane';
import { block, flag, STATE_MASK, slot, state, verdict } from '#src/pool/layout';
import { allocateBlock, allocateMemory, type Memory } from '#src/pool/memory';
import { SettlementWriter } from '#src/pool/settlement-ring';

const SLOTS = 16;
const BYTES = 100;
const MAX_DELIVERIES = 3;

class Worker {
  readonly words: Int32Array;
  readonly #writer: SettlementWriter;

  constructor(
    readonly memory: Memory,
    readonly id: number,
  ) {
    this.words = new Int32Array(allocateBlock(4, memory.slotCount));
    this.#writer = new SettlementWriter(this.words, memory.slotWords, 4, memory.slotCount);
  }

  /** Claims a message and, unless told otherwise, begins to run it. */
  take(starts = true): number {
    const index = claim(this.memory, this.id);
    if (index === NONE || !starts) return index;
    this.memory.slotWords[(index << slot.SHIFT) + slot.STARTED] = 1;
    this.words[block.RUNNING]!++;
    return index;
  }

  /** Settles a message; its callback ends with that, or goes on. */
  say(index: number, said: number, ends = true): void {
    this.#writer.push(index, said);
    if (ends) this.words[block.RUNNING]!--;
  }
}

describe('after the death of a worker', () => {
  let memory: Memory;
  let arena: Arena;
  let dispatcher: Dispatcher;
  let log: string[];
  let dead: number[];
  let region: number;

  const sink: DispatchSink = {
    settle: (entry, outcome) => log.push(`${entry}:${outcome}`),
    dead: (index, why) => {
      dead.push(index);
      log.push(`dead ${why}`);
    },
  };
  const word = (index: number, field: number): number => memory.slotWords[(index << slot.SHIFT) + field]!;
  const stateOf = (index: number): number => word(index, slot.STATE) & STATE_MASK;
  const give = (count: number): void => {
    for (let entry = 0; entry < count; entry++) {
      arena.hold(region, BYTES);
      assert.notEqual(dispatcher.accept(region, BYTES, 0, entry, false, entry), NONE);
    }
    dispatcher.flush();
  };
  const join = (id: number): Worker => {
    const worker = new Worker(memory, id);
    dispatcher.add({ id, block: worker.words }, 4);
    return worker;
  };
  const isAlone = (index: number): boolean => (word(index, slot.FLAGS) & flag.ALONE) !== 0;
  const finishAll = (): void => {
    const last = join(250);
    for (let index = last.take(); index !== NONE; index = last.take()) last.say(index, verdict.ACK);
    dispatcher.drain();
    dispatcher.sweep(250);
    assert.deepEqual([dispatcher.used, arena.usedBytes], [0, 0]);
  };

  beforeEach(() => {
    memory = allocateMemory(SLOTS, 4 << 20);
    arena = new Arena(4 << 20);
    region = arena.take(1);
    log = [];
    dead = [];
    dispatcher = new Dispatcher(memory, arena, sink, MAX_DELIVERIES);
    dispatcher.begin();
  });

  it('what it settled before is settled, and what it had claimed runs again in its own slot', () => {
    const worker = join(1);
    give(3);
    const [first, second, third] = [worker.take(), worker.take(), worker.take(false)];
    worker.say(first, verdict.ACK);
    assert.deepEqual(dispatcher.sweep(1), { requeued: 2, dead: 0, culprit: second });
    assert.deepEqual(log, ['0:1']);
    assert.deepEqual([word(second, slot.ATTEMPTS), word(third, slot.ATTEMPTS)], [1, 0]);
    const other = join(2);
    assert.deepEqual([other.take(), other.take(), other.take()], [second, third, NONE]);
    other.say(second, verdict.ACK);
    other.say(third, verdict.ACK);
    dispatcher.drain();
    finishAll();
  });

  it('its ring is read no more', () => {
    const worker = join(1);
    give(1);
    const index = worker.take();
    dispatcher.sweep(1);
    worker.say(index, verdict.REJECT);
    assert.equal(dispatcher.drain(), 0);
    assert.deepEqual(dispatcher.sweep(1), { requeued: 0, dead: 0, culprit: NONE });
    finishAll();
    assert.deepEqual(log, ['0:1']);
  });

  it('a message that ran alone is counted, and goes to the dead letters at the last count', () => {
    give(1);
    for (let death = 1; death <= MAX_DELIVERIES; death++) {
      const index = join(death).take();
      const last = death === MAX_DELIVERIES;
      assert.deepEqual(dispatcher.sweep(death), { requeued: last ? 0 : 1, dead: last ? 1 : 0, culprit: index });
      assert.equal(word(index, slot.DEATHS), death);
    }
    assert.deepEqual(log, ['dead deaths']);
    assert.equal(stateOf(dead[0]!), state.HELD);
    assert.equal(dispatcher.finish(dead[0]!, dispatcher.stateOf(dead[0]!), verdict.ACK), true);
    finishAll();
  });

  it('of several that ran all are suspects, to run alone, and none is counted', () => {
    const worker = join(1);
    give(4);
    const running = [worker.take(), worker.take(), worker.take()];
    const claimed = worker.take(false);
    assert.deepEqual(dispatcher.sweep(1), { requeued: 4, dead: 0, culprit: NONE });
    assert.deepEqual(
      running.map((index) => [isAlone(index), word(index, slot.DEATHS), word(index, slot.ATTEMPTS)]),
      [
        [true, 0, 1],
        [true, 0, 1],
        [true, 0, 1],
      ],
    );
    assert.deepEqual([isAlone(claimed), word(claimed, slot.ATTEMPTS)], [false, 0]);
    finishAll();
  });

  it('the one that is blamed is counted, whatever ran beside it', () => {
    const worker = join(1);
    give(3);
    const [first, second] = [worker.take(), worker.take()];
    worker.take(false);
    assert.deepEqual(dispatcher.sweep(1, new Set([second])), { requeued: 3, dead: 0, culprit: second });
    assert.deepEqual([word(first, slot.DEATHS), word(second, slot.DEATHS)], [0, 1]);
    assert.deepEqual([isAlone(first), isAlone(second)], [false, false]);
    finishAll();
  });

  it('of several that are blamed all are suspects, and of an empty blame none', () => {
    const worker = join(1);
    give(3);
    const [first, second, third] = [worker.take(), worker.take(), worker.take()];
    assert.equal(dispatcher.sweep(1, new Set([first, second])).culprit, NONE);
    assert.deepEqual([first, second, third].map(isAlone), [true, true, false]);
    const next = join(2);
    const again = next.take();
    assert.equal(dispatcher.sweep(2, new Set()).culprit, NONE);
    assert.deepEqual([word(again, slot.DEATHS), word(again, slot.ATTEMPTS)], [0, 2]);
    finishAll();
  });

  it('none is counted whose worker also ran a callback that had settled its message early', () => {
    const worker = join(1);
    give(2);
    const [early, innocent] = [worker.take(), worker.take()];
    worker.say(early, verdict.ACK, false);
    assert.equal(dispatcher.sweep(1).culprit, NONE);
    assert.deepEqual([word(innocent, slot.DEATHS), isAlone(innocent)], [0, true]);
    finishAll();
  });

  it('what an ended generation delivered is freed instead', () => {
    for (const again of [false, true]) {
      const worker = join(1);
      give(2);
      worker.take();
      worker.take();
      dispatcher.end();
      if (again) dispatcher.begin();
      assert.deepEqual(dispatcher.sweep(1), { requeued: 0, dead: 0, culprit: NONE });
      assert.deepEqual([dispatcher.used, arena.usedBytes], [0, 0]);
      dispatcher.begin();
    }
    assert.deepEqual(log, []);
  });

  it('another worker is woken for what comes back', () => {
    const [one, two] = [join(1), join(2)];
    give(1);
    one.take();
    two.words[block.SLEEPING] = 1;
    dispatcher.sweep(1);
    assert.deepEqual([two.words[block.SLEEPING], two.words[block.BELL]], [0, 1]);
    finishAll();
  });

  it('another worker is woken for work whose bell it took with it', () => {
    const [one, two] = [join(1), join(2)];
    one.words[block.SLEEPING] = 1;
    give(1);
    assert.equal(one.words[block.BELL], 1);
    two.words[block.SLEEPING] = 1;
    dispatcher.sweep(1);
    assert.equal(two.words[block.BELL], 1);
    finishAll();
  });

  describe('that does not exit', () => {
    it('its messages move to new slots, and its own come back when it exits after all', () => {
      const worker = join(1);
      give(3);
      const old = [worker.take(), worker.take()];
      const { requeued, culprit } = dispatcher.disown(1, new Set([old[0]!]));
      assert.equal(requeued, 2);
      assert.equal(word(culprit, slot.TAG_LO), 0, 'the culprit is named by the slot where it is now');
      assert.ok(!old.includes(culprit));
      assert.equal(dispatcher.used, 5);
      const next = join(2);
      const taken = [next.take(), next.take(), next.take()];
      assert.deepEqual(
        taken.map((index) => word(index, slot.TAG_LO)),
        [2, 0, 1],
      );
      assert.ok(taken.every((index) => !old.includes(index)));
      assert.deepEqual(
        taken.map((index) => [word(index, slot.ATTEMPTS), word(index, slot.DEATHS)]),
        [
          [0, 0],
          [1, 1],
          [1, 0],
        ],
      );
      for (const index of taken) next.say(index, verdict.ACK);
      worker.say(old[0]!, verdict.REJECT);
      dispatcher.drain();
      assert.deepEqual(log, ['2:1', '0:1', '1:1']);
      assert.deepEqual([dispatcher.used, arena.usedBytes], [2, 0]);
      dispatcher.retire(1);
      dispatcher.retire(1);
      finishAll();
    });

    it('its own slots stay its own over the end of the generation', () => {
      const worker = join(1);
      give(1);
      const old = worker.take();
      dispatcher.disown(1);
      assert.equal(dispatcher.end(), 1);
      assert.equal(stateOf(old), state.CLAIMED);
      assert.deepEqual([dispatcher.used, arena.usedBytes], [1, 0]);
      dispatcher.begin();
      dispatcher.retire(1);
      finishAll();
    });

    it('what an ended generation delivered gives its bytes up, without a slot to move to', () => {
      const worker = join(1);
      give(SLOTS);
      for (let taken = worker.take(); taken !== NONE; taken = worker.take());
      dispatcher.end();
      dispatcher.begin();
      assert.deepEqual(dispatcher.disown(1), { requeued: 0, dead: 0, culprit: NONE });
      assert.equal(arena.usedBytes, 0);
      dispatcher.retire(1);
      finishAll();
    });

    it('with no slot left to move to, its messages go back to the broker', () => {
      const worker = join(1);
      give(SLOTS);
      const all = Array.from({ length: SLOTS }, () => worker.take());
      assert.doesNotThrow(() => dispatcher.disown(1, new Set()));
      assert.equal(log.length, all.length);
      assert.ok(log.every((line) => line.endsWith(`:${verdict.REQUEUE}`)));
      dispatcher.retire(1);
      finishAll();
    });
  });
});
