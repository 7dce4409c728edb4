/**
 * Main's half of the runtime's protocol: puts deliveries into slots and slots into the lane, takes settlements back, and
 * decides what becomes of the messages of a dead worker. Knows no sockets and starts no threads; a transport feeds it
 * and is told the verdicts (`DispatchSink`), the supervisor brings and removes incarnations.
 *
 *   FREE ──accept──▶ READY ──claim (worker)──▶ CLAIMED ──settled──▶ FREE
 *     ▲               │ withdraw                  │ dead letter, swept
 *     └──── free ─── HELD ◀──────────────────────┘        (HELD: in main's hands)
 */
import type { Arena } from '../../pool/arena.js';
import { cancelSleep, prepareSleep, ring, sleepUntilRung } from '../../pool/bell.js';
import { fromWords, highWord, lowWord } from '../../pool/clock.js';
import { LanePublisher, laneHasWork, NONE } from '../../pool/lane.js';
import {
  block,
  board,
  flag,
  GENERATION_MASK,
  GENERATION_SHIFT,
  OWNER_MASK,
  OWNER_SHIFT,
  STATE_MASK,
  slot,
  state,
  stateWord,
  verdict,
} from '../../pool/layout.js';
import type { Memory } from '../../pool/memory.js';
import { SettlementReader } from '../../pool/settlement-ring.js';

/** One life of one worker thread, as the dispatcher sees it. */
export interface Incarnation {
  /** 1 to 255: what its claims are signed with. */
  readonly id: number;
  readonly block: Int32Array;
}

interface Registered extends Incarnation {
  readonly reader: SettlementReader;
}

/** What a transport can tell its broker. */
export type Outcome = typeof verdict.ACK | typeof verdict.REJECT | typeof verdict.REQUEUE;

export interface DispatchSink {
  /** The transport tells the broker. `entry` is what came with `accept`. */
  settle(entry: number, outcome: Outcome): void;
  /** The slot is HELD and goes to the dead letters; `finish` frees it. */
  dead(index: number, why: 'failed' | 'deaths', text?: string): void;
}

export interface Swept {
  /** Went back to the lane. */
  readonly requeued: number;
  /** Took a worker down for the last time: to the dead letters. */
  readonly dead: number;
  /** The slot, now, of the one that did it; NONE if that is not known. */
  readonly culprit: number;
}

export interface Counters {
  received: number;
  redelivered: number;
  acked: number;
  rejected: number;
  requeued: number;
  deadLettered: number;
  stale: number;
  shed: number;
}

export class Dispatcher {
  readonly counters: Counters = {
    received: 0,
    redelivered: 0,
    acked: 0,
    rejected: 0,
    requeued: 0,
    deadLettered: 0,
    stale: 0,
    shed: 0,
  };

  readonly #memory: Memory;
  readonly #slots: Int32Array;
  readonly #arena: Arena;
  readonly #sink: DispatchSink;
  readonly #maxDeliveries: number;
  readonly #lane: LanePublisher;
  readonly #free: Int32Array;
  #freeCount: number;
  /** The ledger entry of each slot: only main wants it. */
  readonly #entries: Int32Array;
  #incarnations: Registered[] = [];
  #nextToWake = 0;
  #generation = 0;
  #alive = false;
  #arrivalHi = 0;
  #arrivalLo = 0;

  constructor(memory: Memory, arena: Arena, sink: DispatchSink, maxDeliveries: number) {
    this.#memory = memory;
    this.#slots = memory.slotWords;
    this.#arena = arena;
    this.#sink = sink;
    this.#maxDeliveries = maxDeliveries;
    this.#lane = new LanePublisher(memory);
    this.#freeCount = memory.slotCount;
    this.#free = new Int32Array(memory.slotCount);
    // A stack that hands out the lowest slots first: a light load stays in few pages.
    for (let i = 0; i < memory.slotCount; i++) this.#free[i] = memory.slotCount - 1 - i;
    this.#entries = new Int32Array(memory.slotCount);
  }

  get generation(): number {
    return this.#generation;
  }

  /** Slots in use, whatever for. */
  get used(): number {
    return this.#memory.slotCount - this.#freeCount;
  }

  /** A channel begins to deliver: its messages carry the number returned. */
  begin(): number {
    this.#generation = (this.#generation + 1) | 0;
    this.#alive = true;
    Atomics.store(this.#memory.boardWords, board.GENERATION, this.#generation);
    return this.#generation;
  }

  /**
   * The channel is no more: nothing of its generation may be settled from now on. What waits is withdrawn and freed, the
   * broker gives it out again; what runs will count as stale. Returns how many were withdrawn.
   */
  end(): number {
    if (!this.#alive) return 0;
    this.#alive = false;
    this.#generation = (this.#generation + 1) | 0;
    Atomics.store(this.#memory.boardWords, board.GENERATION, this.#generation);
    let count = 0;
    for (let index = 0; index < this.#memory.slotCount; index++) {
      const value = this.#slots[(index << slot.SHIFT) + slot.STATE]! & STATE_MASK;
      if (value === state.HELD || (value === state.READY && this.#lane.withdraw(index))) {
        this.#release(index);
        count++;
      }
    }
    this.#lane.skipDead();
    return count;
  }

  /** What arrives from now on is stamped with this time, microseconds of the shared clock. */
  arriving(microseconds: number): void {
    this.#arrivalHi = highWord(microseconds);
    this.#arrivalLo = lowWord(microseconds);
  }

  /**
   * A delivery, whose bytes the arena holds already. `held`: it stays with main (for the dead letters).
   * Returns its slot, or NONE if all are taken: then the broker sent more than the prefetch allows.
   */
  accept(
    start: number,
    length: number,
    tagHi: number,
    tagLo: number,
    redelivered: boolean,
    entry: number,
    held = false,
  ): number {
    if (this.#freeCount === 0) return NONE;
    const index = this.#free[--this.#freeCount]!;
    const at = index << slot.SHIFT;
    const words = this.#slots;
    words[at + slot.OFFSET] = start;
    words[at + slot.LENGTH] = length;
    words[at + slot.FLAGS] = redelivered ? flag.REDELIVERED : 0;
    words[at + slot.CHANNEL_GENERATION] = this.#generation;
    words[at + slot.TAG_HI] = tagHi;
    words[at + slot.TAG_LO] = tagLo;
    words[at + slot.ATTEMPTS] = 0;
    words[at + slot.DEATHS] = 0;
    words[at + slot.ARRIVAL_HI] = this.#arrivalHi;
    words[at + slot.ARRIVAL_LO] = this.#arrivalLo;
    words[at + slot.STARTED] = 0;
    words[at + slot.VERDICT] = verdict.NONE;
    this.#entries[index] = entry;
    this.counters.received++;
    if (redelivered) this.counters.redelivered++;
    if (held) Atomics.store(words, at + slot.STATE, stateWord(this.#stateGeneration(index), 0, state.HELD));
    else this.#lane.push(index);
    return index;
  }

  /** Shows what was accepted to the workers and wakes as many as there is work for. Once a socket read. */
  flush(): void {
    const count = this.#lane.flush();
    if (count > 0) this.#wake(count);
  }

  #wake(count: number): void {
    const workers = this.#incarnations;
    for (let tried = 0; tried < workers.length && count > 0; tried++) {
      this.#nextToWake = (this.#nextToWake + 1) % workers.length;
      if (ring(workers[this.#nextToWake]!.block, block.BELL, block.SLEEPING)) count--;
    }
  }

  /** A worker is about to start its loop. */
  add(incarnation: Incarnation, concurrency: number): void {
    const reader = new SettlementReader(incarnation.block, concurrency, this.#memory.slotCount);
    this.#incarnations = [...this.#incarnations, { ...incarnation, reader }];
  }

  /** Sleeps until a worker rings, unless there are settlements already (undefined). */
  sleep(): Promise<unknown> | undefined {
    const { boardWords } = this.#memory;
    const token = prepareSleep(boardWords, board.MAIN_BELL, board.MAIN_SLEEPING);
    if (this.#incarnations.some((worker) => !worker.reader.empty)) {
      cancelSleep(boardWords, board.MAIN_SLEEPING);
      return undefined;
    }
    return sleepUntilRung(boardWords, board.MAIN_BELL, token);
  }

  /** Takes every settlement there is; returns how many. */
  drain(): number {
    let count = 0;
    for (const worker of this.#incarnations) count += this.#drainOne(worker);
    return count;
  }

  #drainOne(worker: Registered): number {
    let count = 0;
    for (let index = worker.reader.take(); index !== NONE; index = worker.reader.take()) {
      this.#apply(index, worker.id);
      count++;
    }
    return count;
  }

  /** One entry of a ring. Counts only if the slot is still claimed by the very incarnation whose ring it was in. */
  #apply(index: number, owner: number): void {
    const at = index << slot.SHIFT;
    const word = Atomics.load(this.#slots, at + slot.STATE);
    if ((word & STATE_MASK) !== state.CLAIMED || ((word >>> OWNER_SHIFT) & OWNER_MASK) !== owner) {
      this.counters.stale++;
      return;
    }
    if (this.#slots[at + slot.CHANNEL_GENERATION] !== this.#generation || !this.#alive) {
      this.counters.stale++;
      this.#release(index);
      return;
    }
    const said = this.#slots[at + slot.VERDICT]!;
    if (said === verdict.ACK || said === verdict.REJECT || said === verdict.REQUEUE) {
      this.#settle(index, said);
    } else {
      this.#hold(index);
      this.#sink.dead(index, 'failed');
    }
  }

  #settle(index: number, outcome: Outcome): void {
    if (outcome === verdict.ACK) this.counters.acked++;
    else if (outcome === verdict.REJECT) this.counters.rejected++;
    else this.counters.requeued++;
    this.#sink.settle(this.#entries[index]!, outcome);
    this.#release(index);
  }

  /**
   * Settles and frees a slot that main holds for the dead letters, if it is still the one meant: `word` is its STATE when
   * the work began. False: its generation ended meanwhile, the broker gives the message out again.
   */
  finish(index: number, word: number, outcome: Outcome): boolean {
    if (this.#slots[(index << slot.SHIFT) + slot.STATE] !== word) return false;
    this.#settle(index, outcome);
    return true;
  }

  /** The same for one that is safe in the dead-letter queue now. */
  finishDead(index: number, word: number): boolean {
    if (this.#slots[(index << slot.SHIFT) + slot.STATE] !== word) return false;
    this.counters.deadLettered++;
    this.#sink.settle(this.#entries[index]!, verdict.ACK);
    this.#release(index);
    return true;
  }

  /** The STATE word of a slot: proves later that it is still the same message. */
  stateOf(index: number): number {
    return this.#slots[(index << slot.SHIFT) + slot.STATE]!;
  }

  /** Takes back whatever waits unstarted (since before `before`, microseconds) and settles it as `requeue`. */
  giveBack(before = Number.POSITIVE_INFINITY): number {
    let count = 0;
    for (;;) {
      const index = this.#lane.oldest();
      if (index === NONE) break;
      const at = index << slot.SHIFT;
      const arrival = fromWords(this.#slots[at + slot.ARRIVAL_HI]!, this.#slots[at + slot.ARRIVAL_LO]!);
      if (arrival >= before) break;
      if (!this.#lane.withdraw(index)) continue;
      this.#settle(index, verdict.REQUEUE);
      count++;
    }
    return count;
  }

  /** Slots that workers have claimed and not settled. */
  running(): number {
    return this.#count(state.CLAIMED);
  }

  waiting(): number {
    return this.#count(state.READY);
  }

  held(): number {
    return this.#count(state.HELD);
  }

  #count(wanted: number): number {
    let count = 0;
    for (let at = 0; at < this.#slots.length; at += slot.WORDS) {
      if ((this.#slots[at + slot.STATE]! & STATE_MASK) === wanted) count++;
    }
    return count;
  }

  /**
   * A thread has exited: takes what it still settled, then every slot that it had claimed goes back to the lane.
   * `blame`: slots known to have caused the death (they ran past their time). Without, one that ran alone is the culprit;
   * of several all are suspects, run alone next time, and none is counted.
   */
  sweep(id: number, blame?: ReadonlySet<number>, cause?: string): Swept {
    const worker = this.#incarnations.find((candidate) => candidate.id === id);
    if (worker === undefined) return { requeued: 0, dead: 0, culprit: NONE };
    this.#drainOne(worker);
    this.#incarnations = this.#incarnations.filter((candidate) => candidate !== worker);
    const swept = this.#redistribute(this.#claimedBy(id), worker.block[block.RUNNING]!, blame, cause, false);
    // A bell rung for the dead one woke nobody.
    this.#lane.flush();
    if (laneHasWork(this.#memory)) this.#wake(this.#incarnations.length);
    return swept;
  }

  /**
   * A thread does not exit although it was terminated: its ring is read no more, its messages go to other slots. The old
   * ones stay claimed by it, without bytes, until `retire`.
   */
  disown(id: number, blame?: ReadonlySet<number>, cause?: string): Swept {
    const running = this.#incarnations.find((worker) => worker.id === id)?.block[block.RUNNING] ?? 0;
    this.#incarnations = this.#incarnations.filter((candidate) => candidate.id !== id);
    const swept = this.#redistribute(this.#claimedBy(id), running, blame, cause, true);
    this.#lane.flush();
    this.#wake(swept.requeued);
    return swept;
  }

  /** A disowned thread exited after all: its slots can be used again. */
  retire(id: number): void {
    for (const index of this.#claimedBy(id)) this.#free[this.#freeCount++] = this.#raise(index, state.FREE);
  }

  #claimedBy(id: number): number[] {
    const found: number[] = [];
    for (let index = 0; index < this.#memory.slotCount; index++) {
      const word = Atomics.load(this.#slots, (index << slot.SHIFT) + slot.STATE);
      if ((word & STATE_MASK) === state.CLAIMED && ((word >>> OWNER_SHIFT) & OWNER_MASK) === id) found.push(index);
    }
    return found;
  }

  /** `move`: into fresh slots, since the old ones cannot be used while their thread lives. */
  #redistribute(
    claimed: number[],
    running: number,
    blame: ReadonlySet<number> | undefined,
    cause: string | undefined,
    move: boolean,
  ): Swept {
    const words = this.#slots;
    const started = claimed.filter((index) => words[(index << slot.SHIFT) + slot.STARTED] === 1);
    // A callback that settled its message early may be the one: then the others are no more than suspects.
    const onlyOne = started.length === 1 && running <= 1;
    const guilty = blame ?? new Set(onlyOne ? started : []);
    // Several past their time at once: one of them held up the others' loop, and nobody can tell which.
    const known = guilty.size === 1;
    const suspects = new Set(known ? [] : blame === undefined ? started : blame);
    let requeued = 0;
    let dead = 0;
    let culprit = NONE;
    for (const old of claimed) {
      const generationOver = words[(old << slot.SHIFT) + slot.CHANNEL_GENERATION] !== this.#generation || !this.#alive;
      if (generationOver) {
        this.counters.stale++;
        if (move) this.#releaseBytes(old);
        else this.#release(old);
        continue;
      }
      const index = move ? this.#copy(old) : old;
      if (index === NONE) {
        // More threads hang than anyone planned slots for: the broker can have the message back.
        this.counters.requeued++;
        this.#sink.settle(this.#entries[old]!, verdict.REQUEUE);
        this.#releaseBytes(old);
        continue;
      }
      const at = index << slot.SHIFT;
      if (words[at + slot.STARTED] === 1) words[at + slot.ATTEMPTS]!++;
      words[at + slot.STARTED] = 0;
      if (suspects.has(old)) words[at + slot.FLAGS]! |= flag.ALONE;
      if (known && guilty.has(old)) {
        words[at + slot.DEATHS]!++;
        culprit = index;
      }
      this.#hold(index);
      if (words[at + slot.DEATHS]! >= this.#maxDeliveries) {
        dead++;
        this.#sink.dead(index, 'deaths', cause);
      } else {
        requeued++;
        this.#lane.push(index);
      }
    }
    return { requeued, dead, culprit };
  }

  /** Moves a message to a fresh slot, NONE if there is none; the old one keeps its claim and loses its bytes. */
  #copy(old: number): number {
    if (this.#freeCount === 0) return NONE;
    const index = this.#free[--this.#freeCount]!;
    const from = old << slot.SHIFT;
    const to = index << slot.SHIFT;
    for (let word = slot.OFFSET; word < slot.WORDS; word++) this.#slots[to + word] = this.#slots[from + word]!;
    this.#slots[from + slot.LENGTH] = 0;
    this.#entries[index] = this.#entries[old]!;
    return index;
  }

  #stateGeneration(index: number): number {
    return (this.#slots[(index << slot.SHIFT) + slot.STATE]! >>> GENERATION_SHIFT) & GENERATION_MASK;
  }

  /** Into a new generation of the slot: whatever points to the old one is dead from now on. */
  #raise(index: number, value: number): number {
    const next = (this.#stateGeneration(index) + 1) & GENERATION_MASK;
    Atomics.store(this.#slots, (index << slot.SHIFT) + slot.STATE, stateWord(next, 0, value));
    return index;
  }

  #hold(index: number): void {
    this.#raise(index, state.HELD);
  }

  #releaseBytes(index: number): void {
    const at = index << slot.SHIFT;
    const length = this.#slots[at + slot.LENGTH]!;
    if (length === 0) return;
    this.#arena.release(this.#slots[at + slot.OFFSET]!, length);
    this.#slots[at + slot.LENGTH] = 0;
  }

  #release(index: number): void {
    this.#releaseBytes(index);
    this.#free[this.#freeCount++] = this.#raise(index, state.FREE);
  }
}
