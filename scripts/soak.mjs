// npm run soak: the long tests (test/soak), one file after another. Words choose files: npm run soak -- workers

import { main, prepare } from './lib/project.mjs';
import { runSession } from './lib/session.mjs';

await main(async (args) => {
  await prepare();
  return runSession({ suites: ['soak'], args, concurrency: 1, timeoutMs: 3_600_000 });
});
