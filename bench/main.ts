/**
 * The benchmark: this library beside what people use instead, against a broker that only replays deliveries; or
 * (`codecs`) decoding alone, beside the bare libraries; or (`publish`) confirmed publishing, on a RabbitMQ; or (`redis`)
 * consumers of a Redis.
 * Exit codes: 0 measured, 1 a run failed, 2 bad usage, 130 interrupted.
 */
import { killAll } from './children.js';
import { benchCodecs } from './codecs.js';
import { cpuTicks, machine, stealPercent } from './machine.js';
import { type BenchOptions, HELP, readOptions, UsageError } from './options.js';
import { Progress } from './progress.js';
import { message } from './protocol.js';
import { benchPublish } from './publish.js';
import { benchRedis } from './redis/bench.js';
import { jsonReport, type Outcome, textReport } from './report.js';
import { Broker } from './sample.js';
import { runAll } from './schedule.js';

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  process.once(signal, () => {
    killAll();
    process.exit(code);
  });
}

async function bench(options: BenchOptions): Promise<Outcome> {
  const before = cpuTicks();
  const progress = new Progress(options.bodies.length * options.peers.length * options.rounds);
  const broker = new Broker();
  try {
    await broker.start();
    const results = await runAll(options, broker, progress);
    return { options, machine: machine(), stealPercent: stealPercent(before, cpuTicks()), ...results };
  } finally {
    progress.end();
    await broker.stop();
  }
}

async function main(): Promise<number> {
  const [first, ...others] = process.argv.slice(2);
  if (first === 'codecs') return benchCodecs(others);
  if (first === 'publish') return benchPublish(others);
  if (first === 'redis') return benchRedis(others);
  let options: BenchOptions | undefined;
  try {
    options = readOptions(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`bench: ${error.message}\nSee --help for what there is.\n`);
    return 2;
  }
  if (options === undefined) {
    process.stdout.write(HELP);
    return 0;
  }
  const outcome = await bench(options);
  process.stdout.write(options.json ? jsonReport(outcome) : textReport(outcome));
  return outcome.failures.length === 0 ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  killAll();
  process.stderr.write(`bench: ${message(error)}\n`);
  process.exitCode = 1;
}
