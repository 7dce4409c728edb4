/**
 * AMQP 0-9-1 frames on bytes: the numbers, and readers for the few fields the runtime looks at itself.
 *
 *   frame   = type u8 | channel u16 | size u32 | payload (size bytes) | 0xCE
 *   method  = class u16 | method u16 | arguments                         (type 1)
 *   header  = class u16 | weight u16 | body size u64 | flags u16 | properties   (type 2)
 *   body    = bytes                                                      (type 3)
 *
 * Reads only; knows neither sockets nor threads. Source: AMQP 0-9-1 specification, sections 2.3 and 4.2.
 */

export const FRAME_METHOD = 1;
export const FRAME_HEADER = 2;
export const FRAME_BODY = 3;
export const FRAME_HEARTBEAT = 8;
/**
 * Our own, on no wire: in shared memory a message of a broker that is not AMQP is a basic.deliver that names no exchange and no
 * routing key, and behind it one frame of this type with kombu's envelope, as it came.
 */
export const FRAME_ENVELOPE = 0x45;
export const FRAME_END = 0xce;

/** Bytes before a payload. */
export const FRAME_HEAD = 7;
/** Bytes of a frame that are not payload: head and end octet. */
export const FRAME_OVERHEAD = 8;

/** Class and method in one 32-bit word, as they stand in a method frame. */
export const CONNECTION_CLOSE = (10 << 16) | 50;
export const CONNECTION_OPEN_OK = (10 << 16) | 41;
export const CHANNEL_OPEN_OK = (20 << 16) | 11;
export const CHANNEL_CLOSE = (20 << 16) | 40;
export const CHANNEL_CLOSE_OK = (20 << 16) | 41;
export const BASIC_PUBLISH = (60 << 16) | 40;
export const BASIC_DELIVER = (60 << 16) | 60;
export const BASIC_ACK = (60 << 16) | 80;
export const BASIC_REJECT = (60 << 16) | 90;
export const BASIC_NACK = (60 << 16) | 120;

export const CLASS_BASIC = 60;

/** The frame size we ask for and the most we accept: RabbitMQ's default. 4.1 refuses less than 8192. */
export const FRAME_MAX = 131_072;

/** A heartbeat, whole. */
export const HEARTBEAT_FRAME: readonly number[] = [FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END];

/** Size of one encoded basic.ack, basic.nack or basic.reject frame. */
export const SETTLE_FRAME_SIZE = 21;

/**
 * Writes one basic.ack, basic.nack or basic.reject at `at`; returns the offset behind it.
 * `bits`: for ack 1 = multiple; for nack 1 = multiple, 2 = requeue; for reject 1 = requeue.
 */
export function writeSettle(
  out: Buffer,
  at: number,
  channel: number,
  method: number,
  tagHi: number,
  tagLo: number,
  bits: number,
): number {
  out[at] = FRAME_METHOD;
  out[at + 1] = channel >>> 8;
  out[at + 2] = channel;
  out[at + 3] = 0;
  out[at + 4] = 0;
  out[at + 5] = 0;
  out[at + 6] = 13;
  out.writeInt32BE(method, at + 7);
  out.writeInt32BE(tagHi | 0, at + 11);
  out.writeInt32BE(tagLo | 0, at + 15);
  out[at + 19] = bits;
  out[at + 20] = FRAME_END;
  return at + SETTLE_FRAME_SIZE;
}
