// An AMQP server that is a puppet: it shakes hands and says yes to everything, and a test says which bytes it sends. For what a
// real broker cannot be made to do: malformed frames, lies, deliveries beyond the prefetch.

import { EventEmitter, once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { method, shortString, uint } from './amqp-bytes.js';
import { Fields, FRAME_METHOD, FrameReader } from './amqp-reader.js';

const START = 10;
const longString = (text: string): Buffer => Buffer.concat([uint(Buffer.byteLength(text), 4), Buffer.from(text)]);
const emptyTable = uint(0, 4);

/** class << 16 | method */
const word = (classId: number, methodId: number): number => classId * 65_536 + methodId;

const START_OK = word(10, 11);
const CONSUME = word(60, 20);
const SETTLING: Readonly<Record<number, FakeSettlement['kind']>> = { 80: 'ack', 90: 'reject', 120: 'nack' };

/** The arguments of the answer, whose method is the question's plus one. */
const replies: Readonly<Record<number, (fields: Fields) => Buffer[]>> = {
  [word(10, 40)]: () => [shortString('')], // connection.open
  [word(10, 50)]: () => [], // connection.close
  [word(20, 10)]: () => [emptyTable], // channel.open
  [word(20, 40)]: () => [], // channel.close
  [word(40, 10)]: () => [], // exchange.declare
  [word(50, 10)]: (fields) => {
    fields.short();
    return [shortString(fields.shortString()), uint(0, 4), uint(0, 4)]; // queue.declare
  },
  [word(50, 20)]: () => [], // queue.bind
  [word(60, 10)]: () => [], // basic.qos
  [word(60, 30)]: (fields) => [shortString(fields.shortString())], // basic.cancel
  [word(85, 10)]: () => [], // confirm.select
};

export interface FakeOptions {
  readonly frameMax?: number;
  /** Seconds, as the broker proposes. */
  readonly heartbeat?: number;
  /** Goes on sending to a client that has ended its half of the connection. */
  readonly lingers?: boolean;
  /** Answers a method ('60.20') itself, or says nothing: true if the usual answer is not to be sent. */
  readonly answer?: (connection: FakeConnection, method: string, channel: number, fields: Fields) => boolean;
}

export interface FakeConsumer {
  readonly connection: FakeConnection;
  readonly channel: number;
  readonly tag: string;
  readonly queue: string;
}

/** What a client settled, in the order it came. */
export interface FakeSettlement {
  readonly kind: 'ack' | 'nack' | 'reject';
  readonly channel: number;
  readonly tag: number;
  readonly multiple: boolean;
}

export class FakeConnection {
  readonly settlements: FakeSettlement[] = [];
  /** Every method the client sent, as class.method. */
  readonly methods: string[] = [];
  readonly closed: Promise<void>;

  constructor(
    readonly socket: Socket,
    private readonly options: FakeOptions,
    private readonly onConsumer: (consumer: FakeConsumer) => void,
    private readonly events: EventEmitter,
  ) {
    const reader = new FrameReader('toServer');
    let greeted = false;
    socket.setNoDelay(true);
    // A client that hangs up on us does what these tests are for.
    socket.on('error', () => undefined);
    this.closed = new Promise((resolve) => {
      socket.once('close', () => resolve());
    });
    socket.on('data', (bytes) => {
      const frames = reader.push(bytes as Buffer);
      if (!greeted) {
        greeted = true;
        this.send(method(0, 10, START, Buffer.from([0, 9]), emptyTable, longString('PLAIN'), longString('en_US')));
      }
      for (const { type, channel, payload } of frames) if (type === FRAME_METHOD) this.#answer(channel, payload);
    });
  }

  send(bytes: Buffer): void {
    if (!this.socket.destroyed) this.socket.write(bytes);
  }

  #answer(channel: number, payload: Buffer): void {
    const fields = new Fields(payload);
    const classId = fields.short();
    const methodId = fields.short();
    this.methods.push(`${classId}.${methodId}`);
    if (this.options.answer?.(this, `${classId}.${methodId}`, channel, fields) === true) return;
    const reply = replies[word(classId, methodId)];
    if (reply !== undefined) this.send(method(channel, classId, methodId + 1, ...reply(fields)));
    else if (word(classId, methodId) === START_OK) this.send(this.#tune());
    else if (word(classId, methodId) === CONSUME) this.#consume(channel, fields);
    else if (classId === 60) this.#settled(channel, methodId, fields);
  }

  #tune(): Buffer {
    const { frameMax = 131_072, heartbeat = 60 } = this.options;
    return method(0, 10, 30, uint(2047, 2), uint(frameMax, 4), uint(heartbeat, 2));
  }

  #consume(channel: number, fields: Fields): void {
    fields.short();
    const queue = fields.shortString();
    const tag = fields.shortString();
    this.send(method(channel, 60, 21, shortString(tag)));
    this.onConsumer({ connection: this, channel, tag, queue });
  }

  #settled(channel: number, methodId: number, fields: Fields): void {
    const kind = SETTLING[methodId];
    if (kind === undefined) return;
    const tag = fields.longlong();
    this.settlements.push({ kind, channel, tag, multiple: kind !== 'reject' && (fields.octet() & 1) === 1 });
    this.events.emit('settlement');
  }
}

export class FakeBroker implements AsyncDisposable {
  readonly connections: FakeConnection[] = [];
  readonly consumers: FakeConsumer[] = [];
  readonly #events = new EventEmitter();
  readonly #server: Server;

  static async listen(options: FakeOptions = {}): Promise<FakeBroker> {
    const broker = new FakeBroker(options);
    broker.#server.listen(0, '127.0.0.1');
    await once(broker.#server, 'listening');
    return broker;
  }

  private constructor(options: FakeOptions) {
    this.#server = createServer({ allowHalfOpen: options.lingers === true }, (socket) => {
      const onConsumer = (consumer: FakeConsumer): void => {
        this.consumers.push(consumer);
        this.#events.emit('consumer');
      };
      this.connections.push(new FakeConnection(socket, options, onConsumer, this.#events));
    });
  }

  get url(): string {
    return `amqp://guest:guest@127.0.0.1:${(this.#server.address() as AddressInfo).port}//`;
  }

  /** The consumer number `n` of all there ever were, 1 is the first, as soon as it is there. */
  async consumer(n: number): Promise<FakeConsumer> {
    while (this.consumers.length < n) await once(this.#events, 'consumer');
    return this.consumers[n - 1]!;
  }

  /** Resolves when `connection` has settled up to this tag. */
  async settled(connection: FakeConnection, tag: number): Promise<void> {
    while (!connection.settlements.some((settlement) => settlement.tag === tag)) await once(this.#events, 'settlement');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    for (const { socket } of this.connections) socket.destroy();
    await Promise.all(this.connections.map(({ closed }) => closed));
  }
}
