// Watches AMQP 0-9-1 connections from the outside and checks the rules of acknowledgement: a tag is settled at most once, on
// the very connection and life of the channel that delivered it, and never on a closed channel. Attach it to a TcpProxy.

import { ChannelTrace, type TracedDelivery, type TracedSettlement } from './amqp-channel-trace.js';
import { Fields, FRAME_BODY, FRAME_HEADER, FRAME_METHOD, type Frame, FrameReader } from './amqp-reader.js';
import type { Direction, TcpProxy } from './proxy.js';

export type { SettleKind, TracedDelivery, TracedSettlement } from './amqp-channel-trace.js';

/** Runs for each settled delivery, before the settlement is sent on to the broker. */
export type SettleListener = (delivery: TracedDelivery, settlement: TracedSettlement) => void;

interface ConnectionTrace {
  readers: Record<Direction, FrameReader | undefined>;
  channels: Map<number, ChannelTrace>;
  /** As a channel's state, for all of them. */
  state: 'open' | 'closing' | 'closed';
}

const CONNECTION = 10;
const CHANNEL = 20;
const BASIC = 60;

export class AmqpTrace {
  /** What was wrong, in words; empty is what a test wants. */
  readonly violations: string[] = [];
  readonly deliveries: TracedDelivery[] = [];
  /** Every ack, nack and reject of the clients, also the wrong ones. */
  readonly acks: TracedSettlement[] = [];
  readonly #keepBodies: boolean;
  readonly #connections = new Map<number, ConnectionTrace>();
  readonly #listeners: SettleListener[] = [];

  constructor({ keepBodies = false }: { keepBodies?: boolean } = {}) {
    this.#keepBodies = keepBodies;
  }

  /** A trace of everything that goes through the proxy from now on. Attach before the first connection. */
  static attach(proxy: TcpProxy, options: { keepBodies?: boolean } = {}): AmqpTrace {
    const trace = new AmqpTrace(options);
    proxy.observe((connection, direction, bytes) => trace.push(connection.id, direction, bytes));
    return trace;
  }

  onSettle(listener: SettleListener): void {
    this.#listeners.push(listener);
  }

  /** What was delivered and not settled where it could still be. */
  outstanding(): TracedDelivery[] {
    return [...this.#connections.values()].flatMap(({ channels }) =>
      [...channels.values()].filter(({ state }) => state === 'open').flatMap((channel) => channel.outstanding()),
    );
  }

  /** Throws if a rule was broken. */
  assertClean(): void {
    if (this.violations.length === 0) return;
    throw new Error(`${this.violations.length} violations:\n${this.violations.slice(0, 20).join('\n')}`);
  }

  /** Takes bytes of a connection, in any portions. */
  push(connection: number, direction: Direction, bytes: Buffer): void {
    let trace = this.#connections.get(connection);
    if (!trace) {
      const readers = { toServer: new FrameReader('toServer'), toClient: new FrameReader('toClient') };
      trace = { readers, channels: new Map(), state: 'open' };
      this.#connections.set(connection, trace);
    }
    try {
      for (const frame of trace.readers[direction]?.push(bytes) ?? []) {
        if (direction === 'toServer') this.#fromClient(connection, trace, frame);
        else this.#fromServer(connection, trace, frame);
      }
    } catch (error) {
      this.violations.push(`connection ${connection} ${direction}: unreadable: ${String(error)}`);
      trace.readers[direction] = undefined;
    }
  }

  #fromClient(id: number, connection: ConnectionTrace, frame: Frame): void {
    // content of the client's own publishes
    if (frame.type !== FRAME_METHOD) return;
    const fields = new Fields(frame.payload);
    const [classId, method] = [fields.short(), fields.short()];
    const channel = connection.channels.get(frame.channel);
    if (classId === CONNECTION && (method === 50 || method === 51)) {
      connection.state = 'closed';
      for (const each of connection.channels.values()) each.state = 'closed';
    } else if (classId === CHANNEL && method === 10) {
      const incarnation = (channel?.incarnation ?? 0) + 1;
      connection.channels.set(frame.channel, new ChannelTrace(id, frame.channel, incarnation, this.#keepBodies));
    } else if (classId === CHANNEL && (method === 40 || method === 41)) {
      if (channel) channel.state = 'closed';
    } else if (classId === BASIC) {
      if (method === 20) channel?.consumeAsked(fields);
      else if (method === 70) channel?.getAsked(fields);
      else if (method === 80 || method === 90 || method === 120) this.#settled(id, connection, frame, method, fields);
    }
  }

  #fromServer(_id: number, connection: ConnectionTrace, frame: Frame): void {
    const channel = connection.channels.get(frame.channel);
    if (frame.type === FRAME_HEADER) channel?.contentHeader(frame.payload);
    if (frame.type === FRAME_BODY) channel?.contentBody(frame.payload);
    if (frame.type !== FRAME_METHOD) return;
    const fields = new Fields(frame.payload);
    const [classId, method] = [fields.short(), fields.short()];
    if (classId === CONNECTION && method === 50) {
      if (connection.state === 'open') connection.state = 'closing';
    } else if (classId === CHANNEL && method === 40) {
      if (channel?.state === 'open') channel.state = 'closing';
    } else if (classId === BASIC) {
      if (method === 21) channel?.consumeConfirmed(fields);
      else if (method === 50) channel?.returned();
      else if (method === 60 && channel) this.deliveries.push(channel.delivered('deliver', fields));
      else if (method === 71 && channel) this.deliveries.push(channel.delivered('get', fields));
      else if (method === 72) channel?.getEmpty();
      else if (method === 111) channel?.recovered();
    }
  }

  #settled(id: number, connection: ConnectionTrace, frame: Frame, method: number, fields: Fields): void {
    const channel = connection.channels.get(frame.channel);
    const kind = method === 80 ? 'ack' : method === 90 ? 'reject' : 'nack';
    const tag = fields.longlong();
    const bits = fields.octet();
    const settlement: TracedSettlement = {
      connection: id,
      channel: frame.channel,
      incarnation: channel?.incarnation ?? 0,
      kind,
      tag,
      multiple: kind !== 'reject' && (bits & 1) !== 0,
      requeue: kind === 'reject' ? (bits & 1) !== 0 : kind === 'nack' && (bits & 2) !== 0,
      crossedClose: connection.state === 'closing' || channel?.state === 'closing',
      deliveries: [],
    };
    this.acks.push(settlement);
    const violation = channel
      ? channel.settle(settlement)
      : `basic.${kind} of tag ${tag} on connection ${id} channel ${frame.channel}: that channel was never opened`;
    if (violation) this.violations.push(violation);
    for (const delivery of settlement.deliveries) {
      for (const listener of this.#listeners) listener(delivery, settlement);
    }
  }
}
