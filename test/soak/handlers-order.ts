/** Appends worker, key and sequence to the log, in one write; exits before it does if the message says so, the first time. */
import { openSync, writeSync } from 'node:fs';
import type { Context, Message } from '#src/index';

const log = openSync(process.env.MOZUKU_ORDER_LOG!, 'a');
const record = new Uint32Array(3);

export default function handle(body: unknown, _message: Message, context: Context): void {
  const [key, sequence, kill] = body as [number, number, boolean];
  if (kill && context.attempt === 1) process.exit(7);
  record[0] = context.worker;
  record[1] = key;
  record[2] = sequence;
  writeSync(log, new Uint8Array(record.buffer));
}
