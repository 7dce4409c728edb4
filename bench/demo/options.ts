/** The flags of the demonstration. What is not one of them is an error with a hint, exit code 2. */
import { parseArgs } from 'node:util';

export interface DemoOptions {
  readonly broker: string;
  readonly messages: number;
  readonly workers: number;
  readonly prefetch: number;
}

export class UsageError extends Error {}

/** The embedded broker: nothing to install. */
const BROKER = 'memory://demo';
const MESSAGES = 20_000;
const WORKERS = 2;

const FLAGS = {
  broker: { type: 'string' },
  messages: { type: 'string' },
  workers: { type: 'string' },
  prefetch: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const;

export const HELP = `Usage: npm run demo -- [options]

Publishes messages of many kinds and sizes to a queue of its own, handles them
on worker threads with a callback that costs CPU, does the same with a part of
them on the main thread for comparison, and checks that every message was
handled once and unharmed. Some of them go wrong on purpose.

  --messages N   how many messages, 100 to 1000000 (${MESSAGES})
  --workers N    worker threads, 1 to 64 (${WORKERS})
  --prefetch N   unsettled messages asked of the broker, 1 to 65535
                 (the larger of 64 and 16 for each worker)
  --broker URL   a RabbitMQ, such as amqp://guest:guest@localhost, instead of
                 the embedded broker; its new queues, whose names begin with
                 "demo-", are deleted at the end
  --help         this text

Exit codes: 0 everything checks, 1 something does not, 2 bad usage,
130 interrupted.
`;

/** Undefined when help was asked for. Throws UsageError. */
export function readOptions(args: readonly string[]): DemoOptions | undefined {
  const values = parse(args);
  if (values.help) return undefined;
  const workers = integer('--workers', values.workers, 1, 64) ?? WORKERS;
  return {
    broker: values.broker ?? BROKER,
    messages: integer('--messages', values.messages, 100, 1_000_000) ?? MESSAGES,
    workers,
    prefetch: integer('--prefetch', values.prefetch, 1, 65_535) ?? Math.max(64, 16 * workers),
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: FLAGS, strict: true }).values;
  } catch (error) {
    const unknown = args.find((arg) => arg.startsWith('--') && !(flagName(arg) in FLAGS));
    if (unknown !== undefined) throw new UsageError(`there is no --${flagName(unknown)}${meant(flagName(unknown))}`);
    throw new UsageError((error as Error).message.split('. ')[0]);
  }
}

const flagName = (arg: string): string => arg.slice(2).split('=')[0]!;

function integer(flag: string, text: string | undefined, min: number, max: number): number | undefined {
  if (text === undefined) return undefined;
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new UsageError(`${flag} is a whole number from ${min} to ${max}, not '${text}'`);
}

/** The flag that was most likely meant: the one that shares most letter pairs with what was typed. */
function meant(word: string): string {
  const pairs = (text: string): string[] => Array.from({ length: text.length - 1 }, (_, i) => text.slice(i, i + 2));
  const typed = pairs(word);
  const score = (name: string): number =>
    (2 * pairs(name).filter((pair) => typed.includes(pair)).length) / (name.length + word.length);
  const names = Object.keys(FLAGS).sort((a, b) => score(b) - score(a));
  return score(names[0]!) >= 0.3 ? `; did you mean --${names[0]}?` : '';
}
