/**
 * One run of the replay broker: pours `count` deliveries at one consumer as fast as prefetch and the socket let it.
 * Blocks of ready-made deliveries are kept; per message only the delivery tag and the id in the body are written, so
 * that the broker stays well ahead of the clients it measures.
 */
import type { Socket } from 'node:net';
import { Books, type Verdict } from './books.js';
import { FIRST_ID, type Ledger } from './protocol.js';
import { bodyFrames, contentHeader, METHOD, methodFrame, Writer } from './wire.js';

const BLOCK_BYTES = 128 * 1024;
const BLOCKS = 8;
const ID_DIGITS = String(FIRST_ID).length;
const BODY_START = '{"id":';

const BODY_HEAD = `${BODY_START}${FIRST_ID},"kind":"resize","user":4711,"urgent":false,"text":"`;
const BODY_TAIL = '"}';

/** The smallest body: one with an empty text. */
export const MIN_BODY = BODY_HEAD.length + BODY_TAIL.length;

/** A job as services send them: a few fields and a text that fills the rest. */
export function makeBody(bytes: number): Buffer {
  const room = bytes - MIN_BODY;
  const words = 'the quick brown fox jumps over the lazy dog and then it sleeps ';
  return Buffer.from(`${BODY_HEAD}${words.repeat(Math.ceil(room / words.length)).slice(0, room)}${BODY_TAIL}`);
}

export interface Consumer {
  readonly socket: Socket;
  readonly channel: number;
  readonly tag: string;
  /** 0: no limit. */
  readonly prefetch: number;
  readonly noAck: boolean;
  readonly frameMax: number;
}

export interface PourEvents {
  settled(): void;
  problem(text: string): void;
}

export class Pour {
  readonly #problems: string[] = [];
  readonly #count: number;
  readonly #bodyBytes: number;
  readonly #events: PourEvents;
  readonly #books: Books;
  #consumer: Consumer | undefined;
  #free: Buffer[] = [];
  #perBlock = 1;
  #size = 0;
  #tagAt = 0;
  #idAt = 0;
  #sent = 0;
  #writing = 0;
  #paused = false;
  #start = { at: 0, cpu: process.cpuUsage() };
  #end: { seconds: number; cpuMicros: number } | undefined;

  constructor(count: number, bodyBytes: number, events: PourEvents) {
    this.#count = count;
    this.#bodyBytes = bodyBytes;
    this.#events = events;
    this.#books = new Books(count);
  }

  /** Something a correct client does not do: it fails the run. */
  problem(text: string): void {
    this.#problems.push(text);
    this.#events.problem(text);
  }

  /** Returns why this consumer cannot be served, or nothing. */
  attach(consumer: Consumer): string | undefined {
    if (this.#consumer !== undefined) return 'a second consumer: the replay broker serves one';
    this.#consumer = consumer;
    const { channel } = consumer;
    const deliver = new Writer().shortString(consumer.tag).longlong(0).octet(0).shortString('').shortString('bench');
    const template = Buffer.concat([
      methodFrame(channel, METHOD.basicDeliver, deliver),
      contentHeader(channel, this.#bodyBytes),
      ...bodyFrames(channel, makeBody(this.#bodyBytes), consumer.frameMax),
    ]);
    this.#size = template.length;
    // Only the low word of the tag changes: a run has far fewer than 2^32 deliveries.
    this.#tagAt = 7 + 4 + 1 + Buffer.byteLength(consumer.tag) + 4;
    this.#idAt = template.indexOf(BODY_START) + BODY_START.length;
    this.#perBlock = Math.max(1, Math.floor(BLOCK_BYTES / this.#size));
    this.#free = Array.from({ length: BLOCKS }, () => Buffer.alloc(this.#perBlock * this.#size, template));
    return undefined;
  }

  /** No more deliveries: the consumer was cancelled. What it has may still be settled. */
  stop(tag: string): void {
    if (this.#consumer?.tag === tag) this.#paused = true;
  }

  pump(): void {
    const consumer = this.#consumer;
    if (consumer === undefined || this.#paused || consumer.socket.destroyed) return;
    const limit = consumer.noAck || consumer.prefetch === 0 ? this.#count : consumer.prefetch;
    for (;;) {
      const unsettled = consumer.noAck ? 0 : this.#sent - this.#books.settled;
      const room = Math.min(this.#count - this.#sent, limit - unsettled, this.#perBlock);
      if (room <= 0) return;
      const block = this.#free.pop();
      if (block === undefined) return;
      if (this.#sent === 0) this.#start = { at: performance.now(), cpu: process.cpuUsage() };
      this.#stamp(block, room);
      this.#writing++;
      // A block may be written over once the kernel has it; until then the loop uses another, or waits for this one.
      consumer.socket.write(block.subarray(0, room * this.#size), () => {
        this.#writing--;
        this.#free.push(block);
        if (consumer.noAck && this.#sent === this.#count && this.#writing === 0) this.#finish();
        this.pump();
      });
    }
  }

  /** Returns what is wrong with the settlement, or nothing. */
  settle(tag: number, multiple: boolean, verdict: Verdict): string | undefined {
    const wrong = this.#consumer?.noAck
      ? 'a settlement from a consumer with no_ack'
      : this.#books.settle(tag, multiple, verdict, this.#sent);
    if (wrong === undefined && this.#books.settled === this.#count && this.#end === undefined) this.#finish();
    return wrong;
  }

  ledger(): Ledger {
    const { noAck = false, prefetch = 0 } = this.#consumer ?? {};
    return {
      delivered: this.#sent,
      ...this.#books.counts,
      settleFrames: this.#books.frames,
      prefetch,
      noAck,
      messageBytes: this.#size,
      seconds: this.#end?.seconds ?? 0,
      cpuMicros: this.#end?.cpuMicros ?? 0,
      problems: this.#problems,
    };
  }

  #stamp(block: Buffer, room: number): void {
    for (let i = 0, at = 0; i < room; i++, at += this.#size) {
      const tag = ++this.#sent;
      block.writeUInt32BE(tag, at + this.#tagAt);
      let id = FIRST_ID + tag;
      for (let digit = at + this.#idAt + ID_DIGITS - 1; digit >= at + this.#idAt; digit--) {
        const tenth = (id / 10) | 0;
        block[digit] = 48 + id - tenth * 10;
        id = tenth;
      }
    }
  }

  #finish(): void {
    const { user, system } = process.cpuUsage(this.#start.cpu);
    this.#end = { seconds: (performance.now() - this.#start.at) / 1000, cpuMicros: user + system };
    this.#events.settled();
  }
}
