/**
 * Holds back what a broker sends behind connection.open-ok until somebody listens to the connection. amqplib reads on before
 * it hands the connection out: a connection.close in the same read would then be an 'error' event without a listener, which
 * ends the process, or an end that nobody hears of.
 */
import { CONNECTION_OPEN_OK, FRAME_HEAD, FRAME_METHOD, FRAME_OVERHEAD } from '../../../codec/amqp/frames.js';

/** The part of a socket that amqplib reads from. */
export interface Readable {
  push(chunk: Buffer): unknown;
}

/** Hands bytes on to amqplib, which reads from `socket`. */
export type PassOn = (socket: Readable, bytes: Buffer) => void;

/** A frame of the handshake; a larger one is amqplib's to refuse. */
const LARGEST = 1024 * 1024;

export class OpenGate {
  #state: 'handshake' | 'held' | 'open' = 'handshake';
  #socket: Readable | undefined;
  #bytes: Buffer = Buffer.alloc(0);

  readonly pass: PassOn = (socket, bytes) => {
    if (this.#state === 'open') {
      socket.push(bytes);
      return;
    }
    this.#socket = socket;
    this.#bytes = this.#bytes.length === 0 ? bytes : Buffer.concat([this.#bytes, bytes]);
    if (this.#state === 'handshake') this.#handshake(socket);
  };

  /** Somebody listens now. */
  open(): void {
    this.#state = 'open';
    if (this.#bytes.length > 0) this.#socket?.push(this.#bytes);
    this.#bytes = Buffer.alloc(0);
  }

  /** Passes whole frames on, up to connection.open-ok. */
  #handshake(socket: Readable): void {
    const bytes = this.#bytes;
    let at = 0;
    while (this.#state === 'handshake' && at + FRAME_OVERHEAD <= bytes.length) {
      const size = bytes.readUInt32BE(at + 3);
      if (size > LARGEST) {
        this.open();
        return;
      }
      const next = at + size + FRAME_OVERHEAD;
      if (next > bytes.length) break;
      const isMethod = bytes[at] === FRAME_METHOD && size >= 4;
      if (isMethod && bytes.readInt32BE(at + FRAME_HEAD) === CONNECTION_OPEN_OK) this.#state = 'held';
      at = next;
    }
    this.#bytes = bytes.subarray(at);
    if (at > 0) socket.push(bytes.subarray(0, at));
  }
}
