/**
 * The handler of most tests: does what the message says, and writes one line to an effects log outside of the runtime when
 * it is done. The log's path is in MOZUKU_EFFECTS; a line is `id worker attempt sha256 tag start end again`, written in one call (O_APPEND);
 * the times are microseconds of the clock that all threads share; `again` is 1 for a message that says it may have run before.
 *
 * A body is `{ id, do?, ms?, at? }`, or text or bytes that stand for `ok`. `do`: ok (default), throw, failTwice (fails two runs), retry (asks
 * for another run after `ms`), giveUp (rejects), stray (throws
 * outside of the callback), exit, loop (for ever), heap (fills it), native (blocks in a native call for `ms`), busy (blocks
 * for `ms`), sleep (awaits `ms`), work (busy for half of `ms`, then sleeps as long), loopAfter (awaits `ms`, then loops for
 * ever), honour (waits until its signal aborts, and rejects with the reason), never (a promise that does not settle), latch
 * (waits for the file `at`), log (logs what cannot be cloned); and those that
 * settle by themselves: ack, reject, requeue (acks what comes again), twice (acks, then rejects), multiple, later (returns, and
 * acks when the file `at` is there).
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, openSync, writeSync } from 'node:fs';
import * as errors from '#src/errors';
import type { Context, Message } from '#src/index';
import { now } from '#src/pool/clock';

export interface Order {
  readonly id: number | string;
  readonly do?: string;
  readonly ms?: number;
  readonly at?: string;
}

const log = openSync(process.env.MOZUKU_EFFECTS ?? '/dev/null', 'a');
const cell = new Int32Array(new SharedArrayBuffer(4));
const hoard: unknown[] = [];

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function note(message: Message, context: Context, id: number | string, start: number): void {
  const hash = createHash('sha256').update(message.body).digest('hex');
  const { deliveryTag, redelivered } = message.deliveryInfo;
  const again = redelivered || context.attempt > 1 ? 1 : 0;
  const times = `${Math.round(start)} ${Math.round(now())}`;
  writeSync(log, `${id} ${context.worker} ${context.attempt} ${hash} ${deliveryTag} ${times} ${again}\n`);
}

async function obey(order: Order, message: Message, context: Context): Promise<void> {
  const ms = order.ms ?? 0;
  switch (order.do) {
    case 'throw':
      throw new RangeError(`asked to fail: ${order.id}`);
    case 'failTwice':
      if (context.attempt < 3) throw new RangeError(`failed run ${context.attempt}`);
      return;
    case 'retry':
      if (context.attempt === 1) throw new errors.Retry(ms);
      return;
    case 'giveUp':
      throw new errors.Reject('no use');
    case 'stray':
      setImmediate(() => {
        throw new Error(`stray: ${order.id}`);
      });
      return pause(60_000);
    case 'exit':
      process.exit(3);
      break;
    case 'loop':
      for (;;);
    case 'heap':
      // In small pieces: V8 ends the process if one of them finds no room before the thread can be stopped.
      for (;;) hoard.push(Array.from({ length: 20 }, (_, i) => ({ id: order.id, i })));
    case 'native':
      execFileSync('sleep', [String(ms / 1000)]);
      return;
    case 'busy':
      Atomics.wait(cell, 0, 0, ms);
      return;
    case 'sleep':
      return pause(ms);
    case 'work':
      Atomics.wait(cell, 0, 0, ms / 2);
      return pause(ms / 2);
    case 'loopAfter':
      await pause(ms);
      for (;;);
    case 'honour':
      return new Promise((_, reject) => context.signal.addEventListener('abort', () => reject(context.signal.reason)));
    case 'log':
      return context.logger.info({ callback: () => undefined }, 'a function');
    case 'never':
      return new Promise((_, reject) => context.signal.addEventListener('abort', () => setTimeout(reject, 60_000)));
    case 'latch':
      while (!existsSync(order.at!)) await pause(5);
      return;
    case 'ack':
      return message.ack();
    case 'reject':
      return message.reject();
    case 'requeue':
      return message.deliveryInfo.redelivered ? message.ack() : message.requeue();
    case 'twice':
      message.ack();
      return message.reject();
    case 'multiple':
      return message.ack({ multiple: true });
    case 'later':
      void obey({ ...order, do: 'latch' }, message, context).then(() => message.ack());
  }
}

export default function handle(body: unknown, message: Message, context: Context): unknown {
  const start = now();
  const order = (typeof body === 'object' && body !== null && 'id' in body ? body : undefined) as Order | undefined;
  const id = order?.id ?? message.properties.messageId ?? '?';
  if (order?.do === undefined || order.do === 'ok') {
    note(message, context, id, start);
    return undefined;
  }
  return obey(order, message, context).then(() => note(message, context, id, start));
}
