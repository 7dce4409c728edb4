// A worker thread with codecs of its own, registered as a handler module does it: at its top level. It answers with the
// names it knows and with what it decoded.

import { parentPort, workerData } from 'node:worker_threads';
import { type BodyInfo, decodePayload } from '#src/codec/decode';
import { compression, serialization } from '#src/index';

serialization.register(
  'dashed',
  (value) => (value as number[]).map((item) => item.toString(16).padStart(2, '0')).join('-'),
  (body) =>
    body
      .toString()
      .split('-')
      .map((item) => Number.parseInt(item, 16)),
  'application/x-dashed',
);
const mirror = (body: Buffer): Buffer => Buffer.from(body).reverse();
compression.register(mirror, mirror, 'application/x-mirror', ['mirror']);

const accept = serialization.prepareAcceptContent(['json', 'msgpack', 'yaml', 'dashed']);
const payloads = (workerData as { body: Uint8Array; info: BodyInfo }[]).map(({ body, info }) =>
  decodePayload(Buffer.from(body.buffer, body.byteOffset, body.length), info, { accept, maxDecodedBytes: 1 << 20 }),
);
parentPort?.postMessage({ names: compression.names(), payloads });
