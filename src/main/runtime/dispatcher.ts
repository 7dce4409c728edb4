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
import { markRedelivered } from '../../pool/delivery.js';
import { LanePublisher, laneHasWork, NONE } from '../../pool/lane.js';
import { block, board, flag, OWNER_MASK, OWNER_SHIFT, STATE_MASK, slot, state, verdict } from '../../pool/layout.js';
import type { Memory } from '../../pool/memory.js';
import { SettlementReader } from '../../pool/settlement-ring.js';
import { SlotTable } from '../../pool/slots.js';
import { KeyOrder } from './key-order.js';
import type { KeyReader } from './order-key.js';

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
  /** The slot is HELD until it runs again: `again` after so many milliseconds, or `finishRetry` once the broker keeps it. */
  retry(index: number, milliseconds: number): void;
}

export interface Swept {
  /** Went back to the lane. */
  readonly requeued: number;
  /** Took a worker down for the last time: to the dead letters. */
  readonly dead: number;
}

/** Why a thread ended, as far as messages are concerned. */
export interface Blame {
  /** False: nothing that ran is to be blamed. */
  readonly blame: boolean;
  /** In words, for the dead letter. */
  readonly cause: string;
  /** The slot, now, of the message that certainly did it; `dead`: for the last time. Called before its fate is sealed. */
  onCulprit(index: number, dead: boolean): void;
}

const ANYONE: Blame = { blame: true, cause: 'its worker died', onCulprit: () => undefined };

export interface Counters {
  received: number;
  redelivered: number;
  acked: number;
  rejected: number;
  requeued: number;
  deadLettered: number;
  stale: number;
  shed: number;
  retried: number;
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
    retried: 0,
  };

  readonly #memory: Memory;
  readonly #slots: SlotTable;
  readonly #words: Int32Array;
  readonly #sink: DispatchSink;
  readonly #maxDeliveries: number;
  readonly #lane: LanePublisher;
  /** The ledger entry of each slot: only main wants it. */
  readonly #entries: Int32Array;
  /** With `orderBy`: who waits for whom, and what tells. */
  readonly #order: KeyOrder | undefined;
  readonly #keyOf: KeyReader | undefined;
  /** Slots of disowned threads: nothing is in them. */
  #abandoned = 0;
  /** What is not settled goes back to the broker as it is, with its channel: nothing is started or run again. */
  #returning = false;
  #incarnations: Registered[] = [];
  #nextToWake = 0;
  #generation = 0;
  #alive = false;
  #arrivalHi = 0;
  #arrivalLo = 0;

  /** `keyOf`: messages of one key run one after another, in the order in which they came. */
  constructor(memory: Memory, arena: Arena, sink: DispatchSink, maxDeliveries: number, keyOf?: KeyReader) {
    this.#memory = memory;
    this.#slots = new SlotTable(memory, arena);
    this.#words = memory.slotWords;
    this.#sink = sink;
    this.#maxDeliveries = maxDeliveries;
    this.#lane = new LanePublisher(memory);
    this.#entries = new Int32Array(memory.slotCount);
    this.#keyOf = keyOf;
    this.#order = keyOf === undefined ? undefined : new KeyOrder(memory.slotCount);
  }

  get generation(): number {
    return this.#generation;
  }

  /** Slots in use, whatever for. */
  get used(): number {
    return this.#slots.used;
  }

  /** True if a message waits or runs, or another of its key does. What main holds otherwise does not count. */
  get isBusy(): boolean {
    return this.waiting() > 0 || this.running() > this.#abandoned;
  }

  /** Slots that new deliveries can have. */
  get free(): number {
    return this.#memory.slotCount - this.#slots.used;
  }

  /** A channel begins to deliver: its messages carry the number returned. */
  begin(): number {
    this.#generation = (this.#generation + 1) | 0;
    this.#alive = true;
    this.#returning = false;
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
    let count = 0;
    for (let index = 0; index < this.#memory.slotCount; index++) {
      const value = this.#slots.stateOf(index);
      if (value === state.HELD || (value === state.READY && this.#lane.withdraw(index))) {
        this.#slots.release(index);
        count++;
      }
    }
    this.#lane.skipDead();
    this.#forgetFreed();
    return count;
  }

  /** Keys of what still runs stay busy: what comes next waits for it. */
  #forgetFreed(): void {
    if (this.#order === undefined) return;
    const kept = new Set<number>();
    for (let index = 0; index < this.#memory.slotCount; index++) {
      if (this.#slots.stateOf(index) !== state.FREE) kept.add(index);
    }
    this.#order.keepOnly(kept);
  }

  /**
   * For an ordered consumer that stops: takes back what has not started, without a word to the broker, which puts it in its
   * place when the channel is closed. What workers give back from now on goes the same way. Returns how many that were.
   */
  withdrawUnstarted(): number {
    this.#returning = true;
    let count = 0;
    for (let index = 0; index < this.#memory.slotCount; index++) {
      const value = this.#slots.stateOf(index);
      const waits = value === state.HELD && this.#order?.waits(index) === true;
      if (!waits && !(value === state.READY && this.#lane.withdraw(index))) continue;
      this.#slots.release(index);
      count++;
    }
    this.#lane.skipDead();
    this.#forgetFreed();
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
    const index = this.#slots.acquire();
    if (index === NONE) return NONE;
    const at = index << slot.SHIFT;
    const words = this.#words;
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
    this.countReceived(redelivered);
    if (held) this.#slots.raise(index, state.HELD);
    else if (this.#joins(index, start, length)) this.#lane.push(index);
    else this.#slots.raise(index, state.HELD);
    return index;
  }

  /** False: it waits for others of its key. */
  #joins(index: number, start: number, length: number): boolean {
    if (this.#order === undefined) return true;
    return this.#order.join(index, this.#keyOf!(this.#memory.bytes, start, length));
  }

  /** The message is over and done with: its slot is free, and the next of its key may run. */
  #free(index: number): void {
    const next = this.#order?.leave(index) ?? NONE;
    this.#slots.release(index);
    if (next !== NONE && !this.#returning) this.#lane.push(next);
  }

  /** Shows what was accepted to the workers and wakes as many as there is work for. Once a socket read. */
  flush(): void {
    const count = this.#lane.flush();
    if (count > 0) this.#wake(count);
  }

  /**
   * Rings for `count` messages: idle workers first. One that sleeps with callbacks in flight may be computing after all, in the
   * rest of such a callback; it is rung too, and not relied upon.
   */
  #wake(count: number): void {
    const workers = this.#incarnations;
    let busy = 0;
    for (let tried = 0; tried < workers.length && count > 0; tried++) {
      this.#nextToWake = (this.#nextToWake + 1) % workers.length;
      const { block: words } = workers[this.#nextToWake]!;
      if (Atomics.load(words, block.RUNNING) !== 0) busy++;
      else if (ring(words, block.BELL, block.SLEEPING)) count--;
    }
    if (count === 0 || busy === 0) return;
    // All of them, whatever they do now: a callback may have ended since, and its worker sleeps on.
    for (const { block: words } of workers) ring(words, block.BELL, block.SLEEPING);
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
    this.flush();
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
    const word = Atomics.load(this.#words, at + slot.STATE);
    if ((word & STATE_MASK) !== state.CLAIMED || ((word >>> OWNER_SHIFT) & OWNER_MASK) !== owner) {
      this.counters.stale++;
      return;
    }
    if (this.#words[at + slot.CHANNEL_GENERATION] !== this.#generation || !this.#alive) {
      this.counters.stale++;
      this.#free(index);
      return;
    }
    const said = this.#words[at + slot.VERDICT]!;
    if (said === verdict.REQUEUE && this.#order !== undefined) {
      this.#requeueInOrder(index);
    } else if (said === verdict.ACK || said === verdict.REJECT || said === verdict.REQUEUE) {
      this.#settle(index, said);
    } else if (said === verdict.RETRY) {
      this.#retry(index);
    } else {
      this.#slots.raise(index, state.HELD);
      this.#sink.dead(index, 'failed');
    }
  }

  /** A delivery came. */
  countReceived(redelivered: boolean): void {
    this.counters.received++;
    if (redelivered) this.counters.redelivered++;
  }

  /** A delivery is settled with this outcome. */
  count(outcome: Outcome): void {
    if (outcome === verdict.ACK) this.counters.acked++;
    else if (outcome === verdict.REJECT) this.counters.rejected++;
    else this.counters.requeued++;
  }

  #settle(index: number, outcome: Outcome): void {
    this.count(outcome);
    this.#sink.settle(this.#entries[index]!, outcome);
    this.#free(index);
  }

  /** Given back to the broker it would come again behind others of its key: it runs again from where it is. */
  #requeueInOrder(index: number): void {
    this.counters.requeued++;
    if (this.#returning) {
      this.#free(index);
      return;
    }
    const at = index << slot.SHIFT;
    this.#words[at + slot.FLAGS]! |= flag.REDELIVERED;
    markRedelivered(this.#memory.bytes, this.#words[at + slot.OFFSET]!);
    this.#takeBack(index);
    this.#lane.push(index);
  }

  #retry(index: number): void {
    this.counters.retried++;
    if (this.#returning && this.#order !== undefined) {
      this.#free(index);
      return;
    }
    this.#words[(index << slot.SHIFT) + slot.ATTEMPTS]!++;
    this.#takeBack(index);
    this.#sink.retry(index, this.#words[(index << slot.SHIFT) + slot.DELAY]!);
  }

  /** Into main's hands after a run. */
  #takeBack(index: number): void {
    const at = index << slot.SHIFT;
    this.#words[at + slot.STARTED] = 0;
    this.#words[at + slot.VERDICT] = verdict.NONE;
    this.#slots.raise(index, state.HELD);
  }

  /** Runs what main holds again, if it is still the message meant. */
  again(index: number, word: number): void {
    if (this.stateOf(index) !== word) return;
    this.#lane.push(index);
    this.flush();
  }

  /** The broker keeps a copy that comes when it is due: settles this one. False as for `finish`. */
  finishRetry(index: number, word: number): boolean {
    if (this.stateOf(index) !== word) return false;
    this.#sink.settle(this.#entries[index]!, verdict.ACK);
    this.#free(index);
    this.flush();
    return true;
  }

  /** Gives what main holds back to the broker, if it is still the message meant: by a word, or in order with its channel. */
  returnHeld(index: number, word: number): void {
    if (this.stateOf(index) !== word) return;
    if (this.#order === undefined) this.#settle(index, verdict.REQUEUE);
    else this.#free(index);
  }

  /**
   * Settles and frees a slot that main holds for the dead letters, if it is still the one meant: `word` is its STATE when
   * the work began. False: its generation ended meanwhile, the broker gives the message out again.
   */
  finish(index: number, word: number, outcome: Outcome): boolean {
    if (this.stateOf(index) !== word) return false;
    this.#settle(index, outcome);
    this.flush();
    return true;
  }

  /** The same for one that is safe in the dead-letter queue now. */
  finishDead(index: number, word: number): boolean {
    if (this.stateOf(index) !== word) return false;
    this.counters.deadLettered++;
    this.#sink.settle(this.#entries[index]!, verdict.ACK);
    this.#free(index);
    this.flush();
    return true;
  }

  /** The STATE word of a slot: proves later that it is still the same message. */
  stateOf(index: number): number {
    return this.#words[(index << slot.SHIFT) + slot.STATE]!;
  }

  /** Takes back whatever waits unstarted (since before `before`, microseconds) and settles it as `requeue`. */
  giveBack(before = Number.POSITIVE_INFINITY): number {
    let count = 0;
    for (;;) {
      const index = this.#lane.oldest();
      if (index === NONE) break;
      const at = index << slot.SHIFT;
      const arrival = fromWords(this.#words[at + slot.ARRIVAL_HI]!, this.#words[at + slot.ARRIVAL_LO]!);
      if (arrival >= before) break;
      if (!this.#lane.withdraw(index)) continue;
      this.#settle(index, verdict.REQUEUE);
      count++;
    }
    return count;
  }

  /** True if something waits unstarted that came before this time, microseconds. */
  waitsSince(before: number): boolean {
    for (let index = 0; index < this.#memory.slotCount; index++) {
      const value = this.#slots.stateOf(index);
      const chained = value === state.HELD && this.#order?.waits(index) === true;
      if (!chained && value !== state.READY) continue;
      const at = index << slot.SHIFT;
      if (fromWords(this.#words[at + slot.ARRIVAL_HI]!, this.#words[at + slot.ARRIVAL_LO]!) < before) return true;
    }
    return false;
  }

  /** Slots that workers have claimed and not settled. */
  running(): number {
    return this.#slots.inState(state.CLAIMED);
  }

  waiting(): number {
    return this.#slots.inState(state.READY);
  }

  held(): number {
    return this.#slots.inState(state.HELD);
  }

  /** A thread has exited: takes what it still settled, then every slot that it had claimed goes back to the lane. */
  sweep(id: number, verdict = ANYONE): Swept {
    return this.#abandon(id, verdict, false);
  }

  /**
   * A thread does not exit although it was terminated: from here on its ring is read no more, its messages go to other slots.
   * The old ones stay claimed by it, without bytes, until `retire`.
   */
  disown(id: number, verdict = ANYONE): Swept {
    return this.#abandon(id, verdict, true);
  }

  #abandon(id: number, verdict: Blame, move: boolean): Swept {
    const worker = this.#incarnations.find((candidate) => candidate.id === id);
    if (worker === undefined) return { requeued: 0, dead: 0 };
    this.#drainOne(worker);
    this.#incarnations = this.#incarnations.filter((candidate) => candidate !== worker);
    const swept = this.#redistribute(this.#slots.claimedBy(id), worker.block[block.RUNNING]!, verdict, move);
    // A bell rung for the one that is gone woke nobody.
    this.#lane.flush();
    if (laneHasWork(this.#memory)) this.#wake(this.#incarnations.length);
    return swept;
  }

  /** A disowned thread exited after all: its slots can be used again. */
  retire(id: number): void {
    for (const index of this.#slots.claimedBy(id)) {
      this.#slots.release(index);
      this.#abandoned--;
    }
  }

  /** A slot of a disowned thread whose message goes nowhere else: it keeps the slot, and nothing waits for it. */
  #leaveBehind(old: number): void {
    this.#slots.releaseBytes(old);
    this.#abandoned++;
    const next = this.#order?.leave(old) ?? NONE;
    if (next !== NONE) this.#lane.push(next);
  }

  /**
   * `move`: into fresh slots, since the old ones cannot be used while their thread lives. A death is counted for a message only
   * where it is certain which one did it: one that was started, and nothing else `running`, settled early or given up. Else
   * all are suspects, and run alone the next time.
   */
  #redistribute(claimed: number[], running: number, { blame, cause, onCulprit }: Blame, move: boolean): Swept {
    const words = this.#words;
    const started = claimed.filter((index) => words[(index << slot.SHIFT) + slot.STARTED] === 1);
    const certain = blame && started.length === 1 && running <= 1;
    const suspects = new Set(blame ? started : []);
    let requeued = 0;
    let dead = 0;
    for (const old of claimed) {
      const generationOver = words[(old << slot.SHIFT) + slot.CHANNEL_GENERATION] !== this.#generation || !this.#alive;
      if (generationOver) {
        this.counters.stale++;
        if (move) this.#leaveBehind(old);
        else this.#free(old);
        continue;
      }
      const index = move ? this.#slots.move(old) : old;
      if (index === NONE) {
        // More threads hang than anyone planned slots for: the broker can have the message back.
        this.count(verdict.REQUEUE);
        this.#sink.settle(this.#entries[old]!, verdict.REQUEUE);
        this.#leaveBehind(old);
        continue;
      }
      if (move) {
        this.#abandoned++;
        this.#order?.moved(old, index);
      }
      this.#entries[index] = this.#entries[old]!;
      const at = index << slot.SHIFT;
      if (words[at + slot.STARTED] === 1) words[at + slot.ATTEMPTS]!++;
      words[at + slot.STARTED] = 0;
      const isSuspect = suspects.has(old);
      if (isSuspect && !certain) words[at + slot.FLAGS]! |= flag.ALONE;
      if (isSuspect && certain) words[at + slot.DEATHS]!++;
      this.#slots.raise(index, state.HELD);
      const isDead = words[at + slot.DEATHS]! >= this.#maxDeliveries;
      if (isSuspect && certain) onCulprit(index, isDead);
      if (isDead) {
        dead++;
        this.#sink.dead(index, 'deaths', cause);
      } else {
        requeued++;
        this.#lane.push(index);
      }
    }
    return { requeued, dead };
  }
}
