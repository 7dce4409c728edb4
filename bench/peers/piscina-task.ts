/** The task of the amqplib-piscina peer: parses one body on the worker thread and answers its id. */
import { idOf } from '../tally.js';

export default function parse(body: Uint8Array): number {
  return idOf(JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString()));
}
