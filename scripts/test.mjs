// npm test: everything a fresh clone needs, then the unit and integration tests.
//
//   npm test                      all of them
//   npm test -- lane memory       only the files whose path contains one of these words
//   npm test -- --test-name-pattern=acks
//
// RabbitMQ and Redis, where the chosen files need them: a server of our own if rabbitmq-server or redis-server is installed
// (with CI=true or MOZUKU_INSTALL=1 it gets installed), else MOZUKU_TEST_AMQP_URL or MOZUKU_TEST_REDIS_URL, else the tests
// that need it are listed as not run. MOZUKU_TEST_CONCURRENCY: files at a time.

import { main, prepare } from './lib/project.mjs';
import { runSession } from './lib/session.mjs';

await main(async (args) => {
  await prepare();
  return runSession({
    suites: ['unit', 'integration', 'conformance'],
    args,
    concurrency: Number(process.env.MOZUKU_TEST_CONCURRENCY) || 2,
    timeoutMs: 300_000,
  });
});
