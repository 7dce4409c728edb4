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
import { FRAME_BODY, FRAME_END, FRAME_HEAD, FRAME_OVERHEAD } from '../../../codec/amqp/frames.js';
import { writePublishHead } from '../../../codec/amqp/write-content.js';
import type { OnSettled, Publish } from '../transport.js';

/** What is gathered goes out at the latest when it is so much, bytes. */
const MOST_GATHERED = 256 * 1024;
/** Larger bodies are written as they are, not copied. */
const LARGEST_COPIED = 16 * 1024;

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
  #gathered: Uint8Array[] = [];
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

  readonly publish: Publish = (exchange, routingKey, body, properties, onSettled) => {
    // Throws what it cannot encode: then nothing was written and nothing is expected.
    const head = writePublishHead(this.#raw.ch, exchange, routingKey, properties, body.length);
    this.#raw.pushConfirmCallback(onSettled);
    this.#add(head);
    for (let at = 0; at < body.length; at += this.#largestBody) {
      this.#addBody(body.subarray(at, at + this.#largestBody));
    }
    if (this.#bytes >= MOST_GATHERED) {
      this.#flush();
    } else if (!this.#scheduled) {
      this.#scheduled = true;
      process.nextTick(this.#onTick);
    }
    return !this.#full;
  };

  #add(bytes: Uint8Array): void {
    this.#gathered.push(bytes);
    this.#bytes += bytes.length;
  }

  #addBody(body: Buffer): void {
    const isCopied = body.length <= LARGEST_COPIED;
    const frame = Buffer.allocUnsafe(FRAME_HEAD + (isCopied ? body.length + 1 : 0));
    frame[0] = FRAME_BODY;
    frame.writeUInt16BE(this.#raw.ch, 1);
    frame.writeUInt32BE(body.length, 3);
    this.#add(frame);
    if (isCopied) {
      frame.set(body, FRAME_HEAD);
      frame[frame.length - 1] = FRAME_END;
    } else {
      this.#add(body);
      this.#add(END);
    }
  }

  readonly #onTick = (): void => {
    this.#scheduled = false;
    this.#flush();
  };

  #flush(): void {
    if (this.#bytes === 0) return;
    const pieces = this.#gathered;
    this.#gathered = [];
    this.#bytes = 0;
    const { connection, ch, sendMessage } = this.#raw;
    const stream = connection.channels[ch]?.buffer;
    // Closed meanwhile: amqplib has told every callback, and a frame on a channel that is not open ends the connection.
    if (stream === undefined || sendMessage !== this.#sendMessage) return;
    connection.sentSinceLastCheck = true;
    for (const piece of joinSmall(pieces)) if (!stream.write(piece)) this.#full = true;
  }
}

const END = Uint8Array.of(FRAME_END);

/** Neighbours become one piece, but for large bodies. */
function* joinSmall(pieces: readonly Uint8Array[]): Generator<Uint8Array> {
  let first = 0;
  for (let i = 0; i <= pieces.length; i++) {
    if (i < pieces.length && pieces[i]!.length <= LARGEST_COPIED + FRAME_OVERHEAD) continue;
    if (i - first > 1) yield Buffer.concat(pieces.slice(first, i));
    else if (i > first) yield pieces[first]!;
    if (i < pieces.length) yield pieces[i]!;
    first = i + 1;
  }
}

/** Throws `TypeError` if amqplib is not as it was when this was written. */
export function publishWriter(raw: amqplib.ConfirmChannel): Publish {
  if (!isRawChannel(raw)) throw new TypeError('this version of amqplib has other channels than mozuku knows');
  return new PublishWriter(raw).publish;
}
