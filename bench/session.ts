/**
 * One client connection of the replay broker: cuts the bytes into frames and answers the methods a consumer needs.
 * Anything else is refused aloud (540), so that a client which wants more is noticed instead of waiting.
 */
import type { Socket } from 'node:net';
import type { Verdict } from './books.js';
import type { Pour } from './pour.js';
import { FRAME, FRAME_MAX, FRAME_OVERHEAD, frame, METHOD, methodFrame, Reader, Writer } from './wire.js';

const CHANNEL_MAX = 2047;
const HEARTBEAT_SECONDS = 60;
const PROTOCOL_HEADER = Buffer.from('AMQP\0\0\x09\x01', 'latin1');
const CAPABILITIES = {
  publisher_confirms: true,
  exchange_exchange_bindings: true,
  'basic.nack': true,
  consumer_cancel_notify: true,
  'connection.blocked': true,
  per_consumer_qos: true,
};

/** Methods whose answer says the same every time. */
const SIMPLE_ANSWERS = new Map<number, { readonly method: number; readonly args?: () => Writer }>([
  [
    METHOD.connectionStartOk,
    {
      method: METHOD.connectionTune,
      args: () => new Writer().short(CHANNEL_MAX).long(FRAME_MAX).short(HEARTBEAT_SECONDS),
    },
  ],
  [METHOD.connectionOpen, { method: METHOD.connectionOpenOk, args: () => new Writer().shortString('') }],
  [METHOD.channelOpen, { method: METHOD.channelOpenOk, args: () => new Writer().longString('') }],
  [METHOD.channelClose, { method: METHOD.channelCloseOk }],
  [METHOD.confirmSelect, { method: METHOD.confirmSelectOk }],
  [METHOD.exchangeDeclare, { method: METHOD.exchangeDeclareOk }],
  [METHOD.queueBind, { method: METHOD.queueBindOk }],
]);

export class Session {
  readonly #socket: Socket;
  readonly #pour: () => Pour | undefined;
  readonly #prefetch = new Map<number, number>();
  #rest: Buffer = Buffer.alloc(0);
  #greeted = false;
  #refused = false;
  #frameMax = FRAME_MAX;
  #beat: NodeJS.Timeout | undefined;
  #names = 0;

  constructor(socket: Socket, pour: () => Pour | undefined) {
    this.#socket = socket;
    this.#pour = pour;
    socket.setNoDelay(true);
    socket.on('data', (bytes) => this.#read(bytes));
    socket.on('close', () => clearInterval(this.#beat));
    // A peer that is done simply goes; what it left unsettled shows in the ledger.
    socket.on('error', () => socket.destroy());
  }

  #read(bytes: Buffer): void {
    let input = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    if (!this.#greeted) {
      if (input.length < PROTOCOL_HEADER.length) {
        this.#rest = input;
        return;
      }
      this.#greet(input.subarray(0, PROTOCOL_HEADER.length));
      input = input.subarray(PROTOCOL_HEADER.length);
    }
    let at = 0;
    while (!this.#refused && input.length - at >= FRAME_OVERHEAD) {
      const end = at + input.readUInt32BE(at + 3) + FRAME_OVERHEAD;
      if (end > input.length) break;
      this.#frame(input, at, end);
      at = end;
    }
    this.#rest = input.subarray(at);
    // Once per read: what a batch of acks makes room for then leaves in one write.
    if (!this.#refused) this.#pour()?.pump();
  }

  #greet(header: Buffer): void {
    this.#greeted = true;
    if (!header.equals(PROTOCOL_HEADER)) {
      this.#refuse('not an AMQP 0-9-1 client');
      return;
    }
    const properties = { product: 'replay', version: '4.0.0', capabilities: CAPABILITIES };
    const start = new Writer().octet(0).octet(9).table(properties).longString('PLAIN AMQPLAIN').longString('en_US');
    this.#send(0, METHOD.connectionStart, start);
  }

  #frame(input: Buffer, at: number, end: number): void {
    const type = input[at];
    if (input[end - 1] !== FRAME.end) this.#refuse('a frame without its end octet');
    else if (type === FRAME.method) this.#method(input, at, input.readUInt16BE(at + 1));
    else if (type !== FRAME.heartbeat) this.#refuse(`a frame of type ${type}: the replay broker takes no content`);
  }

  #method(input: Buffer, at: number, channel: number): void {
    const method = input.readUInt32BE(at + 7);
    // The common case first. A delivery tag here is below 2^32, so its low word says it all.
    if (method === METHOD.basicAck) {
      this.#settle(channel, input.readUInt32BE(at + 15), (input[at + 19]! & 1) === 1, 'acked');
    } else if (method === METHOD.basicNack) {
      const bits = input[at + 19]!;
      const verdict = (bits & 2) === 2 ? 'requeued' : 'rejected';
      this.#settle(channel, input.readUInt32BE(at + 15), (bits & 1) === 1, verdict);
    } else if (method === METHOD.basicReject) {
      const verdict = (input[at + 19]! & 1) === 1 ? 'requeued' : 'rejected';
      this.#settle(channel, input.readUInt32BE(at + 15), false, verdict);
    } else {
      this.#control(method, new Reader(input, at + 11), channel);
    }
  }

  #control(method: number, args: Reader, channel: number): void {
    const answer = SIMPLE_ANSWERS.get(method);
    if (answer !== undefined) {
      this.#send(channel, answer.method, answer.args?.());
      return;
    }
    switch (method) {
      case METHOD.connectionTuneOk:
        this.#tuned(args);
        break;
      case METHOD.connectionClose:
        this.#send(0, METHOD.connectionCloseOk);
        this.#socket.end();
        break;
      case METHOD.connectionCloseOk:
        this.#socket.end();
        break;
      case METHOD.channelCloseOk:
        break;
      case METHOD.queueDeclare: {
        args.short();
        const name = args.shortString() || `amq.gen-${++this.#names}`;
        this.#send(channel, METHOD.queueDeclareOk, new Writer().shortString(name).long(0).long(0));
        break;
      }
      case METHOD.basicQos:
        args.long();
        this.#prefetch.set(channel, args.short());
        this.#send(channel, METHOD.basicQosOk);
        break;
      case METHOD.basicConsume:
        this.#consume(args, channel);
        break;
      case METHOD.basicCancel: {
        const tag = args.shortString();
        this.#pour()?.stop(tag);
        this.#send(channel, METHOD.basicCancelOk, new Writer().shortString(tag));
        break;
      }
      default:
        this.#refuse(`method ${method >>> 16}.${method & 0xffff} is not one the replay broker knows`);
    }
  }

  #tuned(args: Reader): void {
    args.short();
    const frameMax = args.long();
    if (frameMax > 0) this.#frameMax = Math.min(frameMax, FRAME_MAX);
    const seconds = args.short();
    if (seconds === 0) return;
    this.#beat = setInterval(() => this.#socket.write(frame(FRAME.heartbeat, 0, Buffer.alloc(0))), seconds * 500);
  }

  #consume(args: Reader, channel: number): void {
    args.short();
    args.shortString();
    const tag = args.shortString() || `ctag-${++this.#names}`;
    const noAck = (args.octet() & 2) === 2;
    const prefetch = this.#prefetch.get(channel) ?? 0;
    const pour = this.#pour();
    const wrong =
      pour === undefined
        ? 'a consumer before there was anything to pour'
        : pour.attach({ socket: this.#socket, channel, tag, prefetch, noAck, frameMax: this.#frameMax });
    if (wrong === undefined) this.#send(channel, METHOD.basicConsumeOk, new Writer().shortString(tag));
    else this.#refuse(wrong);
  }

  #settle(channel: number, tag: number, multiple: boolean, verdict: Verdict): void {
    const wrong = this.#pour()?.settle(tag, multiple, verdict);
    if (wrong === undefined) return;
    this.#pour()?.problem(wrong);
    const args = new Writer().short(406).shortString(`PRECONDITION_FAILED - ${wrong}`).short(60).short(80);
    this.#send(channel, METHOD.channelClose, args);
  }

  /** Notes the problem, tells the client as a broker would, and hangs up. */
  #refuse(problem: string): void {
    this.#refused = true;
    this.#pour()?.problem(problem);
    const args = new Writer().short(540).shortString(`NOT_IMPLEMENTED - ${problem}`.slice(0, 255)).short(0).short(0);
    this.#send(0, METHOD.connectionClose, args);
    this.#socket.end();
  }

  #send(channel: number, method: number, args?: Writer): void {
    if (this.#socket.writable) this.#socket.write(methodFrame(channel, method, args));
  }
}
