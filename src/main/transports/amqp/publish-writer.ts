/**
 * Writes the publishes of one of amqplib's confirm channels: encoded by us, gathered for as long as the program keeps
 * publishing, written in one piece. amqplib's own way makes five buffers and a stream write of each message.
 *
 *   publish() ─ frames ─▶ gathered ─ process.nextTick, or 256 KiB ─▶ the channel's stream ─▶ amqplib's mux ─▶ socket
 *
 * Everything else that amqplib writes on the channel comes behind what was published before it: its two ways to send are
 * taken over for that. Confirms stay amqplib's, which matches them by the order of the publishes.
 */
import type * as amqplib from 'amqplib';
import { FRAME_END, FRAME_OVERHEAD } from '../../../codec/amqp/frames.js';
import {
  MOST_PUBLISH_HEAD,
  writeBodyFrame,
  writeBodyHead,
  writePublishHead,
} from '../../../codec/amqp/write-content.js';
import type { OnSettled, Publish } from '../transport.js';

/** What is gathered goes out at the latest when it is so much, bytes. */
const MOST_GATHERED = 256 * 1024;
/** Larger bodies are written as they are, not copied. */
const LARGEST_COPIED = 16 * 1024;

/**
 * Memory for what is gathered, of all channels of this thread: used once, for the socket may need it long after the write. A
 * new one begins where the next message's head might not fit.
 */
class Paper {
  static readonly #SIZE = 512 * 1024;
  static #current = new Paper();
  readonly bytes = Buffer.allocUnsafeSlow(Paper.#SIZE);
  used = 0;

  /** With room for so many bytes. */
  static with(room: number): Paper {
    if (Paper.#current.used + room > Paper.#SIZE) Paper.#current = new Paper();
    return Paper.#current;
  }
}

/** What amqplib has and does not type. */
interface RawChannel {
  readonly ch: number;
  readonly connection: RawConnection;
  sendMessage(...args: unknown[]): boolean;
  sendImmediately(...args: unknown[]): unknown;
  pushConfirmCallback(callback: OnSettled): void;
}

interface RawConnection {
  readonly channels: ({ readonly buffer: { write(bytes: Uint8Array): boolean } } | null)[];
  readonly frameMax: number;
  sentSinceLastCheck: boolean;
}

function isRawChannel(value: object): value is RawChannel {
  const raw = value as Partial<RawChannel>;
  return (
    typeof raw.ch === 'number' &&
    typeof raw.sendMessage === 'function' &&
    typeof raw.sendImmediately === 'function' &&
    typeof raw.pushConfirmCallback === 'function' &&
    Array.isArray(raw.connection?.channels) &&
    typeof raw.connection.frameMax === 'number'
  );
}

class PublishWriter {
  readonly #raw: RawChannel;
  readonly #largestBody: number;
  #pieces: Uint8Array[] = [];
  /** Written on, behind the pieces, from `#start` to its end of use; undefined if nothing was since the last piece. */
  #paper: Paper | undefined;
  #start = 0;
  #end = 0;
  #bytes = 0;
  #scheduled = false;
  #full = false;
  /** amqplib puts another function there when the channel closes. */
  readonly #sendMessage: RawChannel['sendMessage'];

  constructor(raw: RawChannel) {
    this.#raw = raw;
    this.#largestBody = raw.connection.frameMax - FRAME_OVERHEAD;
    const { sendMessage, sendImmediately } = raw;
    this.#sendMessage = (...args) => {
      this.#flush();
      return sendMessage.apply(raw, args);
    };
    raw.sendMessage = this.#sendMessage;
    raw.sendImmediately = (...args) => {
      this.#flush();
      return sendImmediately.apply(raw, args);
    };
    (raw as unknown as amqplib.ConfirmChannel).on('drain', () => {
      this.#full = false;
    });
  }

  readonly publish: Publish = (message, onSettled) => {
    const { ch } = this.#raw;
    const { body } = message;
    const paper = Paper.with(MOST_PUBLISH_HEAD);
    // Throws what it cannot encode: then nothing was written and nothing is expected.
    const end = writePublishHead(paper.bytes, paper.used, ch, message);
    this.#raw.pushConfirmCallback(onSettled);
    this.#written(paper, end);
    for (let at = 0; at < body.length; at += this.#largestBody) {
      this.#addBody(at === 0 && body.length <= this.#largestBody ? body : body.subarray(at, at + this.#largestBody));
    }
    if (this.#bytes >= MOST_GATHERED) {
      this.#flush();
    } else if (!this.#scheduled) {
      this.#scheduled = true;
      process.nextTick(this.#onTick);
    }
    return !this.#full;
  };

  #addBody(body: Buffer): void {
    const { ch } = this.#raw;
    const isCopied = body.length <= LARGEST_COPIED;
    const paper = Paper.with(FRAME_OVERHEAD + (isCopied ? body.length : 0));
    if (isCopied) {
      this.#written(paper, writeBodyFrame(paper.bytes, paper.used, ch, body));
      return;
    }
    this.#written(paper, writeBodyHead(paper.bytes, paper.used, ch, body.length));
    this.#cut();
    this.#pieces.push(body);
    this.#bytes += body.length;
    paper.bytes[paper.used] = FRAME_END;
    this.#written(paper, paper.used + 1);
  }

  /** So far. What others wrote on the same paper meanwhile is not ours. */
  #written(paper: Paper, end: number): void {
    if (this.#paper !== paper || this.#end !== paper.used) {
      this.#cut();
      this.#paper = paper;
      this.#start = paper.used;
    }
    this.#bytes += end - paper.used;
    this.#end = end;
    paper.used = end;
  }

  #cut(): void {
    if (this.#paper !== undefined) this.#pieces.push(this.#paper.bytes.subarray(this.#start, this.#end));
    this.#paper = undefined;
  }

  readonly #onTick = (): void => {
    this.#scheduled = false;
    this.#flush();
  };

  #flush(): void {
    if (this.#bytes === 0) return;
    this.#cut();
    const pieces = this.#pieces;
    this.#pieces = [];
    this.#bytes = 0;
    const { connection, ch, sendMessage } = this.#raw;
    const stream = connection.channels[ch]?.buffer;
    // Closed meanwhile: amqplib has told every callback, and a frame on a channel that is not open ends the connection.
    if (stream === undefined || sendMessage !== this.#sendMessage) return;
    connection.sentSinceLastCheck = true;
    for (const piece of pieces) if (!stream.write(piece)) this.#full = true;
  }
}

/** Throws `TypeError` if amqplib is not as it was when this was written. */
export function publishWriter(raw: amqplib.ConfirmChannel): Publish {
  if (!isRawChannel(raw)) throw new TypeError('this version of amqplib has other channels than mozuku knows');
  return new PublishWriter(raw).publish;
}
