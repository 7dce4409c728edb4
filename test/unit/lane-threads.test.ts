/**
 * Lane, rings and bells between real threads: workers claim and settle while main publishes, takes back, and ends some of
 * them wherever they are. Each message must be settled exactly once. This file is the test and, on other threads, the
 * worker.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it, type TestContext } from 'node:test';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { Dispatcher } from '#src/main/runtime/dispatcher';
import { Arena } from '#src/pool/arena';
import { cancelSleep, prepareSleep, ring, ringAlways, sleepUntilRung } from '#src/pool/bell';
import { claim, laneHasWork, NONE } from '#src/pool/lane';
import { block, board, slot, stop, verdict } from '#src/pool/layout';
import { allocateBlock, allocateMemory, type MemoryHandles, memoryHandles, openMemory } from '#src/pool/memory';
import { SettlementWriter } from '#src/pool/settlement-ring';

const SLOTS = 128;
const CONCURRENCY = 1;

interface Task {
  readonly id: number;
  readonly memory: MemoryHandles;
  readonly block: SharedArrayBuffer;
  /** How often each message was claimed, by its number. */
  readonly claims: SharedArrayBuffer;
}

async function work(task: Task): Promise<void> {
  const memory = openMemory(task.memory);
  const words = new Int32Array(task.block);
  const claims = new Int32Array(task.claims);
  const writer = new SettlementWriter(words, memory.slotWords, CONCURRENCY, SLOTS);
  while (Atomics.load(words, block.STOP) === stop.RUN) {
    for (let index = claim(memory, task.id); index !== NONE; index = claim(memory, task.id)) {
      const number = memory.slotWords[(index << slot.SHIFT) + slot.TAG_LO]!;
      Atomics.add(claims, number, 1);
      for (let i = number % 200; i > 0; i--) Atomics.load(words, block.STOP);
      writer.push(index, number % 3 === 0 ? verdict.REJECT : verdict.ACK);
      ring(memory.boardWords, board.MAIN_BELL, board.MAIN_SLEEPING);
    }
    const token = prepareSleep(words, block.BELL, block.SLEEPING);
    if (laneHasWork(memory) || Atomics.load(words, block.STOP) !== stop.RUN) cancelSleep(words, block.SLEEPING);
    else await sleepUntilRung(words, block.BELL, token);
  }
}

if (!isMainThread) {
  const hold = setInterval(() => undefined, 1 << 30);
  void work(workerData as Task).then(() => clearInterval(hold));
} else {
  interface Plan {
    readonly messages: number;
    readonly workers: number;
    /** After so many settlements the oldest worker is ended, wherever it is, and replaced. */
    readonly killEvery?: number;
    /** After so many messages what waits is taken back. */
    readonly giveBackEvery?: number;
    readonly counter?: number;
  }

  async function run(
    context: TestContext,
    plan: Plan,
  ): Promise<{ claims: Int32Array; settled: Uint8Array; requeued: number; kills: number }> {
    const memory = allocateMemory(SLOTS, 2 << 20);
    memory.boardWords[board.LANE_HEAD] = (plan.counter ?? 0) | 0;
    memory.boardWords[board.LANE_TAIL] = (plan.counter ?? 0) | 0;
    const arena = new Arena(2 << 20);
    const region = arena.take(1);
    const claims = new Int32Array(new SharedArrayBuffer(plan.messages * 4));
    const settled = new Uint8Array(plan.messages);
    let done = 0;
    let requeued = 0;
    const dispatcher = new Dispatcher(
      memory,
      arena,
      {
        settle: (number, outcome) => {
          assert.equal(settled[number], 0, `message ${number} is settled twice`);
          const said = number % 3 === 0 ? verdict.REJECT : verdict.ACK;
          if (outcome === verdict.REQUEUE) requeued++;
          else assert.equal(outcome, said);
          settled[number] = 1;
          done++;
        },
        retry: () => assert.fail('nobody asked for it'),
        dead: () => assert.fail('nothing here dies of anything'),
      },
      1,
    );
    dispatcher.begin();
    let ids = 0;
    const join = (): { id: number; words: Int32Array; thread: Worker } => {
      const shared = allocateBlock(CONCURRENCY, SLOTS);
      const task: Task = {
        id: ++ids,
        memory: memoryHandles(memory),
        block: shared,
        claims: claims.buffer as SharedArrayBuffer,
      };
      const words = new Int32Array(shared);
      dispatcher.add({ id: task.id, block: words }, CONCURRENCY);
      const thread = new Worker(new URL(import.meta.url), { workerData: task });
      context.after(() => thread.terminate());
      return { id: task.id, words, thread };
    };
    const lives = Array.from({ length: plan.workers }, join);
    let sent = 0;
    let kills = 0;
    while (done < plan.messages) {
      for (let burst = 1 + (sent % 17); burst > 0 && sent < plan.messages && dispatcher.used < SLOTS; burst--) {
        arena.hold(region, 8);
        assert.notEqual(dispatcher.accept(region, 8, 0, sent, false, sent), NONE);
        sent++;
        if (plan.giveBackEvery !== undefined && sent % plan.giveBackEvery === 0) dispatcher.giveBack();
      }
      dispatcher.flush();
      if (plan.killEvery !== undefined && done > (kills + 1) * plan.killEvery) {
        kills++;
        const life = lives.shift()!;
        await Promise.all([once(life.thread, 'exit'), life.thread.terminate()]);
        dispatcher.sweep(life.id);
        lives.push(join());
      }
      const full = sent === plan.messages || dispatcher.used === SLOTS;
      const bell = full ? dispatcher.sleep() : undefined;
      await (bell ?? new Promise((resolve) => setImmediate(resolve)));
      dispatcher.drain();
    }
    assert.deepEqual([dispatcher.used, arena.usedBytes], [0, 0]);
    for (const { words, thread } of lives) {
      const exit = once(thread, 'exit');
      Atomics.store(words, block.STOP, stop.DRAIN);
      ringAlways(words, block.BELL, block.SLEEPING);
      await exit;
    }
    return { claims, settled, requeued, kills };
  }

  describe('messages between real threads', () => {
    it('are each claimed by one worker and settled once', { timeout: 60_000 }, async (context) => {
      const { claims, settled } = await run(context, { messages: 20_000, workers: 3, counter: 2 ** 31 - 1000 });
      assert.ok(settled.every((count) => count === 1));
      assert.ok(claims.every((count) => count === 1));
    });

    it('are each either claimed or taken back, never both', { timeout: 60_000 }, async (context) => {
      const { claims, settled, requeued } = await run(context, {
        messages: 20_000,
        workers: 2,
        giveBackEvery: 13,
        counter: 2 ** 32 - 5000,
      });
      assert.ok(settled.every((count) => count === 1));
      assert.equal(claims.filter((count) => count === 0).length, requeued);
      assert.ok(claims.every((count) => count <= 1));
    });

    it('are each settled once though workers are ended wherever they are', { timeout: 60_000 }, async (context) => {
      const { claims, settled, kills } = await run(context, { messages: 12_000, workers: 2, killEvery: 900 });
      assert.ok(kills >= 10);
      assert.ok(settled.every((count) => count === 1));
      assert.ok(claims.every((count) => count >= 1));
      const again = claims.reduce((sum, count) => sum + count - 1, 0);
      assert.ok(again <= kills, 'only what a dead worker had in hand runs again');
    });
  });
}
