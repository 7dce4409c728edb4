/**
 * The consume loop of one worker thread: claim, decode, call, settle. One endless task of the pool.
 *
 * Rules it keeps: the event loop turns at least every millisecond of callbacks or 256 messages; a message's bytes are
 * not touched after its settlement is in the ring; nothing is settled twice; a suspect runs with nothing beside it.
 */
import type { DecodeLimits } from '../codec/decode.js';
import { KombuError, TimeoutError } from '../errors.js';
import { Message, type Outcome } from '../message.js';
import { cancelSleep, prepareSleep, ring, sleepUntilRung } from '../pool/bell.js';
import { Chain } from '../pool/chain.js';
import { fromWords, now } from '../pool/clock.js';
import type { QueueLookup } from '../pool/delivery.js';
import { claim, laneHasWork, NONE } from '../pool/lane.js';
import { block, board, flag, NOTE_BYTES, slot, stop, verdict } from '../pool/layout.js';
import { type Memory, openMemory } from '../pool/memory.js';
import { openDelivery } from '../pool/open-delivery.js';
import { SettlementWriter } from '../pool/settlement-ring.js';
import { type FromWorker, toPortableError, type WorkerTask } from '../pool/worker-protocol.js';
import { MessageContext, type ThreadContext } from './context.js';
import type { Handler } from './handler.js';
import { FailureReporter } from './reporter.js';
import { retryDelay } from './retry.js';
import { Run, verdictOf } from './run.js';
import { Statistics } from './statistics.js';

/** Callbacks may hold the thread this long before the event loop gets a turn, microseconds. */
const TURN_TIME = 1000;
const TURN_MESSAGES = 256;
/** Main is rung after this many settlements, or when the first of them is this old (microseconds). */
const RING_AFTER = 64;
const RING_AGE = 250;

/** How often main is shown that the loop turns, ms, where no timeout asks for more. */
const BEAT = 1000;

const DECODE_VERDICT = {
  deadLetter: verdict.DEAD,
  reject: verdict.REJECT,
  requeue: verdict.REQUEUE,
  ack: verdict.ACK,
} as const;

const OURS = new URL('.', import.meta.url).href;

/** The stack down to the callback: below it are this library's frames, which tell its user nothing. */
function withoutOurFrames(stack: string): string {
  const lines = stack.split('\n');
  const first = lines.findIndex((line) => line.includes(OURS));
  return (first > 0 ? lines.slice(0, first) : lines).join('\n');
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function';
}

export class ConsumeLoop {
  readonly #task: WorkerTask;
  readonly #handler: Handler;
  readonly #base: ThreadContext;
  readonly #memory: Memory;
  readonly #block: Int32Array;
  readonly #ring: SettlementWriter;
  readonly #statistics: Statistics;
  readonly #reporter: FailureReporter;
  readonly #limits: DecodeLimits;
  readonly #queues: QueueLookup;
  readonly #runs = new Chain<Run>();
  /** Callbacks in flight. In manual mode `#runs` also has those that ended unsettled. */
  #inFlight = 0;
  /** A suspect that waits for the others to end, or runs by itself. */
  #alone: Run | undefined;
  #unrung = 0;
  #unrungSince = 0;
  /** True while the loop starts messages: it will ring main itself. */
  #inTurn = false;
  /** Wakes the loop when a callback ended, if it waits for that. */
  #wake: (() => void) | undefined;
  /** Microseconds of the shared clock, as read last: once a message. */
  #clock = 0;
  #turnEnds = 0;
  #turnMessages = 0;

  constructor(
    task: WorkerTask,
    handler: Handler,
    base: ThreadContext,
    accept: ReadonlySet<string>,
    queues: QueueLookup,
  ) {
    this.#task = task;
    this.#handler = handler;
    this.#base = base;
    this.#memory = openMemory(task.memory);
    this.#block = new Int32Array(task.block);
    this.#ring = new SettlementWriter(this.#block, this.#memory.slotWords, task.concurrency, this.#memory.slotCount);
    this.#statistics = new Statistics(this.#block, task.concurrency);
    this.#reporter = new FailureReporter((message: FromWorker) => task.port.postMessage(message));
    this.#limits = { accept, maxDecodedBytes: task.maxDecodedBytes, types: task.types };
    this.#queues = queues;
  }

  /** Runs until main says stop and everything that was started has ended. */
  async run(): Promise<void> {
    const timer = this.#watchTime();
    try {
      this.#newTurn();
      while (!this.#stopping) {
        this.#runSome();
        if (this.#turnOver) {
          // Also after callbacks that awaited: what they awaited may have been nothing but microtasks.
          await new Promise<void>((resolve) => setImmediate(resolve));
          this.#newTurn();
        } else if (this.#full) {
          this.#ringMain();
          await this.#ended();
          this.#clock = now();
        } else {
          this.#ringMain();
          if ((await this.#sleep()) !== undefined) this.#newTurn();
        }
      }
      this.#ringMain();
      while (this.#runs.size > 0) await this.#ended();
    } finally {
      clearInterval(timer);
      this.#reporter.flush();
      this.#ringMain();
    }
  }

  #sleep(): Promise<unknown> | undefined {
    const token = prepareSleep(this.#block, block.BELL, block.SLEEPING);
    if (laneHasWork(this.#memory) || this.#stopping) {
      cancelSleep(this.#block, block.SLEEPING);
      return undefined;
    }
    return sleepUntilRung(this.#block, block.BELL, token);
  }

  /** The generation changed: what an older one delivered cannot be settled any more. */
  endGenerations(current: number): void {
    for (const run of [...this.#runs]) {
      // Main may have begun another one since it said so, and messages of that run here already.
      if (((run.generation - current) | 0) >= 0) continue;
      this.#handBack(run, 'the channel that delivered this message is gone; the broker gives it out again');
    }
  }

  abortAll(reason: string): void {
    for (const run of [...this.#runs]) this.#handBack(run, reason);
  }

  #handBack(run: Run, reason: string): void {
    run.handedBack = true;
    if (!run.ended) {
      run.context.abort(new KombuError(reason));
      return;
    }
    // In manual mode its callback has returned and may never settle it: the slot must not be kept for that.
    run.settled = true;
    Message.detach(run.message);
    this.#push(run, verdict.REQUEUE);
    run.link!.remove();
    this.#ringMain();
    this.#wakeUp();
  }

  get #stopping(): boolean {
    return Atomics.load(this.#block, block.STOP) !== stop.RUN;
  }

  #newTurn(): void {
    this.#clock = now();
    this.#turnEnds = this.#clock + TURN_TIME;
    this.#turnMessages = 0;
  }

  get #turnOver(): boolean {
    return this.#clock >= this.#turnEnds || this.#turnMessages >= TURN_MESSAGES;
  }

  /** No other message may start now. */
  get #full(): boolean {
    return this.#inFlight >= this.#task.concurrency || this.#alone !== undefined;
  }

  /** Starts messages until there is no room, nothing to claim, or the event loop must turn. */
  #runSome(): void {
    this.#inTurn = true;
    while (!this.#turnOver && !this.#full && !this.#stopping) {
      const index = claim(this.#memory, this.#task.incarnation);
      if (index === NONE) break;
      this.#turnMessages++;
      const before = this.#unrung > 0 ? this.#unrungSince : this.#clock;
      const run = this.#open(index);
      if (run !== undefined) this.#start(run);
      // A callback that took long is likely followed by another: its settlement must not wait for that one.
      if (this.#unrung >= RING_AFTER || (this.#unrung > 0 && this.#clock - before > RING_AGE)) this.#ringMain();
    }
    this.#inTurn = false;
  }

  #open(index: number): Run | undefined {
    const words = this.#memory.slotWords;
    const at = index << slot.SHIFT;
    const delivery = openDelivery(
      this.#memory.bytes,
      words[at + slot.OFFSET]!,
      words[at + slot.LENGTH]!,
      this.#queues,
      this.#limits,
    );
    const context = new MessageContext(this.#base, words[at + slot.ATTEMPTS]!, delivery);
    const run = new Run(index, delivery, context, words[at + slot.CHANNEL_GENERATION]!, this);
    run.link = this.#runs.push(run);
    if ((words[at + slot.FLAGS]! & flag.ALONE) !== 0) {
      this.#alone = run;
      if (this.#inFlight > 0) return undefined;
    }
    return run;
  }

  #start(run: Run): void {
    const handler = this.#handler;
    run.startedAt = this.#clock;
    run.row = this.#statistics.started(run.index, this.#clock);
    this.#inFlight++;
    this.#memory.slotWords[(run.index << slot.SHIFT) + slot.STARTED] = 1;
    let result: unknown;
    let isPending: boolean;
    try {
      // Decoding is under the same suspicion as the callback: a body that takes the thread down is found the same way.
      const body = handler.decodes ? run.message.payload : undefined;
      if (this.#task.ack === 'none') this.#ackFirst(run);
      try {
        const { attribution } = this.#base;
        result =
          attribution === undefined
            ? handler.call(body, run.message, run.context)
            : attribution.run(run.context, () => handler.call(body, run.message, run.context));
        // Within: what was returned may have a `then` that throws when it is read.
        isPending = isThenable(result);
      } catch (error) {
        this.#fail(run, error);
        return;
      }
    } catch (error) {
      this.#failDecode(run, error);
      return;
    }
    if (isPending) this.#await(run, result as PromiseLike<unknown>);
    else this.#succeed(run);
  }

  /** With ack: 'none' a message is over for the broker when its callback begins. */
  #ackFirst(run: Run): void {
    // Read before its bytes are given away; what the callback will read later must be its own.
    void run.context.attempt;
    run.delivery.own();
    run.settled = true;
    this.#statistics.settledEarly(run.row);
    this.#push(run, verdict.ACK);
  }

  #await(run: Run, result: PromiseLike<unknown>): void {
    // What the callback did before its first await may have taken long.
    this.#clock = now();
    try {
      result.then(
        () => this.#succeed(run),
        (error: unknown) => this.#fail(run, error),
      );
    } catch (error) {
      this.#fail(run, error);
    }
  }

  #succeed(run: Run): void {
    this.#returned(run);
    if (run.ended) return;
    if (run.context.mustBePublished) {
      run.context.published().then(
        () => this.#succeed(run),
        (error: unknown) => this.#fail(run, error),
      );
      return;
    }
    this.#clock = now();
    if (!run.settled && this.#task.ack === 'auto') this.#settle(run, verdict.ACK, 'ack');
    this.#end(run);
  }

  /** The callback itself is over. One that was given up before counts as running until here: it may yet take the thread down. */
  #returned(run: Run): void {
    if (run.returned) return;
    run.returned = true;
    this.#statistics.returned();
  }

  #fail(run: Run, error: unknown): void {
    this.#returned(run);
    if (!run.ended) this.#failed(run, error);
  }

  #failed(run: Run, error: unknown): void {
    this.#clock = now();
    this.#statistics.failed();
    const delay = run.settled || run.handedBack ? undefined : retryDelay(error, run.context.attempt, this.#task.retry);
    const failed = delay === undefined ? 'deadLetter' : 'retry';
    const outcome = run.settled ? 'none' : run.handedBack ? 'requeue' : failed;
    this.#report(run, error, outcome);
    if (delay !== undefined) {
      this.#memory.slotWords[(run.index << slot.SHIFT) + slot.DELAY] = delay;
      this.#settle(run, verdict.RETRY, 'requeue');
    } else if (outcome === 'deadLetter') {
      this.#writeNote(run.index, 'failed', error);
      this.#settle(run, verdict.DEAD, 'reject');
    } else if (outcome === 'requeue') {
      this.#settle(run, verdict.REQUEUE, 'requeue');
    }
    this.#end(run);
  }

  #failDecode(run: Run, error: unknown): void {
    this.#returned(run);
    this.#clock = now();
    this.#statistics.failed();
    const action = this.#task.onDecodeError;
    this.#report(run, error, action);
    if (action === 'deadLetter') this.#writeNote(run.index, 'decode', error);
    this.#settle(run, DECODE_VERDICT[action], action === 'ack' || action === 'requeue' ? action : 'reject');
    this.#end(run);
  }

  settledByCallback(run: Run, outcome: Outcome): void {
    // It was handed back meanwhile: this changes nothing.
    if (run.settled) return;
    // Its user may still read the message, whose bytes main gives away from here on.
    run.delivery.own();
    run.settled = true;
    if (!run.ended) this.#statistics.settledEarly(run.row);
    this.#clock = now();
    this.#push(run, verdictOf[outcome]);
    if (run.ended) {
      run.link!.remove();
      this.#wakeUp();
    }
    this.#ringMain();
  }

  #settle(run: Run, said: number, outcome: Outcome): void {
    run.settled = true;
    Message.close(run.message, outcome);
    this.#push(run, said);
  }

  #push(run: Run, said: number): void {
    const words = this.#memory.slotWords;
    const at = run.index << slot.SHIFT;
    this.#statistics.settled(this.#clock - fromWords(words[at + slot.ARRIVAL_HI]!, words[at + slot.ARRIVAL_LO]!));
    this.#ring.push(run.index, said);
    if (this.#unrung++ === 0) this.#unrungSince = this.#clock;
  }

  #end(run: Run): void {
    run.ended = true;
    this.#inFlight--;
    this.#statistics.ended(run.row, run.startedAt, this.#clock);
    if (run.settled) run.link!.remove();
    else this.#memory.slotWords[(run.index << slot.SHIFT) + slot.STARTED] = 0;
    if (this.#alone === run) {
      this.#alone = undefined;
    } else if (this.#alone !== undefined && this.#inFlight === 0) {
      this.#start(this.#alone);
    }
    this.#wakeUp();
  }

  /** Resolves when the next callback ends, or main says stop. */
  #ended(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  #wakeUp(): void {
    const wake = this.#wake;
    if (wake !== undefined) {
      this.#wake = undefined;
      wake();
    } else if (!this.#inTurn) {
      // The loop sleeps with callbacks in flight: nobody else tells main.
      this.#ringMain();
    }
  }

  #ringMain(): void {
    if (this.#unrung === 0) return;
    this.#unrung = 0;
    ring(this.#memory.boardWords, board.MAIN_BELL, board.MAIN_SLEEPING);
  }

  /** Shows main that the event loop turns, and fails messages whose callbacks are over their time. */
  #watchTime(): NodeJS.Timeout {
    const limit = this.#task.timeout;
    return setInterval(
      () => {
        this.#statistics.beat();
        if (limit === 0) return;
        const latest = now() - limit * 1000;
        for (const run of [...this.#runs]) {
          if (run.ended || run.row < 0 || run.startedAt + run.context.waited > latest) continue;
          const error = new TimeoutError(`the callback took longer than its timeout of ${limit} ms`, {
            details: { timeout: limit },
          });
          run.context.abort(error);
          this.#failed(run, error);
        }
      },
      limit === 0 ? BEAT : Math.max(5, Math.min(250, limit / 4)),
    );
  }

  #report(run: Run, error: unknown, outcome: 'deadLetter' | 'reject' | 'requeue' | 'ack' | 'retry' | 'none'): void {
    const portable = toPortableError(error);
    this.#reporter.report(this.#clock, portable.name, () => {
      const { deliveryTag, queue } = run.delivery.readDeliveryInfo();
      const messageId = this.#messageId(run);
      return {
        type: 'failed',
        error: portable,
        deliveryTag,
        queue,
        attempt: run.context.attempt,
        outcome,
        ...(messageId === undefined ? {} : { messageId }),
      };
    });
  }

  #messageId(run: Run): string | undefined {
    try {
      return run.delivery.readProperties().messageId;
    } catch {
      // The header itself may be what could not be decoded; the report then goes without.
      return undefined;
    }
  }

  /** Why the message failed, for its dead letter: in the slot, so that it survives this thread. */
  #writeNote(index: number, what: 'decode' | 'failed', error: unknown): void {
    const { name, message, stack } = toPortableError(error);
    const start = index * NOTE_BYTES;
    const text = `${what}\n${stack?.includes(message) ? withoutOurFrames(stack) : `${name}: ${message}`}`;
    const written = this.#memory.noteBytes.write(text, start + 2, NOTE_BYTES - 2, 'utf8');
    this.#memory.noteBytes.writeUInt16BE(written, start);
  }
}
