/**
 * One run of one peer against the replay broker, and the check that every message was delivered, handled and acked
 * exactly once. A figure from a run that lost something is worth nothing, so such a run fails.
 */
import { Child } from './children.js';
import { type Ledger, message, type PeerName, type Reading, type Sample, type Task } from './protocol.js';
import { expected } from './tally.js';

const START_MS = 10_000;
const CLOSE_MS = 40_000;

export class Broker {
  readonly child = new Child('./replay-broker.js', 'the replay broker');
  #url = '';

  get url(): string {
    return this.#url;
  }

  async start(): Promise<void> {
    const { port } = await this.child.next('listening', START_MS);
    this.#url = `amqp://guest:guest@127.0.0.1:${port}`;
  }

  stop(): Promise<void> {
    return this.child.stop(0);
  }
}

export interface RunOptions {
  readonly peer: PeerName;
  readonly round: number;
  readonly task: Task;
  readonly timeoutMs: number;
}

/** Runs a peer once. Rejects with the reason when it failed, or lost or duplicated a message. */
export async function runOnce(broker: Broker, { peer, round, task, timeoutMs }: RunOptions): Promise<Sample> {
  broker.child.reset();
  broker.child.send({ type: 'load', count: task.count, bodyBytes: task.bodyBytes });
  await broker.child.next('loaded', START_MS);
  const child = new Child(`./peers/${peer}.js`, peer, [JSON.stringify(task)]);
  let reading: Reading | undefined;
  let failure: unknown;
  try {
    const settled = broker.child.next('settled', timeoutMs).then(() => child.send({ type: 'settled' }));
    const report = child.next('report', timeoutMs + CLOSE_MS);
    // Either may fail first; both count.
    [{ reading }] = await Promise.all([report, settled]);
  } catch (error) {
    failure = error;
  }
  if (reading === undefined) child.kill();
  await child.stop();
  // After the peer is gone, so that what it settled late or twice is in the books too.
  broker.child.reset();
  broker.child.send({ type: 'askLedger' });
  const { ledger } = await broker.child.next('ledger', START_MS, { deaf: true });
  const wrong = faults(task, reading, ledger);
  // What the broker complained about ended the run and is in its books too: said once.
  if (failure !== undefined && ledger.problems.length === 0) wrong.unshift(message(failure));
  if (reading === undefined || wrong.length > 0) throw new Error(wrong.join('; '));
  return {
    peer,
    bodyBytes: task.bodyBytes,
    prefetch: task.prefetch,
    round,
    count: task.count,
    rate: task.count / reading.seconds,
    processMicros: reading.processMicros / task.count,
    mainMicros: reading.mainMicros === null ? null : reading.mainMicros / task.count,
    brokerMicros: ledger.cpuMicros / task.count,
    maxRssBytes: reading.maxRssBytes,
    loopDelayMaxMs: reading.loopDelayMaxMs,
    seconds: reading.seconds,
    settleFrames: ledger.settleFrames,
  };
}

/** What the broker's books and the peer's counts say against a run. */
function faults(task: Task, reading: Reading | undefined, ledger: Ledger): string[] {
  const found = [...ledger.problems];
  const must = (name: string, value: number, wanted: number): void => {
    if (value !== wanted) found.push(`${name} ${value}, not ${wanted}`);
  };
  must('delivered', ledger.delivered, task.count);
  must('acked', ledger.acked, ledger.noAck ? 0 : task.count);
  must('rejected', ledger.rejected, 0);
  must('requeued', ledger.requeued, 0);
  if (!ledger.noAck) must('prefetch asked for', ledger.prefetch, task.prefetch);
  if (reading === undefined) return found;
  must('handled', reading.handled, task.count);
  const { tally } = reading;
  if (tally === null || tally.count !== task.count) return found;
  const right = expected(task.count);
  if (tally.sum !== right.sum || tally.squares !== right.squares) {
    found.push('handled some message twice and another never');
  }
  return found;
}
