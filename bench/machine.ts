/** The facts about the machine and the run without which its figures say nothing. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';

export interface Machine {
  readonly node: string;
  readonly system: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
}

export function machine(): Machine {
  return {
    node: process.version,
    system: `${process.platform} ${release()} ${process.arch}`,
    cpu: cpus()[0]?.model.trim() ?? 'unknown CPU',
    cores: availableParallelism(),
    memoryBytes: totalmem(),
  };
}

interface Ticks {
  readonly all: number;
  readonly stolen: number;
}

/** CPU time since boot, and what a hypervisor gave to others of it. Undefined where the system does not say. */
export function cpuTicks(): Ticks | undefined {
  try {
    const line = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0] ?? '';
    const fields = line.trim().split(/\s+/).slice(1, 9).map(Number);
    return { all: fields.reduce((sum, value) => sum + value, 0), stolen: fields[7] ?? 0 };
  } catch {
    return undefined;
  }
}

/** The share of CPU time that was stolen between two readings, in percent: above a few, the figures are doubtful. */
export function stealPercent(from: Ticks | undefined, to: Ticks | undefined): number | null {
  if (from === undefined || to === undefined || to.all === from.all) return null;
  return (100 * (to.stolen - from.stolen)) / (to.all - from.all);
}
