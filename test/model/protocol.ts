/**
 * The runtime's protocol as systems to walk: one main thread with the real Dispatcher, workers with the real claim, ring
 * and bell code, a broker that redelivers. Used small in the unit tests and large in the soak.
 */
import { Arena } from '#src/pool/arena';
import * as layout from '#src/pool/layout';
import type { Memory } from '#src/pool/memory';
import { RecordingAtomics, type Step, type System, stepping, type Thread, type Waiter } from './interleave.js';

const { block, board, slot, state, verdict } = layout;

type Gen<T> = Generator<Step, T, number>;

interface Stepped {
  claim(memory: Memory, owner: number): Gen<number>;
  laneHasWork(memory: Memory): Gen<boolean>;
  ring(words: Int32Array, bell: number, sleeping: number): Gen<boolean>;
  prepareSleep(words: Int32Array, bell: number, sleeping: number): Gen<number>;
  cancelSleep(words: Int32Array, sleeping: number): Gen<void>;
  sleepUntilRung(words: Int32Array, bell: number, token: number): Gen<Waiter | undefined>;
  SettlementWriter: new (
    blockWords: Int32Array,
    slotWords: Int32Array,
    concurrency: number,
    slots: number,
  ) => { push(index: number, said: number): Gen<void> };
  Dispatcher: new (memory: Memory, arena: Arena, sink: object, maxDeliveries: number) => SteppedDispatcher;
}

/** Its private names are public here: they belong to the state. */
interface SteppedDispatcher {
  readonly used: number;
  readonly entries: Int32Array;
  readonly incarnations: readonly { id: number; block: Int32Array; reader: { head: number; seen: number } }[];
  readonly slots: { free: Int32Array; freeCount: number };
  readonly nextToWake: number;
  readonly generation: number;
  readonly alive: boolean;
  readonly lane: { tail: number; flushed: number };
  begin(): Gen<number>;
  end(): Gen<number>;
  accept(start: number, length: number, hi: number, lo: number, redelivered: boolean, entry: number): Gen<number>;
  flush(): Gen<void>;
  add(incarnation: { id: number; block: Int32Array }, concurrency: number): Gen<void>;
  sleep(): Gen<Waiter | undefined>;
  drain(): Gen<number>;
  giveBack(): Gen<number>;
  sweep(id: number): Gen<unknown>;
  disown(id: number): Gen<unknown>;
  retire(id: number): Gen<void>;
}

export interface Scenario {
  readonly workers: number;
  readonly slots: number;
  readonly deliveries: number;
  readonly deaths: number;
  /** Times that main takes back what waits. */
  readonly withdrawals: number;
  /** Times that the channel ends and the broker gives everything unsettled out again. */
  readonly generations: number;
  /** Dead threads are disowned first, and exit later. */
  readonly zombies?: boolean;
  /** Which part of the protocol goes by single steps. */
  readonly about: 'claims' | 'bells';
  /** Each worker has a callback in flight, which ends at any moment, also while its loop sleeps. */
  readonly busy?: boolean;
  /** Where all counters begin. */
  readonly from?: number;
}

const ATOMICS = new RecordingAtomics();
const MODULES = [
  '#src/pool/lane',
  '#src/pool/settlement-ring',
  '#src/pool/bell',
  '#src/pool/slots',
  '#src/main/runtime/dispatcher',
];
const CLOCK = { highWord: () => 0, lowWord: () => 0, fromWords: () => 0 };

function load(whole: readonly string[]): Stepped {
  const urls = MODULES.map((name) => import.meta.resolve(name));
  return stepping(urls, ATOMICS, { ...layout, ...CLOCK }, whole) as unknown as Stepped;
}

/** About claims, settlements, sweeps: whoever has nothing to do waits for it by magic. */
const CLAIMS = load(['ring', 'wake']);
/** About sleeping and waking: claiming and settling are one step each. */
const BELLS = load([
  'claim',
  'push',
  'accept',
  'apply',
  'drainOne',
  'take',
  'skipDead',
  'withdraw',
  'oldest',
  'redistribute',
  'claimedBy',
  'release',
  'raise',
  'hold',
  'settle',
  'move',
  'acquire',
  'releaseBytes',
  'begin',
  'end',
  'add',
  'retire',
]);

class Fault extends Error {}

export function protocol(scenario: Scenario): () => System {
  return () => {
    const { workers, slots, deliveries, from = 0 } = scenario;
    const bells = scenario.about === 'bells';
    const code = bells ? BELLS : CLAIMS;
    ATOMICS.waiters.length = 0;
    const memory = {
      slotCount: slots,
      laneCapacity: slots * 2,
      boardWords: new Int32Array(board.WORDS),
      slotWords: new Int32Array(slots * slot.WORDS),
      laneWords: new Int32Array(slots * 4),
    } as Memory;
    const ring = layout.ringStart(1);
    const arena = new Arena(4 * layout.SEGMENT_BYTES);
    memory.boardWords[board.LANE_HEAD] = from;
    memory.boardWords[board.LANE_TAIL] = from;
    memory.boardWords[board.MAIN_BELL] = from;
    // The slots' generations wrap too: 20 bits of them.
    for (let i = 0; i < slots; i++) memory.slotWords[i << slot.SHIFT] = layout.stateWord(0xfffff, 0, state.FREE);
    const blocks = Array.from({ length: workers }, () => {
      const words = new Int32Array(ring + slots);
      words[block.RING_TAIL] = from;
      words[block.BELL] = from;
      if (scenario.busy) words[block.RUNNING] = 1;
      return words;
    });

    // What the broker and the callbacks know, outside of shared memory.
    const times = { settled: Array<number>(deliveries).fill(0), run: Array<number>(deliveries).fill(0) };
    /** Of this generation's entries: which delivery each is, and whether it is settled. */
    let ledger: { delivery: number; open: boolean }[] = [];
    let delivered = 0;
    /** What the broker gives out a second time: its generation ended unsettled. */
    let again: number[] = [];
    let left = { deaths: scenario.deaths, withdrawals: scenario.withdrawals, generations: scenario.generations };
    const dead: ('no' | 'dead' | 'disowned' | 'gone')[] = Array(workers).fill('no');
    let reruns = 0;
    let begun = false;
    let armed: Waiter | undefined;
    const sink = {
      settle(entry: number) {
        const row = ledger[entry];
        if (row === undefined || !row.open) throw new Fault(`entry ${entry} is settled twice, or after its generation`);
        row.open = false;
        times.settled[row.delivery]!++;
        if (times.run[row.delivery] === 0 && !withdrawing)
          throw new Fault(`delivery ${row.delivery} is settled and never ran`);
      },
      dead() {
        throw new Fault('a message was given up');
      },
    };
    let withdrawing = false;
    const dispatcher = new code.Dispatcher(memory, arena, sink, 1000);

    const deliveryIn = (index: number): number => memory.slotWords[(index << slot.SHIFT) + slot.TAG_LO]!;
    const room = (): boolean => dispatcher.used < slots;

    function* deliver(delivery: number, redelivered: boolean): Gen<void> {
      ledger.push({ delivery, open: true });
      arena.hold(layout.SEGMENT_BYTES, 8);
      yield* dispatcher.accept(layout.SEGMENT_BYTES, 8, 0, delivery, redelivered, ledger.length - 1);
    }

    function* main(): Thread {
      for (;;) {
        yield { reset: 'main' };
        const options: (() => Gen<void>)[] = [];
        if (!begun) {
          options.push(function* () {
            begun = true;
            for (let w = 0; w < workers; w++) yield* dispatcher.add({ id: w + 1, block: blocks[w]! }, 1);
            yield* dispatcher.begin();
          });
        } else {
          if (delivered < deliveries && room()) {
            options.push(function* () {
              yield* deliver(delivered++, false);
              yield { reset: 'accepted' };
              yield* dispatcher.flush();
            });
          }
          if (again.length > 0 && room()) {
            options.push(function* () {
              const [delivery = 0, ...rest] = again;
              again = rest;
              reruns++;
              yield* deliver(delivery, true);
              yield* dispatcher.flush();
            });
          }
          if (!bells) {
            if (dispatcher.incarnations.some(({ reader, block: words }) => reader.head !== words[block.RING_TAIL])) {
              options.push(function* () {
                yield* dispatcher.drain();
              });
            }
          } else if (armed === undefined) {
            options.push(function* () {
              armed = yield* dispatcher.sleep();
              if (armed === undefined) yield* dispatcher.drain();
            });
          } else if (armed.woken) {
            options.push(function* () {
              ATOMICS.forget(armed!);
              armed = undefined;
              yield* dispatcher.drain();
            });
          }
          if (left.withdrawals > 0 && delivered > 0) {
            options.push(function* () {
              left = { ...left, withdrawals: left.withdrawals - 1 };
              withdrawing = true;
              yield* dispatcher.giveBack();
              withdrawing = false;
            });
          }
          if (left.generations > 0 && delivered > 0) {
            options.push(function* () {
              left = { ...left, generations: left.generations - 1 };
              yield* dispatcher.end();
              again = [...again, ...ledger.filter(({ open }) => open).map(({ delivery }) => delivery)];
              ledger = [];
              yield* dispatcher.begin();
            });
          }
          for (let w = 0; w < workers; w++) {
            if (dead[w] === 'dead') {
              options.push(function* () {
                reruns++;
                dead[w] = scenario.zombies ? 'disowned' : 'gone';
                if (scenario.zombies) yield* dispatcher.disown(w + 1);
                else yield* dispatcher.sweep(w + 1);
              });
            } else if (dead[w] === 'disowned') {
              options.push(function* () {
                dead[w] = 'gone';
                yield* dispatcher.retire(w + 1);
              });
            }
          }
        }
        if (options.length === 0) {
          // A bell, the exit of a thread, or (by magic, where bells are not the matter) a settlement.
          yield {
            until: () =>
              dead.includes('dead') ||
              (bells
                ? armed?.woken === true
                : dispatcher.incarnations.some(({ reader, block: words }) => reader.head !== words[block.RING_TAIL])),
          };
          continue;
        }
        const choice = yield { choose: options.length };
        yield* options[choice]!();
      }
    }

    function* worker(w: number): Thread {
      const words = blocks[w]!;
      const writer = new code.SettlementWriter(words, memory.slotWords, 1, slots);
      for (;;) {
        yield { reset: `w${w}` };
        const index = yield* code.claim(memory, w + 1);
        if (index !== -1) {
          yield { reset: `w${w} has ${index}` };
          const delivery = deliveryIn(index);
          times.run[delivery]!++;
          memory.slotWords[(index << slot.SHIFT) + slot.STARTED] = 1;
          yield undefined;
          yield* writer.push(index, verdict.ACK);
          if (bells) {
            yield { reset: `w${w} rings` };
            yield* code.ring(memory.boardWords, board.MAIN_BELL, board.MAIN_SLEEPING);
          }
          continue;
        }
        if (!bells) {
          yield { until: () => memory.boardWords[board.LANE_HEAD] !== memory.boardWords[board.LANE_TAIL] };
          continue;
        }
        const token = yield* code.prepareSleep(words, block.BELL, block.SLEEPING);
        if (yield* code.laneHasWork(memory)) {
          yield* code.cancelSleep(words, block.SLEEPING);
          continue;
        }
        const waiter = yield* code.sleepUntilRung(words, block.BELL, token);
        if (waiter !== undefined) yield { wait: waiter };
      }
    }

    /** Of one worker, beside its loop: what ends the callback tells main at most, and never its own loop. */
    function* callback(w: number): Thread {
      yield undefined;
      blocks[w]![block.RUNNING] = 0;
    }

    const each = <T>(make: (w: number) => T): T[] => Array.from({ length: workers }, (_, w) => make(w));

    return {
      atomics: ATOMICS,
      threads: [main(), ...each(worker), ...(scenario.busy ? each(callback) : [])],
      state: (add) => {
        for (const words of [memory.boardWords, memory.slotWords, memory.laneWords]) words.forEach(add);
        for (const words of blocks) {
          add(words[block.BELL]!);
          add(words[block.SLEEPING]!);
          add(words[block.RUNNING]!);
          for (let i = block.RING_TAIL; i < words.length; i++) if (i === block.RING_TAIL || i >= ring) add(words[i]!);
        }
        for (const count of [...times.settled, ...times.run]) add(count);
        for (const row of ledger) add(row.delivery * 2 + (row.open ? 1 : 0));
        for (const how of dead) add(how.length);
        for (const delivery of again) add(delivery + 100);
        add(((delivered * 8 + left.deaths) * 8 + left.withdrawals) * 8 + left.generations);
        add(reruns * 8 + (armed === undefined ? 0 : armed.woken ? 1 : 2) + (withdrawing ? 4 : 0) + (begun ? 3 : 0));
        dispatcher.slots.free.forEach(add);
        dispatcher.entries.forEach(add);
        for (const { id, reader } of dispatcher.incarnations) {
          add(id);
          add(reader.head);
          add(reader.seen);
        }
        add(dispatcher.slots.freeCount * 8 + dispatcher.nextToWake);
        add(dispatcher.generation * 2 + (dispatcher.alive ? 1 : 0));
        add(dispatcher.lane.tail);
        add(dispatcher.lane.flushed);
      },
      mayDie: () => (left.deaths > 0 && begun ? blocks.flatMap((_, w) => (dead[w] === 'no' ? [w + 1] : [])) : []),
      died: (thread) => {
        left = { ...left, deaths: left.deaths - 1 };
        dead[thread - 1] = 'dead';
      },
      check: () => {
        const total = times.run.reduce((sum, count) => sum + count, 0);
        if (total > deliveries + reruns * deliveries) throw new Fault('a message ran more often than it was given out');
        if (reruns === 0) {
          for (const [delivery, count] of times.run.entries()) {
            if (count > 1) throw new Fault(`delivery ${delivery} ran ${count} times`);
          }
        }
      },
      atEnd: () => {
        if (delivered < deliveries || again.length > 0) throw new Fault('stuck: not everything could be delivered');
        for (const [delivery, count] of times.settled.entries()) {
          if (count !== 1) throw new Fault(`delivery ${delivery} was settled ${count} times`);
        }
        if (dispatcher.used !== 0 || arena.usedBytes !== 0) throw new Fault('slots or bytes are left over');
      },
    };
  };
}
