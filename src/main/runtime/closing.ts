/**
 * The order in which a consumer ends: no more deliveries, give back what has not started, let callbacks end (past the
 * deadline abort them, then their threads), publish the dead letters, write the acks, close the channel, which gives the
 * rest back. Heartbeats and acks go on until the last step.
 */
import { TimeoutError } from '../../errors.js';
import { withDeadline } from '../deadline.js';
import type { Source } from '../transports/transport.js';
import type { Dispatcher } from './dispatcher.js';
import type { Outlets } from './outlets.js';
import type { Publishing } from './publishing.js';
import type { Retries } from './retries.js';
import type { Supervisor } from './supervisor.js';

export interface RuntimeParts {
  readonly source: Source;
  readonly dispatcher: Dispatcher;
  readonly supervisor: Supervisor;
  readonly outlets: Outlets;
  readonly retries: Retries;
  readonly publishing: Publishing;
  readonly ordered: boolean;
  readonly drainTimeout: number;
  readonly terminateGrace: number;
  /** Takes settlements and writes acks. */
  readonly pump: () => void;
  readonly onError: (error: Error) => void;
}

/** An answer of the broker that does not come is given up after this, ms. */
export const BROKER_TIMEOUT = 5_000;
const TEARDOWN_TIMEOUT = 2_000;
/** Between the abort of the signals and the end of the threads, ms. */
const ABORT_GRACE = 1_000;

/** Never rejects: what goes wrong is told to `onError`, and the next step follows. */
export async function endRuntime(parts: RuntimeParts): Promise<void> {
  const { source, dispatcher, pump, onError } = parts;
  try {
    await source.cancel(BROKER_TIMEOUT);
  } catch (error) {
    onError(error as Error);
  }
  // In order it goes back with its channel.
  if (parts.ordered) dispatcher.withdrawUnstarted();
  else dispatcher.giveBack();
  parts.retries.giveBack();
  source.flush();
  await endWorkers(parts);
  pump();
  parts.retries.giveBack();
  await endOutlets(parts);
  await source.close(BROKER_TIMEOUT);
  await parts.publishing.close(BROKER_TIMEOUT);
}

async function endWorkers({ supervisor, drainTimeout, terminateGrace, onError }: RuntimeParts): Promise<void> {
  const drained = supervisor.drain();
  if (!(await within(drained, drainTimeout))) {
    supervisor.abortAll('the consumer closes and its drainTimeout is over');
    if (!(await within(drained, ABORT_GRACE))) supervisor.terminateAll('the consumer closed');
  }
  const gone = supervisor.gone();
  if (await within(gone, TEARDOWN_TIMEOUT)) return;
  supervisor.terminateAll('its teardown took too long');
  if (await within(gone, terminateGrace)) return;
  onError(new TimeoutError('a worker thread does not exit: a native call of the handler holds it'));
}

async function endOutlets({ outlets, onError }: RuntimeParts): Promise<void> {
  if (!(await within(outlets.idle(), BROKER_TIMEOUT))) {
    onError(
      new TimeoutError(`${outlets.pending} dead letters and retries could not be published: their messages go back`),
    );
  }
  await outlets.close(BROKER_TIMEOUT);
}

export async function within(work: Promise<void>, milliseconds: number): Promise<boolean> {
  try {
    await withDeadline(work, 'closing', milliseconds);
    return true;
  } catch (error) {
    if (error instanceof TimeoutError) return false;
    throw error;
  }
}
