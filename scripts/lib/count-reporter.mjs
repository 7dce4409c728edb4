// A reporter for `node --test` that writes one line of JSON: how many tests ran and which were skipped. The spec reporter
// for people runs beside it.

/**
 * @typedef {{ ran: number, skipped: { file: string, name: string, reason: string }[] }} Counts
 */

/** @param {AsyncIterable<{ type: string, data: Record<string, any> }>} source */
export default async function* count(source) {
  /** @type {Counts} */
  const counts = { ran: 0, skipped: [] };
  for await (const { type, data } of source) {
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    if (data.details?.type === 'suite') continue;
    // a file without a single test is itself reported as a passed test
    if (type === 'test:pass' && isFileItself(data)) continue;
    if (data.skip === undefined) counts.ran++;
    else if (data.skip !== 'test name does not match pattern') {
      const reason = data.skip === true ? '' : String(data.skip);
      counts.skipped.push({ file: data.file ?? '', name: data.name, reason });
    }
  }
  yield `${JSON.stringify(counts)}\n`;
}

/** @param {Record<string, any>} data */
function isFileItself(data) {
  return data.nesting === 0 && /\.(test|soak)\.js$/.test(data.name);
}
