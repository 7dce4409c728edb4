/**
 * The demonstration: publishes, consumes on worker threads and on the main thread, compares, and checks every message.
 * Exit codes: 0 everything checks, 1 something does not, 2 bad usage, 130 interrupted.
 */
import { randomBytes } from 'node:crypto';
import { Connection, errors, Queue } from '#src/index';
import { checkDeadLetters } from './demo/dead-letters.js';
import { runInline } from './demo/inline.js';
import { type DemoOptions, HELP, readOptions, UsageError } from './demo/options.js';
import { publishAll } from './demo/publish.js';
import { type Findings, faults, heading, report, success } from './demo/report.js';
import { runSharded } from './demo/sharded.js';

/** Should this process die, the broker forgets its queues after so long (ms). */
const EXPIRES = 600_000;
/** The comparison takes a part of the messages: it is slower, and shows as much with fewer. */
const INLINE_SHARE = 0.2;
const SHOWN_FAULTS = 20;

async function demo(options: DemoOptions, signal: AbortSignal): Promise<Findings> {
  const { broker, messages, prefetch } = options;
  const connection = new Connection(broker);
  process.stdout.write(`${heading(broker.startsWith('memory:') ? 'the embedded broker' : connection.asUri())}\n\n`);
  const name = `demo-${randomBytes(4).toString('hex')}`;
  const queue = new Queue(name, undefined, { expires: EXPIRES });
  const inlineQueue = new Queue(`${name}-inline`, undefined, { expires: EXPIRES });
  const deadQueue = new Queue(`${name}.dead`);
  const inlineMessages = Math.round(messages * INLINE_SHARE);
  let left = 0;
  const remove = async (): Promise<void> => {
    for (const each of [queue, inlineQueue, deadQueue]) left += await each.delete(connection);
  };
  try {
    await connection.connect({ signal });
    await queue.declare(connection);
    await inlineQueue.declare(connection);
    const loads = [
      { queue: queue.name, messages, withTroubles: true },
      { queue: inlineQueue.name, messages: inlineMessages, withTroubles: false },
    ];
    const [many, few] = await publishAll(connection, loads, signal);
    const sharded = await runSharded(connection, name, options, many!.book, signal);
    const inline = await runInline(connection, inlineQueue.name, inlineMessages, prefetch, few!.book, signal);
    const deadLetterFaults = await checkDeadLetters(connection, deadQueue.name, many!.troubles);
    await remove();
    const verdict = many!.book.verdict();
    const inlineVerdict = few!.book.verdict();
    const { troubles } = many!;
    return {
      ...{ messages, inlineMessages, prefetch, sharded, inline, verdict, inlineVerdict, troubles },
      ...{ deadLetterFaults, left },
    };
  } catch (error) {
    // Without a connection there is nothing to remove, and what is wrong is told already.
    if (connection.connected) await remove().catch(() => undefined);
    throw error;
  } finally {
    await connection.close();
  }
}

async function main(): Promise<number> {
  let options: DemoOptions | undefined;
  try {
    options = readOptions(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`demo: ${error.message}\nSee --help for what there is.\n`);
    return 2;
  }
  if (options === undefined) {
    process.stdout.write(HELP);
    return 0;
  }
  const interrupt = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => interrupt.abort(new Error(`interrupted by ${name}`)));
  }
  // Whoever read our output is gone (`| head`): clean up all the same.
  process.stdout.on('error', () => interrupt.abort(new Error('standard output was closed')));
  try {
    const findings = await demo(options, interrupt.signal);
    process.stdout.write(`\n${report(findings)}`);
    const found = faults(findings);
    if (found.length === 0) process.stdout.write(`${success(findings)}\n`);
    else
      process.stdout.write(
        `FAILED\n${found
          .slice(0, SHOWN_FAULTS)
          .map((text) => `  ${text}\n`)
          .join('')}`,
      );
    return found.length === 0 ? 0 : 1;
  } catch (error) {
    process.stderr.write(`demo: ${(error as Error).message}\n`);
    if (interrupt.signal.aborted) return 130;
    // A URL that cannot be read is the caller's slip; everything else is a failure.
    return error instanceof errors.OptionError ? 2 : 1;
  }
}

process.exitCode = await main();
