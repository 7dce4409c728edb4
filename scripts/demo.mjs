// npm run demo: compiles, and runs the demonstration with the arguments given here: on the embedded broker, or on the RabbitMQ
// of `--broker amqp://…`.

import { main, prepare, run } from './lib/project.mjs';

await main(async (args) => {
  await prepare();
  return run(process.execPath, ['build/bench/demo.js', ...args]);
});
