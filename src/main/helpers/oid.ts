/** Identifiers: random ones, and ones that name an object in this process. */
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { threadId } from 'node:worker_threads';
import { kinds, type OptionTable, readOptions } from '../../options.js';

/** A random UUID (version 4) as text. */
export function uuid(): string {
  return randomUUID();
}

/** The namespace of object identifiers (RFC 4122). */
const NAMESPACE_OID = Buffer.from('6ba7b8129dad11d180b400c04fd430c8', 'hex');

function nameUuid(algorithm: 'md5' | 'sha1', version: number, name: string): string {
  const bytes = createHash(algorithm).update(NAMESPACE_OID).update(name).digest().subarray(0, 16);
  bytes[6] = (bytes[6]! & 0x0f) | (version << 4);
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = bytes.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

/** Objects have no addresses here; each gets a number when it is first asked for. */
const numbers = new WeakMap<object, number>();
let last = 0;

function numberOf(instance: object): number {
  let number = numbers.get(instance);
  if (number === undefined) {
    number = ++last;
    numbers.set(instance, number);
  }
  return number;
}

/**
 * A UUID made of four numbers as kombu makes it, so equal ones give equal UUIDs in both. `instance`: a number, or an object,
 * which has one of its own in this thread.
 */
export function generateOid(
  nodeId: bigint | number,
  processId: number,
  thread: number,
  instance: object | bigint | number,
): string {
  const id = typeof instance === 'object' ? numberOf(instance) : instance;
  const name = [nodeId, processId, thread, id].map((each) => each.toString(16)).join('-');
  try {
    return nameUuid('md5', 3, name);
  } catch {
    // Where MD5 is forbidden, as in FIPS mode.
    return nameUuid('sha1', 5, name);
  }
}

let nodeId: bigint | undefined;

interface OidOptions {
  readonly threads?: boolean;
}

const OID_OPTIONS: OptionTable<OidOptions> = {
  threads: { kind: kinds.boolean, default: true, doc: 'Another one in every thread.' },
};

/** A UUID that stands for `instance`: the same for the same object, another in every thread and process. */
export function oidFrom(instance: object, options: OidOptions = {}): string {
  const { threads } = readOptions('oidFrom', OID_OPTIONS, options);
  nodeId ??= BigInt(`0x${randomBytes(16).toString('hex')}`);
  return generateOid(nodeId, process.pid, threads ? threadId : 0, instance);
}
