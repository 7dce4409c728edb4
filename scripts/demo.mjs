// npm run demo: compiles, starts a RabbitMQ node of its own and runs the demonstration against it.
// With `--broker amqp://…` that broker is used and none is started. Other arguments go to the demonstration.

import { CommandError, main, prepare, run } from './lib/project.mjs';
import { provideRabbitMQ } from './lib/provision.mjs';
import { RabbitNode } from './lib/rabbitmq.mjs';

/** @param {string[]} args @returns {{ broker: string | undefined, rest: string[] }} */
function parse(args) {
  const at = args.findIndex((arg) => arg === '--broker' || arg.startsWith('--broker='));
  const [flag] = args.slice(at, at + 1);
  if (at < 0 || flag === undefined) return { broker: undefined, rest: args };
  const separate = flag === '--broker';
  const broker = separate ? args[at + 1] : flag.slice('--broker='.length);
  if (!broker) throw new CommandError('--broker needs a URL, such as amqp://guest:guest@localhost');
  return { broker, rest: args.toSpliced(at, separate ? 2 : 1) };
}

await main(async (args) => {
  const { broker, rest } = parse(args);
  await prepare();
  if (!broker && !(await provideRabbitMQ())) {
    throw new CommandError(
      'rabbitmq-server is not installed: apt-get install -y rabbitmq-server, or give --broker URL',
    );
  }
  const node = broker ? undefined : await RabbitNode.start();
  try {
    return await run(process.execPath, ['build/bench/demo.js', '--broker', broker ?? String(node?.url), ...rest]);
  } finally {
    await node?.dispose();
  }
});
