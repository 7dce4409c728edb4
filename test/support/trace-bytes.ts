// AMQP 0-9-1 frames made by hand, for the tests of the trace; like the trace they share nothing with the library.

/** An unsigned number in so many bytes. */
function uint(value: number, bytes: 1 | 2 | 4 | 8): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64BE(BigInt(value));
  return buffer.subarray(8 - bytes);
}

function shortString(text: string): Buffer {
  return Buffer.concat([uint(Buffer.byteLength(text), 1), Buffer.from(text)]);
}

function frame(type: number, channel: number, payload: Buffer): Buffer {
  return Buffer.concat([uint(type, 1), uint(channel, 2), uint(payload.length, 4), payload, uint(0xce, 1)]);
}

function method(channel: number, classId: number, methodId: number, ...fields: Buffer[]): Buffer {
  return frame(1, channel, Buffer.concat([uint(classId, 2), uint(methodId, 2), ...fields]));
}

export const protocolHeader = Buffer.from('AMQP\x00\x00\x09\x01', 'latin1');
export const heartbeat = frame(8, 0, Buffer.alloc(0));

export const channelOpen = (channel: number) => method(channel, 20, 10, shortString(''));
export const channelCloseOk = (channel: number) => method(channel, 20, 41);

/** channel.close and connection.close have the same fields. */
const closeFields = (code: number, text: string) => [uint(code, 2), shortString(text), uint(60, 2), uint(80, 2)];
export const channelClose = (channel: number) => method(channel, 20, 40, ...closeFields(406, 'PRECONDITION_FAILED'));
export const connectionClose = () => method(0, 10, 50, ...closeFields(200, 'bye'));

export const basicConsume = (channel: number, consumerTag: string, noAck: boolean) =>
  method(channel, 60, 20, uint(0, 2), shortString('q'), shortString(consumerTag), uint(noAck ? 2 : 0, 1), uint(0, 4));
export const basicConsumeOk = (channel: number, consumerTag: string) =>
  method(channel, 60, 21, shortString(consumerTag));

function contentHeader(channel: number, body: string, messageId: string): Buffer {
  const headers = Buffer.concat([uint(4, 4), shortString('k'), Buffer.from('t\x01')]);
  // content-type, headers, delivery-mode and message-id
  const flags = uint((1 << 15) | (1 << 13) | (1 << 12) | (1 << 7), 2);
  const properties = [flags, shortString('text/plain'), headers, uint(2, 1), shortString(messageId)];
  return frame(2, channel, Buffer.concat([uint(60, 2), uint(0, 2), uint(Buffer.byteLength(body), 8), ...properties]));
}

/** A content header and the body, in frames of at most three bytes each. */
function content(channel: number, body: string, messageId: string): Buffer {
  const bytes = Buffer.from(body);
  const frames = [contentHeader(channel, body, messageId)];
  for (let at = 0; at < bytes.length; at += 3) frames.push(frame(3, channel, bytes.subarray(at, at + 3)));
  return Buffer.concat(frames);
}

export function deliver(channel: number, tag: number, body = 'hello', consumerTag = 'c'): Buffer {
  const fields = [shortString(consumerTag), uint(tag, 8), uint(0, 1), shortString('x'), shortString('key')];
  return Buffer.concat([method(channel, 60, 60, ...fields), content(channel, body, `m${tag}`)]);
}

export const basicGet = (channel: number, noAck: boolean) =>
  method(channel, 60, 70, uint(0, 2), shortString('q'), uint(noAck ? 1 : 0, 1));

export function getOk(channel: number, tag: number): Buffer {
  const fields = [uint(tag, 8), uint(1, 1), shortString('x'), shortString('key'), uint(0, 4)];
  return Buffer.concat([method(channel, 60, 71, ...fields), content(channel, 'got', `m${tag}`)]);
}

export const ack = (channel: number, tag: number, multiple = false) =>
  method(channel, 60, 80, uint(tag, 8), uint(multiple ? 1 : 0, 1));
export const nack = (channel: number, tag: number, multiple = false, requeue = true) =>
  method(channel, 60, 120, uint(tag, 8), uint((multiple ? 1 : 0) | (requeue ? 2 : 0), 1));
export const reject = (channel: number, tag: number, requeue = false) =>
  method(channel, 60, 90, uint(tag, 8), uint(requeue ? 1 : 0, 1));
