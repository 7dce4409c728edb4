/**
 * One generation's way from the takes into the arena, and of the verdicts back: what the tap is to a socket. Nothing is asked for
 * that has no place, so what finds none all the same (it was larger than others) waits here and nothing more is asked for.
 */
import { envelopePrefix, writeEnvelopeDelivery } from '../../../codec/amqp/write-envelope.js';
import { readEnvelope } from '../../../codec/envelope.js';
import { DecodeError } from '../../../errors.js';
import { now } from '../../../pool/clock.js';
import { NONE } from '../../../pool/lane.js';
import { verdict } from '../../../pool/layout.js';
import type { Outcome } from '../../runtime/dispatcher.js';
import { ArenaWriter } from '../arena-writer.js';
import type { DeliverySink } from '../transport.js';

/** A delivery, and where its envelope lies in the arena. `name`: of its record. */
interface Place {
  queue: number;
  list: number;
  tag: number;
  name: string;
  start: number;
  length: number;
}

/** A message that waits for a place in the arena. */
interface Waiting {
  readonly queue: number;
  readonly list: number;
  readonly tag: number;
  readonly name: string;
  readonly envelope: Buffer;
}

interface InflowOptions {
  /** Of the tags of records. */
  readonly prefix: string;
  /** Of each queue: what workers know it by. */
  readonly consumerTags: readonly string[];
  readonly prefetchCount: number;
  readonly taken: (tag: string) => void;
  readonly acked: (tag: string) => void;
  readonly returned: (tag: string, list: string, envelope: Buffer) => void;
  readonly ended: () => void;
}

/** In place of a list: it was heard and not taken, and nobody is told of its end. */
const HEARD = -1;
const MOST_BYTES = 4 * 1024 * 1024;

export class Inflow {
  /** Names of the lists of each queue. */
  lists: readonly (readonly string[])[] = [];
  readonly #sink: DeliverySink;
  readonly #options: InflowOptions;
  readonly #writer: ArenaWriter;
  readonly #prefixes: readonly Buffer[];
  /** By entry; an entry and its object are used again once it is settled. */
  readonly #places: Place[] = [];
  readonly #freeEntries: number[] = [];
  readonly #unsettled: number[];
  #waiting: Waiting[] = [];
  /** Those that fit nowhere: kept until they are given back. */
  #parked: (Waiting & { readonly since: number })[] = [];
  #unshown = false;
  /** What comes now is stamped already. */
  #isStamped = false;
  #alive = true;

  constructor(sink: DeliverySink, options: InflowOptions) {
    this.#sink = sink;
    this.#options = options;
    this.#writer = new ArenaWriter(sink.arena);
    this.#prefixes = options.consumerTags.map(envelopePrefix);
    this.#unsettled = options.consumerTags.map(() => 0);
    sink.dispatcher.begin();
  }

  get outstanding(): number {
    return this.#unsettled.reduce((sum, each) => sum + each, 0);
  }

  /** Messages of this queue that may come. */
  room(queue: number): number {
    const { dispatcher, memory } = this.#sink;
    if (!this.#alive || this.#waiting.length > 0) return 0;
    return Math.min(this.#options.prefetchCount - this.#unsettled[queue]!, memory.slotCount - dispatcher.used);
  }

  /** Bytes that may come. */
  get bytes(): number {
    const { arena } = this.#sink;
    return Math.min(MOST_BYTES, Math.floor((arena.capacity - arena.takenBytes) / 2));
  }

  /** `list`, `tag`: -1 and 0 for what was heard. */
  deliver(queue: number, list: number, tag: number, envelope: Buffer): void {
    if (!this.#alive) return;
    this.#unsettled[queue]!++;
    const name = `${this.#options.prefix}${tag}`;
    if (list !== HEARD) this.#options.taken(name);
    if (this.#waiting.length > 0 || !this.#place(queue, list, tag, name, envelope))
      this.#waiting.push({ queue, list, tag, name, envelope: Buffer.from(envelope) });
  }

  settle(entry: number, outcome: Outcome): void {
    if (!this.#alive) return;
    const { queue, list, name, start, length } = this.#places[entry]!;
    this.#freeEntries.push(entry);
    this.#unsettled[queue]!--;
    if (outcome !== verdict.REQUEUE) {
      if (list !== HEARD) this.#options.acked(name);
      return;
    }
    const envelope = Buffer.from(this.#sink.memory.bytes.subarray(start, start + length));
    if (list !== HEARD) this.#options.returned(name, this.lists[queue]![list]!, envelope);
    else {
      this.deliver(queue, HEARD, 0, envelope);
      this.flush();
    }
  }

  /** True if there are deliveries that fit nowhere, since before this time. */
  holdsUnkept(before: number): boolean {
    return this.#parked.some(({ since }) => since < before);
  }

  /** These go back to their queue. */
  giveBackUnkept(before: number): void {
    for (const each of this.#parked) {
      if (each.since >= before) continue;
      this.#sink.dispatcher.count(verdict.REQUEUE);
      this.#unsettled[each.queue]!--;
      this.#return(each);
    }
    this.#parked = this.#parked.filter(({ since }) => since >= before);
  }

  #return({ queue, list, name, envelope }: Waiting): void {
    if (list !== HEARD) this.#options.returned(name, this.lists[queue]![list]!, envelope);
  }

  /** Places what waits, and shows what is placed. */
  flush(): void {
    if (!this.#alive) return;
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      if (!this.#place(first.queue, first.list, first.tag, first.name, first.envelope)) break;
      this.#waiting.shift();
    }
    this.#isStamped = false;
    if (!this.#unshown) return;
    this.#unshown = false;
    this.#sink.dispatcher.flush();
    this.#sink.onRead();
  }

  /** The generation is over: what is unsettled goes back, in its order. The arena keeps what callbacks still read. */
  end(): void {
    if (!this.#alive) return;
    const free = new Set(this.#freeEntries);
    const held = this.#places
      .map(({ tag, list }, entry) => ({ tag, list, entry }))
      .filter(({ list, entry }) => !free.has(entry) && list !== HEARD);
    const unplaced = [...this.#parked, ...this.#waiting].map((each) => ({ tag: each.tag, each }));
    for (const one of [...held, ...unplaced].sort((a, b) => a.tag - b.tag)) {
      if ('each' in one) this.#return(one.each);
      else this.settle(one.entry, verdict.REQUEUE);
    }
    this.#waiting = [];
    this.#parked = [];
    this.#alive = false;
    this.#writer.leave();
    this.#sink.dispatcher.end();
    this.#options.ended();
  }

  /** False: there is no place now. */
  #place(queue: number, list: number, tag: number, name: string, envelope: Buffer): boolean {
    const { dispatcher, memory, arena, maxMessageBytes, oversize, onTooLarge, onSwallowed } = this.#sink;
    const prefix = this.#prefixes[queue]!;
    const tooLarge = envelope.length > maxMessageBytes && bodyBytes(envelope) > maxMessageBytes;
    if (tooLarge && oversize !== undefined) {
      dispatcher.countReceived(false);
      dispatcher.count(oversize);
      this.#unsettled[queue]!--;
      if (oversize === verdict.REQUEUE) this.#return({ queue, list, tag, name, envelope });
      else if (list !== HEARD) this.#options.acked(name);
      onSwallowed(envelope.length, true);
      return true;
    }
    if (dispatcher.used >= memory.slotCount) return false;
    if (prefix.length + envelope.length + 16 > arena.largestFitting) {
      dispatcher.countReceived(false);
      // Of one that was heard nothing is kept: nobody would have it again.
      if (list === HEARD) this.#unsettled[queue]!--;
      else this.#parked.push({ queue, list, tag, name, envelope: Buffer.from(envelope), since: now() });
      onSwallowed(envelope.length, false);
      return true;
    }
    const start = this.#writer.place(prefix.length + envelope.length + 1, prefix.length, envelope.byteOffset & 7);
    if (start < 0) return false;
    const length = writeEnvelopeDelivery(memory.bytes, start, prefix, envelope, tag, false) - start;
    this.#writer.keep(start, length);
    if (!this.#isStamped) {
      this.#isStamped = true;
      dispatcher.arriving(now());
    }
    const entry = this.#freeEntries.pop() ?? this.#places.push({ queue, list, tag, name, start: 0, length: 0 }) - 1;
    const place = this.#places[entry]!;
    place.queue = queue;
    place.list = list;
    place.tag = tag;
    place.name = name;
    place.start = start + prefix.length;
    place.length = envelope.length;
    const index = dispatcher.accept(start, length, Math.floor(tag / 2 ** 32), tag | 0, false, entry, tooLarge);
    if (index === NONE) throw new RangeError('a slot was free a moment ago');
    this.#unshown = true;
    if (tooLarge) onTooLarge(index, bodyBytes(envelope));
    return true;
  }
}

/** Of the body, in an envelope that is long; of one that cannot be read, all of it. */
function bodyBytes(envelope: Buffer): number {
  try {
    return readEnvelope(envelope).body.length;
  } catch (error) {
    if (error instanceof DecodeError) return envelope.length;
    throw error;
  }
}
