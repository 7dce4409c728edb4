/** The dispatcher's single steps: what becomes of a delivery in each hand it can be in. */
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

/** A worker thread's end, on this thread. */
class Worker {
  readonly words: Int32Array;
  readonly #writer: SettlementWriter;

  constructor(
    readonly memory: Memory,
    readonly id: number,
  ) {
    this.words = new Int32Array(allocateBlock(1, memory.slotCount));
    this.#writer = new SettlementWriter(this.words, memory.slotWords, 1, memory.slotCount);
  }

  claim(started = true): number {
    const index = claim(this.memory, this.id);
    if (index !== NONE && started) this.memory.slotWords[(index << slot.SHIFT) + slot.STARTED] = 1;
    return index;
  }

  say(index: number, said: number): void {
    this.#writer.push(index, said);
  }
}

describe('the dispatcher', () => {
  let memory: Memory;
  let arena: Arena;
  let dispatcher: Dispatcher;
  let log: string[];
  let dead: number[];
  let region: number;

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
  const give = (entry: number, held = false, redelivered = false): number => {
    arena.hold(region, BYTES);
    return dispatcher.accept(region, BYTES, 0, entry, redelivered, entry, held);
  };
  const join = (id: number): Worker => {
    const worker = new Worker(memory, id);
    dispatcher.add({ id, block: worker.words }, 1);
    return worker;
  };
  const assertEmpty = (): void => {
    assert.deepEqual([dispatcher.used, arena.usedBytes], [0, 0]);
    arena.leave(region, region + (1 << 20));
    assert.equal(arena.takenBytes, 0);
  };

  beforeEach(() => {
    memory = allocateMemory(SLOTS, 4 << 20);
    arena = new Arena(4 << 20);
    region = arena.take(1);
    log = [];
    dead = [];
    dispatcher = new Dispatcher(memory, arena, sink, 3);
    dispatcher.begin();
  });

  it('takes a delivery to the worker that claims it, its verdict to the broker, and its memory back', () => {
    const worker = join(1);
    for (const [entry, said] of [verdict.ACK, verdict.REJECT, verdict.REQUEUE].entries()) {
      give(entry);
      assert.equal(worker.claim(), NONE, 'not shown yet');
      dispatcher.flush();
      worker.say(worker.claim(), said);
      assert.equal(dispatcher.drain(), 1);
    }
    assert.deepEqual(log, ['0:1', '1:2', '2:3']);
    const { acked, rejected, requeued, received, stale } = dispatcher.counters;
    assert.deepEqual([acked, rejected, requeued, received, stale], [1, 1, 1, 3, 0]);
    assertEmpty();
  });

  it('has no slot for more than there are, and changes nothing then', () => {
    for (let entry = 0; entry < SLOTS; entry++) assert.notEqual(give(entry), NONE);
    assert.equal(give(99), NONE);
    arena.release(region, BYTES);
    assert.equal(dispatcher.counters.received, SLOTS);
    assert.equal(dispatcher.end(), SLOTS);
    assertEmpty();
  });

  it('drops what comes from an ended generation, counts it, and frees it', () => {
    const worker = join(1);
    give(0);
    dispatcher.flush();
    const index = worker.claim();
    dispatcher.end();
    worker.say(index, verdict.ACK);
    dispatcher.drain();
    assert.deepEqual([log, dispatcher.counters.stale], [[], 1]);
    dispatcher.begin();
    give(1);
    dispatcher.flush();
    const older = worker.claim();
    dispatcher.end();
    dispatcher.begin();
    worker.say(older, verdict.ACK);
    dispatcher.drain();
    assert.deepEqual([log, dispatcher.counters.stale], [[], 2]);
    assertEmpty();
  });

  it('refuses a verdict on a slot that another incarnation has claimed, or nobody', () => {
    const [one, two] = [join(1), join(2)];
    const index = give(0);
    dispatcher.flush();
    two.say(index, verdict.ACK);
    dispatcher.drain();
    assert.equal(one.claim(), index);
    two.say(index, verdict.REJECT);
    dispatcher.drain();
    assert.deepEqual([log, dispatcher.counters.stale, stateOf(index)], [[], 2, state.CLAIMED]);
    one.say(index, verdict.ACK);
    one.say(index, verdict.ACK);
    dispatcher.drain();
    assert.deepEqual([log, dispatcher.counters.stale], [['0:1'], 3]);
    assertEmpty();
  });

  it('ends a generation by withdrawing what waits and what it holds, not what runs', () => {
    const worker = join(1);
    give(0);
    dispatcher.flush();
    const running = worker.claim();
    for (const entry of [1, 2, 3]) give(entry);
    dispatcher.flush();
    give(4);
    give(5, true);
    assert.deepEqual([dispatcher.running(), dispatcher.waiting(), dispatcher.held()], [1, 4, 1]);
    assert.equal(dispatcher.end(), 5);
    assert.equal(dispatcher.end(), 0);
    dispatcher.flush();
    assert.equal(worker.claim(), NONE);
    assert.deepEqual([log, dispatcher.used, arena.usedBytes], [[], 1, BYTES]);
    worker.say(running, verdict.ACK);
    dispatcher.drain();
    assertEmpty();
  });

  it('hands a failed message to the dead letters once, and finishes it only while it is the same one', () => {
    const worker = join(1);
    give(0);
    dispatcher.flush();
    worker.say(worker.claim(), verdict.DEAD);
    dispatcher.drain();
    const index = dead[0]!;
    const before = dispatcher.stateOf(index);
    assert.equal(stateOf(index), state.HELD);
    assert.equal(dispatcher.finish(index, before + 1, verdict.ACK), false);
    assert.equal(dispatcher.finish(index, before, verdict.ACK), true);
    assert.equal(dispatcher.finish(index, before, verdict.ACK), false);
    give(1, true);
    assert.equal(dispatcher.finish(index, before, verdict.ACK), false, 'another message of the same slot');
    assert.deepEqual(log, ['dead failed', '0:1']);
    dispatcher.end();
    assertEmpty();
  });

  it('gives back what waits, oldest first, and only what came before the time it is told', () => {
    for (const [entry, time] of [5e9, 6e9, 2 ** 33, 2 ** 33 + 1].entries()) {
      dispatcher.arriving(time);
      give(entry);
    }
    dispatcher.flush();
    assert.equal(dispatcher.giveBack(5e9), 0);
    assert.equal(dispatcher.giveBack(2 ** 33), 2);
    assert.deepEqual(log, ['0:3', '1:3']);
    const worker = join(1);
    const running = worker.claim();
    assert.equal(dispatcher.giveBack(), 1);
    assert.deepEqual(log, ['0:3', '1:3', '3:3']);
    worker.say(running, verdict.ACK);
    dispatcher.drain();
    assertEmpty();
  });

  it('stamps redelivery, tag, time and generation into the slot', () => {
    dispatcher.arriving(3 * 2 ** 32 + 17);
    const index = give(7, false, true);
    assert.deepEqual(
      [slot.FLAGS, slot.TAG_LO, slot.ARRIVAL_HI, slot.ARRIVAL_LO, slot.CHANNEL_GENERATION, slot.ATTEMPTS].map((field) =>
        word(index, field),
      ),
      [flag.REDELIVERED, 7, 3, 17, dispatcher.generation, 0],
    );
    assert.equal(dispatcher.counters.redelivered, 1);
  });

  it('wakes as many sleepers as there is work for, and no more', () => {
    const workers = [1, 2, 3].map(join);
    for (const { words } of workers) words[block.SLEEPING] = 1;
    give(0);
    give(1);
    dispatcher.flush();
    assert.equal(workers.filter(({ words }) => words[block.SLEEPING] === 0 && words[block.BELL] === 1).length, 2);
    give(2);
    dispatcher.flush();
    dispatcher.flush();
    assert.deepEqual(
      workers.map(({ words }) => words[block.BELL]),
      [1, 1, 1],
    );
  });

  it('does not sleep while a verdict waits', () => {
    const worker = join(1);
    give(0);
    dispatcher.flush();
    worker.say(worker.claim(), verdict.ACK);
    assert.equal(dispatcher.sleep(), undefined);
    dispatcher.drain();
    assert.ok(dispatcher.sleep() instanceof Promise);
  });
});
