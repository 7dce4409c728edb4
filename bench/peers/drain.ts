/**
 * Peer: the floor. Reads the same bytes off the socket into one buffer and throws them away: what reading costs before
 * anyone looks at a message. It consumes with no_ack, and knows from the first delivery how many bytes must come.
 */
import type { Socket } from 'node:net';
import { connect } from 'amqplib';
import { FRAME, FRAME_MAX, FRAME_OVERHEAD, METHOD } from '../wire.js';
import { runPeer } from './peer.js';

const READ_BYTES = 64 * 1024;

/** Octets of one delivery, known from its method and header frames; undefined while those are incomplete. */
function deliveryBytes(bytes: Buffer, at: number): number | undefined {
  const header = at + bytes.readUInt32BE(at + 3) + FRAME_OVERHEAD;
  if (bytes.length < header + 7 + 12) return undefined;
  const headerEnd = header + bytes.readUInt32BE(header + 3) + FRAME_OVERHEAD;
  const body = bytes.readUInt32BE(header + 7 + 8);
  return headerEnd - at + body + Math.ceil(body / (FRAME_MAX - FRAME_OVERHEAD)) * FRAME_OVERHEAD;
}

await runPeer(async (task, meter) => {
  const buffer = Buffer.alloc(READ_BYTES);
  let head: Buffer = Buffer.alloc(0);
  let expected = 0;
  let messageBytes = 0;
  let received = 0;
  let finish: () => void;
  const finished = new Promise<void>((resolve) => {
    finish = resolve;
  });

  /** Before the first delivery: hands amqplib what is its own, frame by frame. */
  const handshake = (socket: Socket, bytes: Buffer): void => {
    head = Buffer.concat([head, bytes]);
    let at = 0;
    while (head.length - at >= FRAME_OVERHEAD + 4) {
      if (head[at] === FRAME.method && head.readUInt32BE(at + 7) === METHOD.basicDeliver) {
        meter.begin();
        const size = deliveryBytes(head, at);
        if (size === undefined) break;
        messageBytes = size;
        expected = size * task.count;
        received = head.length - at;
        break;
      }
      const end = at + head.readUInt32BE(at + 3) + FRAME_OVERHEAD;
      if (end > head.length) break;
      socket.push(Buffer.from(head.subarray(at, end)));
      at = end;
    }
    head = head.subarray(at);
  };

  const onread = {
    buffer,
    // Node calls it with the socket as `this`.
    callback(this: Socket, count: number): boolean {
      if (expected === 0) handshake(this, buffer.subarray(0, count));
      else received += count;
      if (expected > 0 && received >= expected) finish();
      return true;
    },
  };
  // amqplib passes on what net.connect() takes; its types do not say so.
  const socketOptions = { noDelay: true, onread };
  const connection = await connect(task.url, socketOptions);
  const channel = await connection.createChannel();
  await channel.consume('bench', () => undefined, { noAck: true });
  return {
    finished,
    // amqplib no longer hears the broker, so there is no one to say goodbye to: the process just ends.
    close: async () => undefined,
    handled: () => ({ handled: received / messageBytes, tally: null }),
  };
});
