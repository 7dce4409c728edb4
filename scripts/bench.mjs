// npm run bench: compiles and runs the benchmark harness with the arguments given here.

import { main, prepare, run } from './lib/project.mjs';

await main(async (args) => {
  await prepare();
  return run(process.execPath, ['build/bench/main.js', ...args]);
});
