// Decodes bodies in a process of its own and prints how each ended and how much memory it took. Run by
// unit/codec-bombs.test.ts: the peak of a process that has tests behind it says nothing.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { type BodyInfo, decodePayload } from '#src/codec/decode';
import { prepareAcceptContent } from '#src/codec/serialization';

interface Case {
  readonly body: string;
  /** What the codec loads when it is first used is not what a bomb takes. */
  readonly warmUp: string;
  readonly info: BodyInfo;
  readonly maxDecodedBytes: number;
}

// Linux counts the parent's memory into maxRSS of a child; its own files do not, and the peak can be set back.
const STATUS = '/proc/self/status';
const linux = existsSync(STATUS);
function peak(): number {
  const kilobytes = linux ? /VmHWM:\s*(\d+)/.exec(readFileSync(STATUS, 'utf8'))?.[1] : process.resourceUsage().maxRSS;
  return Number(kilobytes) * 1024;
}

const accept = prepareAcceptContent(['json', 'text', 'raw', 'msgpack', 'yaml']);

function run({ body, warmUp, info, maxDecodedBytes }: Case): object {
  const limits = { accept, maxDecodedBytes };
  const bytes = Buffer.from(body, 'base64');
  decodePayload(Buffer.from(warmUp, 'base64'), info, limits);
  if (linux) writeFileSync('/proc/self/clear_refs', '5');
  const before = peak();
  const start = performance.now();
  let error: Error | undefined;
  try {
    decodePayload(bytes, info, limits);
  } catch (thrown) {
    error = thrown as Error;
  }
  return { error: error?.name, message: error?.message, grown: peak() - before, ms: performance.now() - start };
}

const cases = JSON.parse(readFileSync(0, 'utf8')) as Case[];
console.log(JSON.stringify(cases.map(run)));
