// Decodes one body in a process of its own and prints how that ended and how much memory it took. Run by
// unit/codec-bombs.test.ts: the peak of a process that has tests behind it says nothing.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { type BodyInfo, decodePayload } from '#src/codec/decode';
import { prepareAcceptContent } from '#src/codec/serialization';

const { body, info, warmUp, maxDecodedBytes } = JSON.parse(readFileSync(0, 'utf8')) as {
  body: string;
  warmUp: string | null;
  info: BodyInfo;
  maxDecodedBytes: number;
};
const limits = { accept: prepareAcceptContent(['json', 'text', 'raw', 'msgpack', 'yaml']), maxDecodedBytes };
const bytes = Buffer.from(body, 'base64');
// What the codec loads when it is first used is not what the bomb takes.
if (warmUp !== null) decodePayload(Buffer.from(warmUp, 'base64'), info, limits);

// Linux counts the parent's memory into maxRSS of a child; its own files do not, and the peak can be set back.
const STATUS = '/proc/self/status';
const linux = existsSync(STATUS);
function peak(): number {
  const kilobytes = linux ? /VmHWM:\s*(\d+)/.exec(readFileSync(STATUS, 'utf8'))?.[1] : process.resourceUsage().maxRSS;
  return Number(kilobytes) * 1024;
}
if (linux) writeFileSync('/proc/self/clear_refs', '5');
const before = peak();
const start = performance.now();
let outcome: object;
try {
  const value = decodePayload(bytes, info, limits);
  outcome = { error: null, length: Buffer.isBuffer(value) ? value.length : -1 };
} catch (error) {
  const { name, message } = error as Error;
  outcome = { error: name, message };
}
console.log(JSON.stringify({ ...outcome, grown: peak() - before, ms: performance.now() - start }));
