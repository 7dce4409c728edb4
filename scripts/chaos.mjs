// npm run chaos -- --seed S --minutes M: campaigns of random faults on brokers of its own, with the books checked after each.

import { main, prepare, run } from './lib/project.mjs';

await main(async (args) => {
  await prepare();
  return run(process.execPath, ['build/test/chaos/main.js', ...args]);
});
