/**
 * One generation's way from the broker into the arena, and of the verdicts back: what the tap is to a socket. The broker hands a
 * message over as soon as the prefetch allows; it is written as AMQP frames, which is what workers read.
 *
 *   broker ──deliver──▶ arena, slot, lane        at most a turn's worth; then the broker keeps the rest until the next turn
 *   broker ◀──settleAll── verdicts, gathered     by every flush
 *
 * At the ceiling of the arena nothing is shed: the queue is the better place to wait. `flush`, which follows every settlement,
 * asks again.
 */
import { deliveryPrefix, writeDelivery } from '../../../codec/amqp/write-content.js';
import { now } from '../../../pool/clock.js';
import { NONE } from '../../../pool/lane.js';
import { verdict } from '../../../pool/layout.js';
import type { Outcome } from '../../runtime/dispatcher.js';
import { ArenaWriter } from '../arena-writer.js';
import type { DeliverySink } from '../transport.js';
import type { Link } from './broker.js';
import { BrokerChannel, type ChannelClient } from './broker-channel.js';
import type { StoredMessage } from './message.js';
import type { Entry } from './queue.js';
import { method, type Refusal } from './refusal.js';

/** The event loop gets its turn after so many microseconds of copying. */
const TURN = 1000;
/** The clock is looked at once in so many messages, and after each large one. */
const LOOK_EVERY = 16;
const LARGE = 64 * 1024;

interface FeedEvents {
  cancelled(consumerTag: string): void;
  /** The generation is over. */
  ended(): void;
  closed(refusal: Refusal): void;
}

/** A delivery whose body is kept nowhere here: only its tag is, until it is given back. */
interface Parked {
  readonly entry: number;
  readonly since: number;
}

export class Feed implements ChannelClient {
  readonly channel: BrokerChannel;
  readonly #sink: DeliverySink;
  readonly #events: FeedEvents;
  readonly #writer: ArenaWriter;
  readonly #prefixes = new Map<string, Buffer>();
  /** Delivery tags by entry; an entry is used again once it is settled. */
  #tags: number[] = [];
  #freeEntries: number[] = [];
  #acked: number[] = [];
  #rejected: number[] = [];
  #requeued: number[] = [];
  #parked: Parked[] = [];
  #alive = true;
  /** The place for the message that the broker has just asked about. */
  #place = -1;
  #scheduled: NodeJS.Immediate | undefined;
  #turnEnds = 0;
  #untilLook = LOOK_EVERY;
  #isTurnOver = false;
  #isFull = false;
  #unshown = false;

  constructor(link: Link, sink: DeliverySink, events: FeedEvents) {
    this.#sink = sink;
    this.#events = events;
    this.#writer = new ArenaWriter(sink.arena);
    this.channel = new BrokerChannel(link, this);
    sink.dispatcher.begin();
  }

  /** Of the broker's count, less what is settled and not told yet. */
  get outstanding(): number {
    return this.channel.unsettled;
  }

  /** The generation is over: nothing is settled any more. The arena keeps what callbacks still read. */
  end(): void {
    if (!this.#alive) return;
    this.#alive = false;
    clearImmediate(this.#scheduled);
    this.#writer.leave();
    this.#sink.dispatcher.end();
    this.#events.ended();
  }

  ended(): void {
    this.end();
  }

  /** True if deliveries are unsettled whose bodies are not here, since before this time. */
  holdsUnkept(before: number): boolean {
    return this.#parked.some(({ since }) => since < before);
  }

  settle(entry: number, outcome: Outcome): void {
    if (!this.#alive) return;
    const tag = this.#tags[entry]!;
    this.#freeEntries.push(entry);
    if (outcome === verdict.ACK) this.#acked.push(tag);
    else if (outcome === verdict.REJECT) this.#rejected.push(tag);
    else this.#requeued.push(tag);
  }

  /** Tells the broker what is settled, and takes what there is room for again. */
  flush(): void {
    if (!this.#alive) return;
    if (this.#acked.length > 0 || this.#rejected.length > 0 || this.#requeued.length > 0) {
      const [acked, rejected, requeued] = [this.#acked, this.#rejected, this.#requeued];
      this.#acked = [];
      this.#rejected = [];
      this.#requeued = [];
      this.#arriving();
      this.channel.call(method.BASIC_ACK, () => this.channel.settleAll(acked, rejected, requeued));
    }
    if (this.#isFull) {
      this.#isFull = false;
      this.channel.wake();
    }
    this.#show();
  }

  /** Those whose bodies are not here, and that came before this time, go back. */
  giveBack(before = Number.POSITIVE_INFINITY): void {
    // In order they go back only with their channel.
    if (this.#sink.ordered) return;
    const due = this.#parked.filter(({ since }) => since < before);
    if (due.length === 0) return;
    this.#parked = this.#parked.filter((each) => !due.includes(each));
    for (const { entry } of due) {
      this.#sink.dispatcher.count(verdict.REQUEUE);
      this.settle(entry, verdict.REQUEUE);
    }
    this.flush();
  }

  // what the broker says

  hasRoom(consumerTag: string, message: StoredMessage): boolean {
    if (!this.#alive || this.#isFull || this.#isTurnOver) return false;
    if (--this.#untilLook <= 0) {
      this.#untilLook = LOOK_EVERY;
      if (this.#turnEnds > 0 && now() > this.#turnEnds) {
        this.#isTurnOver = true;
        this.#schedule();
        return false;
      }
    }
    if (this.#isSwallowed(message.bodySize)) return true;
    const { bytes } = message.rest;
    const { dispatcher, memory } = this.#sink;
    if (dispatcher.used < memory.slotCount) {
      const { length } = this.#prefixOf(consumerTag);
      this.#place = this.#writer.place(length + bytes.length, length, bytes.byteOffset & 7);
      if (this.#place >= 0) return true;
    }
    this.#isFull = true;
    return false;
  }

  deliver(consumerTag: string, tag: number, { message, redelivered }: Entry): void {
    const entry = this.#freeEntries.pop() ?? this.#tags.length;
    this.#tags[entry] = tag;
    const { dispatcher, memory, maxMessageBytes, onTooLarge, oversize, onSwallowed } = this.#sink;
    const { bodySize, rest } = message;
    this.#arriving();
    if (this.#isSwallowed(bodySize)) {
      dispatcher.countReceived(redelivered);
      if (oversize === undefined) {
        this.#parked.push({ entry, since: now() });
      } else {
        dispatcher.count(oversize);
        this.settle(entry, oversize);
      }
      onSwallowed(bodySize, oversize !== undefined);
      return;
    }
    const prefix = this.#prefixOf(consumerTag);
    const start = this.#place;
    const length = writeDelivery(memory.bytes, start, prefix, rest, tag, redelivered) - start;
    this.#writer.keep(start, length);
    const tooLarge = bodySize > maxMessageBytes;
    const high = Math.floor(tag / 2 ** 32);
    const index = dispatcher.accept(start, length, high, tag | 0, redelivered, entry, tooLarge);
    if (index === NONE) throw new RangeError('a slot was free a moment ago');
    if (bodySize > LARGE) this.#untilLook = 0;
    this.#unshown = true;
    if (tooLarge) onTooLarge(index, bodySize);
  }

  cancelled(consumerTag: string): void {
    this.#events.cancelled(consumerTag);
  }

  closed(refusal: Refusal): void {
    this.#events.closed(refusal);
  }

  /** This feed publishes nothing. */
  returned(): void {
    // Nothing to tell anybody.
  }

  confirmed(): void {
    // As above.
  }

  #isSwallowed(bodySize: number): boolean {
    const { maxMessageBytes, oversize, arena } = this.#sink;
    return (bodySize > maxMessageBytes && oversize !== undefined) || bodySize > arena.largestFitting;
  }

  #prefixOf(consumerTag: string): Buffer {
    let prefix = this.#prefixes.get(consumerTag);
    if (prefix === undefined) {
      prefix = deliveryPrefix(consumerTag);
      this.#prefixes.set(consumerTag, prefix);
    }
    return prefix;
  }

  /** Opens a turn: what arrives in it is stamped with its time. */
  #arriving(): void {
    if (this.#turnEnds > 0) return;
    const time = now();
    this.#turnEnds = time + TURN;
    this.#sink.dispatcher.arriving(time);
    this.#schedule();
  }

  #schedule(): void {
    this.#scheduled ??= setImmediate(this.#onTurn);
  }

  readonly #onTurn = (): void => {
    this.#scheduled = undefined;
    this.#turnEnds = 0;
    this.#untilLook = LOOK_EVERY;
    if (this.#isTurnOver) {
      this.#isTurnOver = false;
      this.channel.wake();
    }
    this.#show();
    this.#sink.onRead();
  };

  /** What was put into the lane is shown to the workers. */
  #show(): void {
    if (!this.#unshown) return;
    this.#unshown = false;
    this.#sink.dispatcher.flush();
  }
}
