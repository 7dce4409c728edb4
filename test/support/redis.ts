// Redis for tests: the server that `npm test` starts for all of them, and servers of a test's own to stop, kill and restart.
// A test without its server is skipped with the reason, or fails where CI=true: it never passes silently.

import { type TestContext, test } from 'node:test';
import { uniqueName } from './names.js';
import { testThatNeeds } from './needs.js';
import { importScript } from './scripts.js';

type RedisModule = typeof import('../../scripts/lib/redis.mjs');
type SentinelModule = typeof import('../../scripts/lib/redis-sentinel.mjs');
type ProgramsModule = typeof import('../../scripts/lib/redis-programs.mjs');
type RespModule = typeof import('../../scripts/lib/resp.mjs');

const { findOpenssl, findRedis } = await importScript<ProgramsModule>('redis-programs.mjs');

/** A redis-server of the test's own. Dispose of it: `await using server = await RedisServer.start()`. */
export const { RedisServer } = await importScript<RedisModule>('redis.mjs');
export type RedisServer = import('../../scripts/lib/redis.mjs').RedisServer;

/** A primary, replicas and sentinels of the test's own. */
export const { SentinelSet } = await importScript<SentinelModule>('redis-sentinel.mjs');
export type SentinelSet = import('../../scripts/lib/redis-sentinel.mjs').SentinelSet;

/** A client that knows nothing of `src/`. */
export const { RespClient, RespError } = await importScript<RespModule>('resp.mjs');
export type RespClient = import('../../scripts/lib/resp.mjs').RespClient;
export type Reply = import('../../scripts/lib/resp.mjs').Reply;

export { uniqueName };

/** What a test gets of the shared server: a database that was empty and that nobody else uses, emptied again at its end. */
export interface RedisSpace {
  /** With the database in it. */
  readonly url: string;
  readonly database: number;
  /** For keys and channels that must not meet those of others; pub/sub has no databases. */
  readonly prefix: string;
  /** Runs a command in that database. */
  readonly command: RespClient['call'];
}

const NO_REDIS = 'no Redis: run the tests with npm test, or set MOZUKU_TEST_REDIS_URL';
const NO_SERVER = 'redis-server is not installed';
const NO_OPENSSL = 'openssl is not installed';

/** Claims end by themselves, should a test die with one. */
const CLAIM_SECONDS = 3600;

export interface RedisTestOptions {
  readonly timeout?: number;
}

/** A test on the shared server, in a database of its own. */
export function redisTest(title: string, run: (redis: RedisSpace, context: TestContext) => Promise<void>): void;
export function redisTest(
  title: string,
  options: RedisTestOptions,
  run: (redis: RedisSpace, context: TestContext) => Promise<void>,
): void;
export function redisTest(
  title: string,
  ...rest:
    | [(redis: RedisSpace, context: TestContext) => Promise<void>]
    | [RedisTestOptions, (redis: RedisSpace, context: TestContext) => Promise<void>]
): void {
  const run = rest.length === 1 ? rest[0] : rest[1];
  const options = rest.length === 1 ? {} : rest[0];
  const url = process.env.MOZUKU_TEST_REDIS_URL;
  testThatNeeds(url ? undefined : NO_REDIS, title, options, async (context) => {
    await using space = await claimDatabase(url!);
    await run(space, context);
  });
}

export interface ServerTestOptions extends RedisTestOptions {
  /** The test starts servers with `tls`. */
  readonly tls?: boolean;
}

/** A test that starts servers of its own. */
export function redisServerTest(title: string, run: (context: TestContext) => Promise<void>): void;
export function redisServerTest(
  title: string,
  options: ServerTestOptions,
  run: (context: TestContext) => Promise<void>,
): void;
export function redisServerTest(
  title: string,
  ...rest: [(context: TestContext) => Promise<void>] | [ServerTestOptions, (context: TestContext) => Promise<void>]
): void {
  const run = rest.length === 1 ? rest[0] : rest[1];
  const { tls = false, ...options } = rest.length === 1 ? {} : rest[0];
  const missing = findRedis() === undefined ? NO_SERVER : tls && findOpenssl() === undefined ? NO_OPENSSL : undefined;
  // a machine without openssl is no broken CI
  if (missing === NO_OPENSSL) test(title, { skip: missing }, () => undefined);
  else testThatNeeds(missing, title, options, run);
}

/** A client for a `redis:` URL on 127.0.0.1, in the database of its path. */
export async function connectRedis(url: string, database?: number): Promise<RespClient> {
  const { port, username, password, pathname } = new URL(url);
  const client = await RespClient.connect({
    port: Number(port) || 6379,
    ...(username !== '' && { username: decodeURIComponent(username) }),
    ...(password !== '' && { password: decodeURIComponent(password) }),
  });
  const chosen = database ?? (Number(pathname.slice(1)) || 0);
  if (chosen !== 0) await client.call('SELECT', chosen);
  return client;
}

/**
 * Takes an empty database that nobody else has. Claims stand in database 0, so that the one that is claimed stays empty; on
 * a server that is not ours what is in use is left alone.
 */
async function claimDatabase(url: string): Promise<RedisSpace & AsyncDisposable> {
  const claims = await connectRedis(url, 0);
  const own = await connectRedis(url, 0);
  const owner = uniqueName('test');
  try {
    const [, count] = (await claims.call('CONFIG', 'GET', 'databases')) as string[];
    for (let database = 1; database < Number(count); database++) {
      const claim = `mozuku-test-database-${database}`;
      if ((await claims.call('SET', claim, owner, 'NX', 'EX', CLAIM_SECONDS)) === null) continue;
      await own.call('SELECT', database);
      if ((await own.call('DBSIZE')) !== 0) {
        await claims.call('DEL', claim);
        continue;
      }
      const address = new URL(url);
      address.pathname = `/${database}`;
      return {
        url: address.href,
        database,
        prefix: `${owner}.`,
        command: (...words) => own.call(...words),
        [Symbol.asyncDispose]: async () => {
          await own.call('FLUSHDB');
          await claims.call('DEL', claim);
          own.close();
          claims.close();
        },
      };
    }
    throw new Error(`none of the ${count} databases at ${new URL(url).host} is empty and free`);
  } catch (error) {
    own.close();
    claims.close();
    throw error;
  }
}
