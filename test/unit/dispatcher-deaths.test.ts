/** What the dispatcher makes of workers that die or do not come back: who is suspected, who is counted, what moves where. */
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { type Blame, Dispatcher, type DispatchSink } from '#src/main/runtime/dispatcher';
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
  /** Slots that were found guilty, and whether for the last time. */
  let culprits: [index: number, dead: boolean][];
  const anyone: Blame = { blame: true, cause: 'a test', onCulprit: (index, last) => culprits.push([index, last]) };
  const nobody: Blame = { ...anyone, blame: false };

  const sink: DispatchSink = {
    settle: (entry, outcome) => log.push(`${entry}:${outcome}`),
    retry: (index, milliseconds) => log.push(`retry ${index} ${milliseconds}`),
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
    culprits = [];
    dispatcher = new Dispatcher(memory, arena, sink, MAX_DELIVERIES);
    dispatcher.begin();
  });

  it('what it settled before is settled, and what it had claimed runs again in its own slot', () => {
    const worker = join(1);
    give(3);
    const [first, second, third] = [worker.take(), worker.take(), worker.take(false)];
    worker.say(first, verdict.ACK);
    assert.deepEqual(dispatcher.sweep(1, anyone), { requeued: 2, dead: 0 });
    assert.deepEqual(culprits, [[second, false]]);
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
    assert.deepEqual(dispatcher.sweep(1), { requeued: 0, dead: 0 });
    finishAll();
    assert.deepEqual(log, ['0:1']);
  });

  it('a message that ran alone is counted, and goes to the dead letters at the last count', () => {
    give(1);
    for (let death = 1; death <= MAX_DELIVERIES; death++) {
      const index = join(death).take();
      const last = death === MAX_DELIVERIES;
      assert.deepEqual(dispatcher.sweep(death, anyone), { requeued: last ? 0 : 1, dead: last ? 1 : 0 });
      assert.deepEqual(culprits.pop(), [index, last]);
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
    assert.deepEqual(dispatcher.sweep(1, anyone), { requeued: 4, dead: 0 });
    assert.deepEqual(culprits, []);
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

  it('where nothing that ran is to be blamed, nothing is suspected or counted', () => {
    const worker = join(1);
    give(2);
    const [first, second] = [worker.take(), worker.take()];
    assert.deepEqual(dispatcher.sweep(1, nobody), { requeued: 2, dead: 0 });
    const again = join(2).take();
    assert.equal(again, first);
    dispatcher.sweep(2, nobody);
    assert.deepEqual(culprits, []);
    assert.deepEqual([first, second].map(isAlone), [false, false]);
    assert.deepEqual([word(first, slot.DEATHS), word(first, slot.ATTEMPTS)], [0, 2]);
    finishAll();
  });

  for (const [what, settles] of [
    ['had settled its message early', true],
    ['was given up', false],
  ] as const) {
    it(`none is counted whose worker also ran a callback that ${what}`, () => {
      const worker = join(1);
      give(2);
      const [other, innocent] = [worker.take(), worker.take()];
      worker.say(other, settles ? verdict.ACK : verdict.DEAD, false);
      dispatcher.sweep(1, anyone);
      assert.deepEqual(culprits, []);
      assert.deepEqual([word(innocent, slot.DEATHS), isAlone(innocent)], [0, true]);
      for (const index of dead) dispatcher.finish(index, dispatcher.stateOf(index), verdict.ACK);
      finishAll();
    });
  }

  it('what an ended generation delivered is freed instead', () => {
    for (const again of [false, true]) {
      const worker = join(1);
      give(2);
      worker.take();
      worker.take();
      dispatcher.end();
      if (again) dispatcher.begin();
      assert.deepEqual(dispatcher.sweep(1), { requeued: 0, dead: 0 });
      assert.deepEqual([dispatcher.used, arena.usedBytes], [0, 0]);
      dispatcher.begin();
    }
    assert.deepEqual(log, []);
  });

  it('an idle worker is woken before one that sleeps amid its callbacks, and that one is not relied upon', () => {
    const [one, two] = [join(1), join(2)];
    for (const worker of [one, two]) worker.words[block.SLEEPING] = 1;
    for (const busy of [one, two]) busy.words[block.RUNNING] = busy === one ? 1 : 0;
    give(1);
    assert.deepEqual([one.words[block.BELL], two.words[block.BELL]], [0, 1]);
    give(1);
    assert.deepEqual([one.words[block.BELL], two.words[block.BELL]], [1, 1]);
    one.words[block.RUNNING] = 0;
    finishAll();
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
      worker.say(old[1]!, verdict.ACK);
      assert.deepEqual(dispatcher.disown(1, anyone), { requeued: 1, dead: 0 });
      assert.deepEqual(log, ['1:1'], 'what it had settled before is settled');
      const [[culprit]] = culprits as [[number, boolean]];
      assert.equal(word(culprit, slot.TAG_LO), 0, 'the culprit is named by the slot where it is now');
      assert.notEqual(culprit, old[0]);
      assert.equal(dispatcher.used, 3);
      const next = join(2);
      const taken = [next.take(), next.take()];
      assert.deepEqual(
        taken.map((index) => word(index, slot.TAG_LO)),
        [2, 0],
      );
      assert.ok(!taken.includes(old[0]!));
      assert.deepEqual(
        taken.map((index) => [word(index, slot.ATTEMPTS), word(index, slot.DEATHS)]),
        [
          [0, 0],
          [1, 1],
        ],
      );
      for (const index of taken) next.say(index, verdict.ACK);
      worker.say(old[0]!, verdict.REJECT);
      dispatcher.drain();
      assert.deepEqual(log, ['1:1', '2:1', '0:1']);
      assert.deepEqual([dispatcher.used, arena.usedBytes], [1, 0]);
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
      assert.deepEqual(dispatcher.disown(1), { requeued: 0, dead: 0 });
      assert.equal(arena.usedBytes, 0);
      dispatcher.retire(1);
      finishAll();
    });

    it('with no slot left to move to, its messages go back to the broker', () => {
      const worker = join(1);
      give(SLOTS);
      const all = Array.from({ length: SLOTS }, () => worker.take());
      assert.doesNotThrow(() => dispatcher.disown(1, nobody));
      assert.equal(log.length, all.length);
      assert.ok(log.every((line) => line.endsWith(`:${verdict.REQUEUE}`)));
      dispatcher.retire(1);
      finishAll();
    });
  });
});
