// Writes the tables of docs/options.md from the option tables of the compiled library: node docs/generate.mjs
// With --check it changes nothing and exits with 1 if the page is not what it would write. Compile first: npm run build

import { readFileSync, writeFileSync } from 'node:fs';
import { CONNECTION_OPTIONS } from '../dist/connection-parameters.js';
import { CONSUMER_OPTIONS } from '../dist/main/consumer.js';
import { AUTORETRY_OPTIONS, ENSURE_CONNECTION_OPTIONS } from '../dist/main/ensure.js';
import { EXCHANGE_OPTIONS } from '../dist/main/entities/exchange.js';
import { QUEUE_OPTIONS } from '../dist/main/entities/queue.js';
import { PRODUCER_OPTIONS, PUBLISH_OPTIONS } from '../dist/main/producer.js';
import { RETRY_OPTIONS, SHARDED_CONSUMER_OPTIONS } from '../dist/main/runtime/options.js';
import { ACQUIRE_OPTIONS } from '../dist/pool/resource-pool.js';

const PAGE = new URL('options.md', import.meta.url);
const TABLES = {
  Connection: CONNECTION_OPTIONS,
  ensureConnection: ENSURE_CONNECTION_OPTIONS,
  ensure: AUTORETRY_OPTIONS,
  acquire: ACQUIRE_OPTIONS,
  ShardedConsumer: SHARDED_CONSUMER_OPTIONS,
  retry: RETRY_OPTIONS,
  Consumer: CONSUMER_OPTIONS,
  Producer: PRODUCER_OPTIONS,
  publish: PUBLISH_OPTIONS,
  Exchange: EXCHANGE_OPTIONS,
  Queue: QUEUE_OPTIONS,
};

const MIB = 1024 * 1024;

/** @param {{ default?: unknown, defaultWords?: string, required?: boolean }} row */
function defaultOf(row) {
  if (row.required) return 'required';
  if (row.defaultWords !== undefined) return row.defaultWords;
  const value = row.default instanceof Set ? [...row.default] : row.default;
  if (value === undefined) return 'none';
  if (typeof value === 'number' && value >= MIB && value % MIB === 0) return `${value / MIB} MiB`;
  return `\`${JSON.stringify(value).replaceAll('"', "'").replaceAll(',', ', ')}\``;
}

/** A pipe would end the cell. @param {string} text */
const cell = (text) => text.replaceAll('|', '\\|');

/** With columns of one width, as the formatter wants them. @param {Record<string, any>} table */
function markdown(table) {
  const rows = [
    ['option', 'default', 'must be', 'meaning'],
    ...Object.entries(table).map(([name, row]) => [`\`${name}\``, defaultOf(row), row.kind.words, row.doc].map(cell)),
  ];
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const line = (/** @type {string[]} */ row) => `| ${row.map((text, i) => text.padEnd(widths[i])).join(' | ')} |`;
  const [head, ...body] = rows.map(line);
  return [head, line(widths.map((width) => '-'.repeat(width))), ...body].join('\n');
}

/** @param {string} page */
function filled(page) {
  let result = page;
  for (const [name, table] of Object.entries(TABLES)) {
    const begin = `<!-- begin ${name} -->`;
    const end = `<!-- end ${name} -->`;
    const from = result.indexOf(begin);
    const to = result.indexOf(end);
    if (from < 0 || to < from) throw new Error(`options.md lacks the markers ${begin} and ${end}`);
    result = `${result.slice(0, from + begin.length)}\n${markdown(table)}\n${result.slice(to)}`;
  }
  return result;
}

const page = readFileSync(PAGE, 'utf8');
const wanted = filled(page);
if (!process.argv.includes('--check')) {
  writeFileSync(PAGE, wanted);
} else if (wanted !== page) {
  console.error('docs/options.md is not up to date: node docs/generate.mjs');
  process.exitCode = 1;
}
