/**
 * Where the socket reads to, and what is found there. The kernel writes into the arena; the scanner walks over whole
 * frames and reports where deliveries begin and end. A delivery lies in one piece, from its basic.deliver to the last
 * octet of its body, so that a worker can read it by one offset and one length; frames of other channels may lie between.
 *
 *   region (one or more adjacent segments)
 *   ┌───────────────────────────────────────────────────────────────┐
 *   │ done │ keep ▶ deliver header body… │ scan ▶ part of a frame │ read ▶ room │
 *   └───────────────────────────────────────────────────────────────┘
 *
 * `scan` stands at a frame boundary always; a frame is at most frameMax bytes. When the room does not do, what must
 * stay (from `keep`, else from `scan`) moves to a new region. When the arena has none, reading goes on in the reserve:
 * deliveries there are shed, their bytes forgotten, their tags kept. Reading never stops: RabbitMQ cuts a client that
 * does not read, and heartbeats come this way too.
 *
 * Pure but for the arena's counts: sockets, channels and threads are the sink's business.
 */
import {
  BASIC_DELIVER,
  CHANNEL_CLOSE,
  CHANNEL_CLOSE_OK,
  CHANNEL_OPEN_OK,
  CLASS_BASIC,
  CONNECTION_CLOSE,
  FRAME_BODY,
  FRAME_END,
  FRAME_HEAD,
  FRAME_HEADER,
  FRAME_HEARTBEAT,
  FRAME_METHOD,
  FRAME_OVERHEAD,
} from '../../../codec/amqp/frames.js';
import { FrameError } from '../../../errors.js';
import type { Arena } from '../../../pool/arena.js';
import { SEGMENT_BYTES } from '../../../pool/layout.js';

export interface IntakeSink {
  /** A whole delivery lies at [start, start + length) of the arena, which holds it until it is released. */
  delivery(start: number, length: number, bodySize: number, tagHi: number, tagLo: number, redelivered: boolean): void;
  /** A delivery had no room: its bytes are gone, its tag waits to be given back. */
  shed(tagHi: number, tagLo: number, bodySize: number, redelivered: boolean): void;
  /** A body over the limit was swallowed. */
  oversize(tagHi: number, tagLo: number, bodySize: number, redelivered: boolean): void;
  /** The captured channel, or the whole connection, is being closed by the broker. Comes before `passOn` of that frame. */
  closing(): void;
  /** Whole frames that are not ours, in memory of their own. */
  passOn(frames: Buffer): void;
  /** True if bodies of this size are to be swallowed and reported as `oversize`. */
  swallows(bodySize: number): boolean;
}

/** Less room than this and reading moves on to the next segment. */
const LEAST_ROOM = 64 * 1024;
/** The most that one read may bring: more would only fill the processor's cache before anyone looks. */
const MOST_READ = 256 * 1024;

/** The largest frame: what must move to a new segment, a frame and the beginning of another, has to leave room there. */
export const LARGEST_FRAME = SEGMENT_BYTES / 4;

/** What the captured channel's next frame must be. */
const IDLE = 0;
const HEADER = 1;
const BODY = 2;

/** What becomes of the delivery that is coming in. */
const KEEP = 0;
const SHED = 1;
const OVERSIZE = 2;
const DISCARD = 3;

const NO_CHANNEL = -1;

export class Intake {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #arena: Arena;
  readonly #sink: IntakeSink;
  /** Payload of the largest frame. */
  readonly #largest: number;

  #start: number;
  #end: number;
  #inReserve: boolean;
  #scan: number;
  #read: number;

  #channel = NO_CHANNEL;
  #discarding = false;
  #lastOpened = NO_CHANNEL;
  #phase = IDLE;
  #fate = KEEP;
  #keep = -1;
  #bodyLeft = 0;
  #bodySize = 0;
  #tagHi = 0;
  #tagLo = 0;
  #redelivered = false;
  #shedsAll = false;
  #left = false;
  /** Where a socket that is being destroyed may still write. */
  readonly #scrap = new Uint8Array(4096);

  /** `frameMax`: bytes of the largest frame that the broker may send, overhead included. */
  constructor(memory: SharedArrayBuffer, arena: Arena, sink: IntakeSink, frameMax: number) {
    if (frameMax > LARGEST_FRAME) throw new RangeError(`frames of ${frameMax} bytes; at most ${LARGEST_FRAME} fit`);
    this.#largest = frameMax - FRAME_OVERHEAD;
    this.#bytes = new Uint8Array(memory);
    this.#view = new DataView(memory);
    this.#arena = arena;
    this.#sink = sink;
    const start = arena.take(1);
    this.#inReserve = start < 0;
    const region = this.#inReserve ? arena.reserve : { start, end: start + SEGMENT_BYTES };
    this.#start = region.start;
    this.#end = region.end;
    this.#scan = region.start;
    this.#read = region.start;
  }

  /** The channel number that the last channel.open-ok named. */
  get lastOpened(): number {
    return this.#lastOpened;
  }

  /** From now on deliveries of this channel are ours. */
  capture(channel: number): void {
    this.#channel = channel;
    this.#discarding = false;
    this.#shedsAll = false;
    this.#phase = IDLE;
    this.#keep = -1;
  }

  /** One was shed, and none may overtake it: all deliveries are, until the next channel. */
  shedAll(): void {
    this.#shedsAll = true;
  }

  /** Deliveries of the captured channel are swallowed without a word, until it is closed (channel.close-ok). */
  discard(): void {
    this.#discarding = true;
    this.#fate = DISCARD;
    this.#keep = -1;
  }

  /** Where the next read may write. */
  room(): Uint8Array {
    if (this.#left) return this.#scrap;
    const missing = this.#missing();
    if (this.#inReserve || this.#end - this.#read < (missing || LEAST_ROOM)) this.#move(missing);
    return this.#bytes.subarray(this.#read, Math.min(this.#end, this.#read + MOST_READ));
  }

  /** `count` bytes were read into what `room` returned last. Throws `FrameError`: the connection is beyond repair then. */
  received(count: number): void {
    if (this.#left) return;
    this.#read += count;
    this.#walk();
  }

  /** Gives the region back. What was read and not scanned is forgotten; messages handed out stay held. */
  leave(): void {
    if (this.#left) return;
    this.#left = true;
    this.#keep = -1;
    if (!this.#inReserve) this.#arena.leave(this.#start, this.#end);
  }

  /** Bytes that the kept message still needs beyond what is read; 0 where none is kept or its size is not known yet. */
  #missing(): number {
    if (this.#keep < 0 || this.#phase !== BODY) return 0;
    const frames = Math.ceil(this.#bodyLeft / this.#largest);
    return Math.max(1, this.#bodyLeft + frames * FRAME_OVERHEAD - (this.#read - this.#scan));
  }

  /** Moves what must stay to a region with room for `missing` more bytes, or to the reserve. */
  #move(missing: number): void {
    if (this.#keep >= 0) {
      const kept = this.#read - this.#keep;
      const segments = Math.ceil((8 + kept + missing + LEAST_ROOM) / SEGMENT_BYTES);
      const start = this.#arena.take(segments);
      if (start >= 0) {
        this.#moveTo(start, start + segments * SEGMENT_BYTES, this.#keep, false);
        return;
      }
      this.#fate = SHED;
      this.#keep = -1;
      // Shed, the message needs no room: the region may still do.
      if (!this.#inReserve && this.#end - this.#read >= LEAST_ROOM) return;
    }
    const start = this.#arena.take(1);
    if (start >= 0) {
      this.#moveTo(start, start + SEGMENT_BYTES, this.#scan, false);
    } else if (!this.#inReserve || this.#end - this.#read < LEAST_ROOM) {
      const { start: reserve, end } = this.#arena.reserve;
      this.#moveTo(reserve, end, this.#scan, true);
    }
  }

  #moveTo(start: number, end: number, from: number, toReserve: boolean): void {
    // Copies within shared memory are ten times faster where source and target are equal modulo 8.
    const to = start + (from & 7);
    this.#bytes.copyWithin(to, from, this.#read);
    const by = to - from;
    if (!this.#inReserve) this.#arena.leave(this.#start, this.#end);
    this.#start = start;
    this.#end = end;
    this.#inReserve = toReserve;
    this.#scan += by;
    this.#read += by;
    if (this.#keep >= 0) this.#keep += by;
  }

  #walk(): void {
    const bytes = this.#bytes;
    const view = this.#view;
    const read = this.#read;
    let at = this.#scan;
    /** Start of frames to pass on that have no delivery between them; -1: none. */
    let foreign = -1;
    while (read - at >= FRAME_OVERHEAD) {
      const size = view.getUint32(at + 3);
      if (size > this.#largest) {
        throw new FrameError(`a frame of ${size} bytes came; at most ${this.#largest} were agreed on`, {
          details: { size, limit: this.#largest },
        });
      }
      const next = at + size + FRAME_OVERHEAD;
      if (next > read) break;
      if (bytes[next - 1] !== FRAME_END) {
        throw new FrameError(`a frame does not end with 0xCE but with 0x${bytes[next - 1]!.toString(16)}`);
      }
      const channel = view.getUint16(at + 1);
      if (channel === this.#channel && this.#captures(at, size)) {
        if (foreign >= 0) {
          this.#passOn(foreign, at);
          foreign = -1;
        }
        this.#scan = next;
        this.#take(at, size, next);
      } else {
        if (foreign < 0) foreign = at;
        if (this.#watch(at, size, channel)) {
          // Whoever reads the frames passed on must find the generation ended already.
          this.#passOn(foreign, next);
          foreign = -1;
        }
      }
      at = next;
    }
    if (foreign >= 0) this.#passOn(foreign, at);
    this.#scan = at;
  }

  #passOn(from: number, to: number): void {
    this.#sink.passOn(Buffer.from(this.#bytes.subarray(from, to)));
  }

  /** Is this frame of the captured channel part of a delivery? */
  #captures(at: number, size: number): boolean {
    if (this.#phase !== IDLE) return true;
    if (this.#bytes[at] === FRAME_METHOD) return size >= 4 && this.#view.getInt32(at + FRAME_HEAD) === BASIC_DELIVER;
    if (this.#bytes[at] === FRAME_HEADER || this.#bytes[at] === FRAME_BODY) return false;
    throw new FrameError(`a frame of type ${this.#bytes[at]} came on channel ${this.#channel}`);
  }

  #take(at: number, size: number, next: number): void {
    const type = this.#bytes[at];
    if (this.#phase === BODY) {
      if (type !== FRAME_BODY) throw this.#unexpected(type, 'a body frame');
      if (size > this.#bodyLeft) {
        throw new FrameError(`the body of a delivery is longer than its header says (${this.#bodySize} bytes)`, {
          details: { bodySize: this.#bodySize },
        });
      }
      this.#bodyLeft -= size;
      if (this.#bodyLeft === 0) this.#finish(next);
    } else if (this.#phase === IDLE) {
      this.#begin(at, size);
    } else {
      if (type !== FRAME_HEADER) throw this.#unexpected(type, 'a content header');
      this.#header(at, size, next);
    }
  }

  #begin(at: number, size: number): void {
    const tag = at + FRAME_HEAD + 5 + this.#bytes[at + FRAME_HEAD + 4]!;
    if (tag + 9 > at + FRAME_HEAD + size) throw new FrameError(`a basic.deliver of ${size} bytes is too short`);
    this.#tagHi = this.#view.getUint32(tag);
    this.#tagLo = this.#view.getUint32(tag + 4);
    this.#redelivered = (this.#bytes[tag + 8]! & 1) === 1;
    this.#phase = HEADER;
    if (this.#discarding) {
      this.#fate = DISCARD;
    } else if (this.#inReserve || this.#shedsAll) {
      this.#fate = SHED;
    } else {
      this.#fate = KEEP;
      this.#keep = at;
    }
  }

  #header(at: number, size: number, next: number): void {
    const payload = at + FRAME_HEAD;
    if (size < 14 || this.#view.getUint16(payload) !== CLASS_BASIC) {
      throw new FrameError(`a content header of ${size} bytes is not one of class basic`);
    }
    const high = this.#view.getUint32(payload + 4);
    if (high >= 0x200000) throw new FrameError('a content header announces a body of over 2^53 bytes');
    this.#bodySize = high * 2 ** 32 + this.#view.getUint32(payload + 8);
    this.#bodyLeft = this.#bodySize;
    this.#phase = BODY;
    if (this.#fate !== DISCARD && this.#sink.swallows(this.#bodySize)) {
      this.#fate = OVERSIZE;
      this.#keep = -1;
    }
    if (this.#bodyLeft === 0) this.#finish(next);
  }

  #finish(next: number): void {
    this.#phase = IDLE;
    const start = this.#keep;
    this.#keep = -1;
    this.#report(start, next);
    // After a large body the region is many segments: those behind us are the message's alone.
    const segment = next - (next % SEGMENT_BYTES);
    if (this.#inReserve || segment <= this.#start || segment >= this.#end) return;
    this.#arena.leave(this.#start, segment);
    this.#start = segment;
  }

  #report(start: number, next: number): void {
    switch (this.#fate) {
      case KEEP:
        this.#arena.hold(start, next - start);
        this.#sink.delivery(start, next - start, this.#bodySize, this.#tagHi, this.#tagLo, this.#redelivered);
        break;
      case SHED:
        this.#sink.shed(this.#tagHi, this.#tagLo, this.#bodySize, this.#redelivered);
        break;
      case OVERSIZE:
        this.#sink.oversize(this.#tagHi, this.#tagLo, this.#bodySize, this.#redelivered);
        break;
      default: // DISCARD: of a channel that we are closing; the broker gives it to someone else.
    }
  }

  /** Looks at a frame that is amqplib's for the few methods that matter here; true if the generation ends with it. */
  #watch(at: number, size: number, channel: number): boolean {
    const type = this.#bytes[at];
    if (type !== FRAME_METHOD) {
      if (type !== FRAME_HEADER && type !== FRAME_BODY && type !== FRAME_HEARTBEAT) {
        throw new FrameError(`a frame of the unknown type ${type} came`);
      }
      return false;
    }
    if (size < 4) throw new FrameError(`a method frame of ${size} bytes came`);
    switch (this.#view.getInt32(at + FRAME_HEAD)) {
      case CHANNEL_OPEN_OK:
        this.#lastOpened = channel;
        return false;
      case CONNECTION_CLOSE:
        this.#channel = NO_CHANNEL;
        this.#sink.closing();
        return true;
      case CHANNEL_CLOSE:
        if (channel !== this.#channel) return false;
        this.#channel = NO_CHANNEL;
        this.#sink.closing();
        return true;
      case CHANNEL_CLOSE_OK:
        if (channel === this.#channel) this.#channel = NO_CHANNEL;
        return false;
      default:
        return false;
    }
  }

  #unexpected(type: number | undefined, wanted: string): FrameError {
    return new FrameError(`on channel ${this.#channel} ${wanted} had to come; a frame of type ${type} came`);
  }
}
