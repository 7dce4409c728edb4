/**
 * One consuming socket: puts itself between the kernel and amqplib (the `onread` option of net and tls), keeps the
 * deliveries of one channel for the runtime, hands every other frame on, and writes the acks of the generation that is
 * alive. amqplib sees an ordinary AMQP byte stream, less the deliveries.
 */
import type { Socket } from 'node:net';
import { HEARTBEAT_FRAME } from '../../../codec/amqp/frames.js';
import { FrameError } from '../../../errors.js';
import { now } from '../../../pool/clock.js';
import { NONE } from '../../../pool/lane.js';
import { SEGMENT_BYTES, verdict } from '../../../pool/layout.js';
import type { DeliverySink } from '../transport.js';
import { Intake, type IntakeSink } from './intake.js';
import { Ledger, type LedgerVerdict } from './ledger.js';
import type { PassOn } from './open-gate.js';

export interface TapOptions extends DeliverySink {
  /** Unsettled deliveries the broker may have with us, over all queues. */
  readonly prefetch: number;
  readonly frameMax: number;
}

/** Acks wait this long for others to share their frame, and as long again for a slow message before them, ms. */
const ACK_DELAY = 2;
/** Above this many unwritten bytes acks only gather. */
const WRITE_LIMIT = 64 * 1024;
/** Shed deliveries are given back no more often than this, ms: a message that does not fit must not spin. */
const SHED_DELAY = 100;

/** Frames and headers of a small message, about. */
const SMALL_OVERHEAD = 1024;

const HEARTBEAT = Uint8Array.from(HEARTBEAT_FRAME);

/** A delivery whose body is not kept: only its tag is, until it is given back. */
interface Unkept {
  readonly entry: number;
  /** Microseconds of the shared clock. */
  readonly since: number;
  readonly bodySize: number;
}

export class Tap {
  readonly #options: TapOptions;
  readonly #intake: Intake;
  readonly #ackBatch: number;
  readonly #aroundAt: number;
  #socket: Socket | undefined;
  #ledger: Ledger | undefined;
  #channel = 0;
  #ackTimer: NodeJS.Timeout | undefined;
  /** The entry that held up the others at the last tick. */
  #waitsFor = -1;
  /** Entries whose bodies were shed, oldest first. */
  #shed: Unkept[] = [];
  /** Entries whose bodies fit nowhere, and when they came: given back after `maxWait`. */
  #parked: Unkept[] = [];
  #shedTimer: NodeJS.Timeout | undefined;
  #heartbeat = 0;
  #lastPush = 0;
  #pass: PassOn = (socket, bytes) => socket.push(bytes);
  #closed = false;

  constructor(options: TapOptions) {
    this.#options = options;
    this.#ackBatch = Math.max(1, options.prefetch >>> 3);
    this.#aroundAt = Math.max(1, options.prefetch >>> 2);
    this.#intake = new Intake(options.memory.arena, options.arena, this.#sink, options.frameMax);
  }

  /** For `net.connect` and `tls.connect`. One tap serves one socket. `pass` hands frames on to amqplib. */
  socketOptions(pass: PassOn): Record<string, unknown> {
    const tap = this;
    this.#pass = pass;
    return {
      onread: {
        buffer: () => tap.#intake.room(),
        callback(this: Socket, count: number): boolean {
          tap.#socket = this;
          tap.#received(count);
          return true;
        },
      },
    };
  }

  /** The connection is open: from now on amqplib is shown a heartbeat when only deliveries arrive. 0: no heartbeat. */
  opened(heartbeatSeconds: number): void {
    this.#heartbeat = heartbeatSeconds * 1_000_000;
    this.#socket?.on('drain', () => this.flush());
  }

  /** The number of the channel that was opened last on this socket. */
  get lastOpenedChannel(): number {
    return this.#intake.lastOpened;
  }

  /** A new generation: deliveries of this channel are the runtime's. */
  begin(channel: number): void {
    this.#channel = channel;
    this.#ledger = new Ledger(this.#options.prefetch);
    this.#intake.capture(channel);
    this.#options.dispatcher.begin();
  }

  /**
   * Ends the generation: nothing is written for it any more. `ours`: we are about to close the channel; what it still
   * delivers is swallowed.
   */
  end(ours: boolean): void {
    if (ours) this.#intake.discard();
    if (this.#ledger === undefined) return;
    this.#ledger = undefined;
    this.#shed = [];
    this.#parked = [];
    clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    clearTimeout(this.#shedTimer);
    this.#shedTimer = undefined;
    this.#options.dispatcher.end();
  }

  /**
   * The connection is no more. Its socket may linger and still be read from: what comes is forgotten, and the reader's memory
   * is given back only when the socket is closed, lest late bytes land in another connection's messages.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.end(false);
    const socket = this.#socket;
    if (socket === undefined || socket.closed) this.#intake.leave();
    else socket.once('close', () => this.#intake.leave());
  }

  /** Deliveries of this generation that the broker still counts as ours. */
  get outstanding(): number {
    return this.#ledger?.size ?? 0;
  }

  /** True if bodies were shed, or fit nowhere and came before this time (microseconds): their deliveries are to be given back. */
  holdsUnkept(before: number): boolean {
    return this.#shed.length > 0 || this.#parked.some(({ since }) => since < before);
  }

  settle(entry: number, outcome: LedgerVerdict): void {
    this.#ledger?.settle(entry, outcome);
  }

  /** Writes what can be settled now, or sees to it that it is soon. Called after every batch of settlements. */
  flush(): void {
    const ledger = this.#ledger;
    if (ledger === undefined) return;
    if (this.#shed.length > 0 && !this.#options.ordered) this.#giveBackShed();
    const { unsent } = ledger;
    if (unsent === 0) return;
    if (unsent >= this.#ackBatch && ledger.ready) this.#write(false);
    if (ledger.unsent >= this.#aroundAt) this.#write(true);
    if (ledger.unsent > 0) this.#ackTimer ??= setTimeout(this.#onAckTimer, ACK_DELAY);
  }

  /** Writes every settlement there is, now. For the ends of things. */
  flushAll(): void {
    this.#write(true, true);
  }

  /** Gives back what was shed or fits nowhere, and came before `before` (microseconds). */
  giveBack(before = Number.POSITIVE_INFINITY): void {
    if (this.#options.ordered) return;
    this.#shed = this.#requeue(this.#shed, ({ since }) => since < before);
    this.#parked = this.#requeue(this.#parked, ({ since }) => since < before);
    this.flush();
  }

  /** Settles those that `which` picks as "requeue"; returns the others. */
  #requeue(list: Unkept[], which: (unkept: Unkept) => boolean): Unkept[] {
    return list.filter((unkept) => {
      if (this.#ledger === undefined || !which(unkept)) return true;
      this.#ledger.settle(unkept.entry, verdict.REQUEUE);
      this.#options.dispatcher.count(verdict.REQUEUE);
      return false;
    });
  }

  readonly #onAckTimer = (): void => {
    this.#ackTimer = undefined;
    this.#write(false);
    const ledger = this.#ledger;
    if (ledger === undefined || ledger.unsent === 0) return;
    // Still behind the same message as a tick ago: that one is slow, the others go around it. Behind another one, they
    // will likely be part of the next prefix, all in one frame.
    if (ledger.oldest === this.#waitsFor) this.#write(true);
    this.#waitsFor = ledger.oldest;
    if (ledger.unsent > 0) this.#ackTimer = setTimeout(this.#onAckTimer, ACK_DELAY);
  };

  #write(around: boolean, whateverIsUnwritten = false): void {
    const socket = this.#socket;
    if (this.#ledger === undefined || socket === undefined || !socket.writable) return;
    if (!whateverIsUnwritten && socket.writableLength > WRITE_LIMIT) return;
    const frames = this.#ledger.write(this.#channel, around);
    if (frames !== undefined) socket.write(frames);
  }

  #received(count: number): void {
    if (this.#closed) return;
    const { dispatcher } = this.#options;
    const time = now();
    dispatcher.arriving(time);
    try {
      this.#intake.received(count);
    } catch (error) {
      // Bytes we cannot read: nothing on this connection can be trusted any more.
      this.end(false);
      this.#socket?.destroy(error instanceof Error ? error : new FrameError(String(error)));
      return;
    }
    dispatcher.flush();
    if (this.#heartbeat > 0 && time - this.#lastPush > this.#heartbeat / 2) {
      // amqplib counts only what it sees itself; without this it would take a busy connection for a dead one.
      this.#push(Buffer.from(HEARTBEAT), time);
    }
    this.#options.onRead();
  }

  #push(frames: Buffer, time: number): void {
    this.#lastPush = time;
    if (this.#socket !== undefined) this.#pass(this.#socket, frames);
  }

  /**
   * When the arena is under half, gives back as many shed deliveries as will fit: they come again at once, and each time
   * one is shed its queue may count a delivery (a quorum queue gives a message up after `x-delivery-limit` of them).
   * The others stay unsettled, so that the prefetch keeps the broker from sending more.
   */
  #giveBackShed(): void {
    this.#shedTimer ??= setTimeout(() => {
      this.#shedTimer = undefined;
      const { arena } = this.#options;
      let room = arena.takenBytes * 2 < arena.capacity ? arena.capacity / 2 : 0;
      this.#shed = this.#requeue(this.#shed, ({ bodySize }) => {
        // A body may straddle one segment more than it fills; when nothing else is held, one goes back in any case.
        const share = bodySize > SEGMENT_BYTES / 4 ? bodySize + SEGMENT_BYTES : bodySize + SMALL_OVERHEAD;
        const fits = share <= room || (arena.usedBytes === 0 && room === arena.capacity / 2);
        if (fits) room -= share;
        return fits;
      });
      this.#write(true);
      this.flush();
    }, SHED_DELAY);
  }

  readonly #sink: IntakeSink = {
    delivery: (start, length, bodySize, tagHi, tagLo, redelivered) => {
      const { arena, dispatcher, maxMessageBytes, onTooLarge } = this.#options;
      if (this.#ledger === undefined) {
        // The channel has ended for us, its last deliveries still come: the broker gives them out again.
        arena.release(start, length);
        return;
      }
      const entry = this.#ledger.add(tagHi, tagLo);
      const tooLarge = bodySize > maxMessageBytes;
      const index = dispatcher.accept(start, length, tagHi, tagLo, redelivered, entry, tooLarge);
      if (index === NONE) {
        arena.release(start, length);
        throw new FrameError('the broker delivered more messages than the prefetch allows', {
          details: { prefetch: this.#options.prefetch },
        });
      }
      if (tooLarge) onTooLarge(index, bodySize);
    },
    shed: (tagHi, tagLo, bodySize, redelivered) => {
      if (this.#ledger === undefined) return;
      const { dispatcher } = this.#options;
      this.#shed.push({ entry: this.#ledger.add(tagHi, tagLo), since: now(), bodySize });
      dispatcher.countReceived(redelivered);
      dispatcher.counters.shed++;
      if (this.#options.ordered) this.#intake.shedAll();
    },
    oversize: (tagHi, tagLo, bodySize, redelivered) => {
      if (this.#ledger === undefined) return;
      const { oversize, onSwallowed, dispatcher } = this.#options;
      const entry = this.#ledger.add(tagHi, tagLo);
      dispatcher.countReceived(redelivered);
      if (oversize === undefined) {
        this.#parked.push({ entry, since: now(), bodySize });
      } else {
        dispatcher.count(oversize);
        this.#ledger.settle(entry, oversize);
      }
      onSwallowed(bodySize, oversize !== undefined);
    },
    closing: () => this.end(false),
    passOn: (frames) => this.#push(frames, now()),
    swallows: (bodySize) =>
      (bodySize > this.#options.maxMessageBytes && this.#options.oversize !== undefined) ||
      bodySize > this.#options.arena.largestFitting,
  };
}
