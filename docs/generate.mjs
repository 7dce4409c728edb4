// Writes the tables of docs/options.md from the option tables of the compiled library: node docs/generate.mjs
// With --check it changes nothing and exits with 1 if the page is not what it would write. Compile first: npm run build

import { readFileSync, writeFileSync } from 'node:fs';
import { CONNECTION_OPTIONS } from '../dist/connection-parameters.js';
import { CONSUMER_OPTIONS } from '../dist/main/consumer.js';
import { AUTORETRY_OPTIONS, ENSURE_CONNECTION_OPTIONS } from '../dist/main/ensure.js';
import { EXCHANGE_OPTIONS } from '../dist/main/entities/exchange.js';
import { QUEUE_OPTIONS } from '../dist/main/entities/queue.js';
import { BROADCAST_OPTIONS } from '../dist/main/helpers/broadcast.js';
import { MAYBE_DECLARE_OPTIONS } from '../dist/main/helpers/declaring.js';
import { EVENTLOOP_OPTIONS, ITERMESSAGES_OPTIONS } from '../dist/main/helpers/draining.js';
import { RETRY_OVER_TIME_OPTIONS } from '../dist/main/helpers/functional.js';
import { CALL_OPTIONS, MAILBOX_OPTIONS } from '../dist/main/helpers/mailbox-options.js';
import { MIXIN_CONSUME_OPTIONS } from '../dist/main/helpers/mixins.js';
import { LISTEN_OPTIONS, NODE_OPTIONS } from '../dist/main/helpers/node.js';
import { QOS_OPTIONS } from '../dist/main/helpers/qos.js';
import { INSURED_OPTIONS, REPEAT_OPTIONS } from '../dist/main/helpers/retrying.js';
import { SIMPLE_GET_OPTIONS, SIMPLE_QUEUE_OPTIONS } from '../dist/main/helpers/simple.js';
import { RETRY_OPTIONS, SHARDED_CONSUMER_OPTIONS } from '../dist/main/runtime/options.js';
import { PRODUCER_OPTIONS, PUBLISH_OPTIONS, RETRY_POLICY } from '../dist/pool/publication.js';
import { ACQUIRE_OPTIONS } from '../dist/pool/resource-pool.js';
import { REDIS_TRANSPORT_OPTIONS } from '../dist/redis-options.js';

const PAGE = new URL('options.md', import.meta.url);
const TABLES = {
  Connection: CONNECTION_OPTIONS,
  'transportOptions of Redis': REDIS_TRANSPORT_OPTIONS,
  ensureConnection: ENSURE_CONNECTION_OPTIONS,
  ensure: AUTORETRY_OPTIONS,
  acquire: ACQUIRE_OPTIONS,
  ShardedConsumer: SHARDED_CONSUMER_OPTIONS,
  retry: RETRY_OPTIONS,
  Consumer: CONSUMER_OPTIONS,
  Producer: PRODUCER_OPTIONS,
  publish: PUBLISH_OPTIONS,
  retryPolicy: RETRY_POLICY,
  Exchange: EXCHANGE_OPTIONS,
  Queue: QUEUE_OPTIONS,
  Broadcast: without(BROADCAST_OPTIONS, QUEUE_OPTIONS),
  SimpleQueue: SIMPLE_QUEUE_OPTIONS,
  'SimpleQueue.get': SIMPLE_GET_OPTIONS,
  ConsumerMixin: MIXIN_CONSUME_OPTIONS,
  itermessages: ITERMESSAGES_OPTIONS,
  eventloop: EVENTLOOP_OPTIONS,
  maybeDeclare: MAYBE_DECLARE_OPTIONS,
  'maybeDeclare: retryPolicy': REPEAT_OPTIONS,
  insured: INSURED_OPTIONS,
  Mailbox: MAILBOX_OPTIONS,
  call: CALL_OPTIONS,
  Node: NODE_OPTIONS,
  listen: LISTEN_OPTIONS,
  QoS: QOS_OPTIONS,
  retryOverTime: RETRY_OVER_TIME_OPTIONS,
};

/** Those rows that are not the same in the other table. @param {Record<string, any>} table @param {Record<string, any>} other */
function without(table, other) {
  return Object.fromEntries(Object.entries(table).filter(([name, row]) => row !== other[name]));
}

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
