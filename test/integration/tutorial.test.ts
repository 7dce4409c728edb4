/** Every program of docs/tutorial.md runs, on both brokers, and prints what the page says. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { formatWithOptions } from 'node:util';
import { Connection } from '#src/index';
import { forgetMemoryBroker } from '#src/main/transports/memory/broker';
import { brokerTest, uniqueName } from '../support/rabbitmq.js';
import { ROOT } from '../support/scripts.js';

interface Program {
  /** The last heading above it, and its line. */
  readonly title: string;
  readonly code: string;
  readonly output: string;
}

/** The page's URL, and how connections to it show themselves. */
const URL_OF_PAGE = 'amqp://guest:guest@localhost:5672//';
const URI_OF_PAGE = new Connection(URL_OF_PAGE).asUri();

function programsOf(page: string): Program[] {
  const programs: Program[] = [];
  const lines = page.split('\n');
  let heading = '';
  for (let at = 0; at < lines.length; at++) {
    if (lines[at]!.startsWith('#')) heading = lines[at]!.replace(/^#+ /, '');
    const fence = /^```(\w+)$/.exec(lines[at]!)?.[1];
    if (fence === undefined) continue;
    const end = lines.indexOf('```', at + 1);
    const text = lines.slice(at + 1, end).join('\n');
    if (fence === 'js') programs.push({ title: `${heading} (line ${at + 1})`, code: text, output: '' });
    // What a program prints stands behind it.
    if (fence === 'text') programs.push({ ...programs.pop()!, output: text });
    at = end;
  }
  return programs;
}

/** The names of the page begin with one of these; on a broker that others use too they get a prefix. */
const NAMES = /'(?=photos|events|fixed)/g;

/** The program for another broker: its URL, and the parts of it where they are given one by one. */
function forBroker(code: string, url: string, prefix: string): string {
  const { transport, hostname, port, virtualHost } = new Connection(url);
  return code
    .replace(NAMES, `'${prefix}`)
    .replaceAll(`'${URL_OF_PAGE}'`, JSON.stringify(url))
    .replace("transport: 'amqp'", `transport: '${transport}'`)
    .replace("hostname: 'localhost'", `hostname: '${hostname}'`)
    .replace(/^ *port: 5672,\n/m, port === undefined ? '' : `port: ${port},\n`)
    .replace("virtualHost: '/'", `virtualHost: '${virtualHost}'`);
}

const programs = programsOf(readFileSync(join(ROOT, 'docs/tutorial.md'), 'utf8'));

/** Runs all in this process: the package names itself, so that a file within it may import it as users do. */
async function runAll(url: string): Promise<void> {
  const prefix = uniqueName('tutorial.');
  mkdirSync(join(ROOT, 'build'), { recursive: true });
  const folder = mkdtempSync(join(ROOT, 'build', 'tutorial-'));
  const print = console.log;
  try {
    for (const [index, { title, code, output }] of programs.entries()) {
      const file = join(folder, `${index}.mjs`);
      writeFileSync(file, forBroker(code, url, prefix));
      const printed: string[] = [];
      console.log = (...values: unknown[]) => printed.push(formatWithOptions({ colors: false }, ...values));
      try {
        await import(pathToFileURL(file).href);
      } catch (error) {
        throw new Error(`${title} failed`, { cause: error });
      } finally {
        console.log = print;
      }
      const text = printed.join('\n').replaceAll(new Connection(url).asUri(), URI_OF_PAGE).replaceAll(prefix, '');
      assert.equal(text, output, title);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('the page has programs', () => assert.ok(programs.length > 20, `${programs.length} programs`));

test('memory: the programs of the tutorial run and print what it says', async () => {
  const broker = uniqueName('tutorial');
  try {
    await runAll(`memory://${broker}`);
  } finally {
    forgetMemoryBroker(broker);
  }
});

brokerTest('RabbitMQ: the programs of the tutorial run and print what it says', ({ url }) => runAll(url));
