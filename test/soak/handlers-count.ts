/** Counts, and says how much at the end of the thread: by the log, which is all that a handler has for that. */
import type { WorkerContext } from '#src/index';

let count = 0;

export default function handle(): void {
  count++;
}

export function teardown(context: WorkerContext): void {
  context.logger.info({ count }, 'handled');
}
