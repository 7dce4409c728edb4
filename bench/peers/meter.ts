/**
 * What a peer measures of itself: wall time, CPU of the process and of its main thread, memory, and how long its event
 * loop was held up.
 */
import { readFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';

/** The delay histogram counts from one tick of its own timer to the next: this much is no delay. */
const LOOP_RESOLUTION_MS = 10;

export interface Measured {
  readonly seconds: number;
  readonly processMicros: number;
  readonly mainMicros: number | null;
  readonly maxRssBytes: number;
  readonly loopDelayMaxMs: number;
}

type ThreadCpuUsage = () => { user: number; system: number };

interface Clock {
  readonly source: string;
  readonly read: () => number | null;
}

/** Where the CPU of the calling main thread can be read. */
function mainThreadClock(): Clock {
  // Node 24 has it on every system; the types of Node 20 do not know it.
  const { threadCpuUsage } = process as { threadCpuUsage?: ThreadCpuUsage };
  if (threadCpuUsage !== undefined) {
    const read = threadCpuUsage.bind(process);
    return {
      source: 'process.threadCpuUsage',
      read: () => {
        const { user, system } = read();
        return user + system;
      },
    };
  }
  const task = `/proc/self/task/${process.pid}`;
  if (readSchedstat(task) !== null) return { source: '/proc/self/task/PID/schedstat', read: () => readSchedstat(task) };
  if (readStat(task) !== null) return { source: '/proc/self/task/PID/stat', read: () => readStat(task) };
  return { source: 'not available on this system', read: () => null };
}

/** Nanoseconds on the CPU. All zero where the kernel does not keep it. */
function readSchedstat(task: string): number | null {
  const nanos = Number(readText(`${task}/schedstat`)?.split(' ')[0] ?? 0);
  return nanos > 0 ? nanos / 1000 : null;
}

/** Ticks of 10 ms: with runs of two seconds and more, within 1 %. */
function readStat(task: string): number | null {
  const text = readText(`${task}/stat`);
  // The command name, in parentheses, may hold spaces; utime and stime are fields 14 and 15 of the whole.
  const fields = text?.slice(text.lastIndexOf(')') + 2).split(' ');
  return fields === undefined ? null : (Number(fields[11]) + Number(fields[12])) * 10_000;
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

const clock = mainThreadClock();

/** For the head of a report: how this system accounts CPU per thread. */
export const mainThreadSource = clock.source;

export class Meter {
  #begun: { at: number; cpu: NodeJS.CpuUsage; main: number | null } | undefined;
  readonly #delay = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });

  /** Called at every delivery: only the first one counts. */
  begin(): void {
    if (this.#begun !== undefined) return;
    this.#delay.enable();
    this.#begun = { at: performance.now(), cpu: process.cpuUsage(), main: clock.read() };
  }

  end(): Measured {
    const begun = this.#begun;
    if (begun === undefined) throw new Error('nothing was delivered');
    const seconds = (performance.now() - begun.at) / 1000;
    const { user, system } = process.cpuUsage(begun.cpu);
    const main = clock.read();
    this.#delay.disable();
    return {
      seconds,
      processMicros: user + system,
      mainMicros: main === null || begun.main === null ? null : main - begun.main,
      maxRssBytes: process.resourceUsage().maxRSS * 1024,
      loopDelayMaxMs: Math.max(0, this.#delay.max / 1e6 - LOOP_RESOLUTION_MS),
    };
  }
}
