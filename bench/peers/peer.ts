/**
 * The frame of every peer program: reads its task, runs, waits until the broker has everything settled, takes the
 * reading, closes, reports, and exits. The end is the broker's word, the same for all: no peer has to poll for it.
 */
import { type Message, message, type TallyCounts, type Task } from '../protocol.js';
import { Meter } from './meter.js';

export interface Running {
  /** For a peer whose end is not a settlement. */
  readonly finished?: Promise<void>;
  /** Called after the reading was taken. */
  close(): Promise<void>;
  /** Called after `close()`. */
  handled(): { readonly handled: number; readonly tally: TallyCounts | null };
}

/** Starts to consume; calls `meter.begin()` at the first delivery. */
export type Start = (task: Task, meter: Meter) => Promise<Running>;

const send = (outgoing: Message): Promise<void> =>
  new Promise((resolve) => {
    if (process.send === undefined) resolve();
    else process.send(outgoing, () => resolve());
  });

const settled = new Promise<void>((resolve) => {
  process.on('message', (incoming: Message) => {
    if (incoming.type === 'settled') resolve();
  });
});

async function fail(error: unknown): Promise<never> {
  await send({ type: 'problem', text: message(error) });
  process.exit(1);
}

/** Runs this process as a peer. Never rejects: what goes wrong is reported and ends the process. */
export async function runPeer(start: Start): Promise<void> {
  process.on('uncaughtException', fail);
  process.on('unhandledRejection', fail);
  // The harness is gone: so is the reason to run.
  process.on('disconnect', () => process.exit(1));
  try {
    const argument = process.argv[2];
    if (argument === undefined) throw new Error('a peer is started by the benchmark, with its task as argument');
    const task = JSON.parse(argument) as Task;
    const meter = new Meter();
    const running = await start(task, meter);
    await (running.finished ?? settled);
    const measured = meter.end();
    await running.close();
    await send({ type: 'report', reading: { ...measured, ...running.handled() } });
    process.exit(0);
  } catch (error) {
    await fail(error);
  }
}
