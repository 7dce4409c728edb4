/** amqplib's connection, spoken to a broker in this process: opens channels, and tells of the end. */
import { EventEmitter } from 'node:events';
import type * as amqplib from 'amqplib';
import { IllegalOperationError } from 'amqplib';
import type { Broker, Link } from './broker.js';
import { MemoryChannel } from './channel.js';
import type { Refusal } from './refusal.js';
import { Wire } from './wire.js';

const CONNECTION: amqplib.Connection = {
  serverProperties: {
    host: 'localhost',
    product: 'mozuku memory broker',
    version: '0-9-1',
    platform: `Node.js ${process.version}`,
    information: 'in this process; nothing is kept',
  },
};

/** Longer than any process lives; the timer that it is for never has to do anything. */
const FOR_EVER = 0x7fffffff;

export class MemoryModel extends EventEmitter implements amqplib.ChannelModel {
  readonly connection = CONNECTION;
  /** The broker's side; of use to a source, which consumes without a channel of amqplib's kind. */
  readonly link: Link;
  readonly wire = new Wire();
  readonly #channels = new Set<MemoryChannel>();
  #illegal: string | undefined;
  #gone = false;
  /** An open connection keeps the process alive, as a socket does. */
  readonly #keepAlive = setInterval(() => undefined, FOR_EVER);

  constructor(broker: Broker, vhost: string, user: string) {
    super();
    this.link = broker.connect(vhost, user, { closed: (refusal) => this.#closedByBroker(refusal) });
  }

  createChannel(): Promise<amqplib.Channel> {
    return this.#open(false);
  }

  createConfirmChannel(): Promise<amqplib.ConfirmChannel> {
    return this.#open(true);
  }

  /** Nothing here looks at a secret. */
  async updateSecret(): Promise<void> {
    this.#mustBeOpen();
  }

  async close(): Promise<void> {
    this.#mustBeOpen();
    this.#illegal = 'Connection closing';
    this.link.close();
    await new Promise<void>((resolve) => {
      this.wire.push(() => {
        resolve();
        this.#toClosed(undefined, 'Connection closed (by client)');
      });
    });
  }

  /** Cuts the connection, as if its socket were gone. */
  cut(): void {
    if (this.#gone) return;
    const error = new Error('Socket closed abruptly');
    this.#illegal = 'Connection closing';
    this.link.close();
    this.wire.push(() => {
      if (this.#gone) return;
      this.emit('error', error);
      this.#toClosed(error, `Connection closed (${String(error)})`);
    });
  }

  #closedByBroker(refusal: Refusal): void {
    const { classId, methodId } = refusal.method;
    const text = `Connection closed: ${refusal.told}`;
    const error = Object.assign(new Error(text), { code: refusal.replyCode, classId, methodId });
    this.wire.push(() => {
      if (this.#gone) return;
      // amqplib takes an operator's closing for no error.
      if (refusal.replyCode !== 320) this.emit('error', error);
      this.#toClosed(error, `Connection closed (${String(error)})`);
    });
  }

  #toClosed(error: Error | undefined, illegal: string): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#illegal = illegal;
    clearInterval(this.#keepAlive);
    for (const channel of [...this.#channels]) channel.toClosed();
    this.emit('close', error);
  }

  #mustBeOpen(): void {
    if (this.#illegal !== undefined) throw new IllegalOperationError(this.#illegal);
  }

  async #open(confirms: boolean): Promise<MemoryChannel> {
    this.#mustBeOpen();
    const channel = new MemoryChannel(this.connection, this.link, this.wire);
    this.#channels.add(channel);
    channel.once('close', () => this.#channels.delete(channel));
    if (confirms) channel.selectConfirms();
    return await new Promise<MemoryChannel>((resolve, reject) => {
      this.wire.push(() => {
        if (this.link.open) resolve(channel);
        else reject(new Error('Channel ended, no reply will be forthcoming'));
      });
    });
  }
}
